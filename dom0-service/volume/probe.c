/* SPDX-License-Identifier: BSD-3-Clause */
#include "volume/probe.h"

#include <blkid/blkid.h>
#include <stdio.h>
#include <stdlib.h>

static void free_probe(blkid_probe *pr)
{
	blkid_free_probe(*pr);
}

static struct tw_error *start(int fd, uint64_t offset, uint64_t bytes, blkid_probe *out)
{
	*out = blkid_new_probe();
	if (!*out)
		return tw_error_nomem();
	if (blkid_probe_set_device(*out, fd, (blkid_loff_t)offset, (blkid_loff_t)bytes))
		return tw_error_create(TW_IO, "libblkid cannot read the image");
	return NULL;
}

static void copy_value(blkid_probe pr, const char *name, char *out, size_t size)
{
	const char *value;
	if (!blkid_probe_lookup_value(pr, name, &value, NULL))
		snprintf(out, size, "%s", value);
}

static struct tw_error *identify(int fd, struct tw_volume_place *place)
{
	__attribute__((cleanup(free_probe))) blkid_probe pr = NULL;
	TW_TRY(start(fd, place->offset, place->bytes, &pr));
	blkid_probe_enable_partitions(pr, 0);
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_UUID);
	if (blkid_do_safeprobe(pr) == 0) {
		copy_value(pr, "TYPE", place->type, sizeof(place->type));
		copy_value(pr, "UUID", place->uuid, sizeof(place->uuid));
	}
	return NULL;
}

static struct tw_error *partitions(int fd, uint64_t bytes, struct tw_volume_place **out, size_t *n)
{
	__attribute__((cleanup(free_probe))) blkid_probe pr = NULL;
	TW_TRY(start(fd, 0, bytes, &pr));
	blkid_probe_enable_superblocks(pr, 0);
	blkid_probe_enable_partitions(pr, 1);
	blkid_partlist list = blkid_probe_get_partitions(pr);
	int count = list ? blkid_partlist_numof_partitions(list) : 0;
	*out = calloc((size_t)(count > 0 ? count : 0) + 1, sizeof(**out));
	if (!*out)
		return tw_error_nomem();
	for (int i = 0; i < count; i++) {
		blkid_partition part = blkid_partlist_get_partition(list, i);
		uint64_t offset = (uint64_t)blkid_partition_get_start(part) * 512;
		uint64_t size = (uint64_t)blkid_partition_get_size(part) * 512;
		if (blkid_partition_is_extended(part) || offset >= bytes)
			continue;
		(*out)[(*n)++] = (struct tw_volume_place){
			.offset = offset,
			.bytes = size < bytes - offset ? size : bytes - offset,
			.partition = (unsigned)blkid_partition_get_partno(part),
		};
	}
	return NULL;
}

struct tw_error *tw_probe(int fd, uint64_t bytes, struct tw_volume_place **out, size_t *n)
{
	*n = 0;
	*out = NULL;
	struct tw_error *err = partitions(fd, bytes, out, n);
	if (!err && !*n)
		(*out)[(*n)++] = (struct tw_volume_place){.bytes = bytes};
	for (size_t i = 0; i < *n && !err; i++)
		err = identify(fd, &(*out)[i]);
	if (err) {
		free(*out);
		*out = NULL;
		*n = 0;
	}
	return err;
}
