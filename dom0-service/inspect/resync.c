/* SPDX-License-Identifier: BSD-3-Clause */
/* From a disk's state to a newer crawl of the same disk. */
#include "inspect/volume.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define NONE SIZE_MAX

/* Which volume of the newer disk a volume is, by its place; one that has moved, by its file
 * system's identity. to: an element for each of the old disk; NONE: it is gone. */
struct match {
	size_t *to;
	bool *taken; /* of the newer disk */
};

static void match_places(const struct tw_disk *disk, const struct tw_disk *newer, struct match *m)
{
	for (size_t i = 0; i < disk->nvolumes; i++) {
		m->to[i] = NONE;
		for (size_t k = 0; k < newer->nvolumes && m->to[i] == NONE; k++)
			if (!m->taken[k] && tw_volume_place_same(&disk->volumes[i]->place,
						    &newer->volumes[k]->place))
				m->to[i] = k;
		if (m->to[i] != NONE)
			m->taken[m->to[i]] = true;
	}
}

static void match_moved(const struct tw_disk *disk, const struct tw_disk *newer, struct match *m)
{
	for (size_t i = 0; i < disk->nvolumes; i++) {
		const struct tw_volume *old = disk->volumes[i];
		for (size_t k = 0; old->ops && k < newer->nvolumes && m->to[i] == NONE; k++)
			if (!m->taken[k] && newer->volumes[k]->ops == old->ops &&
				!strcmp(newer->volumes[k]->place.uuid, old->place.uuid))
				m->to[i] = k;
		if (m->to[i] != NONE)
			m->taken[m->to[i]] = true;
	}
}

static void match_deinit(struct match *m)
{
	free(m->to);
	free(m->taken);
}

static struct tw_error *match_init(
	const struct tw_disk *disk, const struct tw_disk *newer, struct match *m)
{
	m->to = calloc(disk->nvolumes + 1, sizeof(*m->to));
	m->taken = calloc(newer->nvolumes + 1, sizeof(*m->taken));
	if (!m->to || !m->taken) {
		match_deinit(m);
		return tw_error_nomem();
	}
	match_places(disk, newer, m);
	match_moved(disk, newer, m);
	return NULL;
}

static struct tw_error *resync_volume(struct tw_volume *old, struct tw_volume *new,
	const struct tw_missed *missed, struct tw_time now)
{
	struct tw_missed mine = {0};
	if (strcmp(old->place.uuid, new->place.uuid))
		TW_TRY(tw_disk_tell(old->disk, new, TW_EVENT_VOLUME_FORMATTED, now, NULL));
	TW_TRY(tw_volume_move(old, &new->place));
	struct tw_error *err = tw_volume_missed(new, missed, &mine);
	if (!err)
		err = old->ops->resync(old->fs, new->fs, &mine, now);
	tw_missed_clear(&mine);
	return err;
}

/* A volume that is new, or that can be followed only now. What was made in it before it was found
 * is told, too. */
static struct tw_error *adopt_volume(
	struct tw_disk *disk, size_t index, struct tw_volume *new, struct tw_time now)
{
	tw_volume_destroy(disk->volumes[index]);
	disk->volumes[index] = new;
	new->disk = disk;
	TW_TRY(tw_volume_tell_found(new, now));
	return new->ops ? new->ops->announce(new->fs, now) : NULL;
}

/* One that is not watched is told of again only when there is something to tell. */
static bool as_before(const struct tw_volume *old, const struct tw_volume *new)
{
	return old->why && new->why && !strcmp(old->why, new->why) &&
	       !strcmp(old->place.type, new->place.type) &&
	       !strcmp(old->place.name, new->place.name);
}

static struct tw_error *lose_volume(
	struct tw_disk *disk, size_t index, struct tw_volume *new, struct tw_time now)
{
	struct tw_volume *old = disk->volumes[index];
	if (old->ops)
		TW_TRY(tw_disk_tell(disk, old, TW_EVENT_VOLUME_LOST, now,
			new &&new->why ? new->why : "it is gone"));
	tw_volume_destroy(old);
	disk->volumes[index] = new;
	if (new) {
		new->disk = disk;
		return NULL;
	}
	memmove(&disk->volumes[index], &disk->volumes[index + 1],
		(disk->nvolumes - index - 1) * sizeof(struct tw_volume *));
	disk->nvolumes--;
	return NULL;
}

static struct tw_error *resync_known(struct tw_disk *disk, struct tw_disk *newer,
	const struct match *m, const struct tw_missed *missed, struct tw_time now)
{
	for (size_t i = disk->nvolumes; i-- > 0;) {
		struct tw_volume *old = disk->volumes[i];
		struct tw_volume *new = m->to[i] == NONE ? NULL : newer->volumes[m->to[i]];
		if (old->ops && new &&new->ops == old->ops) {
			TW_TRY(resync_volume(old, new, missed, now));
			continue;
		}
		if (new)
			newer->volumes[m->to[i]] = NULL;
		if (new && (new->ops || (!old->ops && !as_before(old, new))))
			TW_TRY(adopt_volume(disk, i, new, now));
		else
			TW_TRY(lose_volume(disk, i, new, now));
	}
	return NULL;
}

static struct tw_error *resync_new(
	struct tw_disk *disk, struct tw_disk *newer, const struct match *m, struct tw_time now)
{
	size_t known = disk->nvolumes;
	for (size_t i = 0; i < newer->nvolumes; i++) {
		struct tw_volume_place none = {0};
		struct tw_volume *new = newer->volumes[i], *place;
		if (m->taken[i])
			continue;
		TW_TRY(tw_volume_add(disk, &none, &place));
		newer->volumes[i] = NULL;
		TW_TRY(adopt_volume(disk, disk->nvolumes - 1, new, now));
	}
	if (disk->nvolumes > known)
		tw_log(TW_LOG_INFO, disk->subject, "%zu new volumes", disk->nvolumes - known);
	return NULL;
}

bool tw_disk_lost_volumes(const struct tw_disk *disk, const struct tw_disk *newer)
{
	struct match m;
	struct tw_error *err = match_init(disk, newer, &m);
	tw_error_destroy(err);
	if (err)
		return true;
	bool lost = false;
	for (size_t i = 0; i < disk->nvolumes; i++)
		lost |= disk->volumes[i]->ops && (m.to[i] == NONE || !newer->volumes[m.to[i]]->ops);
	match_deinit(&m);
	return lost;
}

static struct tw_error *resync(struct tw_disk *disk, struct tw_disk *newer,
	const struct tw_missed *missed, struct tw_time now)
{
	struct match m;
	TW_TRY(match_init(disk, newer, &m));
	struct tw_error *err = resync_known(disk, newer, &m, missed, now);
	if (!err)
		err = resync_new(disk, newer, &m, now);
	match_deinit(&m);
	return err;
}

struct tw_error *tw_disk_tell_resynced(
	struct tw_disk *disk, struct tw_time now, const char *reason, struct tw_summary *summary)
{
	uint64_t to_ns = (uint64_t)summary->to.sec * 1000000000 + summary->to.nsec;
	summary->from = tw_time_of(disk->last_ns);
	if (to_ns < disk->last_ns)
		summary->to = summary->from;
	else
		disk->last_ns = to_ns;
	struct tw_event event = {
		.type = TW_EVENT_DISK_RESYNCED,
		.sequence = ++disk->sequence,
		.volume = "",
		.time = now,
		.observed = now,
		.reason = reason,
		.resync = true,
		.summary = summary,
	};
	return disk->emit(&event, disk->arg);
}

struct tw_error *tw_disk_resync(struct tw_disk *disk, struct tw_disk *newer,
	struct tw_missed *missed, struct tw_time now, const char *reason)
{
	struct tw_error *err = resync(disk, newer, missed, now);
	tw_disk_take_layout(disk, &newer->layout);
	disk->read_bytes += newer->read_bytes;
	tw_disk_destroy(newer);
	TW_TRY(err);
	struct tw_summary summary = {.to = now};
	summary.bytes = tw_missed_bytes(missed);
	summary.bytes_known = !missed->unwatched;
	if (summary.bytes_known && missed->last_ns)
		summary.to = tw_time_of(missed->last_ns);
	return tw_disk_tell_resynced(disk, now, reason, &summary);
}
