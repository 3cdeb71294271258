/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the inspector needs the content of: the blocks that the view knows for metadata, and all of
 * a volume whose module wants all. Told to the capture point through the ring's interest map, which
 * leaves the content of other writes out. One thread.
 */
#ifndef TW_INSPECT_INTEREST_H
#define TW_INSPECT_INTEREST_H

#include "inspect/disk.h"
#include "ring.h"

struct tw_interest;

struct tw_error *tw_interest_create(struct tw_interest **out) TW_MUST_CHECK;
void tw_interest_destroy(struct tw_interest *interest); /* NULL is fine */

/* All content is wanted until the next update: before a crawl, and when the ring is another one. */
void tw_interest_reset(struct tw_interest *interest, struct tw_ring_reader *ring);
/* Brings the map up to what the disk's volumes want now. Costs what has changed since the last
 * update; after a reset, the disk's metadata. */
struct tw_error *tw_interest_update(struct tw_interest *interest, struct tw_ring_reader *ring,
	struct tw_disk *disk) TW_MUST_CHECK;

#endif
