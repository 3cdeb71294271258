/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/volume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tw_error *read_volume(void *arg, uint64_t offset, void *buf, size_t len)
{
	const struct tw_volume *volume = arg;
	return tw_segments_read(&volume->place.segments, volume->disk->source, offset, buf, len);
}

static void soon_volume(void *arg, uint64_t offset, uint64_t len)
{
	const struct tw_volume *volume = arg;
	tw_segments_soon(&volume->place.segments, volume->disk->source, offset, len);
}

static struct tw_error *number_event(struct tw_event *event, void *arg)
{
	struct tw_volume *volume = arg;
	event->sequence = ++volume->disk->sequence;
	event->volume = volume->place.uuid;
	if (volume->disk->content)
		TW_TRY(tw_content_attach(volume, event));
	TW_TRY(tw_digest_event(volume, event));
	return volume->disk->emit(event, volume->disk->arg);
}

static struct tw_error *take_logged(void *arg, uint64_t offset, const void *data, size_t len)
{
	return tw_content_logged(arg, offset, data, len);
}

struct tw_fs_env tw_volume_env(struct tw_volume *volume)
{
	return (struct tw_fs_env){
		.source = {.read = read_volume,
			.arg = volume,
			.bytes = volume->place.segments.bytes,
			.parallel = volume->disk->source->parallel,
			.soon = soon_volume},
		.emit = number_event,
		.logged = take_logged,
		.arg = volume,
		.subject = volume->subject,
	};
}

static struct tw_error *refuse(struct tw_volume *volume, enum tw_code code, const char *why)
{
	volume->why_code = code;
	volume->ops = NULL;
	volume->why = strdup(why);
	return volume->why ? NULL : tw_error_nomem();
}

const char *tw_volume_cipher(const struct tw_volume *volume)
{
	static const char *const ciphers[][2] = { { "crypto_LUKS", "LUKS" }, { "BitLocker", "BitLocker" } };
	for (size_t i = 0; i < sizeof(ciphers) / sizeof(ciphers[0]); i++)
		if (strcmp(volume->place.type, ciphers[i][0]) == 0)
			return ciphers[i][1];
	return NULL;
}

struct tw_error *tw_volume_open(struct tw_volume *volume)
{
	const char *type = volume->place.type;
	char why[128];
	volume->ops = tw_fs_find(type);
	if (*volume->place.why)
		return refuse(volume, *type ? TW_UNSUPPORTED : TW_BAD_DATA, volume->place.why);
	if (!volume->ops && !strcmp(type, "jbd"))
		return refuse(volume, TW_UNSUPPORTED,
			"it is the journal of another file system (feature journal_dev)");
	if (!volume->ops) {
		const char *cipher = tw_volume_cipher(volume);
		if (cipher)
			snprintf(why, sizeof(why), "it is encrypted (%s), and the key is the guest's", cipher);
		else
			snprintf(why, sizeof(why), "file system type %s is not followed", type);
		return refuse(volume, TW_UNSUPPORTED, why);
	}
	struct tw_fs_env env = tw_volume_env(volume);
	struct tw_error *err = volume->ops->open(&env, &volume->fs);
	if (!err) {
		snprintf(volume->place.uuid, sizeof(volume->place.uuid), "%s",
			volume->ops->uuid(volume->fs));
		return NULL;
	}
	if (tw_error_code(err) != TW_UNSUPPORTED && tw_error_code(err) != TW_BAD_DATA)
		return tw_error_context(err, "%s", volume->subject);
	struct tw_error *failed = refuse(volume, tw_error_code(err), tw_error_message(err));
	tw_error_destroy(err);
	return failed;
}

static void name_volume(struct tw_volume *volume)
{
	snprintf(volume->subject, sizeof(volume->subject), "%.48s/%s", volume->disk->subject,
		volume->place.name);
}

struct tw_error *tw_volume_add(
	struct tw_disk *disk, struct tw_volume_place *place, struct tw_volume **out)
{
	struct tw_volume **volumes =
		realloc(disk->volumes, (disk->nvolumes + 1) * sizeof(struct tw_volume *));
	if (!volumes)
		return tw_error_nomem();
	disk->volumes = volumes;
	struct tw_volume *volume = calloc(1, sizeof(*volume));
	if (!volume)
		return tw_error_nomem();
	volume->disk = disk;
	volume->place = *place;
	place->segments = (struct tw_segments){0};
	name_volume(volume);
	disk->volumes[disk->nvolumes++] = volume;
	*out = volume;
	return NULL;
}

struct tw_error *tw_volume_move(struct tw_volume *volume, const struct tw_volume_place *place)
{
	struct tw_volume_place copy;
	TW_TRY(tw_volume_place_copy(&copy, place));
	tw_volume_place_deinit(&volume->place);
	volume->place = copy;
	name_volume(volume);
	return NULL;
}

/* A range that lies in more stripes than this is taken for all that lies between. */
#define MAX_PIECES 4096u

static struct tw_error *add_missed(uint64_t offset, uint64_t bytes, void *arg)
{
	return tw_missed_add_range(arg, offset, bytes);
}

struct tw_error *tw_volume_missed(
	const struct tw_volume *volume, const struct tw_missed *missed, struct tw_missed *out)
{
	out->unwatched = missed->unwatched;
	out->in_use = missed->in_use;
	for (size_t i = 0; i < missed->n; i++)
		TW_TRY(tw_segments_each_range(&volume->place.segments, missed->ranges[i].offset,
			missed->ranges[i].length, MAX_PIECES, add_missed, out));
	return NULL;
}

void tw_volume_destroy(struct tw_volume *volume)
{
	if (!volume)
		return;
	if (volume->ops)
		volume->ops->destroy(volume->fs);
	tw_digests_destroy(volume->digests);
	tw_volume_place_deinit(&volume->place);
	free(volume->why);
	free(volume);
}

struct tw_error *tw_disk_tell(struct tw_disk *disk, const struct tw_volume *volume,
	enum tw_event_type type, struct tw_time now, const char *reason)
{
	struct tw_event event = {
		.type = type,
		.sequence = ++disk->sequence,
		.volume = volume ? volume->place.uuid : "",
		.time = now,
		.observed = now,
		.reason = reason,
		.place = volume ? volume->place.name : NULL,
		.fstype = volume && *volume->place.type ? volume->place.type : NULL,
	};
	return disk->emit(&event, disk->arg);
}

struct tw_error *tw_volume_tell_found(struct tw_volume *volume, struct tw_time now)
{
	char reason[256];
	snprintf(reason, sizeof(reason), "not watched: %s", volume->why ? volume->why : "");
	return tw_disk_tell(
		volume->disk, volume, TW_EVENT_VOLUME_FOUND, now, volume->ops ? NULL : reason);
}
