/* SPDX-License-Identifier: BSD-3-Clause */
/* What is to be written to xenstore: the newest state of each disk and of the service, until it has been. */
#ifndef TW_DOMAINS_TOLD_H
#define TW_DOMAINS_TOLD_H

#include "xenstore/schema.h"
#include "xenstore/store.h"
#include <stdint.h>

/* Of one disk: kind, domid and devid name it. */
struct tw_told_disk {
	struct tw_xs_ids ids;
	const char *state; /* a word of the schema; NULL: nothing is said of the disk (any more) */
	char *ring;
	uint64_t events;
	uint64_t lag;
	char *error; /* NULL: none */
};

struct tw_told_service {
	const char *health; /* a word of the schema, static; NULL: nothing is said */
	uint64_t pid;
	uint64_t disks;
};

struct tw_told;

struct tw_error *tw_told_create(struct tw_told **out) TW_MUST_CHECK;
void tw_told_destroy(struct tw_told *told);

/* Says something of a disk; strings are copied. *urgent: it is not only numbers that have changed. */
struct tw_error *tw_told_disk(struct tw_told *told, const struct tw_told_disk *disk, bool *urgent) TW_MUST_CHECK;
/* The disk is gone, and what was said of it. */
void tw_told_forget(struct tw_told *told, const struct tw_xs_ids *ids);
/* Says something of the service. Returns whether it is something else than before. */
bool tw_told_service(struct tw_told *told, const struct tw_told_service *service);

/* Everything has to be written again, to a xenstored that knows nothing of it. */
void tw_told_again(struct tw_told *told);
/* Nothing is said any more, neither of disks nor of the service. */
void tw_told_retract(struct tw_told *told);
/* Whether something waits to be written. */
bool tw_told_waits(const struct tw_told *told);

/* A part of what waits, as a thing of its own that another thread may write. *out is NULL when nothing waits. */
struct tw_told_batch;
struct tw_error *tw_told_take(struct tw_told *told, size_t max, struct tw_told_batch **out) TW_MUST_CHECK;
/* Writes it. Blocking. What cannot be written is logged and left; only a lost connection is an error. */
struct tw_error *tw_told_write(
	const struct tw_told_batch *batch, struct tw_store *store, unsigned self) TW_MUST_CHECK;
void tw_told_batch_free(struct tw_told_batch *batch);

#endif
