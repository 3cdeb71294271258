/* SPDX-License-Identifier: BSD-3-Clause */
/* The inspector's work as one call: what `tapwire crawl` and `tapwire infer` do. */
#ifndef TW_INSPECT_RUN_H
#define TW_INSPECT_RUN_H

#include "base/error.h"
#include "event/event.h"

/* Writes one JSON line for every name of every volume of the image to the descriptor out. The image
 * is only read. */
struct tw_error *tw_run_crawl(
	const char *image, const struct tw_disk_id *id, int out) TW_MUST_CHECK;

/* What is said at the end, as one line of JSON: what was read, and how fast. */
enum tw_run_summary {
	TW_RUN_SUMMARY_NONE,
	TW_RUN_SUMMARY_TOO,  /* on standard error */
	TW_RUN_SUMMARY_ONLY, /* on out, in place of the events, which are made and not encoded */
};

struct tw_infer {
	const char *disk;  /* the image as it was before the trace's first record */
	const char *trace; /* "-": standard input */
	struct tw_disk_id id;
	const char *content; /* of which files events carry content (content/rules.h); NULL: of none */
	enum tw_run_summary summary;
};

/* Writes the events of a trace to the descriptor out, one CloudEvent a line. Neither file is written to. */
struct tw_error *tw_run_infer(const struct tw_infer *infer, int out) TW_MUST_CHECK;

#endif
