"""mooncake.json and MOONCAKE_*: sizes, defaults, what is missing, and what nobody reads."""

import json

import pytest
from mooncake import mooncake_config
from mooncake.mooncake_config import MooncakeConfig

GUIDE = {
    "local_hostname": "10.0.0.1",
    "metadata_server": "P2PHANDSHAKE",
    "protocol": "ascend",
    "device_name": "",
    "master_server_address": "10.0.0.9:50088",
    "global_segment_size": 30000000000,
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads settings as a process does: from the file that the environment names."""

    def from_file(settings) -> MooncakeConfig:
        path = tmp_path / "mooncake.json"
        path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
        monkeypatch.setenv("MOONCAKE_CONFIG_PATH", str(path))
        return MooncakeConfig.load_from_env()

    return from_file


def test_the_guides_file(load, caplog):
    config = load(GUIDE)
    assert (config.local_hostname, config.master_server_address) == ("10.0.0.1", "10.0.0.9:50088")
    assert (config.global_segment_size, config.local_buffer_size) == (30000000000, 1 << 30)
    assert (config.protocol, config.device_name, config.tenant_id) == ("ascend", "", "default")
    assert (config.enable_ssd_offload, config.enable_client_http_server, config.client_http_port) == (False, False, 9300)
    assert not caplog.records


def test_keys_of_other_programs_are_theirs_and_slips_are_named(load, caplog):
    load({**GUIDE, "use_ascend_direct": True, "alloc_in_same_node": True})
    assert not caplog.records
    load({**GUIDE, "global_segement_size": 5})
    assert '"global_segement_size" is not read; did you mean global_segment_size?' in caplog.text
    assert "mooncake.json" in caplog.text


@pytest.mark.parametrize("name", ["local_hostname", "metadata_server", "master_server_address"])
@pytest.mark.parametrize("value", [None, ""])
def test_what_is_needed(load, name, value):
    wanted = {**GUIDE, name: value}
    if value is None:
        del wanted[name]
    with pytest.raises(ValueError, match=f"mooncake.json: Missing required config field: {name}"):
        load(wanted)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        ("0", 0),
        (1.5, 1),
        ("30000000000", 30000000000),
        ("1e9", 10**9),
        ("512k", 512 << 10),
        ("1.5kb", 1536),
        ("16 MB", 16 << 20),
        ("  3 gb  ", 3 << 30),
        ("1T", 1 << 40),
        ("4096B", 4096),
    ],
)
def test_sizes(load, written, size):
    assert load({**GUIDE, "global_segment_size": written}).global_segment_size == size
    assert mooncake_config._parse_segment_size(written) == size


@pytest.mark.parametrize("written", ["", "gb", "50%", "abc", "1 parsec", "-1", -1, "1 2", 2**80])
def test_no_sizes(load, written):
    with pytest.raises(ValueError, match="mooncake.json: local_buffer_size"):
        load({**GUIDE, "local_buffer_size": written})


@pytest.mark.parametrize(("written", "value"), [("false", False), ("ON", True), ("0", False), (True, True), ("yes", True)])
def test_switches(load, written, value):
    assert load({**GUIDE, "enable_ssd_offload": written}).enable_ssd_offload is value


def test_what_is_neither_true_nor_false(load):
    with pytest.raises(ValueError, match="enable_ssd_offload"):
        load({**GUIDE, "enable_ssd_offload": "perhaps"})


def test_null_is_the_default(load):
    config = load({**GUIDE, "tenant_id": None, "ssd_offload_path": None, "device_name": None, "local_buffer_size": None})
    assert (config.tenant_id, config.ssd_offload_path, config.device_name) == ("default", "", "")
    assert config.local_buffer_size == 1 << 30


@pytest.mark.parametrize("text", ["{", "[]", '"text"', "5"])
def test_what_is_no_object(load, text):
    with pytest.raises(ValueError, match="mooncake.json"):
        load(text)


def test_a_file_that_is_not_there(monkeypatch):
    monkeypatch.setenv("MOONCAKE_CONFIG_PATH", "/nowhere/mooncake.json")
    with pytest.raises(OSError, match="/nowhere"):
        MooncakeConfig.load_from_env()


def test_protocols(load, caplog):
    assert load({**GUIDE, "protocol": "ASCEND"}).protocol == "ascend"
    assert not caplog.records
    load({**GUIDE, "protocol": "pigeon"})
    assert 'protocol "pigeon"' in caplog.text


def test_variables(monkeypatch):
    with pytest.raises(ValueError, match="Neither the environment variable 'MOONCAKE_CONFIG_PATH' nor 'MOONCAKE_MASTER'"):
        MooncakeConfig.load_from_env()
    monkeypatch.setenv("MOONCAKE_MASTER", "10.0.0.9:50088")
    config = MooncakeConfig.load_from_env()
    assert (config.local_hostname, config.metadata_server, config.protocol) == ("localhost", "P2PHANDSHAKE", "tcp")
    assert config.global_segment_size == mooncake_config.DEFAULT_GLOBAL_SEGMENT_SIZE == 3355443200
    assert config.local_buffer_size == mooncake_config.DEFAULT_LOCAL_BUFFER_SIZE == 1073741824
    for name, value in {
        "LOCAL_HOSTNAME": "10.0.0.1",
        "TE_META_DATA_SERVER": "http://m/metadata",
        "GLOBAL_SEGMENT_SIZE": "4GB",
        "LOCAL_BUFFER_SIZE": "0",
        "PROTOCOL": "ascend",
        "DEVICE": "mlx5_0",
        "TENANT_ID": "one",
    }.items():
        monkeypatch.setenv(f"MOONCAKE_{name}", value)
    arguments = MooncakeConfig.load_from_env().setup_arguments()
    assert arguments["local_hostname"] == "10.0.0.1" and arguments["metadata_server"] == "http://m/metadata"
    assert (arguments["global_segment_size"], arguments["local_buffer_size"]) == (4 << 30, 0)
    assert (arguments["protocol"], arguments["rdma_devices"], arguments["tenant_id"]) == ("ascend", "mlx5_0", "one")
    assert arguments["master_server_addr"] == "10.0.0.9:50088"


def test_its_arguments_are_those_of_setup(load):
    import inspect

    from mooncake.store import MooncakeDistributedStore

    config = load(GUIDE)
    assert set(config.setup_arguments()) <= set(inspect.signature(MooncakeDistributedStore.setup).parameters)
    assert config.setup_arguments("10.0.0.1:8790:npu_0")["local_hostname"] == "10.0.0.1:8790:npu_0"
