/* SPDX-License-Identifier: BSD-3-Clause */
#include "link/frame.h"

#include <endian.h>
#include <string.h>

struct wire {
	uint32_t length;
	uint16_t kind;
	uint16_t type;
	uint64_t sequence;
};
_Static_assert(sizeof(struct wire) == TW_FRAME_HEADER_BYTES, "frame header");

void tw_frame_append(struct tw_buf *out, const struct tw_frame *frame)
{
	struct wire wire = {
		.length = htole32(frame->length),
		.kind = htole16(frame->kind),
		.type = htole16(frame->type),
		.sequence = htole64(frame->sequence),
	};
	tw_buf_append(out, &wire, sizeof(wire));
	tw_buf_append(out, frame->body, frame->length);
}

int64_t tw_frame_parse(const char *data, size_t len, struct tw_frame *out)
{
	struct wire wire;
	if (len < sizeof(wire))
		return 0;
	memcpy(&wire, data, sizeof(wire));
	*out = (struct tw_frame){
		.length = le32toh(wire.length),
		.kind = le16toh(wire.kind),
		.type = le16toh(wire.type),
		.sequence = le64toh(wire.sequence),
		.body = data + sizeof(wire),
	};
	if (out->length > TW_FRAME_MAX_BODY || out->kind < TW_FRAME_HELLO ||
		out->kind >= TW_FRAME_KIND_END)
		return -1;
	if (len - sizeof(wire) < out->length)
		return 0;
	return (int64_t)sizeof(wire) + out->length;
}
