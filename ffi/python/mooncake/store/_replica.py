"""Where the copies of an object are: upstream's descriptors, read-only."""

from __future__ import annotations

import enum
import json

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional


class ReplicaStatus(enum.Enum):
    """State of a copy. As upstream's, it converts to int but equals none."""

    UNDEFINED = 0
    INITIALIZED = 1
    PROCESSING = 2
    COMPLETE = 3
    REMOVED = 4
    FAILED = 5

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value


class Descriptor:
    """A place in the memory of a client."""

    __slots__ = ("buffer_address", "protocol", "size", "transport_endpoint")

    def __init__(self) -> None:
        self.size = 0
        self.buffer_address = 0
        self.transport_endpoint = ""
        self.protocol = ""

    def __repr__(self) -> str:
        return (
            f"<Descriptor size={self.size} buffer_address={self.buffer_address:#x} "
            f"transport_endpoint={self.transport_endpoint!r}>"
        )


class MemoryDescriptor:
    """A copy in memory."""

    __slots__ = ("buffer_descriptor",)

    def __init__(self, buffer_descriptor: Descriptor) -> None:
        self.buffer_descriptor = buffer_descriptor


class DiskDescriptor:
    """A copy in a file."""

    __slots__ = ("file_path", "object_size")

    def __init__(self, file_path: str, object_size: int) -> None:
        self.file_path = file_path
        self.object_size = object_size


class ReplicaDescriptor:
    """A copy of an object."""

    __slots__ = ("_facts",)

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    @property
    def id(self) -> int:
        """The master's number of this copy."""
        return int(self._facts.get("id", 0))

    @property
    def status(self) -> ReplicaStatus:
        """Its state."""
        return ReplicaStatus(self._facts.get("status", 0))

    def is_memory_replica(self) -> bool:
        """Whether it lies in memory."""
        return self._facts.get("kind") == "memory"

    def is_disk_replica(self) -> bool:
        """Whether it is a file of a shared file system."""
        return self._facts.get("kind") == "disk"

    def is_local_disk_replica(self) -> bool:
        """Whether it is on the disk of one client."""
        return self._facts.get("kind") == "local_disk"

    def get_memory_descriptor(self) -> MemoryDescriptor:
        """Where in memory. RuntimeError for another kind of copy."""
        if not self.is_memory_replica():
            raise RuntimeError(f"a {self._facts.get('kind')} replica is not in memory")
        place = Descriptor()
        place.size = int(self._facts.get("size", 0))
        place.buffer_address = int(self._facts.get("address", 0))
        place.transport_endpoint = str(self._facts.get("endpoint", ""))
        place.protocol = str(self._facts.get("protocol", ""))
        return MemoryDescriptor(place)

    def get_disk_descriptor(self) -> DiskDescriptor:
        """Which file. RuntimeError for another kind of copy."""
        if not self.is_disk_replica():
            raise RuntimeError(f"a {self._facts.get('kind')} replica is no file")
        return DiskDescriptor(str(self._facts.get("path", "")), int(self._facts.get("size", 0)))

    def __repr__(self) -> str:
        return f"<ReplicaDescriptor {self._facts}>"


def read(text: str) -> list[Optional[list[ReplicaDescriptor]]]:
    """The C interface's text: the copies for each key, None where there is no object."""
    return [
        None if copies is None else [ReplicaDescriptor(facts) for facts in copies] for copies in json.loads(text)
    ]
