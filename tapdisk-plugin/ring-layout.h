/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ring's files as both sides map them; docs/ring.md explains why. For ring.c, ring-reader.c and
 * their tests only. Shared memory of one machine: everything is in native byte order.
 *
 *   <path>         header page, producer page, intent page, dirty map 0, dirty map 1, data
 *   <path>.cursor  the consumer's page
 *   <path>.interest  the consumer's map of what it needs the content of
 *   <path>.bell    the doorbell, a FIFO
 */
#ifndef TW_RING_LAYOUT_H
#define TW_RING_LAYOUT_H

#include "ring.h"
#include <stdatomic.h>

#define RING_MAGIC 0x31474e4952575400ull /* "\0TWRING1" */
#define RING_VERSION 2u     /* that is made; from 1 on, all are read and taken over */
#define RING_PAGE 4096u
#define RING_HUGE (2u << 20) /* from version 2 on, larger data begins at a multiple of it */
#define RING_MAX_DATA_BYTES (1ull << 40)
#define RING_MAX_DISK_BYTES (1ull << 50)
#define RING_MAX_SECTORS 131072u /* a record's limit, the same as a trace's */
#define RING_ALIGN 32u           /* every record starts at a multiple of it */

/* Blocks, lines (of 512 bits: one cache line) and summary words of a dirty map. */
#define RING_BLOCK_SECTORS (1u << (TW_RING_DIRTY_SHIFT - TW_SECTOR_SHIFT))
#define RING_LINE_WORDS 8u
#define RING_LINE_BITS (RING_LINE_WORDS * 64u)

/* Written once, before the file gets its name. */
struct ring_header {
	uint64_t magic;
	uint32_t version;
	uint32_t header_bytes; /* sizeof(struct ring_header) */
	uint64_t disk_bytes;
	uint64_t data_bytes; /* a power of two */
	uint8_t id[16];
};
_Static_assert(sizeof(struct ring_header) == 48, "ring header");

enum ring_stat {
	STAT_RECORDS,
	STAT_PAYLOAD,
	STAT_GAPS,
	STAT_MISSED,
	STAT_MISSED_BYTES,
	STAT_WAKEUPS,
	STAT_SPARED, /* 0 in a ring of a producer that knows no interest map */
	STAT_COUNT
};

/* Positions are bytes since the ring was made; they never wrap. */
struct ring_producer {
	_Atomic uint64_t head;     /* end of the last published record: storing it publishes */
	_Atomic uint64_t last_pos; /* start of the record at or before head, or RING_NO_RECORD */
	_Atomic uint64_t
		gap_state;         /* 2n: gap n was the last and is announced; 2n + 1: it is open */
	_Atomic uint64_t sent_gap; /* announced and its map not cleared yet; 0: none */
	_Atomic uint64_t
		sent_end; /* end of its record: released, and so done with, when tail >= this */
	_Atomic uint64_t tail_seen; /* the last sane tail that the producer saw */
	_Atomic uint64_t stats[STAT_COUNT];
};
#define RING_NO_RECORD UINT64_MAX

/* A request that is on its way to the image, kept for the case that the producer dies. */
struct ring_intent {
	_Atomic uint64_t sector;
	_Atomic uint64_t nsectors; /* 0: no request */
};
_Static_assert(sizeof(struct ring_intent) * TW_RING_INTENTS == RING_PAGE, "intent page");

/* The consumer's page. */
struct ring_cursor {
	uint8_t id[16]; /* of the ring that it belongs to */
	_Atomic uint64_t tail;
	char pad[64 - 24];
	_Atomic uint64_t sleep; /* counts up; odd: the consumer sleeps, ring the bell once */
};
_Static_assert(sizeof(struct ring_cursor) == 72, "cursor page");

/* The first page of the interest map; its bits follow, as many as a dirty map has. */
struct ring_interest {
	uint8_t id[16];          /* of the ring that it belongs to */
	_Atomic uint64_t active; /* 0: every payload is wanted, whatever the bits say */
};
_Static_assert(sizeof(struct ring_interest) == 24, "interest page");

struct ring_record {
	uint64_t sequence;
	uint64_t time_ns;
	uint64_t sector; /* of a gap record: the gap's number */
	uint32_t nsectors;
	uint32_t flags;
};
_Static_assert(sizeof(struct ring_record) == RING_ALIGN, "ring record");

/* The bits of word w of a map that stand for blocks first to last. */
static inline uint64_t ring_word_mask(uint64_t w, uint64_t first, uint64_t last)
{
	uint64_t mask = UINT64_MAX;
	if (w == first / 64)
		mask &= UINT64_MAX << (first % 64);
	if (w == last / 64)
		mask &= UINT64_MAX >> (63 - last % 64);
	return mask;
}

/* Where the parts of the file are, computed from the two sizes and never read from the file. */
struct ring_geometry {
	uint64_t disk_sectors;  /* a broken last sector counts */
	uint64_t summary_bytes; /* of one map, whole pages */
	uint64_t bits_bytes;    /* of one map, whole pages */
	uint64_t data_offset;
	uint64_t total_bytes;
};

static inline uint64_t ring_pages(uint64_t bytes)
{
	return (bytes + RING_PAGE - 1) / RING_PAGE * RING_PAGE;
}

static inline struct ring_geometry ring_geometry(
	uint32_t version, uint64_t disk_bytes, uint64_t data_bytes)
{
	struct ring_geometry g;
	g.disk_sectors = (disk_bytes + TW_SECTOR_SIZE - 1) / TW_SECTOR_SIZE;
	const uint64_t blocks = (g.disk_sectors + RING_BLOCK_SECTORS - 1) / RING_BLOCK_SECTORS;
	const uint64_t lines = (blocks + RING_LINE_BITS - 1) / RING_LINE_BITS;
	g.bits_bytes = ring_pages(lines * (RING_LINE_BITS / 8));
	g.summary_bytes = ring_pages((lines + 63) / 64 * 8);
	g.data_offset = 3 * RING_PAGE + 2 * (g.bits_bytes + g.summary_bytes);
	if (version >= 2 && data_bytes >= RING_HUGE)
		g.data_offset = (g.data_offset + RING_HUGE - 1) / RING_HUGE * RING_HUGE;
	g.total_bytes = g.data_offset + data_bytes;
	return g;
}

/* Summary (one bit a line) and bits of the map that gap number n uses. */
static inline _Atomic uint64_t *ring_summary(char *base, const struct ring_geometry *g, uint64_t n)
{
	return (_Atomic uint64_t *)(base + 3 * RING_PAGE +
				    (n & 1) * (g->bits_bytes + g->summary_bytes));
}

static inline _Atomic uint64_t *ring_bits(char *base, const struct ring_geometry *g, uint64_t n)
{
	return (_Atomic uint64_t *)((char *)ring_summary(base, g, n) + g->summary_bytes);
}

/* Size of the interest map's file, and its bits. */
static inline uint64_t ring_interest_bytes(const struct ring_geometry *g)
{
	return RING_PAGE + g->bits_bytes;
}

static inline const _Atomic uint64_t *ring_interest_bits(const struct ring_interest *map)
{
	return (const _Atomic uint64_t *)((const char *)map + RING_PAGE);
}

/* Maps the whole file, and the data a second time behind the first, so that no record wraps; by
 * huge pages where file system and layout allow it. prot as for mmap. Returns the base or NULL with
 * errno. Unmap ring_map_bytes() from it. */
char *ring_map(int fd, const struct ring_geometry *g, uint64_t data_bytes, int prot);

static inline size_t ring_map_bytes(const struct ring_geometry *g, uint64_t data_bytes)
{
	return g->total_bytes + data_bytes;
}

/* 0 when the header and the size of the file belong to a ring of a known version, else -EBADMSG. */
int ring_check_header(const struct ring_header *header, uint64_t file_bytes);

void ring_stats(const struct ring_producer *shared, struct tw_ring_stats *out);

/* "<path><suffix>" into out. -ENAMETOOLONG. */
int ring_path(char *out, size_t size, const char *path, const char *suffix);

#endif
