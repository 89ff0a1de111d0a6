"""Every public name and signature of upstream's mooncake.engine is there, and what is added is listed."""

import inspect

import pytest
import upstream_surface
from mooncake import engine


def signature_text(function) -> str:
    """Parameters as upstream_surface writes them."""
    words, previous = [], None
    parameters = list(inspect.signature(function).parameters.values())[1:]
    for parameter in parameters:
        if previous is inspect.Parameter.POSITIONAL_ONLY and parameter.kind is not previous:
            words.append("/")
        default = "" if parameter.default is inspect.Parameter.empty else f"={parameter.default!r}"
        words.append(parameter.name + default)
        previous = parameter.kind
    if previous is inspect.Parameter.POSITIONAL_ONLY:
        words.append("/")
    return ", ".join(words)


def test_module_names():
    assert upstream_surface.MODULE <= set(dir(engine))


@pytest.mark.parametrize("name", sorted(upstream_surface.TRANSFER_ENGINE))
def test_signature(name):
    assert signature_text(getattr(engine.TransferEngine, name)) == upstream_surface.TRANSFER_ENGINE[name]


def test_nothing_else_is_public_unless_listed():
    public = {name for name in vars(engine.TransferEngine) if not name.startswith("_")}
    assert public == set(upstream_surface.TRANSFER_ENGINE) | upstream_surface.ADDED | {"TransferOpcode"}


def test_cuda_calls_are_absent_as_in_upstreams_npu_build():
    assert not any(hasattr(engine.TransferEngine, name) for name in upstream_surface.ABSENT)


def test_switches_are_false():
    switches = {name: getattr(engine, name) for name in dir(engine) if name.startswith("SUPPORT_")}
    assert len(switches) == 6 and not any(switches.values())


def test_opcode_behaves_as_upstreams():
    assert (int(engine.TransferOpcode.Read), int(engine.TransferOpcode.Write)) == (0, 1)
    assert engine.Read is engine.TransferOpcode.Read and engine.TransferEngine.TransferOpcode.Write is engine.Write
    assert not engine.Read == 0
    assert engine.TransferOpcode(1) is engine.Write


def test_notify_is_two_texts():
    note = engine.TransferNotify()
    assert (note.name, note.msg) == ("", "")
    note.name, note.msg = "a", "b"
    assert (note.name, note.msg) == ("a", "b")
    assert engine.TransferNotify(name="x", msg="y").msg == "y"


@pytest.mark.parametrize(
    "use",
    [
        lambda: engine.RpcInterface(),
        lambda: engine.create_rpc_client(),
        lambda: engine.create_rpc_server(),
        lambda: engine.SharedSegment.create("n", 1, 1, 0),
        lambda: engine.ReceivedData(),
        lambda: engine.ReceivedTensor(),
    ],
)
def test_what_is_not_offered_says_so(use):
    with pytest.raises(NotImplementedError, match="not offered"):
        use()
    assert engine.SharedSegment.supported() is False
