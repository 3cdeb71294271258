/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Capture for a backend that runs requests in parallel: completed requests go into a ring, a trace,
 * or both, in one order. What goes wrong here never reaches the guest's request.
 *
 * Functions that can fail return -1 when they have told why through the report callback.
 */
#ifndef TW_CAPTURE_H
#define TW_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

struct capture;

/* Tells the operator; printf-style. */
typedef void capture_report_fn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Paths may be NULL: then there is no ring or no trace. disk_bytes: size of the image. */
int capture_create(const char *ring_path, uint64_t ring_bytes, const char *trace_path, bool append,
	uint64_t disk_bytes, capture_report_fn *report, struct capture **out);

/* Starts the thread that announces a gap when the guest is quiet; once the process has forked. */
int capture_start(struct capture *c);
void capture_stop(struct capture *c);

/* Ends the trace, gives up the ring. NULL is fine. */
void capture_destroy(struct capture *c);

/* A request's hold on the sectors that it touches: from before it goes to the image until it is
 * captured or has failed. Requests that overlap wait for each other. */
struct capture_hold {
	uint64_t sector;
	uint64_t nsectors;
	unsigned slot;
};

/* Bytes count > 0 at offset, of which whole sectors are held. */
struct capture_hold capture_begin(struct capture *c, uint64_t offset, uint64_t count);
void capture_end(struct capture *c, const struct capture_hold *hold); /* keeps errno */

/* True when anybody takes what is captured: else spare the work of preparing it. */
bool capture_wanted(const struct capture *c);

/* One completed request, as tw_ring_publish takes it; a write without payload is one whose content
 * could not be read back: it is told of as a gap. sync: the guest was promised that what came
 * so far is durable, so the trace is handed to the kernel. */
void capture_publish(struct capture *c, uint32_t flags, uint64_t sector, uint64_t nsectors,
	const void *payload, bool sync);

#endif
