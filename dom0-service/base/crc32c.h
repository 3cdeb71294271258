/* SPDX-License-Identifier: BSD-3-Clause */
/* The checksums of ext4 and jbd2, by the processor's own instructions. As in Linux, a checksum
 * begins with a seed (~0, mostly), is not inverted at its end, and can be gone on with. */
#ifndef TW_BASE_CRC32C_H
#define TW_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli, RFC 3720), least significant bit first. */
uint32_t tw_crc32c(uint32_t crc, const void *data, size_t len);

/* CRC-32 (IEEE 802.3), most significant bit first: the first version of jbd2's checksums. */
uint32_t tw_crc32_be(uint32_t crc, const void *data, size_t len);

#endif
