"""What vLLM-Ascend's two connectors ask of this package, in our own words: the same calls, arguments and checks.

``PeerToPeer`` is MooncakeConnectorV1, which moves the KV cache of a request from the prefill node to the decode node;
``Pool`` is MooncakeConnectorStoreV1, which keeps what was computed for the next request that begins the same way.
"""

from __future__ import annotations

import json
import os
from typing import Any, Optional

import model
from mooncake.engine import TransferEngine
from mooncake.mooncake_config import MooncakeConfig
from mooncake.store import MooncakeDistributedStore, ReplicateConfig
from npu import Cache


class PeerToPeer:
    """An engine that knows the KV cache; the other side reads from it."""

    def __init__(self, host: str, cache: Cache) -> None:
        self.host = host
        self.cache = cache
        self.engine = TransferEngine()
        if self.engine.initialize(host, "P2PHANDSHAKE", "ascend", "") != 0:
            raise RuntimeError("Mooncake initialization failed")
        for tensor in cache.tensors:
            if self.engine.register_memory(tensor, cache.tensor_bytes) != 0:
                raise RuntimeError("Mooncake memory registration failed")

    def session(self) -> str:
        """The engine's name for peers."""
        return f"{self.host}:{self.engine.get_rpc_port()}"

    def metadata(self) -> dict[str, Any]:
        """What the other side has to know; it travels beside the data, over HTTP here."""
        return {"session": self.session(), "tensors": self.cache.tensors}

    def pull(self, remote: dict[str, Any], remote_blocks: list[int], blocks: list[int]) -> int:
        """Reads blocks of all layers in one batch; the bytes."""
        local, source = [], []
        for block, remote_block in zip(blocks, remote_blocks):
            local += self.cache.addresses(block)
            source += [tensor + remote_block * model.BLOCK_BYTES for tensor in remote["tensors"]]
        lengths = [model.BLOCK_BYTES] * len(local)
        if self.engine.batch_transfer_sync_read(remote["session"], local, source, lengths) < 0:
            raise RuntimeError("Mooncake transfer failed")
        return sum(lengths)


class Pool:
    """A store that keeps blocks under the hash of everything up to their end."""

    def __init__(self, host: str, npu_id: int, cache: Cache, engine: Optional[TransferEngine], register: bool) -> None:
        path = os.environ["MOONCAKE_CONFIG_PATH"]
        config = MooncakeConfig.from_file(path)
        with open(path, encoding="utf-8") as file:
            self.direct = json.load(file).get("use_ascend_direct", False)
        self.cache = cache
        self.store = MooncakeDistributedStore()
        rest = (
            config.metadata_server,
            config.global_segment_size,
            config.local_buffer_size,
            config.protocol,
            config.device_name,
            config.master_server_address,
        )
        if self.direct:
            # The newer way: one engine for both connectors.
            if engine is None:
                engine = TransferEngine()
                if engine.initialize(host, "P2PHANDSHAKE", "ascend", "") != 0:
                    raise RuntimeError("Mooncake initialization failed")
            name = f"{host}:{engine.get_rpc_port()}"
            code = self.store.setup(name, *rest, engine.get_engine())
        else:
            # The guide's way: a second engine, inside the store, that names its NPU.
            name = f"{host}:{int(os.getenv('VLLM_BASE_PORT', '8790')) + npu_id}:npu_{npu_id}"
            code = self.store.setup(name, *rest)
        if code != 0:
            raise RuntimeError(f"Initialize mooncake failed: {code}")
        self.placement = ReplicateConfig()
        self.placement.preferred_segment = name
        if register:
            for tensor in cache.tensors:
                self.store.register_buffer(tensor, cache.tensor_bytes)

    @staticmethod
    def key(block_hash: str) -> str:
        """Model, ranks, this rank, hash."""
        return f"{model.NAME}@1@0@{block_hash}"

    def hits(self, hashes: list[str]) -> int:
        """How many of the blocks, from the first on, are in the pool."""
        found = self.store.batch_is_exist([self.key(block_hash) for block_hash in hashes])
        return next((number for number, there in enumerate(found) if there != 1), len(found))

    def put(self, blocks: list[int], hashes: list[str]) -> tuple[int, int]:
        """Stores blocks: the bytes, and how many could not be stored, which only costs a later hit."""
        rows = [self.cache.addresses(block) for block in blocks]
        sizes = [model.BLOCK_BYTES] * model.TENSORS
        keys = [self.key(block_hash) for block_hash in hashes]
        if self.direct:
            codes = self.store.batch_put_from_multi_buffers(keys, rows, [sizes] * len(rows), self.placement)
        else:
            codes = [self.store.batch_put_from_ascend(key, row, sizes)[0] for key, row in zip(keys, rows)]
        failed = sum(code != 0 for code in codes)
        return sum(sizes) * (len(codes) - failed), failed

    def get(self, blocks: list[int], hashes: list[str]) -> tuple[int, list[int]]:
        """Loads blocks: the bytes, and the positions of those that did not arrive, which are computed instead."""
        rows = [self.cache.addresses(block) for block in blocks]
        sizes = [model.BLOCK_BYTES] * model.TENSORS
        keys = [self.key(block_hash) for block_hash in hashes]
        if self.direct:
            lengths = self.store.batch_get_into_multi_buffers(keys, rows, [sizes] * len(rows), True)
        else:
            lengths = [self.store.batch_get_into_ascend(key, row, sizes)[0] for key, row in zip(keys, rows)]
        failed = [number for number, length in enumerate(lengths) if length != sum(sizes)]
        return sum(sizes) * (len(lengths) - len(failed)), failed

    def close(self) -> None:
        """Leaves the pool."""
        self.store.close()
