/* SPDX-License-Identifier: BSD-3-Clause */
/* What a recovery would write to the volume: the newest copies that the journal holds. */
#include "ext4/ext4.h"

struct tw_error *ext4_replay_take(
	const struct ext4_geometry *geo, const struct tw_jbd2_transaction *txn, struct ext4_replay *r)
{
	for (size_t i = 0; i < txn->nblocks; i++) {
		if (txn->blocks[i].block >= geo->nblocks)
			continue;
		TW_TRY(ext4_block_store(&r->blocks, txn->blocks[i].block, 0, txn->blocks[i].data,
			geo->blocksize));
		ext4_block_find(r->blocks, txn->blocks[i].block)->digest = txn->sequence;
	}
	for (size_t i = 0; i < txn->nrevoked; i++) {
		struct ext4_block *revoked;
		TW_TRY(ext4_block_get(&r->revoked, txn->revoked[i], &revoked));
		revoked->digest = txn->sequence;
	}
	return NULL;
}

void ext4_replay_drop_revoked(struct ext4_replay *r)
{
	struct ext4_block *revoked, *next;
	HASH_ITER (hh, r->revoked, revoked, next) {
		const struct ext4_block *block = ext4_block_find(r->blocks, revoked->block);
		if (block && (int32_t)((uint32_t)block->digest - (uint32_t)revoked->digest) <= 0)
			ext4_block_drop(&r->blocks, revoked->block);
	}
}

void ext4_replay_deinit(struct ext4_replay *r)
{
	ext4_block_clear(&r->blocks);
	ext4_block_clear(&r->revoked);
}
