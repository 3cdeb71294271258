/* SPDX-License-Identifier: BSD-3-Clause */
/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef TW_EVENT_UTF8_H
#define TW_EVENT_UTF8_H

#include "base/buf.h"
#include <stdbool.h>
#include <stddef.h>

/* Tells whether all n bytes are well-formed UTF-8. */
bool tw_utf8_valid(const void *data, size_t n);

/* Appends data with U+FFFD in place of each ill-formed part: one for every maximal prefix of a
 * sequence, as the Unicode standard recommends (3.9, "substitution of maximal subparts"). */
void tw_utf8_repair(const void *data, size_t n, struct tw_buf *out);

#endif
