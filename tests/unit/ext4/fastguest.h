/* SPDX-License-Identifier: BSD-3-Clause */
/* A guest whose journal has room for a few fast commits. */
#ifndef EXT4_FASTGUEST_H
#define EXT4_FASTGUEST_H

#include "fastlog.h"
#include "guest.h"

enum { FAST_AREA = 10, FAST_BEGIN = LOG_END - FAST_AREA + 1 /* the first block of the area is left out */ };

struct fast_guest {
	struct guest guest;
	struct fastlog log;
};

/* mkfs leaves the feature of the journal to the first mount. */
static inline int fast_begin(void **state)
{
	struct fast_guest *f = calloc(1, sizeof(*f));
	struct guest *g = &f->guest;
	guest_setup(g, "-J size=1 -I 256");
	uint8_t *sb = g->disk.bytes + (size_t)g->place[0] * BLOCK;
	be32(sb + 0x28, JBD2_FAST_F);
	be32(sb + 0x54, FAST_AREA);
	g->end = LOG_END - FAST_AREA;
	write_superblock(g, 1, g->sequence);
	f->log.tid = g->sequence;
	fast_head(&f->log, 0);
	*state = f;
	return 0;
}

static inline int fast_end(void **state)
{
	struct fast_guest *f = *state;
	guest_teardown(&f->guest);
	free(f);
	return 0;
}

/* Writes what the fast commit holds. */
static inline void commit_fast(struct fast_guest *f)
{
	uint32_t from = f->log.at;
	struct guest *g = &f->guest;
	fast_tail(&f->log);
	for (; from < f->log.at; from++)
		guest_write(g, g->place[FAST_BEGIN + from], f->log.blocks[from]);
}

/* The inode as it is on the disk. */
static inline void read_inode(const struct guest *g, uint32_t ino, uint8_t *raw)
{
	const struct ext4_geometry *geo = &g->fs->geo;
	uint32_t group = (ino - 1) / geo->inodes_per_group, slot = (ino - 1) % geo->inodes_per_group;
	assert_int_equal(geo->inode_size, FAST_INODE);
	memcpy(raw, g->disk.bytes + geo->itable[group] * BLOCK + (size_t)slot * FAST_INODE, FAST_INODE);
}

/* Bytes of an inode. */
enum { I_MTIME = 0x10, I_LINKS = 0x1a, I_GENERATION = 0x64 };

#endif
