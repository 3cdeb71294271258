/* SPDX-License-Identifier: BSD-3-Clause */
/* status.json: what `tapwire status` shows of a disk. Written when it has changed, once a second at
 * most. */
#ifndef TW_INSPECT_LIVE_STATUS_H
#define TW_INSPECT_LIVE_STATUS_H

#include "base/buf.h"
#include "inspect/statefile.h"
#include <stdbool.h>

struct tw_live_status {
	const char *state; /* starting crawling live resync stopped, "waiting for the courier" */
	uint64_t volumes, files, events, gaps, resyncs, lag_bytes, waiting_bytes;
	uint64_t digests, late_digests; /* files that are waited for until they have been quiet */
	uint64_t read_bytes;  /* from the image, since the start */
	uint64_t captured_bytes, spared_bytes; /* content that the ring has carried, and that it was
						  spared */
	bool courier;         /* connected */
	struct tw_buf places; /* tw_disk_describe() of the disk as it was crawled or loaded */
	int fd; /* for the supervisor, in its own words (see live_status.c); -1: none */
	/* the writer's own */
	char remark[256]; /* tw_disk_remark() of the same, */
	bool remark_known, remark_due;
	bool places_written;
	int64_t written_ms;
	char written[768];
	char told[64]; /* the last line to fd */
	const char *told_state;
	int64_t told_ms;
};

/* Says anew where the disk's volumes are. */
void tw_live_status_places(struct tw_live_status *status, const struct tw_disk *disk);
void tw_live_status_deinit(struct tw_live_status *status);
/* Writes the file if it is due; a failure is logged and changes nothing else. */
void tw_live_status_write(struct tw_live_status *status, const struct tw_statefile *state);
/* Milliseconds until an unwritten change is due; -1: there is none. */
int tw_live_status_due(const struct tw_live_status *status);

#endif
