/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ring's consumer. It maps the ring read-only and its cursor page read-write, and keeps no
 * file descriptor that could write to either: a consumer that an attacker runs can spoil its
 * cursor page and nothing else.
 */
#include "ring-layout.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINGER_NS 100000L

struct tw_ring_reader {
	int fd;        /* the ring, read-only: whether the producer lives */
	int cursor_fd; /* the cursor page, read-only: the consumer's lock */
	int bell;
	char *base;
	const char *data;
	const struct ring_producer *producer;
	struct ring_cursor *cursor;
	struct ring_interest *interest; /* NULL: the producer has no map */
	struct ring_header header;
	struct ring_geometry geometry;
	uint64_t pos;      /* of the next record */
	uint64_t sequence; /* of the next record; 0: whatever it has */
	uint64_t gap;      /* number of the gap record that waits for its release; 0: none */
};

/* --- opening --- */

static int map_ring(struct tw_ring_reader *r, const char *path)
{
	struct stat st;
	r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (r->fd < 0 || fstat(r->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	if (pread(r->fd, &r->header, sizeof(r->header), 0) != sizeof(r->header))
		return -EBADMSG;
	int ret = ring_check_header(&r->header, (uint64_t)st.st_size);
	if (ret)
		return ret;
	r->geometry = ring_geometry(
		r->header.version, r->header.disk_bytes, r->header.data_bytes);
	r->base = ring_map(r->fd, &r->geometry, r->header.data_bytes, PROT_READ);
	if (!r->base)
		return -errno;
	r->data = r->base + r->geometry.data_offset;
	r->producer = (const struct ring_producer *)(r->base + RING_PAGE);
	return 0;
}

static int lock_cursor(struct tw_ring_reader *r, const char *path)
{
	r->cursor_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (r->cursor_fd < 0)
		return -errno;
	if (flock(r->cursor_fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	return 0;
}

static int map_cursor(struct tw_ring_reader *r, const char *path)
{
	struct stat locked, st;
	char cursor[PATH_MAX];
	int ret = ring_path(cursor, sizeof(cursor), path, ".cursor");
	if (ret == 0)
		ret = lock_cursor(r, cursor);
	if (ret)
		return ret;
	int fd = open(cursor, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	void *page = MAP_FAILED;
	if (fstat(fd, &st) < 0 || fstat(r->cursor_fd, &locked) < 0)
		ret = -errno;
	else if (!S_ISREG(st.st_mode) || st.st_size != RING_PAGE || st.st_ino != locked.st_ino)
		ret = -EBADMSG;
	else
		page = mmap(NULL, RING_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ret == 0 && page == MAP_FAILED)
		ret = -errno;
	close(fd);
	if (ret)
		return ret;
	r->cursor = page;
	return memcmp(r->cursor->id, r->header.id, sizeof(r->header.id)) == 0 ? 0 : -EBADMSG;
}

/* A producer of an older version has none. */
static int map_interest(struct tw_ring_reader *r, const char *path)
{
	struct stat st;
	char name[PATH_MAX];
	const uint64_t bytes = ring_interest_bytes(&r->geometry);
	int ret = ring_path(name, sizeof(name), path, ".interest");
	if (ret)
		return ret;
	int fd = open(name, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	void *map = MAP_FAILED;
	if (fstat(fd, &st) < 0)
		ret = -errno;
	else if (S_ISREG(st.st_mode) && (uint64_t)st.st_size == bytes)
		map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (ret || map == MAP_FAILED)
		return ret;
	if (memcmp(map, r->header.id, sizeof(r->header.id)) != 0)
		munmap(map, bytes); /* an earlier ring's */
	else
		r->interest = map;
	return 0;
}

static int open_bell(struct tw_ring_reader *r, const char *path)
{
	char bell[PATH_MAX];
	struct stat st;
	int ret = ring_path(bell, sizeof(bell), path, ".bell");
	if (ret)
		return ret;
	/* For writing too, or poll would report a hangup for ever once the producer is gone. */
	r->bell = open(bell, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (r->bell < 0 || fstat(r->bell, &st) < 0)
		return -errno;
	return S_ISFIFO(st.st_mode) ? 0 : -EBADMSG;
}

static uint64_t head_of(const struct tw_ring_reader *r)
{
	return atomic_load_explicit(&r->producer->head, memory_order_acquire);
}

static int find_position(struct tw_ring_reader *r)
{
	r->pos = atomic_load_explicit(&r->cursor->tail, memory_order_relaxed);
	if (r->pos % RING_ALIGN || head_of(r) - r->pos > r->header.data_bytes)
		return -EBADMSG;
	/* The last consumer may have died asleep. */
	tw_ring_disarm(r);
	return 0;
}

int tw_ring_reader_open(const char *path, struct tw_ring_reader **out)
{
	struct tw_ring_reader *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->fd = r->cursor_fd = r->bell = -1;
	int ret = map_ring(r, path);
	if (ret == 0)
		ret = map_cursor(r, path);
	if (ret == 0)
		ret = map_interest(r, path);
	if (ret == 0)
		ret = open_bell(r, path);
	if (ret == 0)
		ret = find_position(r);
	if (ret) {
		tw_ring_reader_destroy(r);
		return ret;
	}
	*out = r;
	return 0;
}

void tw_ring_reader_destroy(struct tw_ring_reader *r)
{
	if (!r)
		return;
	if (r->base)
		munmap(r->base, ring_map_bytes(&r->geometry, r->header.data_bytes));
	if (r->cursor)
		munmap(r->cursor, RING_PAGE);
	if (r->interest)
		munmap(r->interest, ring_interest_bytes(&r->geometry));
	if (r->bell >= 0)
		close(r->bell);
	if (r->cursor_fd >= 0)
		close(r->cursor_fd);
	if (r->fd >= 0)
		close(r->fd);
	free(r);
}

/* --- looking at the ring --- */

uint64_t tw_ring_reader_disk_bytes(const struct tw_ring_reader *r)
{
	return r->header.disk_bytes;
}

const uint8_t *tw_ring_reader_id(const struct tw_ring_reader *r)
{
	return r->header.id;
}

int tw_ring_reader_producer_alive(const struct tw_ring_reader *r)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
	return fcntl(r->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

void tw_ring_reader_stats(const struct tw_ring_reader *r, struct tw_ring_stats *out)
{
	ring_stats(r->producer, out);
}

int tw_ring_reader_is_whole(const struct tw_ring_reader *r)
{
	return r->pos == 0 && atomic_load_explicit(&r->cursor->tail, memory_order_relaxed) == 0;
}

uint64_t tw_ring_reader_backlog(const struct tw_ring_reader *r)
{
	return head_of(r) - atomic_load_explicit(&r->cursor->tail, memory_order_relaxed);
}

int tw_ring_bell_fd(const struct tw_ring_reader *r)
{
	return r->bell;
}

/* --- records --- */

/* What a producer never writes. avail: bytes from the record's start to the head. */
static int check_record(
	const struct tw_ring_reader *r, const struct ring_record *rec, uint64_t avail)
{
	const uint64_t disk = r->geometry.disk_sectors;
	const uint32_t known = TW_RECORD_PAYLOAD | TW_RECORD_FLUSH | TW_RECORD_DISCARD |
			       TW_RECORD_ZEROES | TW_RECORD_GAP;
	if ((rec->flags & ~known) || rec->nsectors > RING_MAX_SECTORS)
		return -EBADMSG;
	if (rec->sequence == 0 || (r->sequence && rec->sequence != r->sequence))
		return -EBADMSG;
	if (rec->flags & TW_RECORD_GAP)
		return rec->flags == TW_RECORD_GAP && rec->nsectors == 0 && rec->sector ? 0
											: -EBADMSG;
	if (rec->nsectors && (rec->sector >= disk || rec->nsectors > disk - rec->sector))
		return -EBADMSG;
	if (!(rec->flags & TW_RECORD_PAYLOAD))
		return 0;
	if (rec->nsectors == 0)
		return -EBADMSG;
	return (uint64_t)rec->nsectors * TW_SECTOR_SIZE > avail - sizeof(*rec) ? -EBADMSG : 0;
}

int tw_ring_next(struct tw_ring_reader *r, struct tw_record *out)
{
	const uint64_t avail = head_of(r) - r->pos;
	if (avail == 0)
		return 0;
	if (avail > r->header.data_bytes || avail % RING_ALIGN)
		return -EBADMSG;
	const char *from = r->data + (r->pos & (r->header.data_bytes - 1));
	struct ring_record rec;
	memcpy(&rec, from, sizeof(rec));
	/* What was checked is what is used: the compiler may not look at the ring again. */
	atomic_signal_fence(memory_order_seq_cst);
	int ret = check_record(r, &rec, avail);
	if (ret)
		return ret;
	const bool has_payload = rec.flags & TW_RECORD_PAYLOAD;
	if (rec.flags & TW_RECORD_GAP)
		r->gap = rec.sector;
	*out = (struct tw_record){
		.sequence = rec.sequence,
		.time_ns = rec.time_ns,
		.sector = rec.flags & TW_RECORD_GAP ? 0 : rec.sector,
		.nsectors = rec.nsectors,
		.flags = rec.flags,
		.payload = has_payload ? from + sizeof(rec) : NULL,
	};
	r->pos += sizeof(rec) + (has_payload ? (uint64_t)rec.nsectors * TW_SECTOR_SIZE : 0);
	r->sequence = rec.sequence + 1;
	return 1;
}

void tw_ring_release(struct tw_ring_reader *r)
{
	r->gap = 0;
	atomic_store_explicit(&r->cursor->tail, r->pos, memory_order_release);
}

/* --- gaps --- */

struct range_joiner {
	uint64_t first; /* blocks */
	uint64_t count; /* 0: none yet */
	uint64_t disk_sectors;
	void (*range)(uint64_t sector, uint64_t nsectors, void *arg);
	void *arg;
};

static void emit(struct range_joiner *j)
{
	const uint64_t sector = j->first * RING_BLOCK_SECTORS;
	uint64_t n = j->count * RING_BLOCK_SECTORS;
	if (j->count == 0 || sector >= j->disk_sectors)
		return;
	if (n > j->disk_sectors - sector)
		n = j->disk_sectors - sector;
	j->range(sector, n, j->arg);
}

static void join_block(struct range_joiner *j, uint64_t block)
{
	if (j->count && block == j->first + j->count) {
		j->count++;
		return;
	}
	emit(j);
	j->first = block;
	j->count = 1;
}

static void read_map(const struct tw_ring_reader *r, uint64_t gap,
	void (*range)(uint64_t sector, uint64_t nsectors, void *arg), void *arg)
{
	struct range_joiner joiner = {
		.disk_sectors = r->geometry.disk_sectors, .range = range, .arg = arg};
	const _Atomic uint64_t *summary = ring_summary(r->base, &r->geometry, gap);
	const _Atomic uint64_t *bits = ring_bits(r->base, &r->geometry, gap);
	const uint64_t lines = r->geometry.bits_bytes / (RING_LINE_WORDS * 8);
	for (uint64_t line = 0; line < lines; line++) {
		if (line % 64 == 0 &&
			atomic_load_explicit(&summary[line / 64], memory_order_relaxed) == 0) {
			line += 63;
			continue;
		}
		for (uint64_t w = line * RING_LINE_WORDS; w < (line + 1) * RING_LINE_WORDS; w++) {
			uint64_t left = atomic_load_explicit(&bits[w], memory_order_relaxed);
			for (; left; left &= left - 1)
				join_block(&joiner, w * 64 + (uint64_t)__builtin_ctzll(left));
		}
	}
	emit(&joiner);
}

int tw_ring_take_gap(struct tw_ring_reader *r,
	void (*range)(uint64_t sector, uint64_t nsectors, void *arg), void *arg)
{
	if (r->gap == 0)
		return -EINVAL;
	read_map(r, r->gap, range, arg);
	return 0;
}

uint64_t tw_ring_reader_open_gap(const struct tw_ring_reader *r)
{
	const uint64_t state = atomic_load_explicit(&r->producer->gap_state, memory_order_acquire);
	return state & 1 ? state >> 1 : 0;
}

int tw_ring_take_open_gap(struct tw_ring_reader *r,
	void (*range)(uint64_t sector, uint64_t nsectors, void *arg), void *arg)
{
	if (tw_ring_reader_producer_alive(r))
		return -EBUSY;
	const uint64_t state = atomic_load_explicit(&r->producer->gap_state, memory_order_acquire);
	if (!(state & 1))
		return 0;
	read_map(r, state >> 1, range, arg);
	return 1;
}

/* --- what has been written since --- */

/* Sectors that are asked about. */
struct asked {
	uint64_t sector;
	uint32_t n;
	uint8_t *touched;
};

static void touch(const struct asked *asked, uint64_t sector, uint64_t n)
{
	const uint64_t end = asked->sector + asked->n;
	const uint64_t from = sector > asked->sector ? sector : asked->sector;
	const uint64_t to = n < end && sector < end - n ? sector + n : end;
	if (from < to)
		memset(asked->touched + (from - asked->sector), 1, to - from);
}

/* Requests that are under way. One that is done has published its record, or has marked its blocks, before it
 * clears its slot: so the slots come first. A slot that is given to another request between the two loads
 * was cleared by the first one, and the other one has not reached the image before it was read. */
static void touch_intents(const struct tw_ring_reader *r, const struct asked *asked)
{
	const struct ring_intent *intents = (const struct ring_intent *)(r->base + 2 * RING_PAGE);
	for (unsigned i = 0; i < TW_RING_INTENTS; i++) {
		const uint64_t n =
			atomic_load_explicit(&intents[i].nsectors, memory_order_acquire);
		const uint64_t first =
			atomic_load_explicit(&intents[i].sector, memory_order_acquire);
		if (n)
			touch(asked, first, n);
	}
}

static void touch_gap(const struct tw_ring_reader *r, const struct asked *asked, uint64_t gap)
{
	const _Atomic uint64_t *bits = ring_bits(r->base, &r->geometry, gap);
	const uint64_t last = (asked->sector + asked->n - 1) / RING_BLOCK_SECTORS;
	for (uint64_t block = asked->sector / RING_BLOCK_SECTORS; block <= last; block++)
		if (atomic_load_explicit(&bits[block / 64], memory_order_acquire) >> block % 64 & 1)
			touch(asked, block * RING_BLOCK_SECTORS, RING_BLOCK_SECTORS);
}

int tw_ring_touched(const struct tw_ring_reader *r, uint64_t after, uint64_t sector, uint32_t nsectors,
	uint8_t *touched)
{
	const struct asked asked = {sector, nsectors, touched};
	struct tw_ring_reader ahead = *r;
	struct tw_record record;
	int ret;
	if (!nsectors || sector >= r->geometry.disk_sectors || nsectors > r->geometry.disk_sectors - sector)
		return -EINVAL;
	/* What was read is older than what is looked at from here on. */
	atomic_thread_fence(memory_order_seq_cst);
	touch_intents(r, &asked);
	const uint64_t open = tw_ring_reader_open_gap(r);
	if (open)
		touch_gap(r, &asked, open);
	while ((ret = tw_ring_next(&ahead, &record)) > 0) {
		if (record.flags & TW_RECORD_GAP)
			touch_gap(r, &asked, ahead.gap);
		else if (record.sequence > after)
			touch(&asked, record.sector, record.nsectors);
	}
	return ret;
}

/* --- interest --- */

bool tw_ring_has_interest(const struct tw_ring_reader *r)
{
	return r->interest != NULL;
}

void tw_ring_interest(struct tw_ring_reader *r, bool active)
{
	if (r->interest)
		atomic_store_explicit(&r->interest->active, active, memory_order_release);
}

void tw_ring_want(struct tw_ring_reader *r, uint64_t sector, uint64_t nsectors, bool wanted)
{
	const uint64_t disk = r->geometry.disk_sectors;
	if (!r->interest || !nsectors || sector >= disk)
		return;
	const uint64_t end = nsectors < disk - sector ? sector + nsectors : disk;
	uint64_t first = sector / RING_BLOCK_SECTORS;
	uint64_t last = (end - 1) / RING_BLOCK_SECTORS;
	if (!wanted) {
		/* Whatever else is in a block may be wanted. */
		first += sector % RING_BLOCK_SECTORS != 0;
		if (end < disk && end % RING_BLOCK_SECTORS && last-- == 0)
			return;
	}
	_Atomic uint64_t *bits = (_Atomic uint64_t *)((char *)r->interest + RING_PAGE);
	for (uint64_t w = first / 64; first <= last && w <= last / 64; w++) {
		const uint64_t mask = ring_word_mask(w, first, last);
		const uint64_t old = atomic_load_explicit(&bits[w], memory_order_relaxed);
		atomic_store_explicit(
			&bits[w], wanted ? old | mask : old & ~mask, memory_order_relaxed);
	}
}

/* --- sleeping --- */

int tw_ring_arm(struct tw_ring_reader *r)
{
	/* A busy guest's next write comes within it; waking us for each would halve the guest's
	 * speed. */
	const struct timespec linger = {.tv_nsec = LINGER_NS};
	if (head_of(r) == r->pos)
		nanosleep(&linger, NULL);
	if (head_of(r) != r->pos)
		return 1;
	const uint64_t sleep = atomic_load_explicit(&r->cursor->sleep, memory_order_relaxed);
	atomic_store_explicit(
		&r->cursor->sleep, (sleep | 1) + (sleep & 1) * 2, memory_order_relaxed);
	/* Pairs with the fence in the producer: either it sees us asleep or we see its new head. */
	atomic_thread_fence(memory_order_seq_cst);
	return head_of(r) != r->pos;
}

void tw_ring_disarm(struct tw_ring_reader *r)
{
	char rings[64];
	const uint64_t sleep = atomic_load_explicit(&r->cursor->sleep, memory_order_relaxed);
	atomic_store_explicit(&r->cursor->sleep, sleep + (sleep & 1), memory_order_relaxed);
	/* Bounded: a bell that never falls silent must not keep us here. */
	for (int i = 0; i < 1024 && read(r->bell, rings, sizeof(rings)) > 0; i++)
		;
}
