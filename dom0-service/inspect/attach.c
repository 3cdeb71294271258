/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/attach.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/hash.h"

#define UNIT_SHIFT 12
#define UNIT_BYTES (1u << UNIT_SHIFT)
/* A guest that changes its metadata all the time, and faster than the ring can hold it, is waited
 * for. */
#define PATIENT_ROUNDS 8
#define MAX_WAIT_MS 1000

/* A piece of the disk that the crawl has read. */
struct unit {
	uint64_t index;
	uint8_t data[UNIT_BYTES];
	UT_hash_handle hh;
};

struct attach {
	struct tw_ring_reader *ring;
	const struct tw_attach_ops *ops;
	const struct tw_source *image;
	struct unit *units;
	uint64_t *marks; /* of the first round: a bit for each unit that was read */
	uint64_t nmarks; /* units of the disk */
	unsigned round;
	bool fresh; /* this round read from the image */
	/* Records that were taken from the ring and not released: their payload is still there. */
	struct tw_record *held;
	size_t nheld, capheld;
	bool touched; /* a held record changed a unit */
};

static struct unit *find(const struct attach *a, uint64_t index)
{
	struct unit *unit;
	HASH_FIND(hh, a->units, &index, sizeof(index), unit);
	return unit;
}

static void forget(struct attach *a, struct unit *unit)
{
	HASH_DEL(a->units, unit);
	free(unit);
}

static struct tw_error *get(struct attach *a, uint64_t index, struct unit **out)
{
	struct unit *unit = find(a, index);
	if (!unit) {
		uint64_t at = index << UNIT_SHIFT, left = a->image->bytes - at;
		unit = malloc(sizeof(*unit));
		if (!unit)
			return tw_error_nomem();
		unit->index = index;
		a->fresh = true;
		struct tw_error *err = tw_source_read(
			a->image, at, unit->data, left < UNIT_BYTES ? left : UNIT_BYTES);
		if (err) {
			free(unit);
			return err;
		}
		HASH_ADD(hh, a->units, index, sizeof(unit->index), unit);
	}
	*out = unit;
	return NULL;
}

static struct tw_error *read_kept(void *arg, uint64_t offset, void *buf, size_t len)
{
	struct attach *a = arg;
	while (len) {
		struct unit *unit;
		size_t skip = offset & (UNIT_BYTES - 1), n = UNIT_BYTES - skip;
		n = n < len ? n : len;
		TW_TRY(get(a, offset >> UNIT_SHIFT, &unit));
		memcpy(buf, unit->data + skip, n);
		buf = (char *)buf + n;
		offset += n;
		len -= n;
	}
	return NULL;
}

/* The first round keeps nothing: of a guest that is quiet it is the last one, and it is read by all
 * processors at the same time. What it has read is marked. */
static struct tw_error *read_marked(void *arg, uint64_t offset, void *buf, size_t len)
{
	const struct attach *a = arg;
	for (uint64_t i = offset >> UNIT_SHIFT; len && i <= (offset + len - 1) >> UNIT_SHIFT; i++) {
		uint64_t bit = 1ull << (i & 63);
		if (!(__atomic_load_n(&a->marks[i >> 6], __ATOMIC_RELAXED) & bit))
			__atomic_fetch_or(&a->marks[i >> 6], bit, __ATOMIC_RELAXED);
	}
	return tw_source_read(a->image, offset, buf, len);
}

static void soon_marked(void *arg, uint64_t offset, uint64_t len)
{
	const struct attach *a = arg;
	tw_source_soon(a->image, offset, len);
}

static bool marked(const struct attach *a, uint64_t first, uint64_t last)
{
	for (uint64_t i = first; a->marks && i <= last && i < a->nmarks; i++)
		if (a->marks[i >> 6] & 1ull << (i & 63))
			return true;
	return false;
}

static struct tw_error *hold(struct attach *a, const struct tw_record *record)
{
	if (!TW_GROW(a->held, a->nheld, a->capheld))
		return tw_error_nomem();
	a->held[a->nheld++] = *record;
	return NULL;
}

static bool changes_nothing(const struct tw_record *record)
{
	return record->flags & TW_RECORD_FLUSH || !record->nsectors;
}

/* Calls each() for the units that a record covers and the crawl has read. */
static void each_unit(struct attach *a, const struct tw_record *record,
	void (*each)(struct attach *a, const struct tw_record *record, struct unit *unit))
{
	uint64_t from = record->sector << TW_SECTOR_SHIFT;
	uint64_t to = from + ((uint64_t)record->nsectors << TW_SECTOR_SHIFT);
	if (changes_nothing(record))
		return;
	uint64_t first = from >> UNIT_SHIFT, last = (to - 1) >> UNIT_SHIFT;
	a->touched |= marked(a, first, last);
	/* A huge range against few units: walk the shorter list. */
	if (last - first > HASH_COUNT(a->units)) {
		struct unit *unit, *next;
		HASH_ITER (hh, a->units, unit, next)
			if (unit->index >= first && unit->index <= last)
				each(a, record, unit);
		return;
	}
	for (uint64_t index = first; index <= last; index++) {
		struct unit *unit = find(a, index);
		if (unit)
			each(a, record, unit);
	}
}

static void check_unit(struct attach *a, const struct tw_record *record, struct unit *unit)
{
	(void)record;
	(void)unit;
	a->touched = true;
}

static void overlay_unit(struct attach *a, const struct tw_record *record, struct unit *unit)
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
	else
		forget(a, unit); /* what is there now, only the image knows */
}

struct gap {
	struct attach *a;
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
		gap->err = hold(gap->a, &record);
		sector += n;
		nsectors -= n;
	}
}

/* Takes what the ring has. */
static struct tw_error *drain(struct attach *a)
{
	struct tw_record record;
	int ret = 0;
	while (a->ring && (ret = tw_ring_next(a->ring, &record)) > 0) {
		if (!(record.flags & TW_RECORD_GAP)) {
			TW_TRY(hold(a, &record));
			continue;
		}
		struct gap gap = {a, record.sequence, record.time_ns, NULL};
		ret = tw_ring_take_gap(a->ring, hold_gap, &gap);
		TW_TRY(gap.err);
		if (ret < 0)
			break;
	}
	return ret < 0 ? tw_error_errno(ret, "the ring") : NULL;
}

/* What is held is laid over what was read, and is then part of the next round. */
static struct tw_error *absorb(struct attach *a)
{
	for (size_t i = 0; i < a->nheld; i++) {
		each_unit(a, &a->held[i], overlay_unit);
		TW_TRY(a->ops->passed(&a->held[i], a->ops->arg));
	}
	a->nheld = 0;
	TW_TRY(a->ops->keep(a->ops->arg));
	if (a->ring)
		tw_ring_release(a->ring);
	return NULL;
}

/* Whether what is held changed anything that was read, or its place in the order is not known (a
 * gap's). */
static bool any_touched(struct attach *a)
{
	a->touched = false;
	for (size_t i = 0; i < a->nheld && !a->touched; i++)
		each_unit(a, &a->held[i], check_unit);
	return a->touched;
}

static bool any_gap(const struct attach *a)
{
	for (size_t i = 0; i < a->nheld; i++)
		if (a->held[i].flags & TW_RECORD_GAP)
			return true;
	return false;
}

/* The source of a round. */
static struct tw_error *begin_round(
	struct attach *a, const struct tw_disk *disk, struct tw_source *out)
{
	a->image = tw_disk_image(disk);
	*out = (struct tw_source){.read = read_kept, .arg = a, .bytes = tw_disk_bytes(disk)};
	a->fresh = false;
	if (a->round)
		return NULL;
	a->nmarks = (out->bytes + UNIT_BYTES - 1) >> UNIT_SHIFT;
	a->marks = calloc((a->nmarks >> 6) + 1, sizeof(*a->marks));
	if (!a->marks)
		return tw_error_nomem();
	out->read = read_marked;
	out->parallel = a->image->parallel;
	out->soon = soon_marked;
	a->fresh = true;
	return NULL;
}

static void end_round(struct attach *a)
{
	free(a->marks);
	a->marks = NULL;
	a->image = NULL;
}

static struct tw_error *one_round(struct attach *a, const char *path, const char *subject,
	tw_disk_emit_fn emit, void *emit_arg, struct tw_disk **out)
{
	struct tw_disk *disk;
	TW_TRY(tw_disk_create(path, subject, emit, emit_arg, &disk));
	struct tw_source source;
	struct tw_error *err = begin_round(a, disk, &source);
	tw_disk_set_source(disk, &source);
	if (!err)
		err = tw_disk_crawl(disk, false);
	tw_disk_set_source(disk, NULL);
	if (!err)
		err = drain(a);
	/* Nothing new was read, and nothing missed: it is what was kept, as of the position where
	 * the round began. Else no record that came meanwhile may have changed what was read. */
	bool done = !err && ((!a->fresh && !any_gap(a)) || !any_touched(a));
	if (!err && !done)
		err = absorb(a);
	end_round(a);
	if (!done) {
		tw_disk_destroy(disk);
		return err;
	}
	*out = disk;
	return NULL;
}

static void wait_for_guest(const struct attach *a, const char *subject)
{
	if (a->round < PATIENT_ROUNDS)
		return;
	if (a->round == PATIENT_ROUNDS)
		tw_log(TW_LOG_WARN, subject,
			"the guest changes its metadata faster than it can be crawled: waiting");
	unsigned ms = 10u << (a->round - PATIENT_ROUNDS < 7 ? a->round - PATIENT_ROUNDS : 7);
	ms = ms < MAX_WAIT_MS ? ms : MAX_WAIT_MS;
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000l}, NULL);
}

static struct tw_error *rounds(struct attach *a, const char *path, const char *subject,
	tw_disk_emit_fn emit, void *emit_arg)
{
	struct tw_disk *disk = NULL;
	/* What is in the ring now is in the image already. */
	TW_TRY(drain(a));
	TW_TRY(absorb(a));
	for (a->round = 0; !disk; a->round++) {
		wait_for_guest(a, subject);
		TW_TRY(one_round(a, path, subject, emit, emit_arg, &disk));
	}
	tw_log(TW_LOG_DEBUG, subject, "crawled in %u rounds", a->round);
	TW_TRY(a->ops->crawled(disk, a->ops->arg));
	for (size_t i = 0; i < a->nheld; i++)
		TW_TRY(a->ops->follows(&a->held[i], a->ops->arg));
	return NULL;
}

struct tw_error *tw_attach(const char *image, const char *subject, struct tw_ring_reader *ring,
	tw_disk_emit_fn emit, void *emit_arg, const struct tw_attach_ops *ops)
{
	struct attach a = {.ring = ring, .ops = ops};
	struct tw_error *err = rounds(&a, image, subject, emit, emit_arg);
	struct unit *unit, *next;
	HASH_ITER (hh, a.units, unit, next)
		forget(&a, unit);
	free(a.held);
	return err;
}
