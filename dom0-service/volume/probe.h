/* SPDX-License-Identifier: BSD-3-Clause */
/* Finds the volumes of a disk: partition tables and file system types, by libblkid. */
#ifndef TW_VOLUME_PROBE_H
#define TW_VOLUME_PROBE_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

struct tw_volume_place {
	uint64_t offset; /* bytes */
	uint64_t bytes;
	unsigned partition; /* its number, 0: the whole disk */
	char type[32];      /* libblkid's TYPE, "" when nothing is known of it */
	char uuid[64];      /* libblkid's UUID, "" without one */
};

/* What is on the disk, in the order of the partition table; the caller frees *out. A disk without a
 * table is one volume. fd: of an image or device, read only. */
struct tw_error *tw_probe(
	int fd, uint64_t bytes, struct tw_volume_place **out, size_t *n) TW_MUST_CHECK;

#endif
