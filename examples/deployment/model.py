"""The KV cache of Qwen2.5-7B, with contents that are a function of the tokens, as a model's are.

28 layers with a K and a V tensor each. A block of a tensor is 128 tokens of 4 heads of 128 numbers of 2 bytes: 131,072
bytes. What a block holds depends on all tokens up to its end, so that two prompts share the blocks of their common
beginning and no others. A token is a byte of the prompt here; the weights are a hash.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator

NAME = "Qwen2.5-7B-Instruct"
LAYERS = 28
TENSORS = 2 * LAYERS
BLOCK_TOKENS = 128
BLOCK_BYTES = BLOCK_TOKENS * 4 * 128 * 2
MAX_TOKENS = 10_000

_TURN_BYTES = 2_048


def block_hashes(prompt: bytes) -> list[str]:
    """A hash for each block, also for the last one when it is not full; each covers everything before it."""
    hashes: list[str] = []
    before = b""
    for start in range(0, len(prompt), BLOCK_TOKENS):
        before = hashlib.sha256(before + prompt[start : start + BLOCK_TOKENS]).digest()
        hashes.append(before.hex())
    return hashes


def full_blocks(prompt: bytes) -> int:
    """How many blocks are full: those go to the pool."""
    return len(prompt) // BLOCK_TOKENS


def contents(block_hash: str) -> Iterator[bytes]:
    """The block of each tensor. They are turned against each other, so that one in another's place is seen."""
    base = hashlib.shake_256(block_hash.encode()).digest(BLOCK_BYTES)
    for tensor in range(TENSORS):
        turn = tensor * _TURN_BYTES
        yield base[turn:] + base[:turn]


def answer(blocks: Iterable[Iterable[bytes]]) -> str:
    """What the model says to a KV cache: it depends on every byte."""
    checksum = 0
    for block in blocks:
        for part in block:
            checksum = zlib.crc32(part, checksum)
    return f"{checksum:08x}"


def expected_answer(prompt: bytes) -> str:
    """What it has to say to a prompt."""
    return answer(contents(block_hash) for block_hash in block_hashes(prompt))
