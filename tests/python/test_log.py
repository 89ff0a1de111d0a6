"""The library's log and every failure reach Python's logging; promise 20 for variables."""

from conftest import clean_environment, run_python

RECORDS = """
import logging
records = []
class Keep(logging.Handler):
    def emit(self, record):
        records.append((record.name, record.levelname, record.getMessage()))
logging.getLogger("mooncake").addHandler(Keep())
logging.getLogger("mooncake").setLevel(logging.INFO)
from mooncake.engine import *
engine = TransferEngine()
assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
"""


def test_lifecycle_and_failures_are_records():
    code = RECORDS + """
assert any(level == "INFO" and "listens" in text for _, level, text in records), records
assert engine.transfer_sync_read("127.0.0.1:9", 1, 1, 1) == -1
name, level, text = records[-1]
assert (name, level) == ("mooncake.engine", "ERROR"), records[-1]
assert text == last_error().text == str(last_error())
assert "127.0.0.1:9" in text and "connect" in text, text
"""
    outcome = run_python(code)
    assert outcome.returncode == 0, outcome.stderr
    assert "listens" not in outcome.stderr, "the log has gone to the handler, not to standard error"


def test_the_level_variable_holds():
    code = RECORDS + "assert not [r for r in records if r[1] == 'INFO'], records"
    outcome = run_python(code, clean_environment(MC_LOG_LEVEL="WARNING"))
    assert outcome.returncode == 0, outcome.stderr


def test_a_variable_that_nobody_reads_is_reported():
    code = RECORDS + "print([text for _, _, text in records if 'MC_TRANSFER_TIMEOT' in text])"
    outcome = run_python(code, clean_environment(MC_TRANSFER_TIMEOT="5"))
    assert outcome.returncode == 0, outcome.stderr
    assert "MC_TRANSFER_TIMEOUT" in outcome.stdout, "the name that was meant is suggested"


def test_counters_only_grow():
    code = RECORDS + """
import ctypes
block = ctypes.create_string_buffer(128)
address = ctypes.addressof(block)
assert engine.register_memory(address, 128) == 0
name = f"127.0.0.1:{engine.get_rpc_port()}"
def totals():
    lines = [line.rsplit(" ", 1) for line in engine.counters().splitlines() if not line.startswith("#")]
    return {key: float(value) for key, value in lines if key.split("{")[0].endswith("_total")}
before = totals()
assert before
for length in (1, 8, 64):
    engine.transfer_sync_read(name, address, address + 64, length)
    engine.transfer_sync_read(name, address, 5, length)
    after = totals()
    assert all(after[key] >= value for key, value in before.items())
    assert after != before
    before = after
documented = engine.counters()
assert all(f"# HELP {key.split('{')[0]} " in documented for key in before)
"""
    outcome = run_python(code)
    assert outcome.returncode == 0, outcome.stderr


def test_errors_are_per_thread():
    code = RECORDS + """
import threading
assert engine.unregister_memory(4096) == -3
seen = []
threading.Thread(target=lambda: seen.append(last_error())).start()
while not seen: pass
assert seen == [None] and last_error().code == Code.ADDRESS_NOT_REGISTERED
assert last_error().negative == -3 and last_error().stage == Stage.REGISTER
assert engine.register_memory(address := id(b"x" * 100), 10) == 0
assert last_error() is not None, "a success leaves it alone"
clear_error()
assert last_error() is None
"""
    outcome = run_python(code)
    assert outcome.returncode == 0, outcome.stderr
