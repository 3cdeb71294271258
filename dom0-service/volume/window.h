/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A source as a file, for libblkid, which reads files only: a file in memory of the source's size
 * that holds what was copied and zeroes elsewhere. So libblkid sees the same state of a disk as
 * those who read the source, and not the live image.
 */
#ifndef TW_VOLUME_WINDOW_H
#define TW_VOLUME_WINDOW_H

#include "volume/source.h"

struct tw_window {
	int fd;
	const struct tw_source *source;
};

#define TW_WINDOW_INIT                                                                             \
	{                                                                                          \
		-1, NULL                                                                           \
	}

/* source outlives the window. */
struct tw_error *tw_window_init(
	struct tw_window *window, const struct tw_source *source) TW_MUST_CHECK;
void tw_window_deinit(struct tw_window *window);

/* Copies a range, as far as there is one. */
struct tw_error *tw_window_copy(
	struct tw_window *window, uint64_t offset, uint64_t bytes) TW_MUST_CHECK;
/* Its first and last bytes. */
struct tw_error *tw_window_copy_ends(struct tw_window *window, uint64_t bytes) TW_MUST_CHECK;

#endif
