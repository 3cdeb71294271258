/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The sink: the secondary of a tapdisk's write mirror. It keeps nothing of a write but its record
 * in the ring. docs/ring.md, "The mirror", says what its records mean and what they do not.
 *
 * A connection is a session: what was written before it, and between two of them, nobody has seen.
 * So each gets a ring of its own, with an id of its own, by which the inspector knows. The ring
 * lies ready before the connection comes, since the guest waits until tapdisk has made it.
 *
 * Functions that can fail return -1 when they have told why through the report callback. Requests
 * return 0 or a positive errno, and tell nobody: a log that does not take what it is given would
 * hold the guest.
 */
#ifndef TW_SINK_H
#define TW_SINK_H

#include "capture.h"

struct sink;

/* Makes RING.progress and the first session's ring, under another name. RING itself is replaced
 * when a session begins; one that is in use, or a file that is no ring, is an error. disk_bytes: a
 * whole number of sectors. */
int sink_create(const char *ring_path, uint64_t ring_bytes, uint64_t disk_bytes,
	capture_report_fn *report, struct sink **out);
/* Starts the heart; once the process has forked. */
int sink_start(struct sink *sink);
void sink_stop(struct sink *sink);
/* NULL is fine. */
void sink_destroy(struct sink *sink);

/* A connection comes and goes. There is one at a time: a second one is refused, after a moment in
 * which the first may be on its way out. */
int sink_open(struct sink *sink);
void sink_close(struct sink *sink);

/* A write, its payload, or (payload NULL) what TW_RECORD_DISCARD and _ZEROES in flags say. */
int sink_write(
	struct sink *sink, uint32_t flags, uint64_t offset, uint32_t count, const void *payload);
int sink_read(struct sink *sink);
int sink_flush(struct sink *sink);

#endif
