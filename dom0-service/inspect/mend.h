/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A resync that looks only at what was missed: the disk's side of volume/fs.h's survey, gather and
 * mend. What was gathered is bytes, so that it can be logged: mending by them is the same each
 * time, whatever has become of the image.
 */
#ifndef TW_INSPECT_MEND_H
#define TW_INSPECT_MEND_H

#include "inspect/disk.h"

struct tw_mend;

/* What is told of a resync besides what was gathered. */
struct tw_mend_facts {
	struct tw_time now;
	const char *reason;
	uint64_t told; /* number of the record up to which written files were told of; 0: none */
};

/* Begins with all watched volumes. Every write that was completed before has to be missed. */
struct tw_error *tw_mend_survey(struct tw_disk *disk, struct tw_mend **out) TW_MUST_CHECK;
void tw_mend_destroy(struct tw_mend *mend); /* NULL is fine */
/* Reads what was missed. kept: where volumes are read of which nothing may change meanwhile;
 * *stands: there is none. *again: begin anew. TW_GAP: only a crawl helps. missed is tidied. */
struct tw_error *tw_mend_gather(struct tw_mend *mend, struct tw_missed *missed,
	const struct tw_source *kept, bool *stands, bool *again) TW_MUST_CHECK;
/* Appends what tw_disk_mend() needs. written: of the disk, besides missed; told of as content. */
struct tw_error *tw_mend_pack(struct tw_mend *mend, struct tw_missed *missed,
	struct tw_missed *written, const struct tw_mend_facts *facts,
	struct tw_buf *out) TW_MUST_CHECK;

/* Moves the disk by that, with the events (flagged resync) that lead there, and a disk.resynced at
 * the end. */
struct tw_error *tw_disk_mend(struct tw_disk *disk, struct tw_span gathered) TW_MUST_CHECK;

#endif
