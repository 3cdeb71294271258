/* SPDX-License-Identifier: BSD-3-Clause */
/* What the fuzz targets share: taking numbers from an input, and a small ext4 image in memory. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include "volume/source.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *data;
	size_t size;
};

/* The next bytes as a little-endian number; zeroes follow the end. */
static inline uint32_t take(struct input *in, size_t bytes)
{
	uint32_t v = 0;
	for (size_t i = 0; i < bytes && in->size; i++, in->data++, in->size--)
		v |= (uint32_t)*in->data << 8 * i;
	return v;
}

/* Copies the next bytes; less than len at the end. */
static inline size_t take_bytes(struct input *in, void *out, size_t len)
{
	size_t n = len < in->size ? len : in->size;
	if (!n)
		return 0;
	memcpy(out, in->data, n);
	in->data += n;
	in->size -= n;
	return n;
}

#define FUZZ_IMAGE_BYTES (3u << 20)

/* The pristine image, made by mkfs.ext4 at the first call, always the same. */
const uint8_t *fuzz_image(void);
/* The same for one whose inodes hold what they can: files, directories, symlinks, attributes. */
const uint8_t *fuzz_image_of_inodes(void);

/* A source that reads from memory; arg is the bytes. */
struct tw_error *fuzz_read(void *arg, uint64_t offset, void *buf, size_t len);

#endif
