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

/* Writes the events of a trace ("-": standard input) to the descriptor out, one CloudEvent a line.
 * disk is the image as it was before the trace's first record; neither file is written to. */
struct tw_error *tw_run_infer(const char *disk, const char *trace, const struct tw_disk_id *id,
	int out, enum tw_run_summary summary) TW_MUST_CHECK;

#endif
