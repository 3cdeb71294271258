/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/jbd2.h"

#include "base/crc32c.h"
#include "base/mem.h"
#include "ext4/logblocks.h"

#include <stdlib.h>
#include <string.h>

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
	S_COMPAT = 0x24,
	S_INCOMPAT = 0x28,
	S_UUID = 0x30,
	S_FAST_BLOCKS = 0x54,
	S_BYTES = 1024,
	C_CHECKSUM_TYPE = 12,
	C_CHECKSUM_SIZE = 13,
	C_CHECKSUM = 16,
	C_SEC = 48,
	C_NSEC = 56,
	C_BYTES = 60,
	R_COUNT = 12,
	R_BYTES = 16,
};

enum { COMPAT_CHECKSUM = 1 };
enum {
	INCOMPAT_REVOKE = 1,
	INCOMPAT_64BIT = 2,
	INCOMPAT_ASYNC_COMMIT = 4,
	INCOMPAT_CSUM_V2 = 8,
	INCOMPAT_CSUM_V3 = 16,
	INCOMPAT_FAST_COMMIT = 32,
};
#define INCOMPAT_FOLLOWED                                                                          \
	(INCOMPAT_REVOKE | INCOMPAT_64BIT | INCOMPAT_ASYNC_COMMIT | INCOMPAT_CSUM_V2 |             \
		INCOMPAT_CSUM_V3 | INCOMPAT_FAST_COMMIT)
#define DEFAULT_FAST_BLOCKS 256u

enum { TAG_ESCAPE = 1, TAG_SAME_UUID = 2, TAG_LAST = 8 };

/* Linux lets a transaction have a quarter of the log. A guest's nonsense gets some more, so that
 * what a crawl has loaded leaves room for what comes. */
#define MOST_LOADED(j) ((j)->maxlen / 2)
#define MOST_KEPT(j) ((j)->maxlen / 4 * 3)

struct tw_jbd2 {
	uint8_t superblock[S_BYTES];
	uint32_t blocksize, maxlen, first, compat, features, seed;
	uint32_t end; /* behind the log's last block: the fast commits' area begins there */
	struct tw_jbd2_position next;
	uint32_t commit_seen; /* highest sequence of a commit block that was written */
	bool any_commit;
	bool live; /* a transaction was seen whole: nothing needs loading any more */
	/* The next transaction was committed and cannot be whole before this block is written. */
	bool waits;
	uint32_t waits_for;
	struct tw_logblocks *blocks;
	tw_jbd2_load_fn load;
	void *load_arg;
	/* Lists of the transaction that is walked or handed out; they are used again. */
	struct tw_jbd2_block *list;
	uint64_t *revoked;
	size_t *escaped; /* entries of list whose data has to begin with the magic */
	size_t caplist, caprevoked, capescaped, nescaped;
};

/* One walk over a transaction that may not be complete. */
struct walk {
	struct tw_jbd2 *j;
	bool recover;
	bool complete;
	uint32_t pos;
	uint32_t steps;
	struct tw_jbd2_transaction txn;
	uint32_t data_seed; /* of a data block's checksum, carried over blocksize bytes */
	uint32_t sum;       /* checksum of the first version, over all blocks so far */
	bool stuck;         /* the block at pos is not there, or not what it has to be */
};

static bool has_csum(const struct tw_jbd2 *j)
{
	return j->features & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3);
}

/* The checksum of a block's data, begun with 0. */
static uint32_t data_crc(const struct tw_jbd2 *j, struct tw_logblock *block)
{
	if (!block->has_crc)
		block->crc = tw_crc32c(0, block->data, j->blocksize);
	block->has_crc = true;
	return block->crc;
}

/* Sequence numbers wrap: a is later than b. */
static bool later(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

/* Takes over what a superblock says of the log's form; contradictions are found before. */
static struct tw_error *take_form(struct tw_jbd2 *j, struct tw_span sb)
{
	bool old = tw_be32(sb, H_TYPE) == SUPERBLOCK_V1;
	uint32_t incompat = old ? 0 : tw_be32(sb, S_INCOMPAT);
	uint32_t fast = tw_be32(sb, S_FAST_BLOCKS);
	if (incompat & ~(uint32_t)INCOMPAT_FOLLOWED)
		return tw_error_create(TW_UNSUPPORTED, "journal features 0x%x are not followed",
			incompat & ~(uint32_t)INCOMPAT_FOLLOWED);
	if (!fast)
		fast = DEFAULT_FAST_BLOCKS;
	if (!(incompat & INCOMPAT_FAST_COMMIT))
		fast = 0;
	if (j->maxlen <= j->first || fast >= j->maxlen - j->first)
		return tw_error_create(
			TW_UNSUPPORTED, "a journal without room besides its fast commits");
	j->end = j->maxlen - fast;
	j->features = incompat;
	j->compat = old ? 0 : tw_be32(sb, S_COMPAT);
	j->seed = tw_crc32c(~0u, sb.data + S_UUID, 16);
	return NULL;
}

static struct tw_error *init(struct tw_jbd2 *j, struct tw_span sb)
{
	memcpy(j->superblock, sb.data, S_BYTES);
	j->maxlen = tw_be32(sb, S_MAXLEN);
	j->first = tw_be32(sb, S_FIRST);
	j->next.head = tw_be32(sb, S_START);
	j->next.sequence = tw_be32(sb, S_SEQUENCE);
	if (!j->first || j->first >= j->maxlen || j->next.head >= j->maxlen)
		return tw_error_create(TW_BAD_DATA, "the journal's superblock contradicts itself");
	TW_TRY(take_form(j, sb));
	if (j->next.head >= j->end)
		return tw_error_create(TW_BAD_DATA, "the journal's superblock contradicts itself");
	return tw_logblocks_create(j->maxlen, j->blocksize, &j->blocks);
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
	struct tw_jbd2 *j = calloc(1, sizeof(*j));
	if (!j)
		return tw_error_nomem();
	j->blocksize = blocksize;
	j->load = load;
	j->load_arg = arg;
	struct tw_error *err = init(j, sb);
	if (err) {
		tw_jbd2_destroy(j);
		return err;
	}
	*out = j;
	return NULL;
}

void tw_jbd2_destroy(struct tw_jbd2 *j)
{
	if (!j)
		return;
	tw_logblocks_destroy(j->blocks);
	free(j->list);
	free(j->revoked);
	free(j->escaped);
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
	/* The first mount after mkfs turns features on, and an empty journal has no fast commits.
	 */
	TW_TRY(take_form(j, sb));
	if (start >= j->end)
		return NULL;
	memcpy(j->superblock, sb.data, S_BYTES);
	bool begins = start && (later(sequence, j->next.sequence) ||
				       (!j->next.head && !later(j->next.sequence, sequence)));
	bool ends = !start && !later(j->next.sequence, sequence);
	if (begins || ends) {
		/* What was begun before and never committed is void; but debugfs writes the first
		 * transaction of an empty journal before it says where that begins. */
		if (j->next.head || ends)
			tw_logblocks_clear(j->blocks);
		j->waits = false;
		j->next = (struct tw_jbd2_position){start, sequence};
	}
	return NULL;
}

struct tw_error *tw_jbd2_write(struct tw_jbd2 *j, uint32_t at, const uint8_t *data)
{
	struct tw_span span = tw_span(data, j->blocksize);
	struct tw_logblock *block;
	if (at == 0)
		return superblock_written(j, span);
	if (at >= j->end)
		return NULL;
	if (tw_logblocks_count(j->blocks) >= MOST_KEPT(j) && !tw_logblocks_find(j->blocks, at))
		return tw_error_create(
			TW_GAP, "more of the log is written than a transaction can hold");
	TW_TRY(tw_logblocks_get(j->blocks, at, &block));
	memcpy(block->data, data, j->blocksize);
	/* Now, while it is in the cache. */
	if (has_csum(j))
		data_crc(j, block);
	if (j->waits && at == j->waits_for)
		j->waits = false;
	if (tw_be32(span, H_MAGIC) == MAGIC && tw_be32(span, H_TYPE) == COMMIT) {
		uint32_t sequence = tw_be32(span, H_SEQUENCE);
		if (!j->any_commit || later(sequence, j->commit_seen))
			j->commit_seen = sequence;
		j->any_commit = true;
	}
	return NULL;
}

bool tw_jbd2_fast_place(const struct tw_jbd2 *j, uint32_t at, uint32_t *index)
{
	/* Linux leaves the first block out. */
	if (at <= j->end || at >= j->maxlen)
		return false;
	*index = at - j->end - 1;
	return true;
}

uint32_t tw_jbd2_fast_log_block(const struct tw_jbd2 *j, uint32_t index)
{
	return j->end + 1 + index;
}

uint32_t tw_jbd2_fast_blocks(const struct tw_jbd2 *j)
{
	return j->end < j->maxlen ? j->maxlen - j->end - 1 : 0;
}

/* The log block at w->pos, or NULL when it is not there yet. */
static struct tw_error *fetch(struct walk *w, struct tw_logblock **out)
{
	const struct tw_jbd2 *j = w->j;
	struct tw_logblock *block = tw_logblocks_find(j->blocks, w->pos);
	bool may_load = j->load && (w->recover || !j->live) &&
			tw_logblocks_count(j->blocks) < MOST_LOADED(j);
	if (!block && may_load) {
		TW_TRY(tw_logblocks_get(j->blocks, w->pos, &block));
		TW_TRY(j->load(j->load_arg, w->pos, block->data));
	}
	*out = block;
	return NULL;
}

static void step(struct walk *w)
{
	w->steps++;
	w->pos = tw_jbd2_after(w->j, w->pos);
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

/* A checksum is linear: that of a block is the one of its data begun with 0, and what becomes of
 * the seed on the way. */
static uint32_t carry_seed(const struct tw_jbd2 *j, uint32_t sequence)
{
	static const uint8_t zeroes[65536];
	uint32_t be = htobe32(sequence);
	return tw_crc32c(tw_crc32c(j->seed, &be, sizeof(be)), zeroes, j->blocksize);
}

static bool tag_holds(const struct walk *w, const struct tag *tag, struct tw_logblock *block)
{
	if (!has_csum(w->j))
		return true;
	uint32_t crc = data_crc(w->j, block) ^ w->data_seed;
	return w->j->features & INCOMPAT_CSUM_V3 ? crc == tag->checksum
						 : (crc & 0xffff) == tag->checksum;
}

static struct tw_error *add_block(struct walk *w, uint64_t block, uint8_t *data, bool escaped)
{
	struct tw_jbd2 *j = w->j;
	struct tw_jbd2_transaction *txn = &w->txn;
	if (!TW_GROW(j->list, txn->nblocks, j->caplist) ||
		(escaped && !TW_GROW(j->escaped, j->nescaped, j->capescaped)))
		return tw_error_nomem();
	if (escaped)
		j->escaped[j->nescaped++] = txn->nblocks;
	j->list[txn->nblocks++] = (struct tw_jbd2_block){block, data};
	return NULL;
}

static void sum_up(struct walk *w, const uint8_t *data)
{
	if (w->j->compat & COMPAT_CHECKSUM)
		w->sum = tw_crc32_be(w->sum, data, w->j->blocksize);
}

/* *more false: the transaction is not complete. */
static struct tw_error *walk_descriptor(struct walk *w, const uint8_t *data, bool *more)
{
	const struct tw_jbd2 *j = w->j;
	struct tw_span s = tw_span(data, j->blocksize - (has_csum(j) ? 4 : 0));
	*more = false;
	w->stuck = true;
	if (!tail_holds(j, data))
		return NULL;
	sum_up(w, data);
	for (size_t off = H_BYTES; off + 8 <= s.len;) {
		struct tag tag = parse_tag(j, tw_span_sub(s, off, s.len));
		struct tw_logblock *copy;
		step(w);
		if (w->steps > j->maxlen)
			return NULL;
		TW_TRY(fetch(w, &copy));
		if (!copy || !tag_holds(w, &tag, copy))
			return NULL;
		sum_up(w, copy->data);
		TW_TRY(add_block(w, tag.block, copy->data, tag.flags & TAG_ESCAPE));
		if (tag.flags & TAG_LAST)
			break;
		off += tag.bytes;
	}
	step(w);
	w->stuck = false;
	*more = true;
	return NULL;
}

static struct tw_error *walk_revoke(struct walk *w, const uint8_t *data, bool *more)
{
	struct tw_jbd2 *j = w->j;
	struct tw_jbd2_transaction *txn = &w->txn;
	uint32_t size = j->features & INCOMPAT_64BIT ? 8 : 4;
	uint32_t limit = j->blocksize - (has_csum(j) ? 4 : 0);
	struct tw_span s = tw_span(data, limit);
	uint32_t end = tw_be32(s, R_COUNT);
	*more = false;
	w->stuck = !tail_holds(j, data) || end > limit;
	if (w->stuck)
		return NULL;
	for (uint32_t off = R_BYTES; off + size <= end; off += size) {
		if (!TW_GROW(j->revoked, txn->nrevoked, j->caprevoked))
			return tw_error_nomem();
		j->revoked[txn->nrevoked++] = size == 8 ? tw_be64(s, off) : tw_be32(s, off);
	}
	step(w);
	*more = true;
	return NULL;
}

/* The first version's checksum, over all blocks but revocations; or there is none. */
static bool sum_holds(const struct walk *w, struct tw_span commit)
{
	enum { CRC32 = 1, CRC32_BYTES = 4 };
	uint8_t type = tw_u8(commit, C_CHECKSUM_TYPE), size = tw_u8(commit, C_CHECKSUM_SIZE);
	uint32_t sum = tw_be32(commit, C_CHECKSUM);
	if (!(w->j->compat & COMPAT_CHECKSUM) || (!type && !size && !sum))
		return true;
	return type == CRC32 && size == CRC32_BYTES && sum == w->sum;
}

/* Since Linux 6.8, nothing but zeroes behind the fields is as good, whatever reached the disk. */
static bool commit_holds(const struct tw_jbd2 *j, struct tw_span commit)
{
	static const uint8_t zeroes[65536];
	uint8_t fields[C_BYTES];
	uint32_t crc = tw_be32(commit, C_CHECKSUM);
	if (csum_with_hole(j, commit.data, C_CHECKSUM) == crc)
		return true;
	memcpy(fields, commit.data, C_BYTES);
	memset(fields + C_CHECKSUM, 0, sizeof(crc));
	return tw_crc32c(tw_crc32c(j->seed, fields, C_BYTES), zeroes, j->blocksize - C_BYTES) ==
	       crc;
}

static void walk_commit(struct walk *w, const uint8_t *data)
{
	struct tw_span s = tw_span(data, w->j->blocksize);
	w->stuck = has_csum(w->j) && !commit_holds(w->j, s);
	if (w->stuck || (!has_csum(w->j) && !sum_holds(w, s)))
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
		struct tw_logblock *block;
		TW_TRY(fetch(w, &block));
		w->stuck = true;
		if (!block)
			return NULL;
		struct tw_span s = tw_span(block->data, w->j->blocksize);
		if (tw_be32(s, H_MAGIC) != MAGIC || tw_be32(s, H_SEQUENCE) != w->txn.sequence)
			return NULL;
		switch (tw_be32(s, H_TYPE)) {
		case DESCRIPTOR:
			TW_TRY(walk_descriptor(w, block->data, &more));
			break;
		case REVOKE:
			TW_TRY(walk_revoke(w, block->data, &more));
			break;
		case COMMIT:
			walk_commit(w, block->data);
			return NULL;
		default:
			return NULL;
		}
	}
	return NULL;
}

static struct tw_error *not_whole(struct tw_jbd2 *j)
{
	if (!later(j->commit_seen, j->next.sequence))
		return NULL;
	return tw_error_create(TW_GAP, "transaction %u was committed, but %u is not whole",
		j->commit_seen, j->next.sequence);
}

/* Puts the magic back where it was escaped. */
static void unescape(struct tw_jbd2 *j)
{
	for (size_t i = 0; i < j->nescaped; i++)
		memcpy((uint8_t *)j->list[j->escaped[i]].data, &(uint32_t){htobe32(MAGIC)}, 4);
}

struct tw_error *tw_jbd2_next(
	struct tw_jbd2 *j, bool recover, bool *ready, struct tw_jbd2_transaction *out)
{
	*ready = false;
	if (!j->next.head)
		return NULL;
	if (!recover && (!j->any_commit || later(j->next.sequence, j->commit_seen)))
		return NULL;
	if (!recover && j->waits)
		return not_whole(j);
	struct walk w = {.j = j,
		.recover = recover,
		.pos = j->next.head,
		.txn.sequence = j->next.sequence,
		.sum = ~0u};
	if (has_csum(j))
		w.data_seed = carry_seed(j, w.txn.sequence);
	j->nescaped = 0;
	TW_TRY(walk(&w));
	if (!w.complete) {
		j->waits = !recover && w.stuck && w.steps <= j->maxlen;
		j->waits_for = w.pos;
		return recover ? NULL : not_whole(j);
	}
	unescape(j);
	w.txn.blocks = j->list;
	w.txn.revoked = j->revoked;
	w.txn.head = j->next.head;
	j->next = (struct tw_jbd2_position){w.pos, w.txn.sequence + 1};
	j->live = j->live || !recover;
	*out = w.txn;
	*ready = true;
	return NULL;
}

void tw_jbd2_release(struct tw_jbd2 *j, struct tw_jbd2_transaction *txn)
{
	for (uint32_t at = txn->head; at != j->next.head; at = tw_jbd2_after(j, at))
		tw_logblocks_drop(j->blocks, at);
	*txn = (struct tw_jbd2_transaction){0};
}

bool tw_jbd2_underway(const struct tw_jbd2 *j)
{
	const struct tw_logblock *block =
		j->next.head ? tw_logblocks_find(j->blocks, j->next.head) : NULL;
	struct tw_span s = tw_span(block ? block->data : NULL, block ? j->blocksize : 0);
	return tw_be32(s, H_MAGIC) == MAGIC && tw_be32(s, H_SEQUENCE) == j->next.sequence;
}

bool tw_jbd2_stalled(const struct tw_jbd2 *j)
{
	/* Without a flush between the blocks and their commit block, they may still come. */
	return j->next.head && j->any_commit && !later(j->next.sequence, j->commit_seen) &&
	       !(j->features & INCOMPAT_ASYNC_COMMIT);
}

struct tw_jbd2_position tw_jbd2_position(const struct tw_jbd2 *j)
{
	return j->next;
}

void tw_jbd2_set_position(struct tw_jbd2 *j, struct tw_jbd2_position position)
{
	j->next = position;
	j->waits = false;
}

uint32_t tw_jbd2_before(const struct tw_jbd2 *j, uint32_t log_block)
{
	return (log_block > j->first ? log_block : j->end) - 1;
}

uint32_t tw_jbd2_after(const struct tw_jbd2 *j, uint32_t log_block)
{
	return log_block + 1 < j->end ? log_block + 1 : j->first;
}

void tw_jbd2_forget(struct tw_jbd2 *j)
{
	tw_logblocks_clear(j->blocks);
}

void tw_jbd2_pending(const struct tw_jbd2 *j,
	void (*each)(uint32_t log_block, const uint8_t *data, void *arg), void *arg)
{
	tw_logblocks_each(j->blocks, each, arg);
}
