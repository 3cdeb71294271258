/* SPDX-License-Identifier: BSD-3-Clause */
/* Lists of patterns (glob.h) of which some, with "!" before them, exclude. */
#ifndef TW_BASE_PATTERNS_H
#define TW_BASE_PATTERNS_H

#include "base/error.h"
#include "base/glob.h"
#include <stddef.h>

/* Zeroed, it is a list without patterns, in which everything is. */
struct tw_patterns {
	struct tw_glob **globs;
	bool *excludes;
	size_t n;
	bool includes; /* some do not exclude */
};

/* Appends a pattern. TW_CONFIG: it is none. */
struct tw_error *tw_patterns_add(struct tw_patterns *patterns, const char *text) TW_MUST_CHECK;
void tw_patterns_deinit(struct tw_patterns *patterns);

/* Whether text is in the list: one includes it, or all exclude, and none excludes it. */
bool tw_patterns_match(const struct tw_patterns *patterns, const char *text, size_t len);
/* The same of a thing with several names, each with a NUL behind it: one of them is included, none is
 * excluded. */
bool tw_patterns_match_any(const struct tw_patterns *patterns, const char *names, size_t len);

#endif
