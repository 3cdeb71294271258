/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Input: one byte, whose lowest bit says which side of a ring is hostile; then steps, a byte each
 * with what it takes. The good side is the product's; the hostile one writes whatever it likes into
 * the files that are its own.
 */
#include "input.h"
#include "ring-layout.h"
#include "ring.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define DISK_BYTES (4u << 20)
#define DATA_BYTES TW_RING_MIN_BYTES
#define DISK_SECTORS (DISK_BYTES / TW_SECTOR_SIZE)
#define STEPS 512

/* A file as whoever may write to it sees it. */
struct page {
	uint8_t *at;
	size_t size;
};

struct rings {
	char path[64];
	bool hostile_producer;
	struct tw_ring *ring;
	struct tw_ring_reader *r;
	struct page ring_file, cursor, interest;
};

static struct page map_page(const struct rings *rings, const char *suffix)
{
	char path[96];
	snprintf(path, sizeof(path), "%s%s", rings->path, suffix);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct page page = {.size = 0};
	if (fd < 0)
		abort();
	page.size = (size_t)lseek(fd, 0, SEEK_END);
	page.at = mmap(NULL, page.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (page.at == MAP_FAILED)
		abort();
	return page;
}

static void create(struct rings *rings)
{
	if (tw_ring_create(rings->path, DISK_BYTES, DATA_BYTES, &rings->ring) != 0)
		abort();
	rings->ring_file = map_page(rings, "");
	rings->cursor = map_page(rings, ".cursor");
	rings->interest = map_page(rings, ".interest");
}

static void unmap_pages(const struct rings *rings)
{
	munmap(rings->ring_file.at, rings->ring_file.size);
	munmap(rings->cursor.at, rings->cursor.size);
	munmap(rings->interest.at, rings->interest.size);
}

static void scribble(struct input *in, const struct page *page)
{
	size_t at = take(in, 4) % page->size;
	for (size_t n = 1 + take(in, 1) % 16; n && at < page->size; n--, at++)
		page->at[at] = (uint8_t)take(in, 1);
}

/* --- the hostile consumer --- */

/* Whatever the consumer wrote: what the producer keeps for the next one makes sense, and it has
 * written nothing to where it does not write. */
static void check_producer(const struct rings *rings)
{
	const struct ring_producer *shared =
		(const struct ring_producer *)(rings->ring_file.at + RING_PAGE);
	const struct ring_header *header = (const struct ring_header *)rings->ring_file.at;
	const uint64_t head = atomic_load(&shared->head), tail = atomic_load(&shared->tail_seen);
	if (tail > head || head - tail > DATA_BYTES || head % RING_ALIGN)
		abort();
	if (ring_check_header(header, rings->ring_file.size) != 0)
		abort();
	for (size_t i = sizeof(*header); i < RING_PAGE; i++)
		if (rings->ring_file.at[i])
			abort();
}

static void producer_step(struct rings *rings, struct input *in)
{
	static const char payload[128 * TW_SECTOR_SIZE];
	uint64_t sector, n;
	uint32_t flags;
	switch (take(in, 1) % 8) {
	case 0:
		scribble(in, &rings->cursor);
		break;
	case 1:
		scribble(in, &rings->interest);
		break;
	case 2:
		(void)tw_ring_poll(rings->ring);
		break;
	case 3: /* the next one, which may find that it has to make another ring */
		tw_ring_destroy(rings->ring);
		unmap_pages(rings);
		create(rings);
		break;
	case 4:
		sector = (uint64_t)take(in, 4) << 32 | take(in, 4);
		n = (uint64_t)take(in, 4) << 32 | take(in, 4);
		flags = take(in, 4);
		(void)tw_ring_publish(rings->ring, flags, sector, n, NULL);
		break;
	default:
		sector = take(in, 2);
		flags = take(in, 1);
		n = take(in, 1) % 128;
		(void)tw_ring_publish(rings->ring, flags, sector, n, payload);
	}
	check_producer(rings);
}

/* --- the hostile producer --- */

static void take_range(uint64_t sector, uint64_t nsectors, void *arg)
{
	uint64_t *end = arg;
	if (nsectors == 0 || sector < *end || sector + nsectors > DISK_SECTORS)
		abort();
	*end = sector + nsectors;
}

static void check_record(struct rings *rings, const struct tw_record *record)
{
	volatile uint64_t sum = 0;
	uint64_t end = 0;
	if (record->nsectors && record->sector + record->nsectors > DISK_SECTORS)
		abort();
	if (!record->payload != !(record->flags & TW_RECORD_PAYLOAD))
		abort();
	for (size_t i = 0; record->payload && i < (size_t)record->nsectors * TW_SECTOR_SIZE; i++)
		sum += ((const uint8_t *)record->payload)[i];
	if (record->flags & TW_RECORD_GAP)
		(void)tw_ring_take_gap(rings->r, take_range, &end);
	(void)sum;
}

/* Goes on after an error as an inspector does: with a ring that it opens again. */
static void open_reader(struct rings *rings)
{
	tw_ring_reader_destroy(rings->r);
	rings->r = NULL;
	(void)tw_ring_reader_open(rings->path, &rings->r);
}

static void consumer_step(struct rings *rings, struct input *in)
{
	struct tw_record record;
	uint64_t end = 0;
	const uint32_t what = take(in, 1) % 8;
	if (what == 0) {
		scribble(in, &rings->ring_file);
	} else if (what == 1 || !rings->r) {
		open_reader(rings);
	} else if (what == 2) {
		tw_ring_release(rings->r);
	} else if (what == 3) {
		(void)tw_ring_take_open_gap(rings->r, take_range, &end);
	} else if (what == 4) {
		const uint64_t sector = take(in, 2), n = take(in, 2);
		tw_ring_want(rings->r, sector, n, take(in, 1) & 1);
	} else if (what == 5) {
		static uint8_t touched[UINT16_MAX];
		const uint64_t sector = take(in, 2);
		const uint32_t n = (uint32_t)take(in, 2);
		(void)tw_ring_touched(rings->r, take(in, 1), sector, n, touched);
	} else {
		int ret = tw_ring_next(rings->r, &record);
		if (ret == 1)
			check_record(rings, &record);
		else if (ret != 0)
			open_reader(rings);
	}
}

/* --- */

/* Something to read, and a gap. */
static void fill(struct tw_ring *ring)
{
	static const char payload[16 * TW_SECTOR_SIZE];
	for (uint64_t i = 0; i < 10; i++)
		(void)tw_ring_publish(ring, 0, i * 24, 16, payload);
}

static void begin(struct rings *rings, struct input *in)
{
	rings->hostile_producer = take(in, 1) & 1;
	create(rings);
	if (!rings->hostile_producer)
		return;
	fill(rings->ring);
	tw_ring_destroy(rings->ring);
	rings->ring = NULL;
	open_reader(rings);
}

static void end(struct rings *rings)
{
	tw_ring_reader_destroy(rings->r);
	tw_ring_destroy(rings->ring);
	unmap_pages(rings);
	(void)tw_ring_remove(rings->path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const suffixes[] = {"", ".cursor", ".interest", ".bell"};
	struct input in = {data, size};
	struct rings rings = {.ring = NULL};
	snprintf(rings.path, sizeof(rings.path), "/dev/shm/tapwire-fuzz-ring-%d", (int)getpid());
	begin(&rings, &in);
	for (int i = 0; i < STEPS && in.size; i++) {
		if (rings.hostile_producer)
			consumer_step(&rings, &in);
		else
			producer_step(&rings, &in);
	}
	end(&rings);
	/* What tw_ring_remove does not take for a ring any more. */
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
		char path[96];
		snprintf(path, sizeof(path), "%s%s", rings.path, suffixes[i]);
		(void)unlink(path);
	}
	return 0;
}
