/* SPDX-License-Identifier: BSD-3-Clause */
/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef TW_EVENT_UTF8_H
#define TW_EVENT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What stands for an ill-formed part: U+FFFD. */
#define TW_UTF8_REPLACEMENT "\xef\xbf\xbd"

struct tw_utf8_step {
	size_t len; /* bytes of the sequence, or of the ill-formed part */
	bool valid;
};

/* The sequence that n > 0 bytes begin with; or the ill-formed part there, which is a maximal prefix
 * of a sequence: what the Unicode standard recommends to replace by one U+FFFD (3.9, "substitution
 * of maximal subparts"). */
struct tw_utf8_step tw_utf8_next(const uint8_t *data, size_t n);

#endif
