/* SPDX-License-Identifier: BSD-3-Clause */
#include "content/recent.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define SECTOR 512u
#define UNIT_SHIFT 12
#define UNIT (1u << UNIT_SHIFT)
#define ALL 0xffu /* sectors of a unit, a bit each */

struct unit {
	uint64_t number; /* of the disk's units */
	uint8_t valid;   /* sectors that are known */
	struct unit *prev, *next; /* the one that was touched longest ago first */
	UT_hash_handle hh;
	uint8_t data[UNIT];
};

struct tw_recent {
	struct unit *table;
	struct unit *list;
	uint64_t max_units;
};

struct tw_error *tw_recent_create(uint64_t max_bytes, struct tw_recent **out)
{
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return tw_error_nomem();
	(*out)->max_units = max_bytes >> UNIT_SHIFT;
	return NULL;
}

static struct unit *find(const struct tw_recent *recent, uint64_t number)
{
	struct unit *unit;
	HASH_FIND(hh, recent->table, &number, sizeof(number), unit);
	return unit;
}

static void forget(struct tw_recent *recent, struct unit *unit)
{
	HASH_DEL(recent->table, unit);
	DL_DELETE(recent->list, unit);
	free(unit);
}

void tw_recent_clear(struct tw_recent *recent)
{
	while (recent->list)
		forget(recent, recent->list);
}

void tw_recent_destroy(struct tw_recent *recent)
{
	if (!recent)
		return;
	tw_recent_clear(recent);
	free(recent);
}

static struct unit *get(struct tw_recent *recent, uint64_t number)
{
	struct unit *unit = find(recent, number);
	if (unit) {
		DL_DELETE(recent->list, unit);
		DL_APPEND(recent->list, unit);
		return unit;
	}
	if (HASH_COUNT(recent->table) >= recent->max_units && recent->list)
		forget(recent, recent->list);
	unit = malloc(sizeof(*unit));
	if (!unit)
		return NULL;
	unit->number = number;
	unit->valid = 0;
	HASH_ADD(hh, recent->table, number, sizeof(unit->number), unit);
	DL_APPEND(recent->list, unit);
	return unit;
}

/* The part of a range that is in the unit of its first byte. */
static size_t part_of(uint64_t offset, uint64_t len)
{
	uint64_t left = UNIT - (offset & (UNIT - 1));
	return (size_t)(len < left ? len : left);
}

static uint8_t mask_of(uint64_t offset, size_t len)
{
	unsigned first = (unsigned)(offset & (UNIT - 1)) / SECTOR;
	return (uint8_t)(ALL >> (UNIT / SECTOR - len / SECTOR) << first);
}

struct tw_error *tw_recent_put(
	struct tw_recent *recent, uint64_t offset, const void *data, size_t len)
{
	const uint8_t *at = data;
	while (len) {
		size_t n = part_of(offset, len);
		struct unit *unit = get(recent, offset >> UNIT_SHIFT);
		if (!unit)
			return tw_error_nomem();
		memcpy(unit->data + (offset & (UNIT - 1)), at, n);
		unit->valid |= mask_of(offset, n);
		offset += n;
		at += n;
		len -= n;
	}
	return NULL;
}

/* Of a range of many units, those that are kept are fewer. */
static void drop_all_in(struct tw_recent *recent, uint64_t first, uint64_t end)
{
	struct unit *unit, *next;
	HASH_ITER (hh, recent->table, unit, next)
		if (unit->number >= first && unit->number < end)
			forget(recent, unit);
}

void tw_recent_drop(struct tw_recent *recent, uint64_t offset, uint64_t len)
{
	if (len >> UNIT_SHIFT > HASH_COUNT(recent->table)) {
		drop_all_in(recent, offset >> UNIT_SHIFT, ((offset + len - 1) >> UNIT_SHIFT) + 1);
		return;
	}
	while (len) {
		size_t n = part_of(offset, len);
		struct unit *unit = find(recent, offset >> UNIT_SHIFT);
		if (unit)
			unit->valid &= (uint8_t)~mask_of(offset, n);
		if (unit && !unit->valid)
			forget(recent, unit);
		offset += n;
		len -= n;
	}
}

size_t tw_recent_get(
	struct tw_recent *recent, uint64_t offset, void *data, size_t len, size_t *missing)
{
	uint8_t *to = data;
	size_t done = 0;
	*missing = 0;
	while (done < len && !*missing) {
		const struct unit *unit = find(recent, offset >> UNIT_SHIFT);
		for (size_t end = done + part_of(offset, len - done); done < end; offset += SECTOR) {
			if (!unit || !(unit->valid & mask_of(offset, SECTOR))) {
				*missing = SECTOR;
				break;
			}
			memcpy(to + done, unit->data + (offset & (UNIT - 1)), SECTOR);
			done += SECTOR;
		}
	}
	if (done)
		return done;
	/* How far it is to the next that is kept. */
	for (offset += *missing; *missing < len; offset += SECTOR, *missing += SECTOR) {
		const struct unit *unit = find(recent, offset >> UNIT_SHIFT);
		if (unit && unit->valid & mask_of(offset, SECTOR))
			break;
	}
	return 0;
}
