/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/outbox.h"

#include "link/frame.h"

#include <stdlib.h>

struct tw_outbox {
	struct tw_buf frames; /* from .head on: not acknowledged */
	size_t head;
	size_t sent; /* offset in frames; between head and its end, or inside an acknowledged frame
		      */
	uint64_t acked;
};

struct tw_error *tw_outbox_create(struct tw_outbox **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? NULL : tw_error_nomem();
}

void tw_outbox_destroy(struct tw_outbox *box)
{
	if (!box)
		return;
	tw_buf_deinit(&box->frames);
	free(box);
}

struct tw_error *tw_outbox_add(struct tw_outbox *box, uint64_t sequence, enum tw_event_type type,
	const struct tw_buf *json)
{
	if (sequence <= box->acked)
		return NULL;
	if (json->len > TW_FRAME_MAX_BODY)
		return tw_error_create(TW_BAD_DATA, "event %llu is too long: %zu bytes",
			(unsigned long long)sequence, json->len);
	struct tw_frame frame = {
		(uint32_t)json->len, TW_FRAME_EVENT, (uint16_t)type, sequence, json->data};
	tw_frame_append(&box->frames, &frame);
	return box->frames.failed ? tw_error_nomem() : NULL;
}

/* Moving what is left to the front costs no more than what was dropped. */
static void compact(struct tw_outbox *box)
{
	size_t drop = box->head < box->sent ? box->head : box->sent;
	if (drop < box->frames.len - drop)
		return;
	tw_buf_consume(&box->frames, drop);
	box->head -= drop;
	box->sent -= drop;
}

void tw_outbox_ack(struct tw_outbox *box, uint64_t sequence)
{
	struct tw_frame frame;
	if (sequence > box->acked)
		box->acked = sequence;
	while (box->head < box->frames.len) {
		int64_t n = tw_frame_parse(
			box->frames.data + box->head, box->frames.len - box->head, &frame);
		if (n <= 0 || frame.sequence > box->acked)
			break;
		box->head += (size_t)n;
	}
	compact(box);
}

uint64_t tw_outbox_acked(const struct tw_outbox *box)
{
	return box->acked;
}

size_t tw_outbox_bytes(const struct tw_outbox *box)
{
	return box->frames.len - box->head;
}

struct tw_span tw_outbox_unsent(const struct tw_outbox *box)
{
	return tw_span(box->frames.data + box->sent, box->frames.len - box->sent);
}

void tw_outbox_sent(struct tw_outbox *box, size_t n)
{
	box->sent += n;
	compact(box);
}

void tw_outbox_rewind(struct tw_outbox *box)
{
	box->sent = box->head;
	compact(box);
}

struct tw_span tw_outbox_frames(const struct tw_outbox *box)
{
	return tw_span(box->frames.data + box->head, box->frames.len - box->head);
}

struct tw_error *tw_outbox_restore(struct tw_outbox *box, struct tw_span frames)
{
	struct tw_frame frame;
	for (size_t off = 0; off < frames.len;) {
		int64_t n =
			tw_frame_parse((const char *)frames.data + off, frames.len - off, &frame);
		if (n <= 0 || frame.kind != TW_FRAME_EVENT)
			return tw_error_create(TW_BAD_DATA, "the saved events are damaged");
		off += (size_t)n;
	}
	tw_buf_append(&box->frames, frames.data, frames.len);
	return box->frames.failed ? tw_error_nomem() : NULL;
}
