/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/interest.h"

#include "inspect/volume.h"

#include <stdlib.h>

/* Of a block of the ring's maps. */
#define UNIT_BYTES (1u << TW_RING_DIRTY_SHIFT)

struct known {
	const void *fs; /* which the rest is of */
	bool all;       /* it wanted all content */
};

struct tw_interest {
	bool built; /* the map holds what the volumes want */
	struct known *known;
	size_t nknown;
};

struct tw_error *tw_interest_create(struct tw_interest **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? NULL : tw_error_nomem();
}

void tw_interest_destroy(struct tw_interest *interest)
{
	if (!interest)
		return;
	free(interest->known);
	free(interest);
}

void tw_interest_reset(struct tw_interest *interest, struct tw_ring_reader *ring)
{
	interest->built = false;
	tw_ring_interest(ring, false);
}

/* --- a volume's ranges, on the disk --- */

struct mark {
	struct tw_ring_reader *ring;
	bool wanted;
};

static void mark_piece(uint64_t at, uint64_t bytes, void *arg)
{
	const struct mark *mark = arg;
	tw_ring_want(mark->ring, at >> TW_SECTOR_SHIFT, bytes >> TW_SECTOR_SHIFT, mark->wanted);
}

static void mark_range(struct tw_ring_reader *ring, const struct tw_volume *volume, uint64_t offset,
	uint64_t bytes, bool wanted)
{
	struct mark mark = {ring, wanted};
	tw_segments_each(&volume->place.segments, offset, bytes, mark_piece, &mark);
}

static uint64_t volume_bytes(const struct tw_volume *volume)
{
	return volume->place.segments.bytes;
}

static struct tw_owners *owners_of(const struct tw_volume *volume)
{
	return tw_view_owners(volume->ops->view(volume->fs));
}

static bool is_content(enum tw_owner_kind kind)
{
	return kind == TW_OWNER_DATA || kind == TW_OWNER_UNWRITTEN;
}

/* The rest of the volume is not wanted. The guest goes on meanwhile: a bit of what is wanted must
 * never be cleared, not even for a moment. */
static void mark_metadata(struct tw_ring_reader *ring, const struct tw_volume *volume)
{
	const struct tw_owners *owners = owners_of(volume);
	const uint32_t bits = tw_view_blockbits(volume->ops->view(volume->fs));
	/* What describes the file system is in the first unit, and no inode has it. */
	uint64_t done = volume_bytes(volume) < UNIT_BYTES ? volume_bytes(volume) : UNIT_BYTES;
	struct tw_owner owner;
	mark_range(ring, volume, 0, done, true);
	for (uint64_t at = 0; tw_owners_find(owners, at, UINT64_MAX, &owner);
		at = owner.block + owner.count) {
		const uint64_t from = owner.block << bits;
		const uint64_t to = (owner.block + owner.count) << bits;
		if (is_content(owner.kind))
			continue;
		if (from > done)
			mark_range(ring, volume, done, from - done, false);
		mark_range(ring, volume, from, to - from, true);
		done = to > done ? to : done;
	}
	if (volume_bytes(volume) > done)
		mark_range(ring, volume, done, volume_bytes(volume) - done, false);
}

static struct tw_error *rebuild(
	struct tw_ring_reader *ring, const struct tw_volume *volume, bool all)
{
	TW_TRY(tw_owners_take_notes(owners_of(volume)));
	if (all)
		mark_range(ring, volume, 0, volume_bytes(volume), true);
	else
		mark_metadata(ring, volume);
	return NULL;
}

/* --- what has changed --- */

struct units {
	struct tw_ring_reader *ring;
	const struct tw_disk *disk;
};

/* Asks for each unit of the disk, as something else may be in it, too. */
static void ask_piece(uint64_t at, uint64_t bytes, void *arg)
{
	const struct units *units = arg;
	const uint64_t end = at + bytes;
	for (at &= ~(uint64_t)(UNIT_BYTES - 1); at < end; at += UNIT_BYTES) {
		const struct tw_record unit = {
			.sector = at >> TW_SECTOR_SHIFT, .nsectors = UNIT_BYTES >> TW_SECTOR_SHIFT};
		tw_ring_want(
			units->ring, unit.sector, unit.nsectors, tw_disk_wants(units->disk, &unit));
	}
}

static struct tw_error *follow_notes(
	struct tw_ring_reader *ring, const struct tw_disk *disk, const struct tw_volume *volume)
{
	const uint32_t bits = tw_view_blockbits(volume->ops->view(volume->fs));
	struct units units = {ring, disk};
	uint64_t block, count;
	int ret;
	while ((ret = tw_owners_next_note(owners_of(volume), &block, &count)) > 0)
		tw_segments_each(
			&volume->place.segments, block << bits, count << bits, ask_piece, &units);
	return ret < 0 ? rebuild(ring, volume, false) : NULL;
}

static struct tw_error *update_volume(struct tw_interest *interest, struct tw_ring_reader *ring,
	const struct tw_disk *disk, size_t i)
{
	const struct tw_volume *volume = disk->volumes[i];
	struct known *known = &interest->known[i];
	if (!volume->ops)
		return NULL;
	const bool all = volume->ops->wants_all(volume->fs) ||
			 (disk->content && tw_disk_content_keeps(disk->content));
	const bool same = interest->built && known->fs == volume->fs && known->all == all;
	*known = (struct known){volume->fs, all};
	if (!same)
		return rebuild(ring, volume, all);
	return all ? NULL : follow_notes(ring, disk, volume);
}

static struct tw_error *begin(
	struct tw_interest *interest, struct tw_ring_reader *ring, const struct tw_disk *disk)
{
	tw_ring_interest(ring, false);
	if (interest->nknown < disk->nvolumes) {
		struct known *known =
			realloc(interest->known, disk->nvolumes * sizeof(*interest->known));
		if (!known)
			return tw_error_nomem();
		interest->known = known;
		interest->nknown = disk->nvolumes;
	}
	/* Where no volume is, ranges tell enough; but for the first sector, see layout.c. */
	tw_ring_want(ring, 0, disk->bytes >> TW_SECTOR_SHIFT, false);
	tw_ring_want(ring, 0, 1, true);
	return NULL;
}

struct tw_error *tw_interest_update(
	struct tw_interest *interest, struct tw_ring_reader *ring, struct tw_disk *disk)
{
	if (!tw_ring_has_interest(ring))
		return NULL;
	if (!interest->built)
		TW_TRY(begin(interest, ring, disk));
	for (size_t i = 0; i < disk->nvolumes; i++)
		TW_TRY(update_volume(interest, ring, disk, i));
	if (interest->built)
		return NULL;
	interest->built = true;
	tw_ring_interest(ring, true);
	return NULL;
}
