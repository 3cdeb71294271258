/* SPDX-License-Identifier: BSD-3-Clause */
/* Input: bytes that a peer of the courier's socket sends. */
#include "link/frame.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t at = 0;
	while (at < size) {
		struct tw_frame frame;
		int64_t taken = tw_frame_parse((const char *)data + at, size - at, &frame);
		if (taken <= 0)
			break;
		/* A frame lies within what was given. */
		if ((uint64_t)taken > size - at || frame.length > (uint64_t)taken)
			abort();
		at += (size_t)taken;
	}
	return 0;
}
