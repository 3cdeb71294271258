/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/volume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tw_error *read_volume(void *arg, uint64_t offset, void *buf, size_t len)
{
	const struct tw_volume *volume = arg;
	return tw_source_read(volume->disk->source, volume->place.offset + offset, buf, len);
}

static struct tw_error *number_event(struct tw_event *event, void *arg)
{
	struct tw_volume *volume = arg;
	event->sequence = ++volume->disk->sequence;
	event->volume = volume->place.uuid;
	return volume->disk->emit(event, volume->disk->arg);
}

struct tw_fs_env tw_volume_env(struct tw_volume *volume)
{
	return (struct tw_fs_env){
		.source = {read_volume, volume, volume->place.bytes},
		.emit = number_event,
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

struct tw_error *tw_volume_open(struct tw_volume *volume)
{
	const char *type = volume->place.type;
	char why[128];
	volume->ops = tw_fs_find(type);
	if (!volume->ops && !*type)
		return refuse(volume, TW_BAD_DATA, "no known file system");
	if (!volume->ops && !strcmp(type, "jbd"))
		return refuse(volume, TW_UNSUPPORTED,
			"it is the journal of another file system (feature journal_dev)");
	if (!volume->ops) {
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

struct tw_error *tw_volume_add(
	struct tw_disk *disk, const struct tw_volume_place *place, struct tw_volume **out)
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
	if (asprintf(&volume->subject, "%s/%u", disk->subject, place->partition) < 0) {
		free(volume);
		return tw_error_nomem();
	}
	disk->volumes[disk->nvolumes++] = volume;
	*out = volume;
	return NULL;
}

void tw_volume_destroy(struct tw_volume *volume)
{
	if (!volume)
		return;
	if (volume->ops)
		volume->ops->destroy(volume->fs);
	free(volume->subject);
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
		.resync = type == TW_EVENT_DISK_RESYNCED,
	};
	return disk->emit(&event, disk->arg);
}
