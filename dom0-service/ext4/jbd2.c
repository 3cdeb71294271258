/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/jbd2.h"

#include "base/crc32c.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include "base/hash.h"

#define MAGIC 0xc03b3998u
enum { DESCRIPTOR = 1, COMMIT = 2, SUPERBLOCK_V1 = 3, SUPERBLOCK_V2 = 4, REVOKE = 5 };

/* Offsets in the blocks of the log; all fields are big-endian. */
enum {
	H_MAGIC = 0,
	H_TYPE = 4,
	H_SEQUENCE = 8,
	H_BYTES = 12,
	S_BLOCKSIZE = 12,
	S_MAXLEN = 16,
	S_FIRST = 20,
	S_SEQUENCE = 24,
	S_START = 28,
	S_INCOMPAT = 0x28,
	S_UUID = 0x30,
	S_CHECKSUM_TYPE = 0x50,
	S_CHECKSUM = 0xfc,
	S_BYTES = 1024,
	C_CHECKSUM = 16,
	C_SEC = 48,
	C_NSEC = 56,
	R_COUNT = 12,
	R_BYTES = 16,
};

enum {
	INCOMPAT_REVOKE = 1,
	INCOMPAT_64BIT = 2,
	INCOMPAT_ASYNC_COMMIT = 4,
	INCOMPAT_CSUM_V2 = 8,
	INCOMPAT_CSUM_V3 = 16,
	INCOMPAT_FAST_COMMIT = 32,
};
#define INCOMPAT_FOLLOWED (INCOMPAT_REVOKE | INCOMPAT_64BIT | INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3)

enum { TAG_ESCAPE = 1, TAG_SAME_UUID = 2, TAG_LAST = 8 };

/* Linux lets a transaction have a quarter of the log. A guest's nonsense gets some more, so that what a crawl has
 * loaded leaves room for what comes. */
#define MOST_LOADED(j) ((j)->maxlen / 2)
#define MOST_KEPT(j) ((j)->maxlen / 4 * 3)

struct log_block {
	uint32_t at;
	uint8_t *data;
	UT_hash_handle hh;
};

struct tw_jbd2 {
	uint8_t superblock[S_BYTES];
	uint32_t blocksize, maxlen, first, features, seed;
	struct tw_jbd2_position next;
	uint32_t commit_seen; /* highest sequence of a commit block that was written */
	bool any_commit;
	bool live; /* a transaction was seen whole since the start: nothing needs loading any more
		    */
	struct log_block *blocks;
	tw_jbd2_load_fn load;
	void *load_arg;
};

/* One walk over a transaction that may not be complete. */
struct walk {
	struct tw_jbd2 *j;
	bool recover;
	bool complete;
	uint32_t pos;
	uint32_t steps;
	struct tw_jbd2_transaction txn;
	uint8_t *escaped; /* one a block: 1 when the magic has to be put back */
	size_t capblocks, capescaped, caprevoked;
};

static bool has_csum(const struct tw_jbd2 *j)
{
	return j->features & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3);
}

/* Sequence numbers wrap: a is later than b. */
static bool later(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static struct tw_error *check_features(uint32_t incompat)
{
	if (incompat & INCOMPAT_ASYNC_COMMIT)
		return tw_error_create(
			TW_UNSUPPORTED, "journal feature journal_async_commit is not followed");
	if (incompat & INCOMPAT_FAST_COMMIT)
		return tw_error_create(
			TW_UNSUPPORTED, "journal feature fast_commit is not followed");
	if (incompat & ~(uint32_t)INCOMPAT_FOLLOWED)
		return tw_error_create(TW_UNSUPPORTED, "journal features 0x%x are not followed",
			incompat & ~(uint32_t)INCOMPAT_FOLLOWED);
	return NULL;
}

struct tw_error *tw_jbd2_create(struct tw_span sb, uint32_t blocksize, tw_jbd2_load_fn load,
	void *arg, struct tw_jbd2 **out)
{
	uint32_t type = tw_be32(sb, H_TYPE);
	if (sb.len < S_BYTES || tw_be32(sb, H_MAGIC) != MAGIC ||
		(type != SUPERBLOCK_V1 && type != SUPERBLOCK_V2))
		return tw_error_create(TW_BAD_DATA, "the journal has no valid superblock");
	if (tw_be32(sb, S_BLOCKSIZE) != blocksize)
		return tw_error_create(TW_BAD_DATA,
			"the journal's block size is %u, the file system's is %u",
			tw_be32(sb, S_BLOCKSIZE), blocksize);
	uint32_t features = type == SUPERBLOCK_V2 ? tw_be32(sb, S_INCOMPAT) : 0;
	TW_TRY(check_features(features));
	struct tw_jbd2 *j = calloc(1, sizeof(*j));
	if (!j)
		return tw_error_nomem();
	memcpy(j->superblock, sb.data, S_BYTES);
	j->blocksize = blocksize;
	j->maxlen = tw_be32(sb, S_MAXLEN);
	j->first = tw_be32(sb, S_FIRST);
	j->features = features;
	j->seed = tw_crc32c(~0u, sb.data + S_UUID, 16);
	j->next.head = tw_be32(sb, S_START);
	j->next.sequence = tw_be32(sb, S_SEQUENCE);
	j->load = load;
	j->load_arg = arg;
	if (!j->first || j->first >= j->maxlen || j->next.head >= j->maxlen) {
		tw_jbd2_destroy(j);
		return tw_error_create(TW_BAD_DATA, "the journal's superblock contradicts itself");
	}
	*out = j;
	return NULL;
}

static void forget(struct tw_jbd2 *j, struct log_block *block)
{
	HASH_DEL(j->blocks, block);
	free(block->data);
	free(block);
}

void tw_jbd2_destroy(struct tw_jbd2 *j)
{
	if (!j)
		return;
	struct log_block *block, *tmp;
	HASH_ITER (hh, j->blocks, block, tmp)
		forget(j, block);
	free(j);
}

struct tw_span tw_jbd2_superblock(const struct tw_jbd2 *j)
{
	return tw_span(j->superblock, S_BYTES);
}

void tw_jbd2_set_arg(struct tw_jbd2 *j, void *arg)
{
	j->load_arg = arg;
}

static struct log_block *find(const struct tw_jbd2 *j, uint32_t at)
{
	struct log_block *block;
	HASH_FIND(hh, j->blocks, &at, sizeof(at), block);
	return block;
}

static struct tw_error *keep(struct tw_jbd2 *j, uint32_t at, struct log_block **out)
{
	struct log_block *block = find(j, at);
	if (!block) {
		block = calloc(1, sizeof(*block));
		if (block)
			block->data = malloc(j->blocksize);
		if (!block || !block->data) {
			free(block);
			return tw_error_nomem();
		}
		block->at = at;
		HASH_ADD(hh, j->blocks, at, sizeof(block->at), block);
	}
	*out = block;
	return NULL;
}

/* The superblock says where the log begins. Behind what we have followed it only tells how far the
 * guest has checkpointed; ahead of it, a mount or a recovery has begun a new stretch. */
static struct tw_error *superblock_written(struct tw_jbd2 *j, struct tw_span sb)
{
	uint32_t start = tw_be32(sb, S_START), sequence = tw_be32(sb, S_SEQUENCE);
	if (tw_be32(sb, H_MAGIC) != MAGIC || start >= j->maxlen)
		return NULL;
	/* Linux leaves an empty log only with a sequence beyond all that was committed. */
	if (memcmp(j->superblock + S_UUID, sb.data + S_UUID, 16) ||
		tw_be32(sb, S_MAXLEN) != j->maxlen || tw_be32(sb, S_FIRST) != j->first ||
		(!start && later(j->next.sequence, sequence)))
		return tw_error_create(TW_GAP, "the journal was made anew");
	memcpy(j->superblock, sb.data, S_BYTES);
	/* The first mount after mkfs turns features on. */
	if (tw_be32(sb, H_TYPE) == SUPERBLOCK_V2) {
		TW_TRY(check_features(tw_be32(sb, S_INCOMPAT)));
		j->features = tw_be32(sb, S_INCOMPAT);
		j->seed = tw_crc32c(~0u, sb.data + S_UUID, 16);
	}
	bool begins = start && (later(sequence, j->next.sequence) ||
				       (!j->next.head && !later(j->next.sequence, sequence)));
	bool ends = !start && !later(j->next.sequence, sequence);
	if (begins || ends) {
		/* What was begun before and never committed is void. */
		struct log_block *block, *tmp;
		HASH_ITER (hh, j->blocks, block, tmp)
			forget(j, block);
		j->next = (struct tw_jbd2_position){start, sequence};
	}
	return NULL;
}

struct tw_error *tw_jbd2_write(struct tw_jbd2 *j, uint32_t at, const uint8_t *data)
{
	struct tw_span span = tw_span(data, j->blocksize);
	if (at == 0)
		return superblock_written(j, span);
	struct log_block *block = find(j, at);
	if (!block && HASH_COUNT(j->blocks) >= MOST_KEPT(j))
		return tw_error_create(
			TW_GAP, "more of the log is written than a transaction can hold");
	TW_TRY(keep(j, at, &block));
	memcpy(block->data, data, j->blocksize);
	if (tw_be32(span, H_MAGIC) == MAGIC && tw_be32(span, H_TYPE) == COMMIT) {
		uint32_t sequence = tw_be32(span, H_SEQUENCE);
		if (!j->any_commit || later(sequence, j->commit_seen))
			j->commit_seen = sequence;
		j->any_commit = true;
	}
	return NULL;
}

/* The log block at w->pos, or NULL when it is not there yet. */
static struct tw_error *fetch(struct walk *w, const uint8_t **out)
{
	struct log_block *block = find(w->j, w->pos);
	bool may_load = w->j->load && (w->recover || !w->j->live) &&
			HASH_COUNT(w->j->blocks) < MOST_LOADED(w->j);
	if (!block && may_load) {
		TW_TRY(keep(w->j, w->pos, &block));
		TW_TRY(w->j->load(w->j->load_arg, w->pos, block->data));
	}
	*out = block ? block->data : NULL;
	return NULL;
}

static void step(struct walk *w)
{
	w->steps++;
	if (++w->pos >= w->j->maxlen)
		w->pos = w->j->first;
}

static uint32_t csum_with_hole(const struct tw_jbd2 *j, const uint8_t *data, uint32_t hole)
{
	static const uint8_t zero[4];
	uint32_t crc = tw_crc32c(j->seed, data, hole);
	crc = tw_crc32c(crc, zero, sizeof(zero));
	return tw_crc32c(crc, data + hole + 4, j->blocksize - hole - 4);
}

static bool tail_holds(const struct tw_jbd2 *j, const uint8_t *data)
{
	if (!has_csum(j))
		return true;
	uint32_t hole = j->blocksize - 4;
	return csum_with_hole(j, data, hole) == tw_be32(tw_span(data, j->blocksize), hole);
}

struct tag {
	uint64_t block;
	uint32_t flags;
	uint32_t checksum;
	uint32_t bytes; /* with the uuid that may follow */
};

static struct tag parse_tag(const struct tw_jbd2 *j, struct tw_span s)
{
	bool wide = j->features & INCOMPAT_64BIT;
	struct tag tag = {.block = tw_be32(s, 0)};
	if (j->features & INCOMPAT_CSUM_V3) {
		tag.flags = tw_be32(s, 4);
		tag.checksum = tw_be32(s, 12);
		tag.bytes = 16;
	} else {
		tag.checksum = tw_be16(s, 4);
		tag.flags = tw_be16(s, 6);
		tag.bytes = (wide ? 12 : 8) + (j->features & INCOMPAT_CSUM_V2 ? 2 : 0);
	}
	if (wide)
		tag.block |= (uint64_t)tw_be32(s, 8) << 32;
	if (!(tag.flags & TAG_SAME_UUID))
		tag.bytes += 16;
	return tag;
}

static bool tag_holds(
	const struct tw_jbd2 *j, const struct tag *tag, uint32_t sequence, const uint8_t *data)
{
	if (!has_csum(j))
		return true;
	uint32_t be = htobe32(sequence);
	uint32_t crc = tw_crc32c(j->seed, (const uint8_t *)&be, sizeof(be));
	crc = tw_crc32c(crc, data, j->blocksize);
	return j->features & INCOMPAT_CSUM_V3 ? crc == tag->checksum
					      : (crc & 0xffff) == tag->checksum;
}

static struct tw_error *add_block(struct walk *w, uint64_t block, const uint8_t *data, bool escaped)
{
	struct tw_jbd2_transaction *txn = &w->txn;
	if (!TW_GROW(txn->blocks, txn->nblocks, w->capblocks) ||
		!TW_GROW(w->escaped, txn->nblocks, w->capescaped))
		return tw_error_nomem();
	w->escaped[txn->nblocks] = escaped;
	txn->blocks[txn->nblocks++] = (struct tw_jbd2_block){block, data};
	return NULL;
}

/* *more false: the transaction is not complete. */
static struct tw_error *walk_descriptor(struct walk *w, const uint8_t *data, bool *more)
{
	const struct tw_jbd2 *j = w->j;
	struct tw_span s = tw_span(data, j->blocksize - (has_csum(j) ? 4 : 0));
	*more = false;
	if (!tail_holds(j, data))
		return NULL;
	for (size_t off = H_BYTES; off + 8 <= s.len;) {
		struct tag tag = parse_tag(j, tw_span_sub(s, off, s.len));
		const uint8_t *copy;
		step(w);
		if (w->steps > j->maxlen)
			return NULL;
		TW_TRY(fetch(w, &copy));
		if (!copy || !tag_holds(j, &tag, w->txn.sequence, copy))
			return NULL;
		TW_TRY(add_block(w, tag.block, copy, tag.flags & TAG_ESCAPE));
		if (tag.flags & TAG_LAST)
			break;
		off += tag.bytes;
	}
	step(w);
	*more = true;
	return NULL;
}

static struct tw_error *walk_revoke(struct walk *w, const uint8_t *data, bool *more)
{
	const struct tw_jbd2 *j = w->j;
	struct tw_jbd2_transaction *txn = &w->txn;
	uint32_t size = j->features & INCOMPAT_64BIT ? 8 : 4;
	uint32_t limit = j->blocksize - (has_csum(j) ? 4 : 0);
	struct tw_span s = tw_span(data, limit);
	uint32_t end = tw_be32(s, R_COUNT);
	*more = false;
	if (!tail_holds(j, data) || end > limit)
		return NULL;
	for (uint32_t off = R_BYTES; off + size <= end; off += size) {
		if (!TW_GROW(txn->revoked, txn->nrevoked, w->caprevoked))
			return tw_error_nomem();
		txn->revoked[txn->nrevoked++] = size == 8 ? tw_be64(s, off) : tw_be32(s, off);
	}
	step(w);
	*more = true;
	return NULL;
}

static void walk_commit(struct walk *w, const uint8_t *data)
{
	struct tw_span s = tw_span(data, w->j->blocksize);
	if (has_csum(w->j) && csum_with_hole(w->j, data, C_CHECKSUM) != tw_be32(s, C_CHECKSUM))
		return;
	w->txn.time.sec = (int64_t)tw_be64(s, C_SEC);
	w->txn.time.nsec = tw_be32(s, C_NSEC);
	step(w);
	w->complete = true;
}

static struct tw_error *walk(struct walk *w)
{
	bool more = true;
	while (more && w->steps <= w->j->maxlen) {
		const uint8_t *data;
		TW_TRY(fetch(w, &data));
		if (!data)
			return NULL;
		struct tw_span s = tw_span(data, w->j->blocksize);
		if (tw_be32(s, H_MAGIC) != MAGIC || tw_be32(s, H_SEQUENCE) != w->txn.sequence)
			return NULL;
		switch (tw_be32(s, H_TYPE)) {
		case DESCRIPTOR:
			TW_TRY(walk_descriptor(w, data, &more));
			break;
		case REVOKE:
			TW_TRY(walk_revoke(w, data, &more));
			break;
		case COMMIT:
			walk_commit(w, data);
			return NULL;
		default:
			return NULL;
		}
	}
	return NULL;
}

static void free_lists(struct tw_jbd2_transaction *txn)
{
	free(txn->blocks);
	free(txn->revoked);
	*txn = (struct tw_jbd2_transaction){0};
}

/* The log blocks from one position up to another one are done with. */
static void forget_range(struct tw_jbd2 *j, uint32_t from, uint32_t to)
{
	while (from != to) {
		struct log_block *block = find(j, from);
		if (block)
			forget(j, block);
		if (++from >= j->maxlen)
			from = j->first;
	}
}

struct tw_error *tw_jbd2_next(
	struct tw_jbd2 *j, bool recover, bool *ready, struct tw_jbd2_transaction *out)
{
	*ready = false;
	if (!j->next.head)
		return NULL;
	if (!recover && (!j->any_commit || later(j->next.sequence, j->commit_seen)))
		return NULL;
	struct walk w = {
		.j = j, .recover = recover, .pos = j->next.head, .txn.sequence = j->next.sequence};
	struct tw_error *err = walk(&w);
	for (size_t i = 0; !err && w.complete && i < w.txn.nblocks; i++)
		if (w.escaped[i])
			memcpy((uint8_t *)w.txn.blocks[i].data, &(uint32_t){htobe32(MAGIC)}, 4);
	free(w.escaped);
	if (err || !w.complete) {
		free_lists(&w.txn);
		if (!err && !recover && later(j->commit_seen, j->next.sequence))
			err = tw_error_create(TW_GAP,
				"transaction %u was committed, but %u is not whole", j->commit_seen,
				j->next.sequence);
		return err;
	}
	w.txn.head = j->next.head;
	j->next = (struct tw_jbd2_position){w.pos, w.txn.sequence + 1};
	j->live = j->live || !recover;
	*out = w.txn;
	*ready = true;
	return NULL;
}

void tw_jbd2_release(struct tw_jbd2 *j, struct tw_jbd2_transaction *txn)
{
	forget_range(j, txn->head, j->next.head);
	free_lists(txn);
}

bool tw_jbd2_underway(const struct tw_jbd2 *j)
{
	const struct log_block *block = j->next.head ? find(j, j->next.head) : NULL;
	struct tw_span s = tw_span(block ? block->data : NULL, block ? j->blocksize : 0);
	return tw_be32(s, H_MAGIC) == MAGIC && tw_be32(s, H_SEQUENCE) == j->next.sequence;
}

bool tw_jbd2_stalled(const struct tw_jbd2 *j)
{
	return j->next.head && j->any_commit && !later(j->next.sequence, j->commit_seen);
}

struct tw_jbd2_position tw_jbd2_position(const struct tw_jbd2 *j)
{
	return j->next;
}

void tw_jbd2_set_position(struct tw_jbd2 *j, struct tw_jbd2_position position)
{
	j->next = position;
}

void tw_jbd2_pending(const struct tw_jbd2 *j,
	void (*each)(uint32_t log_block, const uint8_t *data, void *arg), void *arg)
{
	struct log_block *block, *tmp;
	HASH_ITER (hh, j->blocks, block, tmp)
		each(block->at, block->data, arg);
}
