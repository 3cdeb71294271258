/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/crc32c.h"

#include <isa-l/crc.h>

/* isa-l takes its lengths as int. */
#define PIECE ((size_t)1 << 30)

uint32_t tw_crc32c(uint32_t crc, const void *data, size_t len)
{
	/* isa-l only reads the bytes. */
	unsigned char *at = (unsigned char *)(uintptr_t)data;
	for (; len > PIECE; len -= PIECE, at += PIECE)
		crc = crc32_iscsi(at, (int)PIECE, crc);
	return crc32_iscsi(at, (int)len, crc);
}

uint32_t tw_crc32_be(uint32_t crc, const void *data, size_t len)
{
	/* isa-l inverts at the beginning and at the end. */
	return ~crc32_ieee(~crc, data, len);
}
