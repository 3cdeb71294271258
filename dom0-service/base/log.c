/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* The program's edge: set once by main(). */
static struct {
	const char *program;
	enum tw_log_level max;
	int journal;
} logger = {"tapwire", TW_LOG_INFO, 0};

void tw_log_init(const char *program, enum tw_log_level max)
{
	logger.program = program;
	logger.max = max;
	logger.journal = getenv("JOURNAL_STREAM") != NULL;
}

void tw_log(enum tw_log_level level, const char *subject, const char *fmt, ...)
{
	if (level > logger.max)
		return;
	char prefix[8] = "";
	if (logger.journal)
		snprintf(prefix, sizeof(prefix), "<%d>", level);
	char line[2048];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* What a guest named may be in the line: keep it on one line. */
	for (char *c = line; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	fprintf(stderr, "%s%s: %s%s%s\n", prefix, logger.program, subject, *subject ? ": " : "",
		line);
}
