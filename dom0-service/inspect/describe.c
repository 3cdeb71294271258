/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk's volumes, for people. */
#include "inspect/volume.h"

#include "event/json.h"

#include <string.h>

static void describe(const struct tw_volume *volume, struct tw_json *json)
{
	const struct tw_volume_place *place = &volume->place;
	tw_json_open(json, NULL);
	tw_json_text(json, "place", place->name);
	tw_json_u64(json, "bytes", place->segments.bytes);
	tw_json_text(json, "fstype", place->type);
	tw_json_text(json, "uuid", place->uuid);
	tw_json_bool(json, "watched", volume->ops != NULL);
	if (!volume->ops)
		tw_json_text(json, "reason", volume->why ? volume->why : "");
	tw_json_close(json);
}

struct tw_error *tw_disk_describe(const struct tw_disk *disk, struct tw_buf *out)
{
	struct tw_json json;
	tw_json_begin(&json, out);
	tw_json_open_array(&json, NULL);
	for (size_t i = 0; i < disk->nvolumes; i++)
		describe(disk->volumes[i], &json);
	tw_json_close_array(&json);
	return tw_json_end(&json);
}

/* The first part of a remark, or the next place in it. */
static void add_encrypted(const struct tw_volume *volume, const char *cipher, struct tw_buf *out)
{
	const bool whole = strcmp(volume->place.name, "0") == 0;
	if (!out->len)
		tw_buf_printf(out, "encrypted (%s): not watched%s%s", cipher, whole ? "" : ": ",
			whole ? "" : volume->place.name);
	else
		tw_buf_printf(out, ", %s", volume->place.name);
}

void tw_disk_remark(const struct tw_disk *disk, struct tw_buf *out)
{
	for (size_t i = 0; i < disk->nvolumes; i++) {
		const char *cipher = disk->volumes[i]->ops ? NULL : tw_volume_cipher(disk->volumes[i]);
		if (cipher)
			add_encrypted(disk->volumes[i], cipher, out);
	}
}
