/* SPDX-License-Identifier: BSD-3-Clause */
/* The inspector's work as one call: what `tapwire crawl` and `tapwire infer` do. */
#ifndef TW_INSPECT_RUN_H
#define TW_INSPECT_RUN_H

#include "base/error.h"
#include "event/event.h"
#include <stdbool.h>
#include <stdio.h>

/* Writes one JSON line for every name of every volume of the image. The image is only read. */
struct tw_error *tw_run_crawl(
	const char *image, const struct tw_disk_id *id, FILE *out) TW_MUST_CHECK;

/* Writes the events of a trace ("-": standard input), one CloudEvent a line. disk is the image as
 * it was before the trace's first record; neither file is written to. stats: a summary on standard
 * error. */
struct tw_error *tw_run_infer(const char *disk, const char *trace, const struct tw_disk_id *id,
	FILE *out, bool stats) TW_MUST_CHECK;

#endif
