/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crawls a disk whose guest goes on writing, so that the result is the disk's state at one position
 * of the ring.
 *
 * What is read from the image may be newer than what the ring has delivered. So every block that
 * the crawl reads is kept; afterwards the writes that came meanwhile are laid over the kept blocks,
 * and the crawl is done again from them, without a look at the image. A round's result is exact at
 * the position at which the round began when it read nothing from the image, or when no record that
 * came meanwhile touches what was read. Each round has fewer blocks to read.
 */
#ifndef TW_INSPECT_ATTACH_H
#define TW_INSPECT_ATTACH_H

#include "inspect/disk.h"
#include "inspect/kept.h"

struct tw_attach_ops {
	struct tw_kept_ops kept; /* its argument is that of all */
	/* Called first for each record that is not in the crawl, though the image has it; NULL: nobody asks. */
	struct tw_error *(*expects)(const struct tw_record *record, void *arg);
	/* Takes the crawled disk. */
	struct tw_error *(*crawled)(struct tw_disk *disk, void *arg);
	/* Called after that for each record that is not in the crawl, as if it had just come from
	 * the ring. */
	struct tw_error *(*follows)(const struct tw_record *record, void *arg);
};

/* Of what a mirror's guest wrote meanwhile, so much is kept. */
#define TW_ATTACH_KEEP_BYTES (64u << 20)

/* ring may be NULL: nobody writes. emit and emit_arg are the disk's. */
struct tw_error *tw_attach(const char *image, const char *subject, struct tw_ring_reader *ring,
	tw_disk_emit_fn emit, void *emit_arg, const struct tw_attach_ops *ops) TW_MUST_CHECK;
/* The same of a mirror (see kept.h), whose ring is whole. crawled() is not called when a gap came, or when
 * there was too much to keep: then a new session is needed. */
struct tw_error *tw_attach_mirror(const char *image, const char *subject,
	struct tw_ring_reader *ring, size_t keep_bytes, tw_disk_emit_fn emit, void *emit_arg,
	const struct tw_attach_ops *ops) TW_MUST_CHECK;

#endif
