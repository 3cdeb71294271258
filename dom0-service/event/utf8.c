/* SPDX-License-Identifier: BSD-3-Clause */
#include "event/utf8.h"

#include <stdint.h>

struct step {
	size_t len; /* bytes of the sequence, or of the ill-formed part */
	bool valid;
};

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

static struct step next(const uint8_t *p, size_t n)
{
	uint8_t low, high;
	size_t want = sequence_length(p[0], &low, &high);
	if (want == 0)
		return (struct step){ 1, false };
	for (size_t i = 1; i < want; i++) {
		if (i >= n || p[i] < low || p[i] > high)
			return (struct step){ i, false };
		low = 0x80;
		high = 0xbf;
	}
	return (struct step){ want, true };
}

bool tw_utf8_valid(const void *data, size_t n)
{
	const uint8_t *p = data;
	while (n) {
		struct step s = next(p, n);
		if (!s.valid)
			return false;
		p += s.len;
		n -= s.len;
	}
	return true;
}

void tw_utf8_repair(const void *data, size_t n, struct tw_buf *out)
{
	const uint8_t *p = data;
	while (n) {
		struct step s = next(p, n);
		if (s.valid)
			tw_buf_append(out, p, s.len);
		else
			tw_buf_puts(out, "\xef\xbf\xbd");
		p += s.len;
		n -= s.len;
	}
}
