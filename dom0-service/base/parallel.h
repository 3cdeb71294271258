/* SPDX-License-Identifier: BSD-3-Clause */
/* The same work on several processors. */
#ifndef TW_BASE_PARALLEL_H
#define TW_BASE_PARALLEL_H

#include "base/error.h"

#define TW_PARALLEL_MAX 8u
/* How many threads are worth having: the processors, at most TW_PARALLEL_MAX. */
unsigned tw_parallel_width(void);

/* Calls work(arg, i) for i = 0 .. n - 1, each in a thread of its own (0 in the caller's), and waits
 * for all. The error of the lowest i is returned, others are dropped. Where no thread can be had,
 * the caller's does the work. */
typedef struct tw_error *(*tw_work_fn)(void *arg, unsigned i);
struct tw_error *tw_parallel(unsigned n, tw_work_fn work, void *arg) TW_MUST_CHECK;

#endif
