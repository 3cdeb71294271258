/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Events as CloudEvents 1.0 JSON objects (docs/architecture.md, "Events"). An encoder belongs to
 * one disk and keeps ready what its events have in common. One thread.
 */
#ifndef TW_EVENT_ENCODE_H
#define TW_EVENT_ENCODE_H

#include "event/event.h"

struct tw_encoder;

/* An encoder for the events of a disk, which is copied; NULL: for entries alone. */
struct tw_error *tw_encoder_create(
	const struct tw_disk_id *disk, struct tw_encoder **out) TW_MUST_CHECK;
void tw_encoder_destroy(struct tw_encoder *encoder);

/* Appends the event as one JSON object, without a line end. On error, out is as it was before. */
struct tw_error *tw_encode_event(
	struct tw_encoder *encoder, const struct tw_event *event, struct tw_buf *out) TW_MUST_CHECK;

/* Appends the object that `tapwire crawl` prints for a name: path and the fields of an event's
 * data. */
struct tw_error *tw_encode_entry(
	struct tw_encoder *encoder, const struct tw_event *entry, struct tw_buf *out) TW_MUST_CHECK;

#endif
