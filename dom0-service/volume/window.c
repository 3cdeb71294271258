/* SPDX-License-Identifier: BSD-3-Clause */
#include "volume/window.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define PIECE 32768u

struct tw_error *tw_window_init(struct tw_window *window, const struct tw_source *source)
{
	window->source = source;
	window->fd = memfd_create("tapwire-window", MFD_CLOEXEC);
	if (window->fd < 0)
		return tw_error_errno(errno, "memfd_create");
	if (ftruncate(window->fd, (off_t)source->bytes) < 0)
		return tw_error_errno(
			errno, "a file in memory of %llu bytes", (unsigned long long)source->bytes);
	return NULL;
}

void tw_window_deinit(struct tw_window *window)
{
	if (window->fd >= 0)
		close(window->fd);
	window->fd = -1;
}

struct tw_error *tw_window_copy(struct tw_window *window, uint64_t offset, uint64_t bytes)
{
	uint8_t data[PIECE];
	uint64_t size = window->source->bytes;
	if (offset >= size)
		return NULL;
	bytes = bytes < size - offset ? bytes : size - offset;
	while (bytes) {
		size_t n = bytes < sizeof(data) ? (size_t)bytes : sizeof(data);
		TW_TRY(tw_source_read(window->source, offset, data, n));
		if (pwrite(window->fd, data, n, (off_t)offset) != (ssize_t)n)
			return tw_error_errno(errno, "a file in memory");
		offset += n;
		bytes -= n;
	}
	return NULL;
}

struct tw_error *tw_window_copy_ends(struct tw_window *window, uint64_t bytes)
{
	uint64_t size = window->source->bytes;
	TW_TRY(tw_window_copy(window, 0, bytes));
	return size > bytes ? tw_window_copy(window, size - bytes, bytes) : NULL;
}
