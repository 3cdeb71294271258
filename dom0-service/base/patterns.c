/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/patterns.h"

#include <stdlib.h>
#include <string.h>

struct tw_error *tw_patterns_add(struct tw_patterns *patterns, const char *text)
{
	struct tw_glob **globs = reallocarray(patterns->globs, patterns->n + 1, sizeof(*globs));
	if (!globs)
		return tw_error_nomem();
	patterns->globs = globs;
	bool *excludes = reallocarray(patterns->excludes, patterns->n + 1, sizeof(*excludes));
	if (!excludes)
		return tw_error_nomem();
	patterns->excludes = excludes;
	const bool exclude = *text == '!';
	globs[patterns->n] = tw_glob_create(text + exclude);
	if (!globs[patterns->n])
		return tw_error_create(TW_CONFIG, "\"%s\" is no pattern", text);
	excludes[patterns->n++] = exclude;
	patterns->includes |= !exclude;
	return NULL;
}

void tw_patterns_deinit(struct tw_patterns *patterns)
{
	for (size_t i = 0; i < patterns->n; i++)
		tw_glob_destroy(patterns->globs[i]);
	free(patterns->globs);
	free(patterns->excludes);
	*patterns = (struct tw_patterns){0};
}

enum match { NO_MATCH, INCLUDED, EXCLUDED };

/* An exclusion counts more. */
static enum match match(const struct tw_patterns *patterns, const char *text, size_t len)
{
	enum match result = patterns->includes ? NO_MATCH : INCLUDED;
	for (size_t i = 0; i < patterns->n; i++) {
		if (!tw_glob_match(patterns->globs[i], text, len))
			continue;
		if (patterns->excludes[i])
			return EXCLUDED;
		result = INCLUDED;
	}
	return result;
}

bool tw_patterns_match(const struct tw_patterns *patterns, const char *text, size_t len)
{
	return match(patterns, text, len) == INCLUDED;
}

bool tw_patterns_match_any(const struct tw_patterns *patterns, const char *names, size_t len)
{
	bool included = false;
	for (const char *at = names; at < names + len;) {
		size_t n = strlen(at);
		enum match result = match(patterns, at, n);
		if (result == EXCLUDED)
			return false;
		included |= result == INCLUDED;
		at += n + 1;
	}
	return included;
}
