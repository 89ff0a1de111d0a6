"""The generated side of the C interface."""

import ctypes
import subprocess
import sys

from conftest import PACKAGE, built
from mooncake import _abi


def test_generated_file_is_what_the_headers_say():
    outcome = subprocess.run(
        [sys.executable, str(PACKAGE / "generate_abi.py"), "--check"], capture_output=True, text=True
    )
    assert outcome.returncode == 0, outcome.stderr


def test_library_has_every_function():
    library = ctypes.CDLL(str(built() / "libmooncake_transfer.so"))
    missing = [name for name in _abi.FUNCTIONS if not hasattr(library, name)]
    assert not missing
    assert len(_abi.FUNCTIONS) >= 40


def test_sizes_are_those_of_the_headers():
    # The same numbers as tests/c/layout.c has.
    sizes = {
        _abi.transfer_request: 40,
        _abi.transfer_status: 16,
        _abi.notify_msg: 16,
        _abi.buffer_entry: 16,
        _abi.nic_load_stat: 80,
        _abi.mooncake_transfer_options: 32,
        _abi.mooncake_transfer_error: 128,
        _abi.mooncake_replicate_config: 32,
        _abi.mooncake_transfer_store_options: 80,
        _abi.mooncake_transfer_store_replication: 80,
    }
    assert {struct: ctypes.sizeof(struct) for struct in sizes} == sizes
