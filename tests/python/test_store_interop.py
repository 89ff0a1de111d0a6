"""Our client and upstream's released one: the same calls give the same answers, and in one pool each reads what the
other has put."""

import socket
import subprocess
import time

import pytest
from conftest import HERE, LIMIT_S, PEERS, clean_environment
from pool import MIB, masters  # noqa: F401

RELEASES = ("0.3.13.post1", "0.3.11.post1")
NEWEST = RELEASES[0]

JOIN = """
from mooncake.store import *
store = MooncakeDistributedStore()
result = store.setup("127.0.0.1", "P2PHANDSHAKE", segment, 16 << 20, "tcp", "", master)
"""


def upstreams_environment() -> dict[str, str]:
    environment = clean_environment(LD_LIBRARY_PATH=str(PEERS / "lib"))
    environment["PYTHONPATH"] = str(HERE)
    return environment


@pytest.fixture
def sides(peers, masters):  # noqa: F811
    """Starts our client and upstream's."""

    def start(release: str, master: str, segment: int = 64 * MIB, other: "str | None" = None):
        python = PEERS / release / "bin" / "python"
        if not python.is_file():
            pytest.skip(f"upstream's package {release} is not in {PEERS}")
        ours, theirs = peers(), peers(upstreams_environment(), str(python))
        assert ours.run(JOIN, master=master, segment=segment) == 0
        assert theirs.run(JOIN, master=other or master, segment=segment) == 0
        return ours, theirs

    return start


# Each is one call; its answer is compared. Where upstream's answer cannot be wanted, the difference is listed below.
SAME = """
store.health_check()
store.put("k", b"value")
store.put("k", b"another value")
store.get("k")
store.get("absent")
store.get_size("k")
store.get_size("absent")
store.is_exist("k")
store.is_exist("absent")
store.batch_is_exist(["k", "absent", "k"])
store.batch_is_exist([])
store.put("", b"value")
store.put("empty", b"")
store.put("view", memoryview(b"0123456789"))
store.put("with\\0nul", b"nul")
store.get("with\\0nul")
store.put("k" * 5000, b"long")
store.is_exist("k" * 5000)
store.put_parts("parts", b"one", b"two")
store.get("parts")
store.put_parts("no parts", b"")
store.is_exist("no parts")
store.put_batch(["b1", "b2"], [b"1", b"22"])
store.put_batch(["b1"], [b"1", b"2"])
store.put_batch([], [])
store.get_batch(["b1", "absent", "b2"])
store.get_batch([])
[h and bytes(h) for h in store.batch_get_buffer(["b1", "absent"])]
store.batch_get_buffer([])
store.get_buffer("absent")
len(store.get_buffer("b2"))
store.register_buffer(place, 8192)
store.register_buffer(place, 8192)
store.register_buffer(0, 8192)
store.unregister_buffer(place + 1)
store.put_from("from", place, 100)
store.put_from("from nothing", place, 0)
store.is_exist("from nothing")
store.get_into("from", place, 8192)
store.get_into("from", place, 99)
store.get_into("absent", place, 8192)
store.batch_put_from(["f1", "f2"], [place, place + 100], [100, 200])
store.batch_put_from(["f1", "f2"], [place], [100, 200])
store.batch_put_from([], [], [])
store.batch_get_into(["f1", "absent", "f2"], [place, place + 1000, place + 2000], [1000, 1000, 1000])
store.batch_get_into(["f1", "f2"], [place], [1000])
store.batch_get_into([], [], [])
store.batch_put_from_multi_buffers(["m1", "m2"], [[place, place + 10], [place + 20]], [[10, 20], [30]])
store.batch_put_from_multi_buffers(["m1"], [[place], [place]], [[10], [10]])
store.batch_get_into_multi_buffers(["m1", "m2"], [[place, place + 5], [place + 100]], [[5, 25], [30]])
store.batch_get_into_multi_buffers(["m1"], [[place]], [[29]])
store.batch_get_into_multi_buffers(["absent", "m2"], [[place], [place + 100]], [[5], [30]])
store.batch_get_into_multi_buffers(["m2"], [[place + 100]], [[30]], True)
store.get_size("m1")
store.unregister_buffer(place)
store.unregister_buffer(place)
store.remove("k")
store.remove("absent")
store.remove("k", True)
store.is_exist("k")
store.batch_remove(["b1", "absent"], True)
store.remove_by_regex("^f[12]$", True)
store.remove_by_regex("nothing has this", True)
store.remove_by_regex("(", True)
store.upsert("up", b"first")
store.upsert("fresh", b"value")
len(store.get_replica_desc("m1"))
store.get_replica_desc("absent")
sorted(store.batch_get_replica_desc(["m1", "absent", "m2"]))
store.get_replica_desc("m1")[0].is_memory_replica()
store.get_replica_desc("m1")[0].get_memory_descriptor().buffer_descriptor.size
str(store.get_replica_desc("m1")[0].status)
store.batch_replica_clear([])
store.batch_replica_clear(["absent"])
(lambda c: (c.replica_num, c.with_hard_pin, c.preferred_segment, c.prefer_alloc_in_same_node))(ReplicateConfig())
str(SoftPinAction.ENABLE)
int(ObjectDataType.KVCACHE)
store.remove_all(True) > 0
store.remove_all(True)
store.close()
store.close()
store.health_check()
store.get("k")
"""

PLACE = """
memory = ctypes.create_string_buffer(8192)
place = ctypes.addressof(memory)
"""
CALL = "answer = {}\nresult = repr(bytes(answer) if isinstance(answer, (bytes, bytearray)) else answer)"


@pytest.mark.parametrize("release", RELEASES[:1])
def test_the_same_calls_have_the_same_answers(sides, masters, release):  # noqa: F811
    ours, theirs = sides(release, masters().address, other=masters().address)
    different = []
    ours.run(PLACE)
    theirs.run(PLACE)
    for call in SAME.strip().splitlines():
        answers = ours.run(CALL.format(call)), theirs.run(CALL.format(call))
        if answers[0] != answers[1]:
            different.append((call, *answers))
    assert not different, "\n".join(f"{call}: ours {mine}, upstream's {other}" for call, mine, other in different)


@pytest.mark.parametrize("release", RELEASES)
def test_one_pool(sides, masters, release):  # noqa: F811
    """Values go both ways, whoever lends the memory."""
    ours, theirs = sides(release, masters().address)
    put = """
import random
names = [f"{who}/{number}" for number in range(40)]
values = [random.Random(number).randbytes(1 + 7919 * number % 300_000) for number in range(40)]
result = [store.put(name, value) for name, value in zip(names, values)]
"""
    read = """
wrong = [number for number in range(40)
         if store.get(f"{whose}/{number}") != random.Random(number).randbytes(1 + 7919 * number % 300_000)]
missing = [number for number in range(40) if store.is_exist(f"{whose}/{number}") != 1]
result = [wrong, missing, store.get_size(f"{whose}/5")]
"""
    for peer, who in ((ours, "ours"), (theirs, "theirs")):
        assert peer.run(put, who=who) == [0] * 40
    for peer, whose in ((ours, "theirs"), (theirs, "ours"), (ours, "ours"), (theirs, "theirs")):
        wrong, missing, size = peer.run(read, whose=whose)
        assert (wrong, missing, size) == ([], [], 1 + 7919 * 5 % 300_000)
    many = """
memory = ctypes.create_string_buffer(bytes(range(256)) * 400, 102400)
rows = [[ctypes.addressof(memory) + 1000 * part for part in range(56)]]
result = store.batch_put_from_multi_buffers([who], rows, [[1000] * 56])
"""
    back = """
target = ctypes.create_string_buffer(56000)
rows = [[ctypes.addressof(target) + 500 * part for part in range(112)]]
lengths = store.batch_get_into_multi_buffers([whose], rows, [[500] * 112])
result = [lengths, target.raw == (bytes(range(256)) * 400)[:56000]]
"""
    assert ours.run(many, who="many-ours") == theirs.run(many, who="many-theirs") == [0]
    assert ours.run(back, whose="many-theirs") == theirs.run(back, whose="many-ours") == [[56000], True]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def answers(address: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def upstreams_master():
    """Starts upstream's released master. It cannot choose ports of its own, so that a port may be lost to another
    process between the choice and the start; then the next one is tried."""
    started = []

    def start(release: str) -> str:
        program = PEERS / release / "bin" / "upstream_master"
        if not program.is_file():
            pytest.skip(f"upstream's package {release} is not in {PEERS}")
        for _ in range(5):
            address = f"127.0.0.1:{free_port()}"
            flags = [f"--rpc_port={address.rpartition(':')[2]}", f"--metrics_port={free_port()}"]
            process = subprocess.Popen(
                [str(program), *flags, "--rpc_address=127.0.0.1", "--default_kv_lease_ttl=10000"],
                env=upstreams_environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            started.append(process)
            end = time.monotonic() + LIMIT_S
            while process.poll() is None and not answers(address):
                assert time.monotonic() < end, "upstream's master does not come up"
                time.sleep(0.05)
            if process.poll() is None:
                return address
        raise AssertionError("upstream's master finds no port")

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("release", RELEASES)
def test_our_client_does_not_see_whose_master_it_is(peers, masters, upstreams_master, release):  # noqa: F811
    theirs, ours = upstreams_master(release), masters("--default_kv_lease_ttl=10000").address
    sides = [peers() for _ in range(2)]
    for peer, address in zip(sides, (ours, theirs)):
        assert peer.run(JOIN, master=address, segment=64 * MIB) == 0
        peer.run(PLACE)
    different = []
    for call in SAME.strip().splitlines():
        ours_says, theirs_says = (peer.run(CALL.format(call)) for peer in sides)
        if ours_says != theirs_says:
            different.append(f"{call}: at ours {ours_says}, at upstream's {theirs_says}")
    assert not different, "\n".join(different)
