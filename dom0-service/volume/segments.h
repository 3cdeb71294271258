/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the bytes of a volume lie on its disk: one range, mostly; several for a logical volume,
 * each of them linear or in stripes. All offsets and lengths are bytes.
 */
#ifndef TW_VOLUME_SEGMENTS_H
#define TW_VOLUME_SEGMENTS_H

#include "base/buf.h"
#include "base/error.h"
#include "base/pack.h"
#include "volume/source.h"
#include <stdbool.h>
#include <stdint.h>

/* A volume may not have more areas than this: its mapping is the guest's claim. */
#define TW_SEGMENTS_MAX_AREAS 65536u

/* A part of the volume that lies in nstripes areas of equal size, stripe_bytes in each in turn. */
struct tw_segment {
	uint64_t offset; /* in the volume */
	uint64_t bytes;
	uint64_t stripe_bytes; /* with one stripe: bytes */
	uint32_t nstripes;
	uint32_t first; /* its starts in the table of starts */
};

/* A range of the disk that is the volume's. */
struct tw_area {
	uint64_t disk;
	uint64_t bytes;
	uint32_t segment;
	uint32_t stripe;
};

struct tw_segments {
	uint64_t bytes;          /* the volume's size */
	uint64_t low, high;      /* what it has of the disk lies between these */
	struct tw_segment *list; /* by offset in the volume */
	size_t n, cap;
	uint64_t *starts; /* where areas begin on the disk, segment by segment */
	size_t nstarts, capstarts;
	struct tw_area *areas; /* by offset on the disk; made by _finish */
};

/* A part of the disk that is one part of the volume. */
struct tw_piece {
	uint64_t disk;
	uint64_t offset; /* in the volume */
	uint64_t bytes;
};

/* Goes over the pieces of a range of the disk, in the order of the disk. */
struct tw_pieces {
	const struct tw_segments *segments;
	uint64_t at, end; /* on the disk */
	size_t area;
};

/* Appends a segment: starts are copied. bytes is a multiple of nstripes * stripe_bytes, or of
 * nothing with one stripe. TW_BAD_DATA: it is not, or there are too many areas. */
struct tw_error *tw_segments_add(struct tw_segments *segments, uint64_t bytes, uint32_t nstripes,
	uint64_t stripe_bytes, const uint64_t *starts) TW_MUST_CHECK;
/* After the last one. TW_BAD_DATA: an area goes beyond the disk, or two overlap. */
struct tw_error *tw_segments_finish(
	struct tw_segments *segments, uint64_t disk_bytes) TW_MUST_CHECK;
/* The whole volume in one range of the disk. */
struct tw_error *tw_segments_range(
	struct tw_segments *segments, uint64_t disk, uint64_t bytes) TW_MUST_CHECK;
struct tw_error *tw_segments_copy(
	struct tw_segments *to, const struct tw_segments *from) TW_MUST_CHECK;
void tw_segments_deinit(struct tw_segments *segments);

bool tw_segments_equal(const struct tw_segments *a, const struct tw_segments *b);
/* Where the volume begins on the disk; one without segments: UINT64_MAX. */
uint64_t tw_segments_start(const struct tw_segments *segments);
/* True when both have a byte of the disk. */
bool tw_segments_overlap(const struct tw_segments *a, const struct tw_segments *b);

/* Reads the volume's bytes from its disk. */
struct tw_error *tw_segments_read(const struct tw_segments *segments, const struct tw_source *disk,
	uint64_t offset, void *buf, size_t len) TW_MUST_CHECK;
/* Says so of bytes that will be read soon. */
void tw_segments_soon(const struct tw_segments *segments, const struct tw_source *disk,
	uint64_t offset, uint64_t len);

/* Calls each() for the pieces of the disk that a range of the volume lies in; none when it goes
 * beyond the volume's end. */
void tw_segments_each(const struct tw_segments *segments, uint64_t offset, uint64_t len,
	void (*each)(uint64_t disk, uint64_t bytes, void *arg), void *arg);

/* How many pieces a range of the disk can have in the volume, at most. */
uint64_t tw_segments_count_pieces(
	const struct tw_segments *segments, uint64_t disk, uint64_t bytes);
/* Calls each() for what a range of the disk is in the volume. Where that is more pieces than most,
 * whole rows of stripes are taken instead: what is told is more than what is in the range. */
struct tw_error *tw_segments_each_range(const struct tw_segments *segments, uint64_t disk,
	uint64_t bytes, uint64_t most,
	struct tw_error *(*each)(uint64_t offset, uint64_t bytes, void *arg),
	void *arg) TW_MUST_CHECK;

/* The index of the first area that ends after this offset of the disk. */
size_t tw_segments_find(const struct tw_segments *segments, uint64_t disk);
/* A piece of an area that has more than one stripe beside it. */
void tw_segments_striped(
	const struct tw_segments *segments, const struct tw_area *area, struct tw_piece *piece);

static inline struct tw_pieces tw_pieces(
	const struct tw_segments *segments, uint64_t disk, uint64_t bytes)
{
	struct tw_pieces p = {segments, disk, disk + bytes, 0};
	/* Most volumes are one range, and most records are not in one of many. */
	if (disk >= segments->high || p.end <= segments->low)
		p.area = segments->nstarts;
	else if (segments->nstarts > 1)
		p.area = tw_segments_find(segments, disk);
	return p;
}

/* False at the end. */
static inline bool tw_pieces_next(struct tw_pieces *p, struct tw_piece *out)
{
	const struct tw_segments *s = p->segments;
	while (p->area < s->nstarts) {
		const struct tw_area *area = &s->areas[p->area];
		uint64_t from = p->at > area->disk ? p->at : area->disk;
		uint64_t to = area->disk + area->bytes;
		to = p->end < to ? p->end : to;
		if (from < to) {
			const struct tw_segment *segment = &s->list[area->segment];
			*out = (struct tw_piece){
				from, segment->offset + (from - area->disk), to - from};
			if (segment->nstripes > 1)
				tw_segments_striped(s, area, out);
			p->at = from + out->bytes;
			if (p->at == p->end)
				p->area = s->nstarts;
			return true;
		}
		if (p->end <= area->disk)
			return false;
		p->area++;
	}
	return false;
}

/* As bytes, and back; of a state that may be damaged. */
void tw_segments_save(const struct tw_segments *segments, struct tw_buf *out);
struct tw_error *tw_segments_load(
	struct tw_segments *segments, struct tw_unpack *in, uint64_t disk_bytes) TW_MUST_CHECK;

#endif
