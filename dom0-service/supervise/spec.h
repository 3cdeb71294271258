/* SPDX-License-Identifier: BSD-3-Clause */
/* What there is to know for watching one disk. */
#ifndef TW_SUPERVISE_SPEC_H
#define TW_SUPERVISE_SPEC_H

#include "base/error.h"
#include "event/event.h"
#include <stdbool.h>

struct tw_disk_spec {
	const char *name; /* for logs and status */
	const char *image;
	const char *ring;
	const char *state_dir; /* the inspector's; made when it is missing. It identifies the disk: two disks never
				* share one */
	const char *courier_socket;
	struct tw_disk_id id;   /* without epoch: the inspector keeps that in its state */
	const char *nbd_socket; /* serve the image here; NULL: somebody else fills the ring */
	const char *ring_size;  /* as nbdkit reads sizes, or NULL for the default */
	const char *record;     /* trace to record, or NULL */
	/* An unmodified tapdisk serves the image, and is mirrored: as struct tw_mirror_spec has it. Not with
	 * nbd_socket. */
	const char *tapdisk; /* NULL: none */
	const char *tap_ctl;
	const char *content;    /* rules (content/rules.h), or NULL */
	unsigned stall_ms;
	unsigned tries;
	uint64_t memory_max;    /* see tw_child_limit() */
	int nice;
};

/* A copy with strings of its own. NULL: no memory. */
struct tw_disk_spec *tw_disk_spec_copy(const struct tw_disk_spec *spec);
/* Whether watching by the one is watching by the other. */
bool tw_disk_spec_equal(const struct tw_disk_spec *a, const struct tw_disk_spec *b);
/* Frees a copy; NULL is fine. */
void tw_disk_spec_free(struct tw_disk_spec *spec);

#endif
