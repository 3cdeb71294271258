/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a volume's bytes are read from: an image, a part of it, or either with newer blocks on top.
 */
#ifndef TW_VOLUME_SOURCE_H
#define TW_VOLUME_SOURCE_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tw_source {
	/* Reads len bytes at offset; short reads are errors. */
	struct tw_error *(*read)(void *arg, uint64_t offset, void *buf, size_t len);
	void *arg;
	uint64_t bytes;
	bool parallel; /* read may be called by several threads at the same time */
	/* Says that these bytes will be read soon. May be NULL; several threads may call it. */
	void (*soon)(void *arg, uint64_t offset, uint64_t len);
};

static inline void tw_source_soon(const struct tw_source *source, uint64_t offset, uint64_t len)
{
	if (source->soon && offset <= source->bytes && len <= source->bytes - offset)
		source->soon(source->arg, offset, len);
}

static inline struct tw_error *TW_MUST_CHECK tw_source_read(
	const struct tw_source *source, uint64_t offset, void *buf, size_t len)
{
	if (offset > source->bytes || len > source->bytes - offset)
		return tw_error_create(TW_BAD_DATA, "%zu bytes at %llu are beyond the end at %llu",
			len, (unsigned long long)offset, (unsigned long long)source->bytes);
	return source->read(source->arg, offset, buf, len);
}

#endif
