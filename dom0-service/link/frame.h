/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The frames between an inspector and the courier, over a Unix stream socket. Little-endian:
 * u32 body length, u16 kind, u16 event type, u64 sequence, then the body.
 *
 * inspector                                    courier
 *   HELLO  body: epoch NUL source prefix NUL     ->
 *                          <- WELCOME sequence: last sequence stored for this epoch, 0 if none
 *   EVENT  sequence, type, body: JSON object     ->   (sequence = previous + 1)
 *                          <- ACK sequence: everything up to here is durable
 * A `tapwire tail` client sends TAIL instead of HELLO and then receives EVENT frames as they are stored;
 * one that does not keep up is dropped. A STATUS frame without a body is answered by a STATUS frame whose
 * body is a JSON object; it may be sent instead of HELLO or TAIL, and again.
 * A COMMAND frame, a JSON object with a member "command" (courier/admin.h), is answered by a COMMAND frame in the
 * same way; it may be sent instead of HELLO, TAIL or STATUS, and again.
 * The source prefix is the disk's, escaped as in its events (/xen/host/domain uuid/vdev): each event's source
 * is that or below it, and its id is epoch-sequence. One JSON object a body.
 * The first event of an epoch that the courier knows nothing of may have any sequence: what was before is lost.
 * A peer that breaks this is disconnected. Events up to the welcomed sequence are not sent again.
 */
#ifndef TW_LINK_FRAME_H
#define TW_LINK_FRAME_H

#include "base/buf.h"
#include <stdint.h>

enum tw_frame_kind {
	TW_FRAME_HELLO = 1,
	TW_FRAME_WELCOME = 2,
	TW_FRAME_EVENT = 3,
	TW_FRAME_ACK = 4,
	TW_FRAME_TAIL = 5,
	TW_FRAME_STATUS = 6,
	TW_FRAME_COMMAND = 7,
	TW_FRAME_KIND_END
};

#define TW_FRAME_HEADER_BYTES 16
#define TW_FRAME_MAX_BODY (8u << 20)

struct tw_frame {
	uint32_t length; /* of the body */
	uint16_t kind;
	uint16_t type;
	uint64_t sequence;
	const char *body; /* points into the buffer that was parsed */
};

/* Appends a whole frame. */
void tw_frame_append(struct tw_buf *out, const struct tw_frame *frame);
/* Parses the first frame of data: returns its total size, 0 when more bytes are needed, -1 when it is
 * no frame (unknown kind, body too long). */
int64_t tw_frame_parse(const char *data, size_t len, struct tw_frame *out);

#endif
