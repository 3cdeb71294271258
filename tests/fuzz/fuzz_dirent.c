/* SPDX-License-Identifier: BSD-3-Clause */
/* Input: a directory block. */
#include "ext4/ext4.h"
#include "input.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct ext4_geometry geo = { .ninodes = 1000, .first_ino = 11 };
	struct ext4_dirent entry;
	size_t off = 0, n = 0;
	bool encrypted = size & 1;
	while (ext4_dirent_next(&geo, tw_span(data, size), encrypted, &off, &entry)) {
		if (entry.bytes < data || entry.bytes + entry.len > data + size || !entry.len)
			abort();
		if (entry.ino < 11 || entry.ino > 1000)
			abort();
		if (!encrypted && memchr(entry.bytes, '/', entry.len))
			abort();
		if (++n > size / 12)
			abort();
	}
	return 0;
}
