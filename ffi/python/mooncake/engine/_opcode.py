"""Direction of a transfer."""

import enum


class TransferOpcode(enum.Enum):
    """Read fetches from the peer, Write stores to it. As upstream's, it converts to int but equals none."""

    Read = 0
    Write = 1

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value


Read = TransferOpcode.Read
Write = TransferOpcode.Write
