/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Locks on ranges of sectors, for a backend that runs requests in parallel. Requests that overlap
 * are done one after the other, in the order in which they came: so the order of their records is
 * the order in which the image took them, and a record is what the image holds.
 */
#ifndef TW_RANGE_LOCK_H
#define TW_RANGE_LOCK_H

#include <pthread.h>
#include <stdint.h>

#define RANGE_LOCK_SLOTS 256u

struct range_lock {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	uint64_t tickets;
	unsigned waiting;
	unsigned top; /* slots from here on are free */
	struct {
		uint64_t first;
		uint64_t count; /* 0: free */
		uint64_t ticket;
	} slots[RANGE_LOCK_SLOTS];
};

void range_lock_init(struct range_lock *lock);
void range_lock_deinit(struct range_lock *lock);

/* Waits for all earlier requests that overlap. count > 0. Returns the slot, for range_unlock. */
unsigned range_lock(struct range_lock *lock, uint64_t first, uint64_t count);
void range_unlock(struct range_lock *lock, unsigned slot);

#endif
