/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Input: steps. Each writes a block: where, how many tags, and each tag as its number, its length
 * (in fours or as it is) and so many bytes. A last bit of the place says whether its tail gets a
 * checksum that holds.
 */
#include "base/crc32c.h"
#include "ext4/fastcommit.h"
#include "input.h"

#include <endian.h>
#include <stdlib.h>

enum { BLOCK = 1024, LEN = 8, MAX_STEPS = 64 };

static void le32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, 4);
}

static void use(const struct ext4_fc_op *ops, size_t n)
{
	volatile uint64_t sum = 0;
	for (size_t i = 0; i < n; i++) {
		sum += ops[i].ino + ops[i].dir + ops[i].lblk + ops[i].count + ops[i].block;
		for (size_t k = 0; k < ops[i].bytes.len; k++)
			sum += ops[i].bytes.data[k];
	}
	(void)sum;
}

/* Tags up to a tail that sums them up, when sound is set. */
static void fill(struct input *in, uint8_t *block, uint32_t sequence, bool sound, uint32_t *crc)
{
	size_t off = 0;
	for (unsigned tags = take(in, 1) % 12; tags && off + 4 <= BLOCK; tags--) {
		uint32_t tag = take(in, 1), len = take(in, 1) * (tag & 16 ? 4u : 1u);
		uint32_t head = (tag & 15) | len << 16;
		le32(block + off, head);
		take_bytes(in, block + off + 4, off + 4 + len <= BLOCK ? len : BLOCK - off - 4);
		if ((tag & 15) == EXT4_FC_HEAD && off + 12 <= BLOCK && tag & 32)
			le32(block + off + 8, sequence);
		if ((tag & 15) == EXT4_FC_TAIL && sound && off + 12 <= BLOCK) {
			le32(block + off + 4, sequence);
			le32(block + off + 8, tw_crc32c(*crc, block + off, 8));
			*crc = 0;
			return;
		}
		if (off + 4 + len > BLOCK)
			return;
		*crc = tw_crc32c(*crc, block + off, 4 + len);
		off += 4 + len;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct ext4_fc *fc = NULL;
	uint32_t sequence = 5, crc = 0;
	struct tw_error *err = ext4_fc_create(LEN, BLOCK, 256, &fc);
	for (unsigned i = 0; i < MAX_STEPS && in.size && !err; i++) {
		uint8_t block[BLOCK] = { 0 };
		uint32_t at = take(&in, 1);
		const struct ext4_fc_op *ops;
		bool ready;
		size_t n;
		sequence += (at >> 5 & 3) == 3;
		fill(&in, block, sequence, at & 128, &crc);
		err = ext4_fc_write(fc, sequence, at % LEN, block);
		if (!err)
			err = ext4_fc_next(fc, sequence, &ready, &ops, &n);
		if (!err && ready) {
			use(ops, n);
			ext4_fc_release(fc);
		}
	}
	ext4_fc_destroy(fc);
	tw_error_destroy(err);
	return 0;
}
