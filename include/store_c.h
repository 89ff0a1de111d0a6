/* SPDX-License-Identifier: Apache-2.0 */
/**
 * C interface of the pool: objects of bytes, found by key, that lie in the memory of all clients. Names, types,
 * numbers and return conventions are upstream's (Mooncake 0.3.11 and later); what they mean here stands beside
 * them. mooncake_transfer.h adds what this interface lacks (several buffers for each key, keys with NUL inside,
 * sizes of many keys, a shared engine, the error record); both may be used on the same store.
 *
 * Every failure is a negative enum mooncake_transfer_store_code (mooncake_transfer.h), returned or written for its
 * key, and becomes the calling thread's last error. Texts and arrays are copied before a call returns. A store that
 * is NULL, destroyed, from before a fork, or not set up gives an error, never undefined behaviour. Any thread may call
 * anything, and every call has a deadline: none waits for ever, whatever the master or a peer does.
 */
#ifndef MOONCAKE_STORE_C_H
#define MOONCAKE_STORE_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A client of the pool; opaque. */
typedef void *mooncake_store_t;

/** How an object is placed. NULL in its place means one copy, anywhere, not pinned. */
struct mooncake_replicate_config {
    size_t replica_num;              /* copies, on different segments; fewer are made when there is no room */
    int with_soft_pin;               /* non-zero: evicted after everything that is not pinned */
    int with_hard_pin;               /* non-zero: never evicted */
    const char **preferred_segments; /* names to try first, in order; may be NULL when there are none */
    size_t preferred_segments_count;
};
typedef struct mooncake_replicate_config mooncake_replicate_config_t;

/** A store that is not set up yet; NULL when too many are alive. End it with mooncake_store_destroy. */
mooncake_store_t mooncake_store_create(void);

/** Leaves the pool, with the memory that this client gave to it, and ends the handle. */
void mooncake_store_destroy(mooncake_store_t store);

/**
 * Joins the pool: 0, or a negative code. local_hostname is host, host:port or host:port:npu_N; without a port one
 * is chosen. global_segment_size bytes of memory are given to the pool, 0 for none. With a local_buffer_size of 0
 * mooncake_store_put fails, as upstream's does; values are not staged here, so that another size takes no memory. NULL
 * for protocol is "tcp", for device_name "", for master_server_addr "127.0.0.1:50051". A store that is set up already
 * leaves its pool first.
 */
int mooncake_store_setup(mooncake_store_t store, const char *local_hostname, const char *metadata_server,
                         uint64_t global_segment_size, uint64_t local_buffer_size, const char *protocol,
                         const char *device_name, const char *master_server_addr);

/** Upstream's second way to begin, for a store that MC_* variables describe; not offered: -600 with the reason. */
int mooncake_store_init_all(mooncake_store_t store, const char *protocol, const char *device_name,
                            uint64_t mount_segment_size);

/** 0: the master answers. 1: not set up. 2: the master does not answer. */
int mooncake_store_health_check(mooncake_store_t store);

/**
 * Stores size bytes at value under key. An existing key is 0 and keeps its value. -600 without a local buffer. What
 * cannot be written because clients leave or die goes elsewhere, a few times; then the last failure is the answer: -200
 * no space, -800 nobody to write to, -704 the owner left before the value was complete. A store that is closed meanwhile
 * gives one of these, -101 or -900 for calls under way, and -600 for calls that begin.
 */
int mooncake_store_put(mooncake_store_t store, const char *key, const void *value, size_t size,
                       const mooncake_replicate_config_t *config);

/** As mooncake_store_put, straight from memory of the host or of an NPU. */
int mooncake_store_put_from(mooncake_store_t store, const char *key, void *buffer, size_t size,
                            const mooncake_replicate_config_t *config);

/** Stores count objects at once: 0, with the outcome of each in results_out, or a negative code for bad arguments. */
int mooncake_store_batch_put_from(mooncake_store_t store, const char **keys, void **buffers, const size_t *sizes,
                                  size_t count, const mooncake_replicate_config_t *config, int *results_out);

/** Reads the object into memory of size bytes, which may be larger: its length, or a negative code. */
int64_t mooncake_store_get_into(mooncake_store_t store, const char *key, void *buffer, size_t size);

/** Reads count objects at once: 0, with length or negative code of each in results_out, or a negative code. */
int mooncake_store_batch_get_into(mooncake_store_t store, const char **keys, void **buffers, const size_t *sizes,
                                  size_t count, int64_t *results_out);

/** 1: the object is there, and stays for a lease. 0: it is not. Negative: not known. */
int mooncake_store_is_exist(mooncake_store_t store, const char *key);

/** As mooncake_store_is_exist for count keys: 0, with the answer for each in results_out, or a negative code. */
int mooncake_store_batch_is_exist(mooncake_store_t store, const char **keys, size_t count, int *results_out);

/** Length of the object in bytes, or a negative code. */
int64_t mooncake_store_get_size(mooncake_store_t store, const char *key);

/** Writes the name of this client, host:port: 0; -1 when buf_len is too small or the store is not set up. */
int mooncake_store_get_hostname(mooncake_store_t store, char *buf_out, size_t buf_len);

/** Removes an object: 0 or a negative code. One that is being read is removed only when force is non-zero. */
int mooncake_store_remove(mooncake_store_t store, const char *key, int force);

/** Removes every object with a match for the pattern somewhere in its key: their number, or a negative code. */
int64_t mooncake_store_remove_by_regex(mooncake_store_t store, const char *pattern, int force);

/** Removes every object: their number, or a negative code. */
int64_t mooncake_store_remove_all(mooncake_store_t store, int force);

/** Makes memory known to the client: 0, or -600 for NULL, no bytes, or an overlap with memory that is known. */
int mooncake_store_register_buffer(mooncake_store_t store, void *buffer, size_t size);

/** Forgets memory that mooncake_store_register_buffer made known at that address: 0, or a negative code. */
int mooncake_store_unregister_buffer(mooncake_store_t store, void *buffer);

#ifdef __cplusplus
}
#endif

#endif /* MOONCAKE_STORE_C_H */
