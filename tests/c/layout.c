/* Compiled, not run: both headers in one translation unit, as C99 and as C++17, and the layouts that binaries
 * rely on (LP64). A wrong number makes the size of an array negative. */
#include "mooncake_transfer.h"

#include <stddef.h>

#define HOLDS(name, condition) typedef char assert_##name[(condition) ? 1 : -1]
#define SIZE(type, bytes) HOLDS(size_of_##type, sizeof(struct type) == (bytes))
#define OFFSET(type, field, bytes) HOLDS(offset_of_##type##_##field, offsetof(struct type, field) == (bytes))

SIZE(transfer_request, 40);
OFFSET(transfer_request, opcode, 0);
OFFSET(transfer_request, source, 8);
OFFSET(transfer_request, target_id, 16);
OFFSET(transfer_request, target_offset, 24);
OFFSET(transfer_request, length, 32);

SIZE(transfer_status, 16);
OFFSET(transfer_status, status, 0);
OFFSET(transfer_status, transferred_bytes, 8);

SIZE(notify_msg, 16);
OFFSET(notify_msg, name, 0);
OFFSET(notify_msg, msg, 8);

SIZE(buffer_entry, 16);
OFFSET(buffer_entry, addr, 0);
OFFSET(buffer_entry, length, 8);

SIZE(nic_load_stat, 80);
OFFSET(nic_load_stat, device_name, 0);
OFFSET(nic_load_stat, inflight_bytes, 64);
OFFSET(nic_load_stat, ewma_bandwidth_bps, 72);

SIZE(segment_desc, 48);
OFFSET(segment_desc, type, 0);
OFFSET(segment_desc, desc_, 8);

SIZE(mooncake_transfer_options, 32);
OFFSET(mooncake_transfer_options, struct_size, 0);
OFFSET(mooncake_transfer_options, metadata, 8);
OFFSET(mooncake_transfer_options, local_name, 16);
OFFSET(mooncake_transfer_options, device, 24);
OFFSET(mooncake_transfer_options, auto_discover, 28);

SIZE(mooncake_replicate_config, 32);
OFFSET(mooncake_replicate_config, replica_num, 0);
OFFSET(mooncake_replicate_config, with_soft_pin, 8);
OFFSET(mooncake_replicate_config, with_hard_pin, 12);
OFFSET(mooncake_replicate_config, preferred_segments, 16);
OFFSET(mooncake_replicate_config, preferred_segments_count, 24);

SIZE(mooncake_transfer_store_options, 80);
OFFSET(mooncake_transfer_store_options, struct_size, 0);
OFFSET(mooncake_transfer_store_options, local_hostname, 8);
OFFSET(mooncake_transfer_store_options, metadata_server, 16);
OFFSET(mooncake_transfer_store_options, protocol, 24);
OFFSET(mooncake_transfer_store_options, device_names, 32);
OFFSET(mooncake_transfer_store_options, master_address, 40);
OFFSET(mooncake_transfer_store_options, tenant, 48);
OFFSET(mooncake_transfer_store_options, global_segment_size_bytes, 56);
OFFSET(mooncake_transfer_store_options, local_buffer_size_bytes, 64);
OFFSET(mooncake_transfer_store_options, engine, 72);

SIZE(mooncake_transfer_store_replication, 80);
OFFSET(mooncake_transfer_store_replication, struct_size, 0);
OFFSET(mooncake_transfer_store_replication, replica_count, 8);
OFFSET(mooncake_transfer_store_replication, soft_pin_ttl_ms, 16);
OFFSET(mooncake_transfer_store_replication, soft_pin, 24);
OFFSET(mooncake_transfer_store_replication, has_soft_pin_ttl, 28);
OFFSET(mooncake_transfer_store_replication, hard_pin, 32);
OFFSET(mooncake_transfer_store_replication, same_node, 36);
OFFSET(mooncake_transfer_store_replication, data_type, 40);
OFFSET(mooncake_transfer_store_replication, preferred_segments, 48);
OFFSET(mooncake_transfer_store_replication, preferred_segment_count, 56);
OFFSET(mooncake_transfer_store_replication, group_ids, 64);
OFFSET(mooncake_transfer_store_replication, group_id_count, 72);

SIZE(mooncake_transfer_error, 128);
OFFSET(mooncake_transfer_error, struct_size, 0);
OFFSET(mooncake_transfer_error, code, 8);
OFFSET(mooncake_transfer_error, stage, 12);
OFFSET(mooncake_transfer_error, negative, 16);
OFFSET(mooncake_transfer_error, status, 20);
OFFSET(mooncake_transfer_error, known, 24);
OFFSET(mooncake_transfer_error, device, 28);
OFFSET(mooncake_transfer_error, range_start, 32);
OFFSET(mooncake_transfer_error, range_length_bytes, 40);
OFFSET(mooncake_transfer_error, vendor_code, 48);
OFFSET(mooncake_transfer_error, code_name, 56);
OFFSET(mooncake_transfer_error, stage_name, 64);
OFFSET(mooncake_transfer_error, message, 72);
OFFSET(mooncake_transfer_error, peer, 80);
OFFSET(mooncake_transfer_error, vendor_function, 88);
OFFSET(mooncake_transfer_error, vendor_text, 96);
OFFSET(mooncake_transfer_error, vendor_log, 104);
OFFSET(mooncake_transfer_error, advice, 112);
OFFSET(mooncake_transfer_error, text, 120);

HOLDS(segment_id, sizeof(segment_id_t) == 4 && sizeof(segment_handle_t) == 4 && (segment_id_t)-1 < 0);
HOLDS(batch_id, sizeof(batch_id_t) == 8 && (batch_id_t)-1 > 0 && INVALID_BATCH == (batch_id_t)-1);
HOLDS(opcodes, OPCODE_READ == 0 && OPCODE_WRITE == 1 && LOCAL_SEGMENT == 0);
HOLDS(states, STATUS_WAITING == 0 && STATUS_PENDING == 1 && STATUS_INVALID == 2 && STATUS_CANCELED == 3 &&
                  STATUS_COMPLETED == 4 && STATUS_TIMEOUT == 5 && STATUS_FAILED == 6);
HOLDS(code_enum, sizeof(enum mooncake_transfer_code) == 4);
