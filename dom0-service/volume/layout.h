/* SPDX-License-Identifier: BSD-3-Clause */
/* What is where on a disk: the places of its volumes, and the spots where a change of that shows.
 */
#ifndef TW_VOLUME_LAYOUT_H
#define TW_VOLUME_LAYOUT_H

#include "base/error.h"
#include "event/event.h"
#include "volume/segments.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A disk's volumes beyond this number are not looked at. */
#define TW_LAYOUT_MAX_PLACES 256u

struct tw_volume_place {
	struct tw_segments segments; /* none: its bytes are not where anybody could read them */
	char name[264];              /* "0": the whole disk; a partition's number; VG/LV */
	char id[72];   /* a logical volume: the group's and its own identity; else "" */
	char type[32]; /* libblkid's TYPE, "" when nothing is known of it */
	char uuid[64]; /* libblkid's UUID, "" without one */
	char why[128]; /* what it is instead of a file system, or why it cannot be followed; "" */
	bool expected; /* that is as it should be: swap space, a physical volume, an empty place */
};

struct tw_layout {
	struct tw_volume_place *places;
	size_t n, cap;
	bool more;              /* there are more than TW_LAYOUT_MAX_PLACES */
	struct tw_range *spots; /* bytes of the disk: tables, labels, headers of LVM's metadata */
	size_t nspots, capspots;
	uint8_t first[512]; /* the disk's first sector */
};

/* A place at the end of the list, zeroed; it lives until the next call. NULL without an error:
 * there are too many. */
struct tw_error *tw_layout_add(
	struct tw_layout *layout, struct tw_volume_place **out) TW_MUST_CHECK;
struct tw_error *tw_layout_add_spot(
	struct tw_layout *layout, uint64_t offset, uint64_t bytes) TW_MUST_CHECK;
void tw_layout_deinit(struct tw_layout *layout);

/* A reason for a place, printf-style, cut to what fits. */
void tw_volume_place_refuse(struct tw_volume_place *place, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* True when both are the same partition or the same logical volume, whatever lies in it. */
bool tw_volume_place_same(const struct tw_volume_place *a, const struct tw_volume_place *b);
/* True when nothing about them differs but what a file system says of itself (the uuid). */
bool tw_volume_place_equal(const struct tw_volume_place *a, const struct tw_volume_place *b);
/* *to is overwritten, not released. */
struct tw_error *tw_volume_place_copy(
	struct tw_volume_place *to, const struct tw_volume_place *from) TW_MUST_CHECK;
void tw_volume_place_deinit(struct tw_volume_place *place);

#endif
