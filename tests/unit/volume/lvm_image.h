/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk in memory with physical volumes of LVM2 on it, made byte by byte. */
#ifndef VOLUME_LVM_IMAGE_H
#define VOLUME_LVM_IMAGE_H

#include "volume/layout.h"
#include "volume/source.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	LVM_SECTOR = 512,
	LVM_MDA_AT = 4096,    /* of a physical volume */
	LVM_MDA_BYTES = 8192, /* header and ring */
	LVM_PE_START = 16384, /* where the extents begin */
	LVM_EXTENT = 4096,
};

static inline void put32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, sizeof(v));
}

static inline void put64(uint8_t *at, uint64_t v)
{
	v = htole64(v);
	memcpy(at, &v, sizeof(v));
}

/* Bit by bit, as LVM begins it. */
static inline uint32_t lvm_crc(const uint8_t *data, size_t len)
{
	uint32_t crc = 0xf597a6cf;
	for (size_t i = 0; i < len; i++) {
		crc ^= data[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
	}
	return crc;
}

/* Signs the sector of the label, and the header of the metadata area. */
static inline void lvm_sign_label(uint8_t *sector)
{
	put32(sector + 16, lvm_crc(sector + 20, LVM_SECTOR - 20));
}

static inline void lvm_sign_header(uint8_t *header)
{
	put32(header, lvm_crc(header + 4, LVM_SECTOR - 4));
}

/* A label in this sector of the physical volume, and an empty metadata area. id: 32 characters. */
static inline void lvm_make_pv(uint8_t *pv, uint64_t bytes, unsigned sector, const char *id)
{
	uint8_t *label = pv + sector * LVM_SECTOR, *header = pv + LVM_MDA_AT;
	memcpy(label, "LABELONE", 8);
	put64(label + 8, sector);
	put32(label + 20, 32);
	memcpy(label + 24, "LVM2 001", 8);
	memcpy(label + 32, id, 32);
	put64(label + 64, bytes);
	put64(label + 72, LVM_PE_START); /* data areas: one, to the end; then none */
	put64(label + 104, LVM_MDA_AT);  /* metadata areas: one; then none */
	put64(label + 112, LVM_MDA_BYTES);
	lvm_sign_label(label);
	memcpy(header + 4, " LVM2 x[5A%r0N*>", 16);
	put32(header + 20, 1);
	put64(header + 24, LVM_MDA_AT);
	put64(header + 32, LVM_MDA_BYTES);
	lvm_sign_header(header);
}

/* Commits a text at this offset of the metadata area; what does not fit goes on behind the header. */
static inline void lvm_put_text(uint8_t *pv, uint64_t offset, const char *text, size_t len)
{
	uint8_t *header = pv + LVM_MDA_AT;
	for (size_t i = 0; i < len; i++) {
		uint64_t at = offset + i;
		if (at >= LVM_MDA_BYTES)
			at = at - LVM_MDA_BYTES + LVM_SECTOR;
		header[at] = (uint8_t)text[i];
	}
	put64(header + 40, offset);
	put64(header + 48, len);
	put32(header + 56, lvm_crc((const uint8_t *)text, len));
	put32(header + 60, 0);
	lvm_sign_header(header);
}

static inline struct tw_error *lvm_read(void *arg, uint64_t offset, void *buf, size_t len)
{
	memcpy(buf, (const uint8_t *)arg + offset, len);
	return NULL;
}

#endif
