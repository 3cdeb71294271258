/* SPDX-License-Identifier: BSD-3-Clause */
#include "volume/tables.h"

#include "base/span.h"

#include <string.h>

/* An MBR, a GPT with sectors of up to 4 KiB, and the tables of other systems. */
#define HEAD_BYTES (24u << 10)
/* Tables within a partition (BSD, Minix, Solaris) are in its first sectors. */
#define NESTED_BYTES 8192u
/* No table of entries is longer than this. */
#define GPT_MAX_ENTRIES (1u << 20)
/* libblkid follows a chain no further. */
#define MAX_EBR 256

enum {
	MBR_ENTRIES = 446,
	MBR_ENTRY = 16,
	MBR_SIGNATURE = 510,
};

struct entry {
	uint8_t type;
	uint64_t start; /* sectors, from wherever its table counts */
};

static struct entry entry_of(struct tw_span sector, unsigned index)
{
	size_t at = MBR_ENTRIES + index * MBR_ENTRY;
	return (struct entry){tw_u8(sector, at + 4), tw_le32(sector, at + 8)};
}

static bool is_table(struct tw_span sector)
{
	return tw_le16(sector, MBR_SIGNATURE) == 0xaa55;
}

static bool is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0f || type == 0x85;
}

/* FreeBSD, OpenBSD, NetBSD, Minix, UnixWare, Solaris; not 0x82, which is Linux's swap, too. */
static bool is_nested(uint8_t type)
{
	return type == 0xa5 || type == 0xa6 || type == 0xa9 || type == 0x81 || type == 0x63 ||
	       type == 0xbf;
}

static struct tw_error *spot(
	struct tw_window *window, uint64_t offset, uint64_t bytes, struct tw_layout *layout)
{
	if (offset >= window->source->bytes)
		return NULL;
	TW_TRY(tw_layout_add_spot(layout, offset, bytes));
	return tw_window_copy(window, offset, bytes);
}

static struct tw_error *read_sector(
	const struct tw_window *window, uint64_t offset, uint8_t sector[static 512])
{
	memset(sector, 0, 512);
	const struct tw_source *source = window->source;
	if (offset > source->bytes || source->bytes - offset < 512)
		return NULL;
	return tw_source_read(source, offset, sector, 512);
}

/* The chain of logical partitions: each record names the next one, counted from the extended
 * partition's start. */
static struct tw_error *find_chain(
	struct tw_window *window, uint64_t extended, uint32_t bytes, struct tw_layout *layout)
{
	uint64_t at = extended, seen[MAX_EBR];
	for (unsigned n = 0; n < MAX_EBR; n++) {
		uint8_t data[512];
		struct tw_span sector = tw_span(data, sizeof(data));
		for (unsigned i = 0; i < n; i++)
			if (seen[i] == at)
				return NULL;
		seen[n] = at;
		/* Its spot counts even when nothing is there yet: what is written next may be it.
		 */
		TW_TRY(spot(window, at * bytes, bytes, layout));
		TW_TRY(read_sector(window, at * bytes, data));
		if (!is_table(sector))
			return NULL;
		unsigned i = 0;
		while (i < 4 && !is_extended(entry_of(sector, i).type))
			i++;
		if (i == 4 || !entry_of(sector, i).start)
			return NULL;
		at = extended + entry_of(sector, i).start;
	}
	return NULL;
}

static struct tw_error *find_mbr(struct tw_window *window, uint32_t bytes, struct tw_layout *layout)
{
	struct tw_span sector = tw_span(layout->first, sizeof(layout->first));
	TW_TRY(read_sector(window, 0, layout->first));
	if (!is_table(sector))
		return NULL;
	for (unsigned i = 0; i < 4; i++) {
		struct entry entry = entry_of(sector, i);
		uint64_t at = entry.start * bytes;
		if (is_extended(entry.type))
			TW_TRY(find_chain(window, entry.start, bytes, layout));
		else if (is_nested(entry.type))
			TW_TRY(spot(window, at, NESTED_BYTES, layout));
		else if (entry.type && entry.start)
			TW_TRY(tw_window_copy(window, at, NESTED_BYTES));
	}
	return NULL;
}

/* A header and its entries. *other: where the header says that its copy is; 0: there is no header.
 */
static struct tw_error *find_gpt(struct tw_window *window, uint64_t at, uint32_t bytes,
	struct tw_layout *layout, uint64_t *other)
{
	uint8_t data[512];
	struct tw_span header = tw_span(data, sizeof(data));
	*other = 0;
	TW_TRY(spot(window, at, bytes, layout));
	TW_TRY(read_sector(window, at, data));
	if (memcmp(data, "EFI PART", 8))
		return NULL;
	uint64_t entries = tw_le64(header, 72), lba = tw_le64(header, 32);
	uint64_t size = (uint64_t)tw_le32(header, 80) * tw_le32(header, 84);
	size = size < GPT_MAX_ENTRIES ? size : GPT_MAX_ENTRIES;
	if (entries < window->source->bytes / bytes)
		TW_TRY(spot(window, entries * bytes, size, layout));
	*other = lba < window->source->bytes / bytes ? lba * bytes : 0;
	return NULL;
}

struct tw_error *tw_tables_find(struct tw_window *window, uint32_t sector, struct tw_layout *layout)
{
	uint64_t other, none, last = window->source->bytes / sector * sector;
	last = last >= sector ? last - sector : 0;
	TW_TRY(tw_window_copy(window, 0, HEAD_BYTES));
	TW_TRY(tw_layout_add_spot(layout, 0, HEAD_BYTES));
	TW_TRY(find_mbr(window, sector, layout));
	TW_TRY(find_gpt(window, sector, sector, layout, &other));
	if (other && other != last)
		TW_TRY(find_gpt(window, other, sector, layout, &none));
	return find_gpt(window, last, sector, layout, &none);
}
