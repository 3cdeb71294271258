/* SPDX-License-Identifier: BSD-3-Clause */
#include "event/utf8.h"

/* Table 3-7 of the Unicode standard: only the second byte's range depends on the first byte. */
static size_t sequence_length(uint8_t first, uint8_t *low, uint8_t *high)
{
	*low = 0x80;
	*high = 0xbf;
	if (first < 0x80)
		return 1;
	if (first < 0xc2 || first > 0xf4)
		return 0;
	if (first == 0xe0)
		*low = 0xa0;
	else if (first == 0xed)
		*high = 0x9f;
	else if (first == 0xf0)
		*low = 0x90;
	else if (first == 0xf4)
		*high = 0x8f;
	return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

struct tw_utf8_step tw_utf8_next(const uint8_t *p, size_t n)
{
	uint8_t low, high;
	size_t want = sequence_length(p[0], &low, &high);
	if (want == 0)
		return (struct tw_utf8_step){1, false};
	for (size_t i = 1; i < want; i++) {
		if (i >= n || p[i] < low || p[i] > high)
			return (struct tw_utf8_step){i, false};
		low = 0x80;
		high = 0xbf;
	}
	return (struct tw_utf8_step){want, true};
}
