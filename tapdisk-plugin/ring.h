/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ring: a single-producer, single-consumer ring in shared memory, one per disk, that carries
 * writes from the capture point to the inspector. docs/ring.md describes its layout and protocol.
 *
 * The producer never waits and never fails a guest's request for the consumer's sake. A record
 * that does not fit is kept as ranges in a dirty map (one bit per 4 KiB block); when there is room
 * again, a gap record precedes the next record. The consumer can write its own cursor page only,
 * and the producer treats that page as untrusted; the consumer treats everything else as
 * untrusted. The ring is a file (on tmpfs) and outlives both sides; beside it are the consumer's
 * page, a file of its own ("<path>.cursor"), its interest map ("<path>.interest") and the doorbell,
 * a FIFO ("<path>.bell").
 *
 * Errors are negative errno. A producer that is called from several threads locks around it.
 */
#ifndef TW_RING_H
#define TW_RING_H

#include "record.h"
#include <stdbool.h>
#include <stddef.h>

#define TW_RING_DIRTY_SHIFT 12 /* one dirty bit is 4 KiB */
#define TW_RING_DEFAULT_BYTES (64u << 20)
#define TW_RING_MIN_BYTES (64u << 10)
#define TW_RING_INTENTS 256u /* slots for requests in flight */

struct tw_ring;        /* the producer's side */
struct tw_ring_reader; /* the consumer's side */

struct tw_ring_stats {
	uint64_t records;       /* published, gaps included */
	uint64_t payload_bytes; /* captured into the ring */
	uint64_t gaps;          /* gap records published */
	uint64_t missed;        /* writes that went to the dirty map */
	uint64_t missed_bytes;
	uint64_t wakeups;      /* times that the doorbell was rung */
	uint64_t spared_bytes; /* of writes whose content nobody wanted: only their ranges passed */
};

/* --- producer --- */

/* Creates the ring's files. An existing ring of the same disk size and ring size whose producer is
 * gone is taken over: its unread records and dirty map stay, its record sequence goes on, and what
 * was in flight when its producer died goes to the dirty map. Any other ring is replaced; a file
 * that is no ring is left alone (-EEXIST). -EBUSY when its producer lives. All memory is allocated
 * here (-ENOSPC). data_bytes is rounded up to a power of two, at least TW_RING_MIN_BYTES. */
int tw_ring_create(
	const char *path, uint64_t disk_bytes, uint64_t data_bytes, struct tw_ring **out);

/* 0 when path names nothing, or a ring without a live producer. Else -EBUSY, -EEXIST (no ring), or
 * why it cannot be told. */
int tw_ring_vacant(const char *path);

/* Publishes one completed request: flags without TW_RECORD_GAP; payload may be NULL (range only),
 * and is left out when the consumer's interest map says that it wants none of it.
 * A request larger than a quarter of the ring is split. Never waits, never fails; no system call
 * when the consumer is awake. Returns what tw_ring_poll would. */
int tw_ring_publish(struct tw_ring *ring, uint32_t flags, uint64_t sector, uint64_t nsectors,
	const void *payload);
/* A completed request of which the producer cannot say what it has left on the image: it goes to the
 * dirty map, as if there were no room. A range that is published would not do: the consumer may take
 * it for one whose content it did not want. Returns what tw_ring_poll would. */
int tw_ring_miss(struct tw_ring *ring, uint64_t sector, uint64_t nsectors);
/* Announces an open gap when there is room for it. 1 while there is a gap that is not announced,
 * else 0: whoever owns the ring calls it now and then (tens of milliseconds) while it returns 1,
 * or the writes of a guest that has gone quiet would stay in the dirty map. */
int tw_ring_poll(struct tw_ring *ring);
/* Notes in slot (< TW_RING_INTENTS, one request at a time) that a request on these sectors is
 * about to reach the image, nsectors 0: that it is published or has failed. Optional; with it, a
 * producer may die between write and publish. Unlike the other calls, it needs no lock. */
void tw_ring_intent(struct tw_ring *ring, unsigned slot, uint64_t sector, uint64_t nsectors);
/* Counters so far. */
void tw_ring_stats(const struct tw_ring *ring, struct tw_ring_stats *out);
/* Announces an open gap if there is room, gives the ring up and unmaps; the files stay for the
 * consumer. NULL is fine. */
void tw_ring_destroy(struct tw_ring *ring);

/* --- consumer --- */

/* Maps an existing ring. -ENOENT, -EBADMSG for a file that is no ring or whose header contradicts
 * its size, -EBUSY when another consumer holds it (flock). Reading starts at the released
 * position. */
int tw_ring_reader_open(const char *path, struct tw_ring_reader **out);
void tw_ring_reader_destroy(struct tw_ring_reader *r);

uint64_t tw_ring_reader_disk_bytes(const struct tw_ring_reader *r);
/* Identity of this ring (random, made at creation, kept at takeover): 16 bytes. */
const uint8_t *tw_ring_reader_id(const struct tw_ring_reader *r);
/* 1 when a live producer holds the ring, else 0. */
int tw_ring_reader_producer_alive(const struct tw_ring_reader *r);
void tw_ring_reader_stats(const struct tw_ring_reader *r, struct tw_ring_stats *out);
/* 1 when no consumer has ever taken a record of it and given its space back, else 0. */
int tw_ring_reader_is_whole(const struct tw_ring_reader *r);
/* Bytes that the producer has published and that are not released yet. */
uint64_t tw_ring_reader_backlog(const struct tw_ring_reader *r);

/* 1 and the next record (its payload points into the ring and stays valid until it is released), 0
 * when there is none, -EBADMSG when the producer wrote nonsense (only destroy may follow). */
int tw_ring_next(struct tw_ring_reader *r, struct tw_record *out);
/* Which of these sectors of the image, which were read before the call, may hold more than the records up to
 * number after say, since a later write has been on its way to them (its record, or the gap that it is in,
 * comes later): for those, touched[i] becomes 1. Looks at all records that tw_ring_next has not returned, once.
 * 0, -EINVAL beyond the disk, or -EBADMSG. */
int tw_ring_touched(const struct tw_ring_reader *r, uint64_t after, uint64_t sector, uint32_t nsectors,
	uint8_t *touched);
/* Gives the space of all records that tw_ring_next returned so far back to the producer, which may
 * then forget the map of a gap record among them. */
void tw_ring_release(struct tw_ring_reader *r);

/* After a gap record: calls range(sector, nsectors, arg) for each dirty range in ascending order
 * (adjacent ones joined). The map stays until the gap record is released: a consumer that dies
 * before finds both again. -EINVAL when no gap record waits for its release. */
int tw_ring_take_gap(struct tw_ring_reader *r,
	void (*range)(uint64_t sector, uint64_t nsectors, void *arg), void *arg);

/* The number of a gap that is open, which is to say that it was not announced yet; 0: there is none. What
 * was written before the call is then in the ring, in a gap that was announced, or in this one. */
uint64_t tw_ring_reader_open_gap(const struct tw_ring_reader *r);

/* A producer that is gone may have left a gap that it had no room to announce: calls range() for what it
 * holds. 1 when there was one, 0 when not, -EBUSY while a producer lives. The next producer announces it
 * all the same. */
int tw_ring_take_open_gap(struct tw_ring_reader *r,
	void (*range)(uint64_t sector, uint64_t nsectors, void *arg), void *arg);

/* The interest map: with it, the producer leaves out the content of writes that cover no wanted
 * block of 4 KiB. It is a hint and may be late: a record may lack content that is wanted by now,
 * and have one that is not. false, or a ring whose producer has no such map: all content is wanted.
 */
void tw_ring_interest(struct tw_ring_reader *r, bool active);
/* Says that the content of all blocks that these sectors touch is wanted; or that it is not, of
 * those that they cover. Beyond the disk: passed over. Set all blocks before the map is made
 * active. */
void tw_ring_want(struct tw_ring_reader *r, uint64_t sector, uint64_t nsectors, bool wanted);
/* Whether there is a map; without one, there is no need to keep it. */
bool tw_ring_has_interest(const struct tw_ring_reader *r);

/* Removes the files of a ring that no producer has: whoever needs one makes a new one. -ENOENT: there is none; -EBUSY:
 * a producer has it; -EEXIST: it is no ring. */
int tw_ring_remove(const char *path);
/* 1 when a live producer holds the ring at path, else 0. */
int tw_ring_has_producer(const char *path);

/* File descriptor to poll for POLLIN before sleeping; owned by the reader. */
int tw_ring_bell_fd(const struct tw_ring_reader *r);
/* Says that the consumer is about to sleep: afterwards the producer rings. Returns 1 when records
 * have come meanwhile (do not sleep), else 0. Takes about 0.1 ms, so that a busy guest's writes
 * find the consumer awake. */
int tw_ring_arm(struct tw_ring_reader *r);
/* Says that the consumer is awake and empties the doorbell. */
void tw_ring_disarm(struct tw_ring_reader *r);

#endif
