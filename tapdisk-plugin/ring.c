/* SPDX-License-Identifier: BSD-3-Clause */
/* The ring's producer: the guest's I/O path. Making and taking over its files is in ring-file.c. */
#include "ring-copy.h"
#include "ring-producer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t load(const _Atomic uint64_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

/* Release, always: whoever is killed after this store has made all stores before it. */
static void store(_Atomic uint64_t *p, uint64_t value)
{
	atomic_store_explicit(p, value, memory_order_release);
}

static void count(struct tw_ring *ring, enum ring_stat stat, uint64_t n)
{
	_Atomic uint64_t *p = &ring->shared->stats[stat];
	atomic_store_explicit(p, load(p) + n, memory_order_relaxed);
}

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- the dirty map --- */

static void set_bits(_Atomic uint64_t *words, uint64_t first, uint64_t last)
{
	for (uint64_t w = first / 64; w <= last / 64; w++) {
		const uint64_t mask = ring_word_mask(w, first, last);
		const uint64_t old = load(&words[w]);
		if ((old & mask) != mask)
			store(&words[w], old | mask);
	}
}

/* nsectors > 0, within the disk. */
static void mark_dirty(struct tw_ring *ring, uint64_t sector, uint64_t nsectors)
{
	uint64_t state = load(&ring->shared->gap_state);
	if (!(state & 1)) {
		state += 3; /* from "n announced" to "n + 1 open" */
		store(&ring->shared->gap_state, state);
		ring->gap = true;
	}
	const uint64_t first = sector / RING_BLOCK_SECTORS;
	const uint64_t last = (sector + nsectors - 1) / RING_BLOCK_SECTORS;
	/* The summary first: a line that it does not know would never be cleared. */
	set_bits(ring_summary(ring->base, &ring->geometry, state >> 1), first / RING_LINE_BITS,
		last / RING_LINE_BITS);
	set_bits(ring_bits(ring->base, &ring->geometry, state >> 1), first, last);
}

/* What is cleared at a time, while a guest's write waits: less than a microsecond; and from a timer.
 * Lines that were dirtied (2 MiB of disk); words of the summary that are looked at (128 MiB). */
#define CLEAR_LINES 256u
#define CLEAR_LINES_IDLE 4096u
#define CLEAR_WORDS 1024u

/* True when the map is clear; otherwise there is more to do. */
static bool clear_map(struct tw_ring *ring, uint64_t gap, unsigned lines)
{
	_Atomic uint64_t *summary = ring_summary(ring->base, &ring->geometry, gap);
	_Atomic uint64_t *bits = ring_bits(ring->base, &ring->geometry, gap);
	const uint64_t all = ring->geometry.summary_bytes / 8;
	const uint64_t end = all - ring->cleared < CLEAR_WORDS ? all : ring->cleared + CLEAR_WORDS;
	unsigned done = 0;
	for (; ring->cleared < end && done < lines; ring->cleared++) {
		const uint64_t word = load(&summary[ring->cleared]);
		if (!word)
			continue;
		for (uint64_t left = word; left; left &= left - 1, done++) {
			const uint64_t line = ring->cleared * 64 + (uint64_t)__builtin_ctzll(left);
			memset((void *)&bits[line * RING_LINE_WORDS], 0, RING_LINE_WORDS * 8);
		}
		store(&summary[ring->cleared], 0);
	}
	return ring->cleared == all;
}

/* --- room --- */

/* Takes over how far the consumer has come. A tail that goes back or is ahead of the head is
 * ignored, which leaves the ring as full as it last was. */
static void look_at_tail(struct tw_ring *ring)
{
	const uint64_t tail = atomic_load_explicit(&ring->cursor->tail, memory_order_acquire);
	if (tail <= ring->tail || tail > ring->head)
		return;
	ring->tail = tail;
	store(&ring->shared->tail_seen, tail);
}

static inline bool has_room(struct tw_ring *ring, uint64_t bytes)
{
	if (__builtin_expect(ring->data_bytes - (ring->head - ring->tail) >= bytes, 1))
		return true;
	look_at_tail(ring);
	return ring->data_bytes - (ring->head - ring->tail) >= bytes;
}

/* --- interest --- */

/* The map is the consumer's: whatever it says, only its own bits are looked at. */
static bool is_wanted(const struct tw_ring *ring, uint64_t sector, uint64_t nsectors)
{
	const struct ring_interest *map = ring->interest;
	if (!map || !atomic_load_explicit(&map->active, memory_order_acquire))
		return true;
	const _Atomic uint64_t *bits = ring_interest_bits(map);
	const uint64_t first = sector / RING_BLOCK_SECTORS;
	const uint64_t last = (sector + nsectors - 1) / RING_BLOCK_SECTORS;
	for (uint64_t w = first / 64; w <= last / 64; w++) {
		if (load(&bits[w]) & ring_word_mask(w, first, last))
			return true;
	}
	return false;
}

/* --- publishing --- */

/* There is room. The order of the stores is what makes a takeover exact: see ring-file.c. */
static inline void put(
	struct tw_ring *ring, const struct ring_record *rec, const void *payload, size_t bytes)
{
	const uint64_t pos = ring->head;
	struct ring_record *to = (struct ring_record *)(ring->data + (pos & (ring->data_bytes - 1)));
	*to = *rec;
	if (bytes)
		ring_copy((char *)(to + 1), payload, bytes);
	ring->sequence++;
	ring->head = pos + sizeof(*rec) + bytes;
	store(&ring->shared->last_pos, pos);
	store(&ring->shared->head, ring->head);
	count(ring, STAT_RECORDS, 1);
	count(ring, STAT_PAYLOAD, bytes);
}

static void wake(struct tw_ring *ring)
{
	/* Pairs with the fence in tw_ring_arm: either we see it asleep or it sees the new head. */
	atomic_thread_fence(memory_order_seq_cst);
	const uint64_t sleep = load(&ring->cursor->sleep);
	if (!(sleep & 1) || sleep == ring->rung)
		return;
	ring->rung = sleep;
	count(ring, STAT_WAKEUPS, 1);
	/* A full FIFO wakes as well as one more byte in it. */
	ssize_t n = write(ring->bell, "", 1);
	(void)n;
}

/* The ring has to be half empty: right after a full ring the next gap would follow at once, and
 * each costs the consumer a resync. */
static bool announce_gap(struct tw_ring *ring, unsigned lines)
{
	struct ring_producer *shared = ring->shared;
	const uint64_t state = load(&shared->gap_state);
	const uint64_t sent = load(&shared->sent_gap);
	if (sent || (state & 1))
		look_at_tail(ring);
	if (sent && ring->tail >= load(&shared->sent_end) && clear_map(ring, sent, lines))
		store(&shared->sent_gap, 0);
	ring->gap = (state & 1) || load(&shared->sent_gap);
	if (!(state & 1))
		return true;
	if (load(&shared->sent_gap) || !has_room(ring, ring->data_bytes / 2))
		return false;
	const struct ring_record rec = {
		.sequence = ring->sequence,
		.time_ns = now_ns(),
		.sector = state >> 1,
		.flags = TW_RECORD_GAP,
	};
	store(&shared->sent_end, ring->head + sizeof(rec));
	store(&shared->sent_gap, state >> 1);
	ring->cleared = 0;
	put(ring, &rec, NULL, 0);
	store(&shared->gap_state, state - 1);
	count(ring, STAT_GAPS, 1);
	return true;
}

/* True when no gap is open any more. */
static inline bool announce(struct tw_ring *ring, unsigned lines)
{
	return !ring->gap || announce_gap(ring, lines);
}

static void miss(struct tw_ring *ring, uint64_t sector, uint64_t nsectors)
{
	if (nsectors == 0)
		return; /* a flush: the gap says more than it could */
	mark_dirty(ring, sector, nsectors);
	count(ring, STAT_MISSED, 1);
	count(ring, STAT_MISSED_BYTES, nsectors * TW_SECTOR_SIZE);
}

static uint64_t longest_record(const struct tw_ring *ring, const void *payload)
{
	const uint64_t fits = (ring->data_bytes / 4 - sizeof(struct ring_record)) / TW_SECTOR_SIZE;
	return payload && fits < RING_MAX_SECTORS ? fits : RING_MAX_SECTORS;
}

static int gap_is_open(const struct tw_ring *ring)
{
	return ring->gap && (load(&ring->shared->gap_state) & 1);
}

int tw_ring_publish(struct tw_ring *ring, uint32_t flags, uint64_t sector, uint64_t nsectors,
	const void *payload)
{
	const uint64_t disk = ring->geometry.disk_sectors;
	const uint64_t time_ns = now_ns();
	if (nsectors && sector >= disk)
		return gap_is_open(ring);
	if (nsectors && nsectors > disk - sector)
		nsectors = disk - sector;
	const bool open = !announce(ring, CLEAR_LINES);
	if (payload && nsectors && !is_wanted(ring, sector, nsectors)) {
		payload = NULL;
		count(ring, STAT_SPARED, nsectors * TW_SECTOR_SIZE);
	}
	const uint64_t longest = longest_record(ring, payload);
	flags &= ~(uint32_t)(TW_RECORD_GAP | TW_RECORD_PAYLOAD);
	do {
		/* In whole blocks: of half a block of metadata, nobody can say what it holds. */
		const uint64_t n = nsectors <= longest ? nsectors
						       : longest - longest % RING_BLOCK_SECTORS;
		const size_t bytes = payload ? n * TW_SECTOR_SIZE : 0;
		if (open || !has_room(ring, sizeof(struct ring_record) + bytes)) {
			miss(ring, sector, nsectors);
			break;
		}
		const struct ring_record rec = {
			.sequence = ring->sequence,
			.time_ns = time_ns,
			.sector = sector,
			.nsectors = (uint32_t)n,
			.flags = flags | (bytes ? TW_RECORD_PAYLOAD : 0),
		};
		put(ring, &rec, payload, bytes);
		sector += n;
		nsectors -= n;
		payload = payload ? (const char *)payload + bytes : NULL;
	} while (nsectors > 0);
	wake(ring);
	return gap_is_open(ring);
}

static int poll_gap(struct tw_ring *ring, unsigned lines)
{
	if (!announce(ring, lines))
		return 1;
	wake(ring);
	return 0;
}

int tw_ring_miss(struct tw_ring *ring, uint64_t sector, uint64_t nsectors)
{
	const uint64_t disk = ring->geometry.disk_sectors;
	if (nsectors == 0 || sector >= disk)
		return gap_is_open(ring);
	miss(ring, sector, nsectors < disk - sector ? nsectors : disk - sector);
	return poll_gap(ring, CLEAR_LINES);
}

int tw_ring_poll(struct tw_ring *ring)
{
	return poll_gap(ring, CLEAR_LINES_IDLE);
}

void tw_ring_intent(struct tw_ring *ring, unsigned slot, uint64_t sector, uint64_t nsectors)
{
	struct ring_intent *intent = &ring->intents[slot % TW_RING_INTENTS];
	/* Never a new sector with an old length: a request that is over leaves 0 behind. */
	if (nsectors)
		store(&intent->sector, sector);
	store(&intent->nsectors, nsectors);
}

/* --- taking over --- */

/* What was in flight when the last producer died may be on the image without a record. */
static void adopt_intents(struct tw_ring *ring)
{
	const uint64_t disk = ring->geometry.disk_sectors;
	for (unsigned i = 0; i < TW_RING_INTENTS; i++) {
		const uint64_t sector = load(&ring->intents[i].sector);
		uint64_t n = load(&ring->intents[i].nsectors);
		if (n && sector < disk)
			miss(ring, sector, n < disk - sector ? n : disk - sector);
		store(&ring->intents[i].nsectors, 0);
	}
}

void ring_adopt(struct tw_ring *ring)
{
	struct ring_producer *shared = ring->shared;
	const uint64_t sent = load(&shared->sent_gap);
	const uint64_t last = load(&shared->last_pos);

	ring->head = load(&shared->head);
	ring->tail = load(&shared->tail_seen);
	look_at_tail(ring);

	/* The record at last_pos has its number, whether or not it was published. */
	ring->sequence = 1;
	if (last != RING_NO_RECORD) {
		struct ring_record rec;
		memcpy(&rec, ring->data + (last & (ring->data_bytes - 1)), sizeof(rec));
		ring->sequence = rec.sequence + (ring->head > last);
	}
	/* A gap record that was not published leaves its gap open; one that was closes it. */
	if (sent && load(&shared->sent_end) > ring->head)
		store(&shared->sent_gap, 0);
	else if (sent && load(&shared->gap_state) == 2 * sent + 1)
		store(&shared->gap_state, 2 * sent);
	ring->gap = true; /* until it has been looked for */
	adopt_intents(ring);
	(void)tw_ring_poll(ring);
}

void tw_ring_stats(const struct tw_ring *ring, struct tw_ring_stats *out)
{
	ring_stats(ring->shared, out);
}

void tw_ring_destroy(struct tw_ring *ring)
{
	if (!ring)
		return;
	if (ring->shared)
		(void)tw_ring_poll(ring);
	ring_close(ring);
	free(ring);
}
