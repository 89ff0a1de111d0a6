/* The cost model of the software NPU, told to programs: functions of libcann_sim.so, which are no part of CANN.
   A program that also runs on hardware finds them by dlsym and does without where they are missing. */
#ifndef CANN_SIM_COST_H
#define CANN_SIM_COST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Name of the active profile, "null" when nothing is charged. */
const char *cann_sim_cost_profile(void);

/* How many times slower than hardware this process runs; 1 with the null profile. */
uint64_t cann_sim_cost_slowdown(void);

/* Model time of the calling thread, nanoseconds: differences are what hardware would have taken. */
uint64_t cann_sim_cost_now_ns(void);

/* What one way of a message between two hosts takes, nanoseconds on the machine's monotonic clock. */
uint64_t cann_sim_cost_message_ns(uint64_t length_bytes);

/* Waits for that long: once for each control message, at either end. */
void cann_sim_cost_pass_message(uint64_t length_bytes);

/* Model time that all processes reserved on resources of a kind (0: all) of a device by physical id (-1: all),
   nanoseconds. Kinds: 1 launch, 2 copy engine, 3 host to device, 4 device to host, 5 HCCS pair, 6 HCCS out, 7 HCCS in,
   8 RoCE out, 9 RoCE in. */
uint64_t cann_sim_cost_busy_ns(uint32_t kind, int32_t physical_id);

#ifdef __cplusplus
}
#endif

#endif
