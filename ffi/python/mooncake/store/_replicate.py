"""``ReplicateConfig``: how objects are placed, as upstream's class with the attributes of all its releases."""

from __future__ import annotations

import ctypes
import enum

from .. import _abi, _lists

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional


class SoftPinAction(enum.Enum):
    """What a put does to the object's soft pin. As upstream's, it converts to int but equals none."""

    PRESERVE = 0
    ENABLE = 1
    DISABLE = 2

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value


class ObjectDataType(enum.Enum):
    """What the bytes of an object are. As upstream's, it converts to int but equals none."""

    UNKNOWN = 0
    KVCACHE = 1
    TENSOR = 2
    WEIGHT = 3
    SAMPLE = 4
    ACTIVATION = 5
    GRADIENT = 6
    OPTIMIZER_STATE = 7
    METADATA = 8
    GENERAL = 9

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value


class _Field:
    """An attribute that only takes values of its kind; TypeError for others."""

    def __init__(self, default: Any) -> None:
        self.default = default
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: "Optional[ReplicateConfig]", owner: type) -> Any:
        if instance is None:
            return self
        return instance._values.get(self.name, self.default)

    def __set__(self, instance: "ReplicateConfig", value: Any) -> None:
        instance._values[self.name] = self.check(value)

    def check(self, value: Any) -> Any:
        raise NotImplementedError


class _Count(_Field):
    def check(self, value: Any) -> int:
        return _lists.integer(value, self.name)


class _OptionalCount(_Field):
    def check(self, value: Any) -> Optional[int]:
        return None if value is None else _lists.integer(value, self.name)


class _Switch(_Field):
    def check(self, value: Any) -> bool:
        if not isinstance(value, (bool, int)):
            raise TypeError(f"{self.name}: a bool is needed, not {type(value).__name__}")
        return bool(value)


class _Text(_Field):
    def check(self, value: Any) -> str:
        _lists.text(value, self.name)
        return str(value)


class _Texts(_Field):
    def __get__(self, instance: "Optional[ReplicateConfig]", owner: type) -> Any:
        if instance is None:
            return self
        # A list of the object's own: what is appended to it counts.
        return instance._values.setdefault(self.name, [])

    def check(self, value: Any) -> list[str]:
        if isinstance(value, (str, bytes)):
            raise TypeError(f"{self.name}: a list of str is needed, not {type(value).__name__}")
        texts = list(value)
        for text in texts:
            _lists.text(text, self.name)
        return texts


class _OptionalTexts(_Texts):
    def __get__(self, instance: "Optional[ReplicateConfig]", owner: type) -> Any:
        return self if instance is None else instance._values.get(self.name)

    def check(self, value: Any) -> Any:
        return None if value is None else super().check(value)


class _Choice(_Field):
    def check(self, value: Any) -> Any:
        kind = type(self.default)
        if not isinstance(value, kind):
            raise TypeError(f"{self.name}: a {kind.__name__} is needed, not {type(value).__name__}")
        return value


class ReplicateConfig:
    """How objects are placed. A new one means: one copy, anywhere, not pinned.

    Other attributes than these are an AttributeError, values of the wrong kind a TypeError.
    """

    __slots__ = ("_values",)

    replica_num: Any = _Count(1)
    """Copies in memory, on different segments; fewer are made when there is no room for all."""
    nof_replica_num: Any = _Count(0)
    """Copies on NVMe over fabrics; not offered, so that another number than 0 makes the put fail."""
    dfs_replica_num: Any = _Count(0)
    """Copies on a shared file system; not offered either."""
    soft_pin_action: Any = _Choice(SoftPinAction.PRESERVE)
    soft_pin_ttl_ms: Any = _OptionalCount(None)
    """How long a soft pin holds; None is the master's own number."""
    with_hard_pin: Any = _Switch(False)
    """Never evicted; to be removed by hand."""
    preferred_segments: Any = _Texts(None)
    """Segments to try first, in order."""
    preferred_nof_segments: Any = _Texts(None)
    preferred_segment: Any = _Text("")
    """The one to try before all others."""
    prefer_alloc_in_same_node: Any = _Switch(False)
    """All objects of a call on the segment that the first one got, where that is possible."""
    data_type: Any = _Choice(ObjectDataType.UNKNOWN)
    group_ids: Any = _OptionalTexts(None)
    """None, or a group for each key of the call: a group is evicted as one."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    @property
    def with_soft_pin(self) -> bool:
        """The spelling of releases up to 0.3.12: whether the object is evicted after those that are not pinned."""
        return self.soft_pin_action is SoftPinAction.ENABLE

    @with_soft_pin.setter
    def with_soft_pin(self, value: bool) -> None:
        if not isinstance(value, (bool, int)):
            raise TypeError(f"with_soft_pin: a bool is needed, not {type(value).__name__}")
        self.soft_pin_action = SoftPinAction.ENABLE if value else SoftPinAction.PRESERVE

    def __str__(self) -> str:
        shown = {name: getattr(self, name) for name in _FIELDS}
        return "ReplicateConfig: { " + ", ".join(f"{name}: {value}" for name, value in shown.items()) + " }"

    def __repr__(self) -> str:
        return f"<{self}>"


_FIELDS = tuple(name for name, field in vars(ReplicateConfig).items() if isinstance(field, _Field))


def unoffered(config: ReplicateConfig) -> Optional[str]:
    """What the configuration asks for and this store has not."""
    for name in ("nof_replica_num", "dfs_replica_num"):
        if getattr(config, name) != 0:
            return f"{name} is {getattr(config, name)}: only copies in memory are offered"
    return None


def _texts(values: list[str]) -> Any:
    return (ctypes.c_char_p * len(values))(*(value.encode() for value in values)) if values else None


def to_c(config: Optional[ReplicateConfig]) -> Optional[_abi.mooncake_transfer_store_replication]:
    """The configuration in C's form, which keeps what it points to; None is C's default."""
    if config is None or not config._values:
        return None
    made = _abi.mooncake_transfer_store_replication()
    made.struct_size = ctypes.sizeof(made)
    made.replica_count = config.replica_num
    made.soft_pin = int(config.soft_pin_action)
    if config.soft_pin_ttl_ms is not None:
        made.has_soft_pin_ttl = 1
        made.soft_pin_ttl_ms = config.soft_pin_ttl_ms
    made.hard_pin = config.with_hard_pin
    made.same_node = config.prefer_alloc_in_same_node
    made.data_type = int(config.data_type)
    segments = [config.preferred_segment] if config.preferred_segment else []
    segments += [name for name in config.preferred_segments if name not in segments]
    made.preferred_segments = _texts(segments)
    made.preferred_segment_count = len(segments)
    if config.group_ids is not None:
        made.group_ids = _texts(config.group_ids)
        made.group_id_count = len(config.group_ids)
    return made
