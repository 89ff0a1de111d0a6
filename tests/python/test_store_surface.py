"""Every public name and signature of upstream's mooncake.store is there, and what is added is listed."""

import enum
import inspect
import re

import mooncake.store
import pytest
import upstream_store_surface as upstream
from conftest import run_python
from mooncake.store import MooncakeDistributedStore, ReplicateConfig, SoftPinAction, StoreCode, describe


def signature_text(function) -> str:
    """Parameters as upstream_store_surface writes them."""
    words = []
    for number, parameter in enumerate(list(inspect.signature(function).parameters.values())[1:]):
        name = parameter.name
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            name = f"arg{number}"
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            name = "*args"
        default = "" if parameter.default is inspect.Parameter.empty else f"={parameter.default!r}"
        words.append("config=config" if name == "config" and default else name + default)
    return ", ".join(words)


def test_module_names():
    assert upstream.MODULE <= set(dir(mooncake.store))


@pytest.mark.parametrize("name", sorted(upstream.STORE))
def test_signature(name):
    expected = upstream.DIFFERENT.get(name, upstream.STORE[name])
    assert signature_text(getattr(MooncakeDistributedStore, name)) == expected


@pytest.mark.parametrize("name", sorted(upstream.ASCEND))
def test_calls_of_the_ascend_branch(name):
    assert signature_text(getattr(MooncakeDistributedStore, name)) == upstream.ASCEND[name]


def test_setup_can_be_asked_for_what_it_knows():
    """vLLM-Ascend looks for a keyword in the signature, else in the text; SGLang tries and reads the TypeError."""
    known = list(inspect.signature(MooncakeDistributedStore.setup).parameters)[1:]
    assert known[: len(upstream.SETUP)] == upstream.SETUP
    assert "enable_ssd_offload" in MooncakeDistributedStore.setup.__doc__
    arguments = ("h", "P2PHANDSHAKE", 0, 0, "tcp", "", "m:1")
    with pytest.raises(TypeError, match="no_such_keyword"):
        MooncakeDistributedStore().setup(*arguments, no_such_keyword=1)
    with pytest.raises(TypeError, match="rdma_devices, master_server_addr"):
        MooncakeDistributedStore().setup(*arguments[:5])


def test_nothing_else_is_public_unless_listed():
    public = {name for name in dir(MooncakeDistributedStore) if not name.startswith("_")}
    listed = set(upstream.STORE) | upstream.PARALLELISM | set(upstream.ASCEND) | upstream.ADDED | {"setup"}
    assert public == listed
    assert not public & upstream.ABSENT


@pytest.mark.parametrize("name", sorted(upstream.PARALLELISM))
def test_cut_tensors_are_there_by_name(name):
    with pytest.raises(NotImplementedError, match="not offered"):
        getattr(MooncakeDistributedStore(), name)("key")


@pytest.mark.parametrize(
    "use",
    [
        mooncake.store.get_alloc_func_addr,
        mooncake.store.get_free_func_addr,
        mooncake.store.EngramStore,
        mooncake.store.MooncakeDistributedNoFRegister,
    ],
)
def test_what_is_not_offered_says_so(use):
    with pytest.raises(NotImplementedError, match="not offered"):
        use()


def test_unoffered_methods_answer_with_their_code():
    store = MooncakeDistributedStore()
    assert store.setup_dummy(1, 1, "") == StoreCode.NOT_SUPPORTED
    assert store.mount_segment("path", 1) == {"ret": StoreCode.NOT_SUPPORTED, "segment_ids": []}
    assert store.create_copy_task("k", ["s"]) == ((0, 0), StoreCode.NOT_SUPPORTED)
    assert store.batch_put_session_start(["a", "b"], [1, 1]) == [StoreCode.NOT_SUPPORTED] * 2
    assert "not offered" in str(mooncake.store.last_error())


def test_every_code_has_a_sentence():
    for code in StoreCode:
        assert re.fullmatch(r"[A-Z][^.]* ?.*\.", code.__doc__), code
        assert isinstance(code, enum.IntEnum)
    assert len({code.__doc__ for code in StoreCode}) == len(StoreCode), "no two mean the same"
    numbers = {"OBJECT_NOT_FOUND": -704, "NO_AVAILABLE_HANDLE": -200, "LEASE_EXPIRED": -707, "TRANSFER_FAIL": -800}
    assert {name: int(StoreCode[name]) for name in numbers} == numbers
    assert describe(-704).startswith("OBJECT_NOT_FOUND (-704): ")
    assert "no code" in describe(-31337)


class TestReplicateConfig:
    def test_attributes_and_defaults(self):
        config = ReplicateConfig()
        assert {name for name in dir(config) if not name.startswith("_")} == upstream.REPLICATE_CONFIG
        assert (config.replica_num, config.with_hard_pin, config.prefer_alloc_in_same_node) == (1, False, False)
        assert (config.preferred_segment, config.preferred_segments, config.group_ids) == ("", [], None)
        assert config.soft_pin_action is SoftPinAction.PRESERVE and config.soft_pin_ttl_ms is None
        assert hasattr(ReplicateConfig, "group_ids"), "SGLang asks the class"

    def test_unknown_attributes_and_wrong_kinds(self):
        config = ReplicateConfig()
        with pytest.raises(AttributeError):
            config.replicas = 2
        for name, value in [
            ("replica_num", -1),
            ("replica_num", "2"),
            ("soft_pin_ttl_ms", -1),
            ("soft_pin_ttl_ms", 2**64),
            ("preferred_segments", "one"),
            ("preferred_segment", 5),
            ("with_hard_pin", "yes"),
            ("soft_pin_action", 1),
            ("with_soft_pin", None),
        ]:
            with pytest.raises(TypeError):
                setattr(config, name, value)

    def test_both_spellings_of_the_soft_pin(self):
        config = ReplicateConfig()
        config.with_soft_pin = True
        assert config.soft_pin_action is SoftPinAction.ENABLE and config.with_soft_pin
        config.soft_pin_action = SoftPinAction.DISABLE
        assert not config.with_soft_pin

    def test_lists_can_be_appended_to_and_text_has_all(self):
        config = ReplicateConfig()
        config.preferred_segments.append("10.0.0.1:15000")
        assert config.preferred_segments == ["10.0.0.1:15000"]
        assert ReplicateConfig().preferred_segments == [], "and the next object has its own"
        config.replica_num = 3
        assert "replica_num: 3" in str(config) and "10.0.0.1:15000" in str(config)


def test_nothing_is_loaded_at_import():
    code = """
import sys
import mooncake.store, mooncake.mooncake_config
heavy = [name for name in ("torch", "numpy", "logging", "ssl", "socket", "mooncake._library") if name in sys.modules]
assert not heavy, heavy
maps = open("/proc/self/maps").read()
assert "libmooncake_transfer" not in maps and "ascend" not in maps
import os
assert len(os.listdir("/proc/self/task")) == 1
"""
    outcome = run_python(code)
    assert outcome.returncode == 0, outcome.stderr
