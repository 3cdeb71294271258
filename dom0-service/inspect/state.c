/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk's state as bytes: the volumes' places and what their modules save. */
#include "inspect/volume.h"

#include "base/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE_VERSION 3u

static struct tw_error *save_volume(struct tw_volume *volume, struct tw_buf *out)
{
	const struct tw_volume_place *place = &volume->place;
	tw_segments_save(&place->segments, out);
	tw_pack_bytes(out, place->name, strlen(place->name));
	tw_pack_bytes(out, place->id, strlen(place->id));
	tw_pack_bytes(out, place->type, strlen(place->type));
	tw_pack_bytes(out, place->uuid, strlen(place->uuid));
	tw_pack_bytes(out, place->why, strlen(place->why));
	tw_pack32(out, place->expected);
	tw_pack32(out, volume->ops != NULL);
	if (!volume->ops) {
		tw_pack_bytes(out, volume->why, volume->why ? strlen(volume->why) : 0);
		return NULL;
	}
	/* The module's bytes come with their length before them, which is known afterwards. */
	size_t at = out->len;
	tw_pack64(out, 0);
	TW_TRY(volume->ops->save(volume->fs, out));
	if (out->failed)
		return tw_error_nomem();
	uint64_t len = htole64(out->len - at - sizeof(len));
	memcpy(out->data + at, &len, sizeof(len));
	return NULL;
}

struct tw_error *tw_disk_save(struct tw_disk *disk, struct tw_buf *out)
{
	tw_pack32(out, STATE_VERSION);
	tw_pack64(out, disk->bytes);
	tw_pack64(out, disk->sequence);
	tw_pack64(out, disk->last_ns);
	tw_pack64(out, disk->told);
	tw_pack64(out, disk->nvolumes);
	for (size_t i = 0; i < disk->nvolumes; i++)
		TW_TRY(save_volume(disk->volumes[i], out));
	tw_disk_save_digests(disk, out);
	return out->failed ? tw_error_nomem() : NULL;
}

static void unpack_text(struct tw_unpack *in, char *out, size_t size)
{
	struct tw_span text = tw_unpack_bytes(in);
	snprintf(out, size, "%.*s", text.len > 1023 ? 1023 : (int)text.len,
		text.data ? (const char *)text.data : "");
}

static struct tw_error *load_place(
	struct tw_disk *disk, struct tw_unpack *in, struct tw_volume_place *place)
{
	TW_TRY(tw_segments_load(&place->segments, in, disk->loaded_bytes));
	unpack_text(in, place->name, sizeof(place->name));
	unpack_text(in, place->id, sizeof(place->id));
	unpack_text(in, place->type, sizeof(place->type));
	unpack_text(in, place->uuid, sizeof(place->uuid));
	unpack_text(in, place->why, sizeof(place->why));
	place->expected = tw_unpack32(in);
	return NULL;
}

static struct tw_error *load_volume(struct tw_disk *disk, struct tw_unpack *in)
{
	struct tw_volume_place place = {0};
	struct tw_volume *volume;
	struct tw_error *err = load_place(disk, in, &place);
	if (!err)
		err = tw_volume_add(disk, &place, &volume);
	tw_volume_place_deinit(&place);
	TW_TRY(err);
	bool watched = tw_unpack32(in);
	struct tw_span state = tw_unpack_bytes(in);
	if (!watched) {
		volume->why = strndup(state.data ? (const char *)state.data : "", state.len);
		return volume->why ? NULL : tw_error_nomem();
	}
	const struct tw_fs_ops *ops = tw_fs_find(volume->place.type);
	if (!ops || in->failed)
		return tw_error_create(TW_BAD_DATA, "the saved state is damaged");
	struct tw_fs_env env = tw_volume_env(volume);
	TW_TRY(tw_error_context(ops->load(&env, state, &volume->fs), "%s", volume->subject));
	volume->ops = ops;
	return NULL;
}

struct tw_error *tw_disk_load(struct tw_disk *disk, struct tw_span state)
{
	struct tw_unpack in = {.span = state};
	uint32_t version = tw_unpack32(&in);
	uint64_t bytes = tw_unpack64(&in);
	uint64_t sequence = tw_unpack64(&in), last_ns = tw_unpack64(&in);
	uint64_t told = tw_unpack64(&in), n = tw_unpack64(&in);
	if (version != STATE_VERSION || n > 256)
		return tw_error_create(TW_BAD_DATA, "the saved state is of another version");
	disk->loaded_bytes = bytes;
	disk->map_written = true; /* it may have been, just before the end */
	disk->sequence = sequence;
	disk->last_ns = last_ns;
	disk->told = told;
	for (uint64_t i = 0; i < n; i++)
		TW_TRY(load_volume(disk, &in));
	if (!in.failed)
		TW_TRY(tw_disk_load_digests(disk, &in));
	return in.failed ? tw_error_create(TW_BAD_DATA, "the saved state is cut off") : NULL;
}
