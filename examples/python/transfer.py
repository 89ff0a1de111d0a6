"""Moves a block from one engine to another; the two could be processes on two machines."""

import ctypes

from mooncake.engine import TransferEngine, last_error

BLOCK_BYTES = 131072


def main() -> int:
    sent = ctypes.create_string_buffer(b"K" * BLOCK_BYTES, BLOCK_BYTES)
    received = ctypes.create_string_buffer(BLOCK_BYTES)

    prefill, decode = TransferEngine(), TransferEngine()
    for engine, block in ((prefill, sent), (decode, received)):
        if engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") != 0:
            raise SystemExit(last_error())
        if engine.register_memory(ctypes.addressof(block), BLOCK_BYTES) != 0:
            raise SystemExit(last_error())

    # The prefill side tells its name and addresses to the decode side, by any means.
    name = f"127.0.0.1:{prefill.get_rpc_port()}"
    code = decode.batch_transfer_sync_read(
        name, [ctypes.addressof(received)], [ctypes.addressof(sent)], [BLOCK_BYTES]
    )
    if code != 0:
        raise SystemExit(last_error())
    right = received.raw == sent.raw
    print(f"{BLOCK_BYTES} bytes read, the bytes are {'right' if right else 'wrong'}")
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
