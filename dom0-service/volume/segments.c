/* SPDX-License-Identifier: BSD-3-Clause */
#include "volume/segments.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static uint64_t area_bytes(const struct tw_segment *segment)
{
	return segment->bytes / segment->nstripes;
}

static bool add_start(struct tw_segments *segments, uint64_t start)
{
	if (!TW_GROW(segments->starts, segments->nstarts, segments->capstarts))
		return false;
	segments->starts[segments->nstarts++] = start;
	return true;
}

/* A linear segment that goes on where the last one ends is a part of it. */
static bool goes_on(const struct tw_segments *segments, uint32_t nstripes, uint64_t start)
{
	if (!segments->n || nstripes != 1)
		return false;
	const struct tw_segment *last = &segments->list[segments->n - 1];
	return last->nstripes == 1 && segments->starts[last->first] + last->bytes == start;
}

struct tw_error *tw_segments_add(struct tw_segments *segments, uint64_t bytes, uint32_t nstripes,
	uint64_t stripe_bytes, const uint64_t *starts)
{
	uint64_t row, total;
	if (nstripes == 1)
		stripe_bytes = bytes;
	if (!nstripes || !stripe_bytes || __builtin_mul_overflow(stripe_bytes, nstripes, &row) ||
		bytes % row || __builtin_add_overflow(segments->bytes, bytes, &total))
		return tw_error_create(TW_BAD_DATA, "the sizes of a volume's stripes do not fit");
	if (nstripes > TW_SEGMENTS_MAX_AREAS - segments->nstarts)
		return tw_error_create(
			TW_BAD_DATA, "a volume of more than %u parts", TW_SEGMENTS_MAX_AREAS);
	segments->bytes = total;
	if (goes_on(segments, nstripes, *starts)) {
		segments->list[segments->n - 1].bytes += bytes;
		segments->list[segments->n - 1].stripe_bytes += bytes;
		return NULL;
	}
	if (!TW_GROW(segments->list, segments->n, segments->cap))
		return tw_error_nomem();
	segments->list[segments->n++] = (struct tw_segment){
		total - bytes, bytes, stripe_bytes, nstripes, (uint32_t)segments->nstarts};
	for (uint32_t i = 0; i < nstripes; i++)
		if (!add_start(segments, starts[i]))
			return tw_error_nomem();
	return NULL;
}

static int by_disk(const void *a, const void *b)
{
	const struct tw_area *x = a, *y = b;
	return x->disk < y->disk ? -1 : x->disk > y->disk;
}

struct tw_error *tw_segments_finish(struct tw_segments *segments, uint64_t disk_bytes)
{
	size_t n = 0;
	segments->areas = calloc(segments->nstarts + 1, sizeof(*segments->areas));
	if (!segments->areas)
		return tw_error_nomem();
	for (size_t i = 0; i < segments->n; i++) {
		const struct tw_segment *segment = &segments->list[i];
		for (uint32_t k = 0; k < segment->nstripes; k++)
			segments->areas[n++] =
				(struct tw_area){segments->starts[segment->first + k],
					area_bytes(segment), (uint32_t)i, k};
	}
	qsort(segments->areas, n, sizeof(*segments->areas), by_disk);
	for (size_t i = 0; i < n; i++) {
		const struct tw_area *area = &segments->areas[i];
		if (area->disk > disk_bytes || area->bytes > disk_bytes - area->disk)
			return tw_error_create(TW_BAD_DATA, "it goes beyond the end of the disk");
		if (i && area->disk - area[-1].disk < area[-1].bytes)
			return tw_error_create(TW_BAD_DATA, "its parts overlap");
	}
	segments->low = n ? segments->areas[0].disk : 0;
	segments->high = n ? segments->areas[n - 1].disk + segments->areas[n - 1].bytes : 0;
	return NULL;
}

struct tw_error *tw_segments_range(struct tw_segments *segments, uint64_t disk, uint64_t bytes)
{
	TW_TRY(tw_segments_add(segments, bytes, 1, bytes, &disk));
	return tw_segments_finish(segments, UINT64_MAX);
}

struct tw_error *tw_segments_copy(struct tw_segments *to, const struct tw_segments *from)
{
	*to = (struct tw_segments){0};
	if (!from->areas)
		return NULL;
	to->list = (void *)tw_memdup(from->list, from->n * sizeof(*from->list));
	to->starts = (void *)tw_memdup(from->starts, from->nstarts * sizeof(*from->starts));
	to->areas = (void *)tw_memdup(from->areas, from->nstarts * sizeof(*from->areas));
	if (!to->list || !to->starts || !to->areas) {
		tw_segments_deinit(to);
		return tw_error_nomem();
	}
	to->bytes = from->bytes;
	to->low = from->low;
	to->high = from->high;
	to->n = to->cap = from->n;
	to->nstarts = to->capstarts = from->nstarts;
	return NULL;
}

void tw_segments_deinit(struct tw_segments *segments)
{
	free(segments->list);
	free(segments->starts);
	free(segments->areas);
	*segments = (struct tw_segments){0};
}

bool tw_segments_equal(const struct tw_segments *a, const struct tw_segments *b)
{
	if (a->bytes != b->bytes || a->n != b->n || a->nstarts != b->nstarts)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (a->list[i].bytes != b->list[i].bytes ||
			a->list[i].nstripes != b->list[i].nstripes ||
			a->list[i].stripe_bytes != b->list[i].stripe_bytes)
			return false;
	for (size_t i = 0; i < a->nstarts; i++)
		if (a->starts[i] != b->starts[i])
			return false;
	return true;
}

uint64_t tw_segments_start(const struct tw_segments *segments)
{
	return segments->nstarts ? segments->starts[0] : UINT64_MAX;
}

bool tw_segments_overlap(const struct tw_segments *a, const struct tw_segments *b)
{
	size_t i = 0, k = 0;
	while (i < a->nstarts && k < b->nstarts) {
		const struct tw_area *x = &a->areas[i], *y = &b->areas[k];
		if (x->disk + x->bytes <= y->disk)
			i++;
		else if (y->disk + y->bytes <= x->disk)
			k++;
		else
			return true;
	}
	return false;
}

/* The segment that holds an offset of the volume, which is below its end. */
static const struct tw_segment *segment_at(const struct tw_segments *segments, uint64_t offset)
{
	size_t low = 0, high = segments->n;
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		if (segments->list[middle].offset <= offset)
			low = middle;
		else
			high = middle;
	}
	return &segments->list[low];
}

/* The part at an offset that lies in one piece on the disk: its length, and where it begins there.
 */
static uint64_t piece_at(const struct tw_segments *segments, uint64_t offset, uint64_t *disk)
{
	const struct tw_segment *segment = segment_at(segments, offset);
	uint64_t in = offset - segment->offset, chunk = in / segment->stripe_bytes;
	uint64_t within = in % segment->stripe_bytes;
	*disk = segments->starts[segment->first + chunk % segment->nstripes] +
		chunk / segment->nstripes * segment->stripe_bytes + within;
	return segment->stripe_bytes - within;
}

struct tw_error *tw_segments_read(const struct tw_segments *segments, const struct tw_source *disk,
	uint64_t offset, void *buf, size_t len)
{
	if (offset > segments->bytes || len > segments->bytes - offset)
		return tw_error_create(TW_BAD_DATA, "%zu bytes at %llu are beyond the volume's end",
			len, (unsigned long long)offset);
	while (len) {
		uint64_t at, n = piece_at(segments, offset, &at);
		n = n < len ? n : len;
		TW_TRY(tw_source_read(disk, at, buf, (size_t)n));
		buf = (char *)buf + n;
		offset += n;
		len -= (size_t)n;
	}
	return NULL;
}

void tw_segments_each(const struct tw_segments *segments, uint64_t offset, uint64_t len,
	void (*each)(uint64_t disk, uint64_t bytes, void *arg), void *arg)
{
	if (offset > segments->bytes || len > segments->bytes - offset)
		return;
	while (len) {
		uint64_t at, n = piece_at(segments, offset, &at);
		n = n < len ? n : len;
		each(at, n, arg);
		offset += n;
		len -= n;
	}
}

static void soon_piece(uint64_t disk, uint64_t bytes, void *arg)
{
	tw_source_soon(arg, disk, bytes);
}

void tw_segments_soon(const struct tw_segments *segments, const struct tw_source *disk,
	uint64_t offset, uint64_t len)
{
	tw_segments_each(segments, offset, len, soon_piece, (void *)disk);
}

size_t tw_segments_find(const struct tw_segments *segments, uint64_t disk)
{
	size_t low = 0, high = segments->nstarts;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct tw_area *area = &segments->areas[middle];
		if (area->disk + area->bytes <= disk)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void tw_segments_striped(
	const struct tw_segments *segments, const struct tw_area *area, struct tw_piece *piece)
{
	const struct tw_segment *segment = &segments->list[area->segment];
	uint64_t in = piece->disk - area->disk;
	uint64_t row = in / segment->stripe_bytes, within = in % segment->stripe_bytes;
	uint64_t left = segment->stripe_bytes - within;
	piece->offset = segment->offset +
			(row * segment->nstripes + area->stripe) * segment->stripe_bytes + within;
	piece->bytes = piece->bytes < left ? piece->bytes : left;
}

/* --- ranges --- */

/* What of a range of the disk lies in an area. False: nothing. */
static bool in_area(
	const struct tw_area *area, uint64_t disk, uint64_t bytes, uint64_t *from, uint64_t *to)
{
	uint64_t end = area->disk + area->bytes;
	*from = disk > area->disk ? disk : area->disk;
	*to = disk + bytes < end ? disk + bytes : end;
	return *from < *to;
}

/* The rows [*first, *end) of an area's stripes that [from, to) of the disk touches. */
static void rows_of(const struct tw_segment *segment, const struct tw_area *area, uint64_t from,
	uint64_t to, uint64_t *first, uint64_t *end)
{
	*first = (from - area->disk) / segment->stripe_bytes;
	*end = (to - 1 - area->disk) / segment->stripe_bytes + 1;
}

uint64_t tw_segments_count_pieces(const struct tw_segments *segments, uint64_t disk, uint64_t bytes)
{
	uint64_t n = 0, from, to, first, end;
	for (size_t i = tw_segments_find(segments, disk); i < segments->nstarts; i++) {
		const struct tw_area *area = &segments->areas[i];
		if (!in_area(area, disk, bytes, &from, &to))
			break;
		rows_of(&segments->list[area->segment], area, from, to, &first, &end);
		n += end - first;
	}
	return n;
}

struct tw_error *tw_segments_each_range(const struct tw_segments *segments, uint64_t disk,
	uint64_t bytes, uint64_t most,
	struct tw_error *(*each)(uint64_t offset, uint64_t bytes, void *arg), void *arg)
{
	struct tw_piece piece;
	uint64_t from, to, first, end;
	if (tw_segments_count_pieces(segments, disk, bytes) <= most) {
		struct tw_pieces pieces = tw_pieces(segments, disk, bytes);
		while (tw_pieces_next(&pieces, &piece))
			TW_TRY(each(piece.offset, piece.bytes, arg));
		return NULL;
	}
	for (size_t i = tw_segments_find(segments, disk); i < segments->nstarts; i++) {
		const struct tw_area *area = &segments->areas[i];
		const struct tw_segment *segment = &segments->list[area->segment];
		if (!in_area(area, disk, bytes, &from, &to))
			break;
		rows_of(segment, area, from, to, &first, &end);
		uint64_t row = segment->nstripes * segment->stripe_bytes;
		TW_TRY(each(segment->offset + first * row, (end - first) * row, arg));
	}
	return NULL;
}

/* --- state --- */

void tw_segments_save(const struct tw_segments *segments, struct tw_buf *out)
{
	tw_pack64(out, segments->n);
	for (size_t i = 0; i < segments->n; i++) {
		const struct tw_segment *segment = &segments->list[i];
		tw_pack64(out, segment->bytes);
		tw_pack64(out, segment->stripe_bytes);
		tw_pack32(out, segment->nstripes);
		for (uint32_t k = 0; k < segment->nstripes; k++)
			tw_pack64(out, segments->starts[segment->first + k]);
	}
}

static struct tw_error *load_segment(struct tw_segments *segments, struct tw_unpack *in)
{
	uint64_t bytes = tw_unpack64(in), stripe_bytes = tw_unpack64(in);
	uint32_t nstripes = tw_unpack32(in);
	const uint8_t *raw =
		nstripes > TW_SEGMENTS_MAX_AREAS ? NULL : tw_unpack_raw(in, nstripes * 8ul);
	if (!raw)
		return tw_error_create(TW_BAD_DATA, "the saved state is damaged");
	uint64_t *starts = calloc(nstripes + 1ul, sizeof(*starts));
	if (!starts)
		return tw_error_nomem();
	for (uint32_t i = 0; i < nstripes; i++)
		starts[i] = tw_le64(tw_span(raw, nstripes * 8ul), i * 8ul);
	struct tw_error *err = tw_segments_add(segments, bytes, nstripes, stripe_bytes, starts);
	free(starts);
	return err;
}

struct tw_error *tw_segments_load(
	struct tw_segments *segments, struct tw_unpack *in, uint64_t disk_bytes)
{
	uint64_t n = tw_unpack64(in);
	if (n > TW_SEGMENTS_MAX_AREAS)
		return tw_error_create(TW_BAD_DATA, "the saved state is damaged");
	for (uint64_t i = 0; i < n; i++)
		TW_TRY(load_segment(segments, in));
	return tw_segments_finish(segments, disk_bytes);
}
