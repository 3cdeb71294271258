/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Input: features of the journal and how it stands, then writes of log blocks: where, the type of a
 * header and how much of the sequence to add, how many bytes follow it, and these bytes.
 */
#include "ext4/jbd2.h"
#include "input.h"

#include <endian.h>
#include <stdlib.h>

enum { BLOCK = 1024, LEN = 24, MAX_WRITES = 256 };

static uint8_t log_image[LEN][BLOCK];

static void be32(uint8_t *at, uint32_t v)
{
	v = htobe32(v);
	memcpy(at, &v, 4);
}

static struct tw_error *load(void *arg, uint32_t at, void *buf)
{
	(void)arg;
	if (at >= LEN)
		return tw_error_create(TW_BAD_DATA, "the journal has no block %u", at);
	memcpy(buf, log_image[at], BLOCK);
	return NULL;
}

/* Takes all transactions that are ready; reads each byte of them. */
static struct tw_error *drain(struct tw_jbd2 *j, bool recover)
{
	for (unsigned i = 0; i < 64; i++) {
		struct tw_jbd2_transaction txn;
		bool ready;
		volatile uint64_t sum = 0;
		TW_TRY(tw_jbd2_next(j, recover, &ready, &txn));
		if (!ready)
			return NULL;
		for (size_t b = 0; b < txn.nblocks; b++)
			for (size_t k = 0; k < BLOCK; k++)
				sum += txn.blocks[b].data[k];
		for (size_t r = 0; r < txn.nrevoked; r++)
			sum += txn.revoked[r];
		(void)sum;
		tw_jbd2_release(j, &txn);
	}
	return NULL;
}

static void put_superblock(struct input *in)
{
	uint8_t *sb = log_image[0];
	be32(sb, 0xc03b3998);
	be32(sb + 4, 4);
	be32(sb + 12, BLOCK);
	be32(sb + 16, LEN);
	be32(sb + 20, 1 + take(in, 1) % 4);
	be32(sb + 24, take(in, 4));
	be32(sb + 28, take(in, 1) % (LEN + 1));
	uint32_t features = take(in, 1);
	be32(sb + 0x24, features >> 6 & 1);
	be32(sb + 0x28, features & 0x3f);
	be32(sb + 0x54, features & 0x80 ? 22 : 5);
}

static struct tw_error *follow(struct tw_jbd2 *j, struct input *in, uint32_t sequence)
{
	for (unsigned i = 0; i < MAX_WRITES && in->size; i++) {
		uint8_t block[BLOCK] = { 0 };
		uint32_t at = take(in, 1) % LEN, type = take(in, 1);
		be32(block, 0xc03b3998);
		be32(block + 4, type & 7);
		be32(block + 8, sequence + take(in, 1));
		take_bytes(in, block + (type & 8 ? 0 : 12), take(in, 1) * 4u % (BLOCK - 12));
		if (type & 16)
			memcpy(log_image[at], block, BLOCK);
		else
			TW_TRY(tw_jbd2_write(j, at, block));
		TW_TRY(drain(j, type & 32));
	}
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct tw_jbd2 *j;
	memset(log_image, 0, sizeof(log_image));
	put_superblock(&in);
	struct tw_error *err =
		tw_jbd2_create(tw_span(log_image[0], BLOCK), BLOCK, load, NULL, &j);
	if (!err) {
		err = follow(j, &in, tw_jbd2_position(j).sequence);
		tw_jbd2_destroy(j);
	}
	tw_error_destroy(err);
	return 0;
}
