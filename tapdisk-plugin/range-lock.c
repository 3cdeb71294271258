/* SPDX-License-Identifier: BSD-3-Clause */
#include "range-lock.h"

#include <stdbool.h>
#include <string.h>

void range_lock_init(struct range_lock *lock)
{
	memset(lock, 0, sizeof(*lock));
	pthread_mutex_init(&lock->mutex, NULL);
	pthread_cond_init(&lock->changed, NULL);
}

void range_lock_deinit(struct range_lock *lock)
{
	pthread_cond_destroy(&lock->changed);
	pthread_mutex_destroy(&lock->mutex);
}

static void wait_for_change(struct range_lock *lock)
{
	lock->waiting++;
	pthread_cond_wait(&lock->changed, &lock->mutex);
	lock->waiting--;
}

/* The lowest free slot, so that top stays near the number of requests in flight. */
static unsigned take_slot(struct range_lock *lock)
{
	for (;;) {
		for (unsigned i = 0; i < lock->top; i++)
			if (lock->slots[i].count == 0)
				return i;
		if (lock->top < RANGE_LOCK_SLOTS)
			return lock->top++;
		wait_for_change(lock);
	}
}

/* Whoever waits counts too: a long request is not passed by a stream of short ones. */
static bool must_wait(const struct range_lock *lock, unsigned slot)
{
	const uint64_t first = lock->slots[slot].first;
	const uint64_t count = lock->slots[slot].count;
	for (unsigned i = 0; i < lock->top; i++) {
		const uint64_t other = lock->slots[i].first;
		if (lock->slots[i].count == 0 || lock->slots[i].ticket >= lock->slots[slot].ticket)
			continue;
		if (first < other + lock->slots[i].count && other < first + count)
			return true;
	}
	return false;
}

unsigned range_lock(struct range_lock *lock, uint64_t first, uint64_t count)
{
	pthread_mutex_lock(&lock->mutex);
	const unsigned slot = take_slot(lock);
	lock->slots[slot].first = first;
	lock->slots[slot].count = count;
	lock->slots[slot].ticket = ++lock->tickets;
	while (must_wait(lock, slot))
		wait_for_change(lock);
	pthread_mutex_unlock(&lock->mutex);
	return slot;
}

void range_unlock(struct range_lock *lock, unsigned slot)
{
	pthread_mutex_lock(&lock->mutex);
	lock->slots[slot].count = 0;
	while (lock->top > 0 && lock->slots[lock->top - 1].count == 0)
		lock->top--;
	if (lock->waiting)
		pthread_cond_broadcast(&lock->changed);
	pthread_mutex_unlock(&lock->mutex);
}
