/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/kept.h"

#include "base/hash.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define UNIT_SHIFT 12
#define UNIT_BYTES (1u << UNIT_SHIFT)

/* Of a mirror: so many bytes of records may come while something is read. */
#define MAX_COPIED_BYTES (512u << 20)
/* The smallest ring holds twice as much. */
#define ROOM_BYTES (TW_RING_MIN_BYTES / 2)

/* A piece of the disk that was read, or (of a mirror) written. */
struct tw_kept_unit {
	uint64_t index;
	bool read;
	uint8_t data[UNIT_BYTES];
	UT_hash_handle hh;
};

struct tw_kept_copy {
	struct tw_kept_copy *next;
	uint8_t data[];
};

static struct tw_kept_unit *find(const struct tw_kept *k, uint64_t index)
{
	struct tw_kept_unit *unit;
	HASH_FIND(hh, k->units, &index, sizeof(index), unit);
	return unit;
}

static void forget(struct tw_kept *k, struct tw_kept_unit *unit)
{
	k->unread -= !unit->read;
	HASH_DEL(k->units, unit);
	free(unit);
}

static struct tw_error *read_image(const struct tw_kept *k, uint64_t index, uint8_t *data)
{
	uint64_t at = index << UNIT_SHIFT, left = k->image->bytes - at;
	return tw_source_read(k->image, at, data, left < UNIT_BYTES ? left : UNIT_BYTES);
}

/* from_image: else its content is undefined. */
static struct tw_error *add(
	struct tw_kept *k, uint64_t index, bool from_image, struct tw_kept_unit **out)
{
	struct tw_kept_unit *unit = malloc(sizeof(*unit));
	if (!unit)
		return tw_error_nomem();
	unit->index = index;
	unit->read = false;
	struct tw_error *err = from_image ? read_image(k, index, unit->data) : NULL;
	if (err) {
		free(unit);
		return err;
	}
	HASH_ADD(hh, k->units, index, sizeof(unit->index), unit);
	k->unread++;
	*out = unit;
	return NULL;
}

static struct tw_error *get(struct tw_kept *k, uint64_t index, struct tw_kept_unit **out)
{
	*out = find(k, index);
	if (!*out) {
		k->fresh = true;
		TW_TRY(add(k, index, true, out));
	}
	k->unread -= !(*out)->read;
	(*out)->read = true;
	return NULL;
}

static struct tw_error *make_room(struct tw_kept *k);

struct tw_error *tw_kept_read(void *arg, uint64_t offset, void *buf, size_t len)
{
	struct tw_kept *k = arg;
	while (len) {
		struct tw_kept_unit *unit;
		size_t skip = offset & (UNIT_BYTES - 1), n = UNIT_BYTES - skip;
		n = n < len ? n : len;
		if (k->ahead)
			TW_TRY(make_room(k));
		TW_TRY(get(k, offset >> UNIT_SHIFT, &unit));
		memcpy(buf, unit->data + skip, n);
		buf = (char *)buf + n;
		offset += n;
		len -= n;
	}
	return NULL;
}

struct tw_error *tw_kept_read_marked(void *arg, uint64_t offset, void *buf, size_t len)
{
	const struct tw_kept *k = arg;
	for (uint64_t i = offset >> UNIT_SHIFT; len && i <= (offset + len - 1) >> UNIT_SHIFT; i++) {
		uint64_t bit = 1ull << (i & 63);
		if (!(__atomic_load_n(&k->marks[i >> 6], __ATOMIC_RELAXED) & bit))
			__atomic_fetch_or(&k->marks[i >> 6], bit, __ATOMIC_RELAXED);
	}
	return tw_source_read(k->image, offset, buf, len);
}

struct tw_error *tw_kept_begin_marks(struct tw_kept *k, uint64_t bytes)
{
	k->nmarks = (bytes + UNIT_BYTES - 1) >> UNIT_SHIFT;
	k->marks = calloc((k->nmarks >> 6) + 1, sizeof(*k->marks));
	return k->marks ? NULL : tw_error_nomem();
}

void tw_kept_end_marks(struct tw_kept *k)
{
	free(k->marks);
	k->marks = NULL;
}

static bool marked(const struct tw_kept *k, uint64_t first, uint64_t last)
{
	for (uint64_t i = first; k->marks && i <= last && i < k->nmarks; i++)
		if (k->marks[i >> 6] & 1ull << (i & 63))
			return true;
	return false;
}

static struct tw_error *hold(struct tw_kept *k, const struct tw_record *record)
{
	struct tw_held *held = &k->held;
	if (!TW_GROW(held->records, held->n, held->cap))
		return tw_error_nomem();
	held->records[held->n++] = *record;
	return NULL;
}

static bool changes_nothing(const struct tw_record *record)
{
	return record->flags & TW_RECORD_FLUSH || !record->nsectors;
}

/* Calls each() for the units that a record covers and that were read. */
static void each_unit(struct tw_kept *k, const struct tw_record *record,
	void (*each)(struct tw_kept *k, const struct tw_record *record, struct tw_kept_unit *unit))
{
	uint64_t from = record->sector << TW_SECTOR_SHIFT;
	uint64_t to = from + ((uint64_t)record->nsectors << TW_SECTOR_SHIFT);
	if (changes_nothing(record))
		return;
	uint64_t first = from >> UNIT_SHIFT, last = (to - 1) >> UNIT_SHIFT;
	k->touched |= marked(k, first, last);
	/* A huge range against few units: walk the shorter list. */
	if (last - first > HASH_COUNT(k->units)) {
		struct tw_kept_unit *unit, *next;
		HASH_ITER (hh, k->units, unit, next)
			if (unit->index >= first && unit->index <= last)
				each(k, record, unit);
		return;
	}
	for (uint64_t index = first; index <= last; index++) {
		struct tw_kept_unit *unit = find(k, index);
		if (unit)
			each(k, record, unit);
	}
}

static void check_unit(struct tw_kept *k, const struct tw_record *record, struct tw_kept_unit *unit)
{
	(void)record;
	k->touched |= unit->read;
}

static void overlay_unit(struct tw_kept *k, const struct tw_record *record, struct tw_kept_unit *unit)
{
	uint64_t from = record->sector << TW_SECTOR_SHIFT;
	uint64_t to = from + ((uint64_t)record->nsectors << TW_SECTOR_SHIFT);
	uint64_t at = unit->index << UNIT_SHIFT, end = at + UNIT_BYTES;
	uint64_t first = from > at ? from : at, last = to < end ? to : end;
	if (record->payload)
		memcpy(unit->data + (first - at), (const uint8_t *)record->payload + (first - from),
			last - first);
	else if (record->flags & TW_RECORD_ZEROES)
		memset(unit->data + (first - at), 0, last - first);
	else if (!k->ahead)
		forget(k, unit); /* what is there now, only the image knows */
}

struct gap {
	struct tw_kept *k;
	uint64_t sequence, time_ns;
	struct tw_error *err;
};

static void hold_gap(uint64_t sector, uint64_t nsectors, void *arg)
{
	struct gap *gap = arg;
	while (nsectors && !gap->err) {
		uint32_t n = nsectors < (1u << 30) ? (uint32_t)nsectors : 1u << 30;
		struct tw_record record = {
			gap->sequence, gap->time_ns, sector, n, TW_RECORD_GAP, NULL};
		gap->err = hold(gap->k, &record);
		sector += n;
		nsectors -= n;
	}
}

struct tw_error *tw_kept_drain(struct tw_kept *k)
{
	struct tw_record record;
	int ret = 0;
	while (k->ring && (ret = tw_ring_next(k->ring, &record)) > 0) {
		if (!(record.flags & TW_RECORD_GAP)) {
			TW_TRY(hold(k, &record));
			continue;
		}
		if (k->ahead) {
			k->lost = true; /* what was missed may be on its way to the image */
			return NULL;
		}
		struct gap gap = {k, record.sequence, record.time_ns, NULL};
		ret = tw_ring_take_gap(k->ring, hold_gap, &gap);
		TW_TRY(gap.err);
		if (ret < 0)
			break;
	}
	return ret < 0 ? tw_error_errno(ret, "the ring") : NULL;
}

/* --- a mirror --- */

static void forget_held(struct tw_kept *k)
{
	k->held.n = k->copied = k->copied_bytes = 0;
	while (k->copies) {
		struct tw_kept_copy *next = k->copies->next;
		free(k->copies);
		k->copies = next;
	}
}

static struct tw_error *copy_payload(struct tw_kept *k, struct tw_record *record)
{
	const size_t bytes = record->payload ? (size_t)record->nsectors << TW_SECTOR_SHIFT : 0;
	if (!bytes)
		return NULL;
	struct tw_kept_copy *copy = malloc(sizeof(*copy) + bytes);
	if (!copy)
		return tw_error_nomem();
	memcpy(copy->data, record->payload, bytes);
	record->payload = copy->data;
	copy->next = k->copies;
	k->copies = copy;
	k->copied_bytes += bytes;
	return NULL;
}

/* While the disk of a mirror is read the ring must not run over: what is in it is copied out. Nothing of it
 * has to be durable before the crawl is: should this process die, a new session is needed anyway. */
static struct tw_error *make_room(struct tw_kept *k)
{
	if (k->lost || tw_ring_reader_backlog(k->ring) < ROOM_BYTES)
		return NULL;
	TW_TRY(tw_kept_drain(k));
	for (; k->copied < k->held.n; k->copied++)
		TW_TRY(copy_payload(k, &k->held.records[k->copied]));
	k->lost |= k->copied_bytes > MAX_COPIED_BYTES;
	tw_ring_release(k->ring);
	return NULL;
}

/* What has reached the image is read from there, should it be read at all. */
static struct tw_error *give_up_settled(struct tw_kept *k)
{
	uint8_t now[UNIT_BYTES];
	struct tw_kept_unit *unit, *next;
	HASH_ITER (hh, k->units, unit, next) {
		if (unit->read)
			continue;
		memcpy(now, unit->data, sizeof(now)); /* the disk may end within it */
		TW_TRY(read_image(k, unit->index, now));
		if (memcmp(now, unit->data, sizeof(now)) == 0)
			forget(k, unit);
	}
	k->lost |= k->unread > (k->keep_bytes >> UNIT_SHIFT) / 2;
	return NULL;
}

/* A record's blocks are kept whether or not they were read: the image may have them only after they are.
 * What of a block no record of this session has written had reached the image before it began. */
static struct tw_error *make_units(struct tw_kept *k, const struct tw_record *record)
{
	const bool known = record->payload || record->flags & TW_RECORD_ZEROES;
	const uint64_t from = record->sector << TW_SECTOR_SHIFT;
	const uint64_t to = from + ((uint64_t)record->nsectors << TW_SECTOR_SHIFT);
	if (changes_nothing(record) || record->flags & TW_RECORD_DISCARD)
		return NULL;
	if (!known)
		k->lost = true;
	/* Not in the middle of a record: a piece that is not laid over yet is what the image has. */
	if (k->unread > k->keep_bytes >> UNIT_SHIFT)
		TW_TRY(give_up_settled(k));
	for (uint64_t at = from & ~(uint64_t)(UNIT_BYTES - 1); at < to && !k->lost;
		at += UNIT_BYTES) {
		struct tw_kept_unit *unit;
		const bool whole = at >= from && at + UNIT_BYTES <= to;
		if (!find(k, at >> UNIT_SHIFT))
			TW_TRY(add(k, at >> UNIT_SHIFT, !whole, &unit));
	}
	return NULL;
}

/* --- */

struct tw_error *tw_kept_absorb(struct tw_kept *k, const struct tw_kept_ops *ops)
{
	for (size_t i = 0; i < k->held.n && !k->lost; i++) {
		if (k->ahead)
			TW_TRY(make_units(k, &k->held.records[i]));
		each_unit(k, &k->held.records[i], overlay_unit);
		TW_TRY(ops->passed(&k->held.records[i], ops->arg));
	}
	forget_held(k);
	TW_TRY(ops->keep(ops->arg));
	if (k->ring)
		tw_ring_release(k->ring);
	return NULL;
}

bool tw_kept_touched(struct tw_kept *k)
{
	k->touched = false;
	for (size_t i = 0; i < k->held.n && !k->touched; i++)
		each_unit(k, &k->held.records[i], check_unit);
	return k->touched;
}

bool tw_kept_gap(const struct tw_kept *k)
{
	for (size_t i = 0; i < k->held.n; i++)
		if (k->held.records[i].flags & TW_RECORD_GAP)
			return true;
	return false;
}

void tw_kept_deinit(struct tw_kept *k)
{
	struct tw_kept_unit *unit, *next;
	HASH_ITER (hh, k->units, unit, next)
		forget(k, unit);
	forget_held(k);
	free(k->held.records);
	tw_kept_end_marks(k);
}
