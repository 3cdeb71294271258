/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a sink shows of itself in shared memory, for the watchdog that kills it when it does not get
 * on: "<ring>.progress", one page, written by the sink alone. Shared memory of one machine: native
 * byte order. A reader trusts nothing in it but what it decides from it: to kill the sink.
 */
#ifndef TW_SINK_PROGRESS_H
#define TW_SINK_PROGRESS_H

#include <stdatomic.h>
#include <stdint.h>

#define SINK_PROGRESS_MAGIC 0x31474f5250575400ull /* "\0TWPROG1" */
#define SINK_PROGRESS_BYTES 4096u
/* The heart beats so often, whether or not there is work: a sink that stands still takes no request
 * off its socket, where nobody sees it wait. */
#define SINK_BEAT_MS 50

struct sink_progress {
	uint64_t magic;
	_Atomic uint64_t beats;
	_Atomic uint64_t begun;    /* requests that were taken on, of any kind */
	_Atomic uint64_t finished; /* of these; the difference is under way */
	_Atomic uint64_t sessions; /* connections that have begun */
	_Atomic uint64_t closed;   /* and ended */
	_Atomic uint64_t writes;
	_Atomic uint64_t written; /* bytes */
	_Atomic uint64_t reads;   /* all of them refused */
	_Atomic uint64_t refused; /* other requests that were refused */
};

#endif
