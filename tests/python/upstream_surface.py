"""The public surface of upstream's mooncake.engine 0.3.13 (the build without CUDA), as its help shows it.

Each method: its parameters in order, ``/`` closing the positional-only ones, with the defaults.
"""

MODULE = {
    "SUPPORT_CUDA",
    "SUPPORT_EFA",
    "SUPPORT_HIP",
    "SUPPORT_INTRA_NVLINK",
    "SUPPORT_MNNVL",
    "SUPPORT_MUSA",
    "CoroRPCInterface",
    "InnerTransferEngine",
    "Read",
    "ReceivedData",
    "ReceivedTensor",
    "RpcInterface",
    "SharedSegment",
    "TransferEngine",
    "TransferNotify",
    "TransferOpcode",
    "Write",
    "create_rpc_client",
    "create_rpc_server",
}

BLOCK = "target_hostname, buffer, peer_buffer_address, length"
LISTS = "target_hostname, buffers, peer_buffer_addresses, lengths"
HINT = "transport_hint=''"

TRANSFER_ENGINE = {
    "initialize": "local_hostname, metadata_server, protocol, device_name, /",
    "initialize_ext": "local_hostname, metadata_server, protocol, device_name, metadata_type, /",
    "get_rpc_port": "",
    "allocate_managed_buffer": "length, /",
    "free_managed_buffer": "addr, length, /",
    "transfer_sync_write": f"{BLOCK}, {HINT}",
    "transfer_sync_read": f"{BLOCK}, {HINT}",
    "transfer_sync": f"{BLOCK}, opcode, notify=None, {HINT}",
    "batch_transfer_sync_write": f"{LISTS}, {HINT}",
    "batch_transfer_sync_read": f"{LISTS}, {HINT}",
    "batch_transfer_sync": f"{LISTS}, opcode, notify=None, {HINT}",
    "batch_transfer_async_write": f"{LISTS}, {HINT}",
    "batch_transfer_async_read": f"{LISTS}, {HINT}",
    "batch_transfer_async": f"{LISTS}, opcode, {HINT}",
    "get_batch_transfer_status": "batch_ids, /",
    "transfer_submit_write": f"{BLOCK}, {HINT}",
    "transfer_check_status": "batch_id, /",
    "register_memory": "buffer_addr, capacity, location='*'",
    "unregister_memory": "addr, /",
    "batch_register_memory": "buffer_addresses, capacities, location='*'",
    "batch_unregister_memory": "buffer_addresses, /",
    "get_first_buffer_address": "segment_name, /",
    "write_bytes_to_buffer": "dest, data, length, /",
    "read_bytes_from_buffer": "src, length, /",
    "get_local_topology": "device_name=None",
    "get_notifies": "",
    "send_probe": "peer_server_name",
    "warmup_efa_segment": "segment_name",
    "get_engine": "",
    "get_engine_ptr": "",
}

# Only in upstream's CUDA builds: programs ask with hasattr.
ABSENT = (
    "transfer_write_on_cuda",
    "transfer_read_on_cuda",
    "batch_transfer_write_on_cuda",
    "batch_transfer_read_on_cuda",
)

# Ours beyond upstream's.
ADDED = {"close", "counters"}
