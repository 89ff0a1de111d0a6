"""A node: in place of vLLM's server with the guide's connectors. Its role is that of the guide's three scripts.

prefill  takes a prompt, loads from the pool what is there, computes the rest, stores it, and keeps it for a decode node
decode   pulls a request's KV cache from the prefill node and answers
mixed    does both by itself, with the pool alone
"""

from __future__ import annotations

import argparse
import itertools
import logging
import signal
import sys
import threading
from typing import Any, Optional

import model
from connectors import PeerToPeer, Pool
from npu import Cache
from service import ask, serve


class Node:
    """The cache of one NPU, its connectors, and what was counted."""

    def __init__(self, role: str, host: str, npu_id: int, blocks: int, register_buffer: bool) -> None:
        self.role = role
        self.cache = Cache(blocks)
        self.peer: Optional[PeerToPeer] = None if role == "mixed" else PeerToPeer(host, self.cache)
        engine = None if self.peer is None else self.peer.engine
        self.pool = Pool(host, npu_id, self.cache, engine, register_buffer)
        self.kept: dict[str, list[int]] = {}
        self.requests = itertools.count(1)
        self.lock = threading.Lock()
        self.counts = dict.fromkeys(
            ("hits", "misses", "bytes_put", "bytes_got", "bytes_pulled", "not_stored", "not_loaded", "mismatches"), 0
        )
        self.counts["calls"] = 0

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/completions."""
        prompt = body["prompt"].encode()
        if not 0 < len(prompt) <= model.MAX_TOKENS:
            raise ValueError(f"a prompt of {len(prompt)} tokens; 1 to {model.MAX_TOKENS} are taken")
        with self.lock:
            self.cache.bind()
            self.counts["calls"] += 1
            parameters = body.get("kv_transfer_params")
            if self.role == "decode":
                if not parameters:
                    raise ValueError("a decode node needs the kv_transfer_params of a prefill node")
                return self._decode(prompt, parameters)
            return self._prefill(prompt)

    def _prefill(self, prompt: bytes) -> dict[str, Any]:
        hashes = model.block_hashes(prompt)
        full = hashes[: model.full_blocks(prompt)]
        blocks = self.cache.take(len(hashes))
        hits = self.pool.hits(full) if full else 0
        self.counts["hits"] += hits
        self.counts["misses"] += len(full) - hits
        missing = set(range(hits, len(hashes)))
        if hits:
            got, failed = self.pool.get(blocks[:hits], full[:hits])
            self.counts["bytes_got"] += got
            self.counts["not_loaded"] += len(failed)
            missing.update(failed)
            for number in range(hits):
                if number not in missing:
                    self.counts["mismatches"] += self.cache.mismatches(blocks[number], full[number])
        for number in sorted(missing):
            self.cache.compute(blocks[number], hashes[number])
        if hits < len(full):
            put, failed_count = self.pool.put(blocks[hits : len(full)], full[hits:])
            self.counts["bytes_put"] += put
            self.counts["not_stored"] += failed_count
        if self.role == "mixed":
            text = model.answer(self.cache.read(block) for block in blocks)
            self.cache.give_back(blocks)
            return self._completion(prompt, text, hits)
        request = f"cmpl-{next(self.requests)}"
        self.kept[request] = blocks
        assert self.peer is not None
        parameters = {"request": request, "blocks": blocks, **self.peer.metadata()}
        return {**self._completion(prompt, "", hits), "kv_transfer_params": parameters}

    def _decode(self, prompt: bytes, parameters: dict[str, Any]) -> dict[str, Any]:
        hashes = model.block_hashes(prompt)
        blocks = self.cache.take(len(hashes))
        assert self.peer is not None
        self.counts["bytes_pulled"] += self.peer.pull(parameters, parameters["blocks"], blocks)
        # The prefill node keeps the blocks until it hears that they have been read.
        ask(f"{parameters['url']}/kv_done", {"request": parameters["request"]})
        for block, block_hash in zip(blocks, hashes):
            self.counts["mismatches"] += self.cache.mismatches(block, block_hash)
        text = model.answer(self.cache.read(block) for block in blocks)
        self.cache.give_back(blocks)
        return self._completion(prompt, text, 0)

    def _completion(self, prompt: bytes, text: str, hits: int) -> dict[str, Any]:
        usage = {"prompt_tokens": len(prompt), "cached_tokens": hits * model.BLOCK_TOKENS}
        return {"model": model.NAME, "choices": [{"index": 0, "text": text}], "usage": usage}

    def done(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /kv_done: a decode node has read a request's blocks."""
        with self.lock:
            self.cache.bind()
            self.cache.give_back(self.kept.pop(body["request"]))
        return {}

    def stats(self, _body: Any) -> dict[str, int]:
        """GET /stats."""
        return dict(self.counts)


def main() -> int:
    """Runs a node until it is asked to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=("prefill", "decode", "mixed"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--npu", type=int, required=True, help="physical id of the first visible NPU")
    parser.add_argument("--blocks", type=int, default=96, help="blocks of 128 tokens that the cache has")
    parser.add_argument("--register-buffer", action="store_true", help="the guide's register_buffer")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    node = Node(arguments.role, arguments.host, arguments.npu, arguments.blocks, arguments.register_buffer)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    try:
        serve(
            arguments.host,
            arguments.port,
            {"/v1/completions": node.complete, "/kv_done": node.done, "/stats": node.stats},
        )
    finally:
        node.pool.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
