/* SPDX-License-Identifier: BSD-3-Clause */
/* All that an instance knows, as text to compare. */
#ifndef EXT4_VIEW_DUMP_H
#define EXT4_VIEW_DUMP_H

#include "../check.h"

#include "ext4/ext4.h"

#include <stdlib.h>

static inline int by_place(const void *a, const void *b, void *view)
{
	const struct tw_name *x = *(struct tw_name *const *)a, *y = *(struct tw_name *const *)b;
	uint32_t dir = tw_view_name_dir(view, x), other = tw_view_name_dir(view, y);
	if (dir != other)
		return dir < other ? -1 : 1;
	int ret = memcmp(x->bytes, y->bytes, x->len < y->len ? x->len : y->len);
	return ret ? ret : (int)x->len - (int)y->len;
}

static inline void dump_names(struct tw_view *view, const struct tw_inode *inode, bool in_order,
	struct tw_buf *out)
{
	struct tw_name *names[64], *name;
	size_t n = 0;
	while ((name = tw_view_link(view, inode, (uint32_t)n)))
		names[n++] = name;
	if (!in_order)
		qsort_r(names, n, sizeof(*names), by_place, view);
	for (size_t i = 0; i < n; i++)
		tw_buf_printf(out, " name %u:%llu:%.*s%s\n", tw_view_name_dir(view, names[i]),
			(unsigned long long)tw_view_name_block(view, names[i]), names[i]->len,
			(const char *)names[i]->bytes, names[i]->opaque ? " (encrypted)" : "");
}

static inline void dump_inode(const struct tw_view *view, const struct tw_inode *inode,
	struct tw_buf *out)
{
	const struct tw_attr attr = tw_view_attr(view, inode), *a = &attr;
	struct tw_extent one;
	uint32_t n, len;
	const struct tw_extent *e = tw_inode_extents(inode, &one, &n);
	const char *target = tw_inode_target(inode, &len);
	tw_buf_printf(out, "%u %o %llu %lld.%u %lld.%u %llx %x %x %u %u %u %x %u %u %s\n", inode->ino,
		a->mode, (unsigned long long)a->size, (long long)a->mtime.sec, a->mtime.nsec,
		(long long)a->ctime.sec, a->ctime.nsec, (unsigned long long)a->xattrs, a->generation,
		a->flags, a->uid, a->gid, a->nlink, a->rdev, tw_inode_nblocks(inode),
		tw_inode_nentries(inode), target ? target : "");
	for (; n--; e++)
		tw_buf_printf(out, " %u+%u at %llu %d\n", e->lblk, e->count,
			(unsigned long long)e->block, e->unwritten);
}

/* Inodes, names and mappings. */
static inline void dump_inodes(const struct ext4 *fs, bool in_order, struct tw_buf *out)
{
	const struct tw_inode *inode = tw_view_inode_next(fs->view, 1);
	for (; inode; inode = tw_view_inode_next(fs->view, inode->ino + 1)) {
		dump_inode(fs->view, inode, out);
		dump_names(fs->view, inode, in_order, out);
		const struct ext4_root *root = ext4_root_find(fs, inode->ino);
		for (uint32_t i = 0; root && i < root->nnodes; i++)
			tw_buf_printf(out, " node %llu\n", (unsigned long long)root->nodes[i]);
		uint64_t digest;
		if (tw_numtab_get(&fs->inlines, inode->ino, &digest))
			tw_buf_printf(out, " inline %llx\n", (unsigned long long)digest);
	}
}

/* Who owns each block, however that is kept. */
static inline void dump_owners(const struct ext4 *fs, struct tw_buf *out)
{
	struct tw_owner o;
	for (uint64_t at = 0; at < fs->geo.nblocks; at++)
		if (tw_owners_find(tw_view_owners(fs->view), at, 1, &o))
			tw_buf_printf(out, "block %llu: %u %llu %d\n", (unsigned long long)at, o.ino,
				(unsigned long long)(o.lblk + (at - o.block)), o.kind);
}

/* Everything that is known, as text. */
static inline void dump(const struct ext4 *fs, bool in_order, struct tw_buf *out)
{
	dump_inodes(fs, in_order, out);
	dump_owners(fs, out);
	tw_buf_printf(out, "%u nodes, %u xattr blocks, %u recent, %u direct\n", HASH_COUNT(fs->nodes),
		HASH_COUNT(fs->xattrs), HASH_COUNT(fs->recent), HASH_COUNT(fs->direct));
	tw_buf_append(out, "", 1);
}

#endif
