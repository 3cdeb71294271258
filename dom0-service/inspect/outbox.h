/* SPDX-License-Identifier: BSD-3-Clause */
/* Events on their way to the courier: kept, in order, until it says that they are durable. */
#ifndef TW_INSPECT_OUTBOX_H
#define TW_INSPECT_OUTBOX_H

#include "base/buf.h"
#include "base/error.h"
#include "base/span.h"
#include "event/event.h"
#include <stdint.h>

struct tw_outbox;

struct tw_error *tw_outbox_create(struct tw_outbox **out) TW_MUST_CHECK;
void tw_outbox_destroy(struct tw_outbox *box);

/* Appends an encoded event; those up to the acknowledged sequence are dropped at once (a restart
 * makes them again). */
struct tw_error *tw_outbox_add(struct tw_outbox *box, uint64_t sequence, enum tw_event_type type,
	const struct tw_buf *json) TW_MUST_CHECK;
/* Everything up to the sequence is durable. */
void tw_outbox_ack(struct tw_outbox *box, uint64_t sequence);
uint64_t tw_outbox_acked(const struct tw_outbox *box);
/* Bytes that wait for an acknowledgement. */
size_t tw_outbox_bytes(const struct tw_outbox *box);

/* What has not been handed to the socket yet, as frames; tw_outbox_sent says how much of it was. */
struct tw_span tw_outbox_unsent(const struct tw_outbox *box);
void tw_outbox_sent(struct tw_outbox *box, size_t n);
/* A new connection: everything that is not acknowledged is sent again, from its start. */
void tw_outbox_rewind(struct tw_outbox *box);

/* The waiting frames as bytes, and back. Errors: TW_BAD_DATA. */
struct tw_span tw_outbox_frames(const struct tw_outbox *box);
struct tw_error *tw_outbox_restore(struct tw_outbox *box, struct tw_span frames) TW_MUST_CHECK;

#endif
