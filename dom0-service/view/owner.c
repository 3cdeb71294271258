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
	struct interval *at; /* sorted by start, disjoint */
	uint16_t n;
	uint16_t cap;
};

struct tw_owners {
	uint64_t nblocks;
	uint64_t nbuckets;
	struct bucket *buckets;
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
	free(owners);
}

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
		b->cap = (uint16_t)cap;
	}
	memmove(b->at + index + m, b->at + index + n, (b->n - index - n) * sizeof(*b->at));
	if (m)
		memcpy(b->at + index, with, m * sizeof(*with));
	b->n = (uint16_t)(b->n - n + m);
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

struct tw_error *tw_owners_set(struct tw_owners *owners, const struct tw_owner *owner)
{
	uint64_t block = owner->block, left = owner->count;
	uint32_t lblk = owner->lblk, off = block & (BUCKET_BLOCKS - 1);
	if (left && off + left <= BUCKET_BLOCKS && block < owners->nblocks) {
		/* What a crawl enters, mostly. */
		struct interval iv = {.start = off & (BUCKET_BLOCKS - 1),
			.last = (off + (uint32_t)left - 1) & (BUCKET_BLOCKS - 1),
			.kind = owner->kind & 0xff,
			.ino = owner->ino,
			.lblk = lblk};
		if (append(&owners->buckets[block >> BUCKET_SHIFT], &iv))
			return NULL;
	}
	while (left && block < owners->nblocks) {
		off = block & (BUCKET_BLOCKS - 1);
		uint32_t n = BUCKET_BLOCKS - off;
		if (n > left)
			n = (uint32_t)left;
		struct interval iv = {.start = off & (BUCKET_BLOCKS - 1),
			.last = (off + n - 1) & (BUCKET_BLOCKS - 1),
			.kind = owner->kind & 0xff,
			.ino = owner->ino,
			.lblk = lblk};
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

void tw_owners_part(
	const struct tw_owners *owners, unsigned i, unsigned n, uint64_t *from, uint64_t *to)
{
	*from = owners->nbuckets * i / n << BUCKET_SHIFT;
	*to = owners->nbuckets * (i + 1) / n << BUCKET_SHIFT;
}

void tw_owners_fit(struct tw_owners *owners, uint64_t from, uint64_t to)
{
	for (uint64_t i = from >> BUCKET_SHIFT; i < to >> BUCKET_SHIFT; i++) {
		struct bucket *b = &owners->buckets[i];
		struct interval *at = b->n ? realloc(b->at, b->n * sizeof(*at)) : NULL;
		if (!at)
			continue;
		b->at = at;
		b->cap = b->n;
	}
}

uint64_t tw_owners_count(const struct tw_owners *owners)
{
	uint64_t n = 0;
	for (uint64_t i = 0; i < owners->nbuckets; i++)
		n += owners->buckets[i].n;
	return n;
}
