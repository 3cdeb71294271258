/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finds the volumes of a disk: partition tables and file system types by libblkid, logical volumes
 * by volume/lvm.h. Everything that decides is read through the source, so that it is of the same
 * instant as what else is read there.
 */
#ifndef TW_VOLUME_PROBE_H
#define TW_VOLUME_PROBE_H

#include "volume/layout.h"
#include "volume/source.h"

/* What is on the disk: in the order of the partition table, a physical volume's logical volumes
 * after all partitions. A disk without a table is one place. fd: of the image or device, only asked
 * for the name of a file system that nobody follows. Releases nothing in *out, which the caller
 * deinits, also after an error. */
struct tw_error *tw_probe(
	const struct tw_source *disk, int fd, struct tw_layout *out) TW_MUST_CHECK;

#endif
