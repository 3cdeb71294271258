/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One captured write, as ring and trace carry it. A record says what the backend has completed:
 * whatever a guest was told is on disk is in the stream, in an order that respects every
 * dependency that the guest could have relied on.
 */
#ifndef TW_RECORD_H
#define TW_RECORD_H

#include <stdint.h>

#define TW_SECTOR_SHIFT 9
#define TW_SECTOR_SIZE 512u

enum tw_record_flags {
	TW_RECORD_PAYLOAD = 1, /* nsectors * 512 bytes of payload follow */
	TW_RECORD_FLUSH = 2,   /* the guest's flush completed; no sectors */
	TW_RECORD_DISCARD = 4, /* discarded: their content is undefined unless ZEROES is set */
	TW_RECORD_ZEROES = 8,  /* zeroed; with DISCARD: discarded, and read as zeroes */
	TW_RECORD_GAP = 16,    /* writes before this record are missing; the dirty map has them */
	/* None of them, and sectors: these were written, and what was written could not be kept. */
};

struct tw_record {
	uint64_t sequence; /* counts up by one from 1 within a ring or trace */
	uint64_t time_ns;  /* dom0's clock at capture, ns since the epoch */
	uint64_t sector;   /* first sector, 512-byte units */
	uint32_t nsectors;
	uint32_t flags;
	const void *payload; /* NULL without TW_RECORD_PAYLOAD; lifetime: see who made the record */
};

#endif
