/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bounds-checked reading of bytes that a guest can write. A read beyond the end gives 0, so it can
 * mislead a decoder about that guest and nothing else; decoders check the sizes that matter to
 * them.
 */
#ifndef TW_BASE_SPAN_H
#define TW_BASE_SPAN_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct tw_span {
	const uint8_t *data;
	size_t len;
};

static inline struct tw_span tw_span(const void *data, size_t len)
{
	return (struct tw_span){data, len};
}

/* The part [off, off + len) of a span, cut at its end. */
static inline struct tw_span tw_span_sub(struct tw_span s, size_t off, size_t len)
{
	if (off > s.len)
		off = s.len;
	if (len > s.len - off)
		len = s.len - off;
	return (struct tw_span){s.data + off, len};
}

#define TW_SPAN_GETTER(name, type, swap)                                                           \
	static inline type name(struct tw_span s, size_t off)                                      \
	{                                                                                          \
		type v;                                                                            \
		if (off > s.len || s.len - off < sizeof(v))                                        \
			return 0;                                                                  \
		memcpy(&v, s.data + off, sizeof(v));                                               \
		return swap(v);                                                                    \
	}

static inline uint8_t tw_u8(struct tw_span s, size_t off)
{
	return off < s.len ? s.data[off] : 0;
}

TW_SPAN_GETTER(tw_le16, uint16_t, le16toh)
TW_SPAN_GETTER(tw_le32, uint32_t, le32toh)
TW_SPAN_GETTER(tw_le64, uint64_t, le64toh)
TW_SPAN_GETTER(tw_be16, uint16_t, be16toh)
TW_SPAN_GETTER(tw_be32, uint32_t, be32toh)
TW_SPAN_GETTER(tw_be64, uint64_t, be64toh)

#endif
