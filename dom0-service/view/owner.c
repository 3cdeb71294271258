/* SPDX-License-Identifier: BSD-3-Clause */
#include "view/owner.h"

#include <stdlib.h>
#include <string.h>

/* Of many small files, what is behind a place in a bucket has to be moved at each change: 12 KiB at
 * most. */
#define BUCKET_SHIFT 10
#define BUCKET_BLOCKS (1u << BUCKET_SHIFT)

/* An interval within a bucket; it never crosses the bucket's end. */
struct interval {
	uint32_t start : BUCKET_SHIFT; /* offset in the bucket */
	uint32_t last : BUCKET_SHIFT;
	uint32_t kind : 8;
	uint32_t ino;
	uint32_t lblk;
};
_Static_assert(sizeof(struct interval) == 12, "a million of these");

struct bucket {
	struct interval *at; /* sorted by start, disjoint; but while the map is filled */
	uint32_t n;
	uint32_t cap; /* POOLED: it is not ours to free, and a power of two */
};
#define POOLED (1u << 31)

/* Where metadata came or went; more than so many at a time are not kept. */
#define MAX_NOTES 4096u
struct note {
	uint64_t block, count;
};

struct tw_owners {
	uint64_t nblocks;
	uint64_t nbuckets;
	struct bucket *buckets;
	struct note *notes; /* NULL: nobody wants them */
	uint32_t nnotes;    /* beyond MAX_NOTES: not all */
};

struct tw_error *tw_owners_create(uint64_t nblocks, struct tw_owners **out)
{
	struct tw_owners *owners = calloc(1, sizeof(*owners));
	if (!owners)
		return tw_error_nomem();
	owners->nblocks = nblocks;
	owners->nbuckets = (nblocks >> BUCKET_SHIFT) + 1;
	owners->buckets = calloc(owners->nbuckets, sizeof(*owners->buckets));
	if (!owners->buckets) {
		free(owners);
		return tw_error_nomem();
	}
	*out = owners;
	return NULL;
}

struct tw_error *tw_owners_grow(struct tw_owners *owners, uint64_t nblocks)
{
	uint64_t n = (nblocks >> BUCKET_SHIFT) + 1;
	if (n > owners->nbuckets) {
		struct bucket *buckets = realloc(owners->buckets, n * sizeof(*buckets));
		if (!buckets)
			return tw_error_nomem();
		memset(buckets + owners->nbuckets, 0, (n - owners->nbuckets) * sizeof(*buckets));
		owners->buckets = buckets;
		owners->nbuckets = n;
	}
	if (nblocks > owners->nblocks)
		owners->nblocks = nblocks;
	return NULL;
}

void tw_owners_destroy(struct tw_owners *owners)
{
	if (!owners)
		return;
	for (uint64_t i = 0; i < owners->nbuckets; i++)
		free(owners->buckets[i].at);
	free(owners->buckets);
	free(owners->notes);
	free(owners);
}

/* --- notes --- */

static bool is_noted(enum tw_owner_kind kind)
{
	return kind != TW_OWNER_DATA && kind != TW_OWNER_UNWRITTEN;
}

static void take_note(struct tw_owners *owners, uint64_t block, uint64_t count)
{
	if (owners->nnotes < MAX_NOTES)
		owners->notes[owners->nnotes++] = (struct note){block, count};
	else
		owners->nnotes = MAX_NOTES + 1;
}

struct tw_error *tw_owners_take_notes(struct tw_owners *owners)
{
	owners->nnotes = 0;
	if (!owners->notes)
		owners->notes = malloc(MAX_NOTES * sizeof(*owners->notes));
	return owners->notes ? NULL : tw_error_nomem();
}

int tw_owners_next_note(struct tw_owners *owners, uint64_t *block, uint64_t *count)
{
	if (owners->nnotes > MAX_NOTES) {
		owners->nnotes = 0;
		return -1;
	}
	if (!owners->nnotes)
		return 0;
	const struct note *note = &owners->notes[--owners->nnotes];
	*block = note->block;
	*count = note->count;
	return 1;
}

/* --- intervals --- */

/* Index of the first interval that ends after off. */
static unsigned first_after(const struct bucket *b, uint32_t off)
{
	unsigned lo = 0, hi = b->n;
	/* A crawl mostly goes forwards. */
	if (hi && b->at[hi - 1].last < off)
		return hi;
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		if (b->at[mid].last >= off)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static bool joins(const struct interval *a, const struct interval *b)
{
	return a->last + 1u == b->start && a->ino == b->ino && a->kind == b->kind &&
	       a->lblk + (a->last + 1u - a->start) == b->lblk;
}

/* Replaces n intervals at index by the m given ones. */
static struct tw_error *splice(
	struct bucket *b, unsigned index, unsigned n, const struct interval *with, unsigned m)
{
	if (b->n - n + m > b->cap) {
		unsigned cap = b->cap + b->cap / 2u + 3; /* a splice adds 2 at most */
		if (cap > BUCKET_BLOCKS)
			cap = BUCKET_BLOCKS;
		struct interval *at = realloc(b->at, cap * sizeof(*at));
		if (!at)
			return tw_error_nomem();
		b->at = at;
		b->cap = cap;
	}
	memmove(b->at + index + m, b->at + index + n, (b->n - index - n) * sizeof(*b->at));
	if (m)
		memcpy(b->at + index, with, m * sizeof(*with));
	b->n = b->n - n + m;
	return NULL;
}

static struct interval head_of(const struct interval *iv, uint32_t end)
{
	struct interval head = *iv;
	head.last = (end - 1) & (BUCKET_BLOCKS - 1);
	return head;
}

static struct interval tail_of(const struct interval *iv, uint32_t start)
{
	struct interval tail = *iv;
	tail.lblk += start - iv->start;
	tail.start = start & (BUCKET_BLOCKS - 1);
	return tail;
}

static struct tw_error *set_in_bucket(struct bucket *b, struct interval iv)
{
	uint32_t start = iv.start, end = iv.last + 1u;
	unsigned first = first_after(b, start), last = first;
	struct interval with[3];
	unsigned m = 0;

	if (first > 0 && joins(&b->at[first - 1], &iv)) {
		first--;
		iv.start = b->at[first].start;
		iv.lblk = b->at[first].lblk;
	} else if (first < b->n && b->at[first].start < start) {
		with[m++] = head_of(&b->at[first], start);
	}
	with[m++] = iv;
	while (last < b->n && b->at[last].start < end)
		last++;
	if (last > first && b->at[last - 1].last >= end)
		with[m++] = tail_of(&b->at[last - 1], end);
	else if (last < b->n && joins(&with[m - 1], &b->at[last]))
		with[m - 1].last = b->at[last++].last;
	return splice(b, first, last - first, with, m);
}

/* Puts an interval behind all others of its bucket, if that is its place and there is room. */
static bool append(struct bucket *b, const struct interval *iv)
{
	if (b->n == b->cap || (b->n && b->at[b->n - 1].last >= iv->start))
		return false;
	if (b->n && joins(&b->at[b->n - 1], iv))
		return false;
	b->at[b->n++] = *iv;
	return true;
}

/* The part of an owner's interval that is n blocks from off on of a bucket. */
static struct interval interval_of(
	const struct tw_owner *owner, uint32_t off, uint32_t n, uint32_t lblk)
{
	return (struct interval){.start = off & (BUCKET_BLOCKS - 1),
		.last = (off + n - 1) & (BUCKET_BLOCKS - 1),
		.kind = owner->kind & 0xff,
		.ino = owner->ino,
		.lblk = lblk};
}

struct tw_error *tw_owners_set(struct tw_owners *owners, const struct tw_owner *owner)
{
	uint64_t block = owner->block, left = owner->count;
	uint32_t lblk = owner->lblk, off = block & (BUCKET_BLOCKS - 1);
	if (owners->notes && is_noted(owner->kind))
		take_note(owners, block, left);
	if (left && off + left <= BUCKET_BLOCKS && block < owners->nblocks) {
		/* What a load enters, mostly. */
		struct interval iv = interval_of(owner, off, (uint32_t)left, lblk);
		if (append(&owners->buckets[block >> BUCKET_SHIFT], &iv))
			return NULL;
	}
	while (left && block < owners->nblocks) {
		off = block & (BUCKET_BLOCKS - 1);
		uint32_t n = BUCKET_BLOCKS - off;
		if (n > left)
			n = (uint32_t)left;
		struct interval iv = interval_of(owner, off, n, lblk);
		TW_TRY(set_in_bucket(&owners->buckets[block >> BUCKET_SHIFT], iv));
		block += n;
		left -= n;
		lblk += n;
	}
	return NULL;
}

static struct tw_error *clear_in_bucket(
	struct bucket *b, uint32_t start, uint32_t end, uint32_t ino, enum tw_owner_kind kind)
{
	for (unsigned i = first_after(b, start); i < b->n && b->at[i].start < end;) {
		struct interval iv = b->at[i];
		if (iv.ino != ino || iv.kind != kind) {
			i++;
			continue;
		}
		struct interval with[2];
		unsigned m = 0;
		if (iv.start < start)
			with[m++] = head_of(&iv, start);
		if (iv.last >= end)
			with[m++] = tail_of(&iv, end);
		TW_TRY(splice(b, i, 1, with, m));
		i += m;
	}
	return NULL;
}

struct tw_error *tw_owners_clear(struct tw_owners *owners, uint64_t block, uint64_t count,
	uint32_t ino, enum tw_owner_kind kind)
{
	if (owners->notes && is_noted(kind))
		take_note(owners, block, count);
	while (count && block < owners->nblocks) {
		uint32_t off = block & (BUCKET_BLOCKS - 1);
		uint32_t n = BUCKET_BLOCKS - off;
		if (n > count)
			n = (uint32_t)count;
		TW_TRY(clear_in_bucket(
			&owners->buckets[block >> BUCKET_SHIFT], off, off + n, ino, kind));
		block += n;
		count -= n;
	}
	return NULL;
}

bool tw_owners_find(
	const struct tw_owners *owners, uint64_t block, uint64_t within, struct tw_owner *out)
{
	uint64_t end;
	if (__builtin_add_overflow(block, within, &end) || end > owners->nblocks)
		end = owners->nblocks;
	while (block < end) {
		uint64_t base = block & ~(uint64_t)(BUCKET_BLOCKS - 1);
		const struct bucket *b = &owners->buckets[block >> BUCKET_SHIFT];
		unsigned i = first_after(b, (uint32_t)(block - base));
		if (i < b->n) {
			const struct interval *iv = &b->at[i];
			if (base + iv->start >= end)
				return false;
			*out = (struct tw_owner){base + iv->start, iv->last + 1u - iv->start,
				iv->ino, iv->lblk, (enum tw_owner_kind)iv->kind};
			return true;
		}
		block = base + BUCKET_BLOCKS;
	}
	return false;
}

uint64_t tw_owners_count(const struct tw_owners *owners)
{
	uint64_t n = 0;
	for (uint64_t i = 0; i < owners->nbuckets; i++)
		n += owners->buckets[i].n;
	return n;
}

/* --- filling --- */

/* A lock is one of many buckets'; two threads seldom meet. */
#define FILL_LOCKS 256u
/* Most buckets of a large file's have one interval; many of small files', hundreds. */
#define FIRST_INTERVALS 4u
#define SOME_INTERVALS 64u
/* More are no file system's; it also keeps a capacity below POOLED. */
#define MAX_INTERVALS (1u << 28)

struct tw_fill {
	struct tw_owners *owners;
	pthread_mutex_t locks[FILL_LOCKS];
};

struct tw_error *tw_fill_begin(struct tw_owners *owners, struct tw_fill **out)
{
	struct tw_fill *fill = malloc(sizeof(*fill));
	if (!fill)
		return tw_error_nomem();
	fill->owners = owners;
	for (unsigned i = 0; i < FILL_LOCKS; i++)
		pthread_mutex_init(&fill->locks[i], NULL);
	*out = fill;
	return NULL;
}

void tw_fill_end(struct tw_fill *fill)
{
	if (!fill)
		return;
	for (uint64_t i = 0; i < fill->owners->nbuckets; i++)
		if (fill->owners->buckets[i].cap & POOLED)
			fill->owners->buckets[i] = (struct bucket){0};
	for (unsigned i = 0; i < FILL_LOCKS; i++)
		pthread_mutex_destroy(&fill->locks[i]);
	free(fill);
}

void tw_fill_rest(struct tw_filler *filler)
{
	if (filler->held)
		pthread_mutex_unlock(filler->held);
	filler->held = NULL;
	filler->bucket = NULL;
}

static void hold(struct tw_filler *filler, uint64_t number)
{
	tw_fill_rest(filler);
	filler->held = &filler->fill->locks[number % FILL_LOCKS];
	filler->bucket = &filler->fill->owners->buckets[number];
	pthread_mutex_lock(filler->held);
}

/* malloc() would let threads wait for each other, as they hand buckets on. */
static struct interval *pool_take(struct tw_filler *filler, uint32_t cap)
{
	void **list = &filler->spare[__builtin_ctz(cap)];
	void *at = *list;
	if (!at)
		return tw_slab_take(&filler->pool, cap * sizeof(struct interval));
	memcpy(list, at, sizeof(*list));
	return at;
}

static void pool_give(struct tw_filler *filler, struct interval *at, uint32_t cap)
{
	void **list = &filler->spare[__builtin_ctz(cap)];
	memcpy(at, list, sizeof(*list));
	*list = at;
}

static struct tw_error *widen(struct tw_filler *filler, struct bucket *b)
{
	const bool pooled = b->cap & POOLED;
	uint32_t was = pooled ? b->cap & ~POOLED : 0, cap = was ? was : FIRST_INTERVALS;
	while (cap <= b->n)
		cap *= cap < SOME_INTERVALS ? 4 : 2;
	if (cap >= MAX_INTERVALS)
		return tw_error_create(TW_BAD_DATA, "too many inodes claim the same blocks");
	struct interval *at = pool_take(filler, cap);
	if (!at)
		return tw_error_nomem();
	if (b->n)
		memcpy(at, b->at, b->n * sizeof(*at));
	if (pooled)
		pool_give(filler, b->at, was);
	else
		free(b->at);
	b->at = at;
	b->cap = cap | POOLED;
	return NULL;
}

/* Behind the others, wherever its place is. */
static struct tw_error *enter(struct tw_filler *filler, const struct interval *iv)
{
	struct bucket *b = filler->bucket;
	if (b->n && joins(&b->at[b->n - 1], iv)) {
		b->at[b->n - 1].last = iv->last;
		return NULL;
	}
	if (!(b->cap & POOLED) || b->n == (b->cap & ~POOLED))
		TW_TRY(widen(filler, b));
	b->at[b->n++] = *iv;
	return NULL;
}

struct tw_error *tw_fill_add(struct tw_filler *filler, const struct tw_owner *owner)
{
	const struct tw_owners *owners = filler->fill->owners;
	uint64_t block = owner->block, left = owner->count;
	uint32_t lblk = owner->lblk;
	while (left && block < owners->nblocks) {
		uint32_t off = block & (BUCKET_BLOCKS - 1), n = BUCKET_BLOCKS - off;
		if (n > left)
			n = (uint32_t)left;
		struct interval iv = interval_of(owner, off, n, lblk);
		if (filler->bucket != &owners->buckets[block >> BUCKET_SHIFT])
			hold(filler, block >> BUCKET_SHIFT);
		TW_TRY(enter(filler, &iv));
		block += n;
		left -= n;
		lblk += n;
	}
	return NULL;
}

static bool in_order(const struct bucket *b)
{
	for (uint32_t i = 1; i < b->n; i++)
		if (b->at[i].start <= b->at[i - 1].last)
			return false;
	return true;
}

/* Sorts intervals, each at most one block's first: each has a place of its own. False: they have
 * not. out has room for all. */
static bool sorted(const struct bucket *b, struct interval *out)
{
	uint16_t places[BUCKET_BLOCKS] = {0}; /* index + 1 */
	uint32_t n = 0, last = 0;
	for (uint32_t i = 0; i < b->n; i++) {
		if (places[b->at[i].start])
			return false;
		places[b->at[i].start] = (uint16_t)(i + 1);
	}
	for (uint32_t off = 0; off < BUCKET_BLOCKS; off++) {
		if (!places[off])
			continue;
		out[n] = b->at[places[off] - 1];
		if (n && off <= last)
			return false;
		last = out[n++].last;
	}
	return true;
}

static int by_inode(const void *a, const void *b)
{
	const struct interval *x = a, *y = b;
	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->lblk < y->lblk ? -1 : x->lblk > y->lblk;
}

/* Some blocks have several owners, which no sound file system has. */
static struct tw_error *contest(struct bucket *b)
{
	struct bucket out = {0};
	qsort(b->at, b->n, sizeof(*b->at), by_inode);
	for (uint32_t i = 0; i < b->n; i++) {
		struct tw_error *err = set_in_bucket(&out, b->at[i]);
		if (err) {
			free(out.at);
			return err;
		}
	}
	*b = out;
	return NULL;
}

static struct tw_error *settle(struct bucket *b)
{
	if (b->n > BUCKET_BLOCKS)
		return contest(b);
	struct interval *at = malloc(b->n * sizeof(*at));
	if (!at)
		return tw_error_nomem();
	if (in_order(b)) {
		memcpy(at, b->at, b->n * sizeof(*at));
	} else if (!sorted(b, at)) {
		free(at);
		return contest(b);
	}
	b->at = at;
	b->cap = b->n;
	return NULL;
}

struct tw_error *tw_fill_settle(struct tw_fill *fill, unsigned i, unsigned n)
{
	const struct tw_owners *owners = fill->owners;
	uint64_t at = owners->nbuckets * i / n, end = owners->nbuckets * (i + 1) / n;
	for (; at < end; at++)
		if (owners->buckets[at].cap & POOLED)
			TW_TRY(settle(&owners->buckets[at]));
	return NULL;
}

void tw_filler_deinit(struct tw_filler *filler)
{
	tw_slab_deinit(&filler->pool);
	memset(filler->spare, 0, sizeof(filler->spare));
}
