/* SPDX-License-Identifier: BSD-3-Clause */
/* Packing of saved state: little-endian fields one after the other, and a cursor that reads them
 * back. A read beyond the end gives zeroes and is remembered; ask once. */
#ifndef TW_BASE_PACK_H
#define TW_BASE_PACK_H

#include "base/buf.h"
#include "base/span.h"
#include <stdbool.h>

static inline void tw_pack32(struct tw_buf *buf, uint32_t v)
{
	v = htole32(v);
	tw_buf_append(buf, &v, sizeof(v));
}

static inline void tw_pack64(struct tw_buf *buf, uint64_t v)
{
	v = htole64(v);
	tw_buf_append(buf, &v, sizeof(v));
}

/* Length and bytes. */
static inline void tw_pack_bytes(struct tw_buf *buf, const void *data, size_t len)
{
	tw_pack64(buf, len);
	tw_buf_append(buf, data, len);
}

struct tw_unpack {
	struct tw_span span;
	size_t off;
	bool failed;
};

static inline const uint8_t *tw_unpack_raw(struct tw_unpack *u, size_t len)
{
	if (len > u->span.len - u->off) {
		u->failed = true;
		return NULL;
	}
	u->off += len;
	return u->span.data + (u->off - len);
}

static inline uint32_t tw_unpack32(struct tw_unpack *u)
{
	const uint8_t *at = tw_unpack_raw(u, 4);
	return at ? tw_le32(tw_span(at, 4), 0) : 0;
}

static inline uint64_t tw_unpack64(struct tw_unpack *u)
{
	const uint8_t *at = tw_unpack_raw(u, 8);
	return at ? tw_le64(tw_span(at, 8), 0) : 0;
}

static inline struct tw_span tw_unpack_bytes(struct tw_unpack *u)
{
	uint64_t len = tw_unpack64(u);
	const uint8_t *at = len > SIZE_MAX ? NULL : tw_unpack_raw(u, (size_t)len);
	return tw_span(at, at ? (size_t)len : 0);
}

#endif
