/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Patterns for names and paths. * is any run of bytes without a slash, ** any run of bytes, and a whole component
 * of a path that is ** is any number of components, none included; ? is one byte but a slash, [a-z] and [!a-z] one of
 * a set; a backslash takes the next byte as it is. Bytes are compared, case counts.
 *
 * A guest chooses the names: the time is bounded by the length of the text times that of the pattern.
 */
#ifndef TW_BASE_GLOB_H
#define TW_BASE_GLOB_H

#include <stdbool.h>
#include <stddef.h>

struct tw_glob;

/* NULL when the pattern is none (an open bracket, too long: over 500 bytes) or there is no memory. */
struct tw_glob *tw_glob_create(const char *pattern);
void tw_glob_destroy(struct tw_glob *glob);
bool tw_glob_match(const struct tw_glob *glob, const char *text, size_t len);

#endif
