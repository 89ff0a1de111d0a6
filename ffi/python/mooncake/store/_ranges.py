"""Reading parts of values into parts of buffers."""

from __future__ import annotations

import bisect
from array import array

from .. import _lists
from . import _client
from ._client import INVALID, Blocks, Client, Keys

# Only for checkers of types: see _record.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any
    from .._lists import Integers


class RangeMethods(Client):
    """The methods that read parts of values."""

    def __init__(self) -> None:
        super().__init__()
        # Length by address of what register_buffer made known: ranges are checked against it.
        self._buffers: dict[int, int] = {}

    def get_into_ranges(
        self,
        buffer_ptrs: Integers,
        all_keys: Sequence[Sequence[str]],
        all_dst_offsets: Sequence[Sequence[Integers]],
        all_src_offsets: Sequence[Sequence[Integers]],
        all_sizes: Sequence[Sequence[Integers]],
    ) -> list[list[list[int]]]:
        """For each buffer and each of its keys, reads parts of the value to places in the buffer.

        The answer has the shape of ``all_sizes``: the length of each part or a negative code. A buffer has to lie in
        memory that ``register_buffer`` made known; what goes past its end, or past the value's, is -600.
        """
        buffers = _lists.integers(buffer_ptrs, "buffer_ptrs")
        answer: list[list[list[int]]] = []
        parts: list[tuple[list[int], int]] = []
        keys: list[str] = []
        counts, addresses, lengths, offsets = array("Q"), array("Q"), array("Q"), array("Q")
        complained = False
        for number, base in enumerate(buffers):
            room = self._room(base)
            rows: list[list[int]] = []
            answer.append(rows)
            for place, key in enumerate(all_keys[number] if number < len(all_keys) else ()):
                asked = [_row(lists, number, place) for lists in (all_dst_offsets, all_src_offsets, all_sizes)]
                targets, sources, sizes = asked
                row = [INVALID] * max(map(len, asked))
                rows.append(row)
                if not len(targets) == len(sources) == len(sizes):
                    complained = complained or bool(self._refuse("the lists of ranges differ in shape"))
                    continue
                taken = 0
                for index, (target, source, size) in enumerate(zip(targets, sources, sizes)):
                    if size == 0 or target + size > room:
                        if not complained:
                            complained = True
                            self._refuse(f"{size} bytes at {target} do not lie in the {room} registered bytes there")
                        continue
                    addresses.append(base + target)
                    lengths.append(size)
                    offsets.append(source)
                    parts.append((row, index))
                    taken += 1
                if taken:
                    keys.append(key)
                    counts.append(taken)
        results = self._parts(Keys(keys), Blocks(counts, addresses, lengths), offsets)
        for (row, index), result in zip(parts, results):
            row[index] = result
        return answer

    def batch_get_session_start(self, keys: Sequence[str]) -> list[int]:
        """Begins to read values in parts: 0 for each that is there and stays for a lease, or a negative code."""
        sizes = self._ask("mooncake_transfer_store_sizes", Keys(keys))
        return [min(size, 0) for size in sizes]

    def batch_get_into_multi_buffer_ranges(
        self,
        keys: Sequence[str],
        all_buffer_ptrs: Sequence[Integers],
        all_sizes: Sequence[Integers],
        all_src_offsets: Sequence[Integers],
    ) -> list[int]:
        """Reads, for each key, parts of the value into buffers: the sum of the sizes, or a negative code."""
        packed = Keys(keys)
        blocks = _client.several(all_buffer_ptrs, all_sizes)
        offsets, counts = _client.flat(all_src_offsets, "all_src_offsets")
        if packed.count == 0:
            return []
        if blocks is None or blocks.rows != packed.count or len(offsets) != blocks.total:
            return [self._refuse("the lists of keys, addresses, sizes and offsets differ in shape")] * packed.count
        results = iter(self._parts(packed, blocks, offsets))
        sums: list[int] = []
        for count in counts:
            row = [next(results) for _ in range(count)]
            sums.append(min(row) if row and min(row) < 0 else sum(row))
        return sums

    def batch_get_session_end(self, keys: Sequence[str]) -> int:
        """Ends what ``batch_get_session_start`` began: 0. The leases end by themselves."""
        Keys(keys)
        return 0 if self._handle is not None else self._not_set_up()

    def _room(self, address: int) -> int:
        """How many registered bytes lie at an address and after it."""
        starts = sorted(self._buffers)
        place = bisect.bisect_right(starts, address) - 1
        if place < 0:
            return 0
        return max(0, starts[place] + self._buffers[starts[place]] - address)


def _row(lists: Any, number: int, place: int) -> "array[int]":
    """The numbers of one key of one buffer; none where the lists are too short."""
    if number < len(lists) and place < len(lists[number]):
        return _lists.integers(lists[number][place], "ranges")
    return array("Q")
