/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was read from the image of a disk whose guest goes on writing, and the records that came
 * meanwhile. What is read may be newer than what the ring has delivered; so it is kept, the records
 * are laid over it, and what is read again comes from there: then it is what the disk held at one
 * position of the ring.
 *
 * Of a mirror (ahead) it is the other way round: a record is there when the mirror has the write, and the
 * image may have it later. So the ring must be whole, from its first record on, when what was written before
 * it had reached the image. Then a record's blocks are kept whether or not they were read, and a gap cannot
 * be mended by reading: what was read is lost with it.
 */
#ifndef TW_INSPECT_KEPT_H
#define TW_INSPECT_KEPT_H

#include "record.h"
#include "ring.h"
#include "volume/source.h"

struct tw_kept_unit;
struct tw_kept_copy;

/* Records that were taken from the ring and not released: their payload is still there, or (of a mirror)
 * copied. The ranges of a gap are records of their own, with TW_RECORD_GAP. */
struct tw_held {
	struct tw_record *records;
	size_t n, cap;
};

struct tw_kept {
	struct tw_ring_reader *ring;    /* NULL: nobody writes */
	const struct tw_source *image;  /* while something is read */
	struct tw_held held;
	bool fresh; /* something was read from the image; the user takes it back */
	bool ahead; /* of a mirror */
	bool lost;  /* ahead: nothing that was read can be made exact any more */
	size_t keep_bytes; /* ahead: of what was written and not read, so much is kept before what has
			    * reached the image is given up */
	/* private */
	struct tw_kept_unit *units;
	uint64_t *marks; /* a bit for each unit that was read and not kept */
	uint64_t nmarks;
	bool touched;
	size_t unread; /* units that were written and not read */
	size_t copied; /* held records whose payload is not in the ring any more, */
	struct tw_kept_copy *copies; /* but in these */
	size_t copied_bytes;
};

/* What becomes of records that are laid over what was read. */
struct tw_kept_ops {
	/* A record whose effect is in what is read from here on, and which will not be seen again.
	 * Gap records come as their ranges, one call each, with TW_RECORD_GAP. */
	struct tw_error *(*passed)(const struct tw_record *record, void *arg);
	/* What was passed must outlive this process from here on: its space in the ring is given
	 * back next. */
	struct tw_error *(*keep)(void *arg);
	void *arg;
};

void tw_kept_deinit(struct tw_kept *kept);

/* Reads what was kept, and else the image, which is then kept. A tw_source's read; one thread. */
struct tw_error *tw_kept_read(void *kept, uint64_t offset, void *buf, size_t len) TW_MUST_CHECK;
/* Reads the image and only marks what was read; several threads. Between begin and end. */
struct tw_error *tw_kept_read_marked(
	void *kept, uint64_t offset, void *buf, size_t len) TW_MUST_CHECK;
struct tw_error *tw_kept_begin_marks(struct tw_kept *kept, uint64_t bytes) TW_MUST_CHECK;
void tw_kept_end_marks(struct tw_kept *kept);

/* Takes what the ring has into held. */
struct tw_error *tw_kept_drain(struct tw_kept *kept) TW_MUST_CHECK;
/* Lays what is held over what was kept, passes it, and releases it. */
struct tw_error *tw_kept_absorb(struct tw_kept *kept, const struct tw_kept_ops *ops) TW_MUST_CHECK;
/* True when what is held changed anything that was read. */
bool tw_kept_touched(struct tw_kept *kept);
/* True when there was a gap: the place of its writes in the order is not known. */
bool tw_kept_gap(const struct tw_kept *kept);

#endif
