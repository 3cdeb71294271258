/* SPDX-License-Identifier: BSD-3-Clause */
/* The instance as bytes: geometry, view, and what waits for its transaction. Loading reads nothing
 * from the image, which may have gone on since. */
#include "ext4/ext4.h"

#include "base/pack.h"

#include <stdlib.h>
#include <sys/stat.h>

#define STATE_VERSION 12u

static void pack_attr(struct tw_buf *out, const struct tw_attr *a)
{
	tw_pack64(out, a->size);
	tw_pack64(out, (uint64_t)a->mtime.sec);
	tw_pack32(out, a->mtime.nsec);
	tw_pack64(out, (uint64_t)a->ctime.sec);
	tw_pack32(out, a->ctime.nsec);
	tw_pack64(out, a->xattrs);
	tw_pack32(out, a->generation);
	tw_pack32(out, a->flags);
	tw_pack32(out, a->uid);
	tw_pack32(out, a->gid);
	tw_pack32(out, a->nlink);
	tw_pack32(out, a->rdev);
	tw_pack32(out, a->mode);
}

static struct tw_attr unpack_attr(struct tw_unpack *in)
{
	struct tw_attr a = {.size = tw_unpack64(in)};
	a.mtime.sec = (int64_t)tw_unpack64(in);
	a.mtime.nsec = tw_unpack32(in);
	a.ctime.sec = (int64_t)tw_unpack64(in);
	a.ctime.nsec = tw_unpack32(in);
	a.xattrs = tw_unpack64(in);
	a.generation = tw_unpack32(in);
	a.flags = tw_unpack32(in);
	a.uid = tw_unpack32(in);
	a.gid = tw_unpack32(in);
	a.nlink = tw_unpack32(in);
	a.rdev = tw_unpack32(in);
	a.mode = (uint16_t)tw_unpack32(in);
	return a;
}

/* Their order stays: paths depend on it, and a restart must not change them. */
static void pack_names(struct tw_buf *out, const struct tw_view *view, const struct tw_inode *inode)
{
	const struct tw_name *name;
	for (uint32_t i = 0; (name = tw_view_link(view, inode, i)); i++) {
		tw_pack32(out, tw_view_name_dir(view, name));
		tw_pack32(out, name->opaque);
		tw_pack64(out, tw_view_name_block(view, name));
		tw_pack_bytes(out, name->bytes, name->len);
	}
	tw_pack32(out, 0); /* no directory: the end of the names */
}

static void pack_inode(struct tw_buf *out, const struct ext4 *fs, const struct tw_inode *inode)
{
	const struct tw_view *view = fs->view;
	uint64_t inlined = 0, xattr_block = 0;
	struct tw_attr attr = tw_view_attr(view, inode);
	struct tw_extent one;
	uint32_t n, len;
	const struct tw_extent *e = tw_inode_extents(inode, &one, &n);
	const char *target = tw_inode_target(inode, &len);
	tw_pack32(out, inode->ino);
	pack_attr(out, &attr);
	tw_pack_bytes(out, target, len);
	tw_numtab_get(&fs->inlines, inode->ino, &inlined);
	if (attr.flags & EXT4_INLINE_DATA_FL)
		tw_pack64(out, inlined);
	tw_numtab_get(&fs->xattr_block, inode->ino, &xattr_block);
	tw_pack64(out, xattr_block);
	tw_pack32(out, n);
	for (; n--; e++) {
		tw_pack64(out, e->block);
		tw_pack32(out, e->lblk);
		tw_pack32(out, e->count);
		tw_pack32(out, e->unwritten);
	}
	pack_names(out, view, inode);
}

static void pack_blocks(struct tw_buf *out, const struct ext4_block *table, uint32_t blocksize)
{
	tw_pack64(out, HASH_COUNT(table));
	for (const struct ext4_block *b = table; b; b = b->hh.next) {
		tw_pack64(out, b->block);
		tw_pack32(out, b->ino);
		tw_pack64(out, b->digest);
		tw_pack_bytes(out, b->data, b->data ? blocksize : 0);
	}
}

static struct tw_error *unpack_blocks(
	struct tw_unpack *in, struct ext4_block **table, uint32_t blocksize)
{
	uint64_t n = tw_unpack64(in);
	for (uint64_t i = 0; i < n && !in->failed; i++) {
		struct ext4_block *b;
		uint64_t block = tw_unpack64(in);
		uint32_t ino = tw_unpack32(in);
		uint64_t digest = tw_unpack64(in);
		struct tw_span data = tw_unpack_bytes(in);
		if (data.len == blocksize)
			TW_TRY(ext4_block_store(table, block, ino, data.data, blocksize));
		TW_TRY(ext4_block_get(table, block, &b));
		b->ino = ino;
		b->digest = digest;
	}
	return NULL;
}

/* Blocks that nobody has are not worth it. */
static void pack_xattrs(struct tw_buf *out, const struct ext4 *fs)
{
	for (const struct ext4_block *b = fs->xattrs; b; b = b->hh.next) {
		if (!b->ino)
			continue;
		tw_pack64(out, b->block);
		tw_pack64(out, b->digest);
	}
	tw_pack64(out, 0);
	ext4_xattr_sets_save(fs->sets, out);
}

/* The blocks are there already, by the inodes that have them. */
static struct tw_error *unpack_xattrs(struct tw_unpack *in, struct ext4 *fs)
{
	uint64_t block;
	while ((block = tw_unpack64(in)) && !in->failed) {
		struct ext4_block *known = ext4_block_find(fs->xattrs, block);
		uint64_t digest = tw_unpack64(in);
		if (known)
			known->digest = digest;
	}
	return ext4_xattr_sets_load(&fs->sets, in);
}

static void pack_roots(struct tw_buf *out, const struct ext4 *fs)
{
	tw_pack64(out, HASH_COUNT(fs->roots));
	for (const struct ext4_root *root = fs->roots; root; root = root->hh.next) {
		tw_pack32(out, root->ino);
		tw_pack32(out, root->flags);
		tw_pack64(out, root->sectors);
		tw_buf_append(out, root->map, sizeof(root->map));
		tw_pack_bytes(out, root->nodes, root->nnodes * sizeof(*root->nodes));
	}
}

static struct tw_error *unpack_root(struct tw_unpack *in, struct ext4 *fs)
{
	struct ext4_root *root = calloc(1, sizeof(*root));
	if (!root)
		return tw_error_nomem();
	root->ino = tw_unpack32(in);
	root->flags = tw_unpack32(in);
	root->sectors = tw_unpack64(in);
	const uint8_t *map = tw_unpack_raw(in, sizeof(root->map));
	if (map)
		memcpy(root->map, map, sizeof(root->map));
	struct tw_span nodes = tw_unpack_bytes(in);
	root->nnodes = (uint32_t)(nodes.len / sizeof(*root->nodes));
	root->nodes = malloc(nodes.len + 1);
	if (!root->nodes) {
		free(root);
		return tw_error_nomem();
	}
	if (nodes.len)
		memcpy(root->nodes, nodes.data, nodes.len);
	HASH_ADD(hh, fs->roots, ino, sizeof(root->ino), root);
	return NULL;
}

static void pack_log_block(uint32_t log_block, const uint8_t *data, void *arg)
{
	struct {
		struct tw_buf *out;
		uint32_t blocksize;
	} *to = arg;
	tw_pack32(to->out, log_block);
	tw_buf_append(to->out, data, to->blocksize);
}

static void pack_journal(struct tw_buf *out, const struct ext4 *fs)
{
	struct {
		struct tw_buf *out;
		uint32_t blocksize;
	} to = {out, fs->geo.blocksize};
	tw_pack32(out, fs->journal != NULL);
	if (!fs->journal)
		return;
	struct tw_jbd2_position position = tw_jbd2_position(fs->journal);
	tw_pack32(out, position.head);
	tw_pack32(out, position.sequence);
	tw_pack32(out, fs->log_behind);
	struct tw_span sb = tw_jbd2_superblock(fs->journal);
	tw_pack_bytes(out, sb.data, sb.len);
	tw_jbd2_pending(fs->journal, pack_log_block, &to);
	tw_pack32(out, 0); /* the superblock is never pending: the end */
}

static struct tw_error *unpack_journal(struct tw_unpack *in, struct ext4 *fs)
{
	if (!tw_unpack32(in))
		return NULL;
	struct tw_jbd2_position position = {.head = tw_unpack32(in)};
	position.sequence = tw_unpack32(in);
	fs->log_behind = tw_unpack32(in);
	TW_TRY(tw_jbd2_create(
		tw_unpack_bytes(in), fs->geo.blocksize, ext4_journal_load, fs, &fs->journal));
	tw_jbd2_set_position(fs->journal, position);
	uint32_t log_block;
	while ((log_block = tw_unpack32(in)) && !in->failed) {
		const uint8_t *data = tw_unpack_raw(in, fs->geo.blocksize);
		if (data)
			TW_TRY(tw_jbd2_write(fs->journal, log_block, data));
	}
	return NULL;
}

/* Fast commits: what was applied, and the blocks of one that is not whole. */
static void pack_fast(struct tw_buf *out, const struct ext4 *fs)
{
	struct {
		struct tw_buf *out;
		uint32_t blocksize;
	} to = {out, fs->geo.blocksize};
	tw_pack32(out, fs->fast_applied);
	tw_pack32(out, fs->flushed);
	tw_pack32(out, fs->data_waits);
	pack_blocks(out, fs->fast_dirs, fs->geo.blocksize);
	pack_blocks(out, fs->fast_blocks, fs->geo.blocksize);
	pack_blocks(out, fs->fast_mapped, fs->geo.blocksize);
	tw_pack64(out, fs->fast_missed.n);
	for (size_t i = 0; i < fs->fast_missed.n; i++) {
		tw_pack64(out, fs->fast_missed.ranges[i].offset);
		tw_pack64(out, fs->fast_missed.ranges[i].length);
	}
	tw_pack32(out, fs->fast != NULL);
	if (!fs->fast)
		return;
	tw_pack32(out, ext4_fc_sequence(fs->fast));
	tw_pack32(out, ext4_fc_position(fs->fast));
	ext4_fc_pending(fs->fast, pack_log_block, &to);
	tw_pack32(out, UINT32_MAX);
}

static struct tw_error *unpack_fast(struct tw_unpack *in, struct ext4 *fs)
{
	fs->fast_applied = tw_unpack32(in);
	fs->flushed = tw_unpack32(in);
	fs->data_waits = tw_unpack32(in);
	TW_TRY(unpack_blocks(in, &fs->fast_dirs, fs->geo.blocksize));
	TW_TRY(unpack_blocks(in, &fs->fast_blocks, fs->geo.blocksize));
	TW_TRY(unpack_blocks(in, &fs->fast_mapped, fs->geo.blocksize));
	uint64_t n = tw_unpack64(in);
	for (uint64_t i = 0; i < n && !in->failed; i++) {
		uint64_t offset = tw_unpack64(in);
		TW_TRY(tw_missed_add_range(&fs->fast_missed, offset, tw_unpack64(in)));
	}
	if (!tw_unpack32(in))
		return NULL;
	uint32_t sequence = tw_unpack32(in), position = tw_unpack32(in), index;
	/* A log that was emptied has no area until it is in use again. */
	bool area = fs->journal && tw_jbd2_fast_blocks(fs->journal);
	if (area) {
		TW_TRY(ext4_fast_open(fs));
		ext4_fc_set_position(fs->fast, sequence, position);
	}
	while ((index = tw_unpack32(in)) != UINT32_MAX && !in->failed) {
		const uint8_t *data = tw_unpack_raw(in, fs->geo.blocksize);
		if (data && area && index < ext4_fc_blocks(fs->fast))
			TW_TRY(ext4_fc_write(fs->fast, sequence, index, data));
	}
	return NULL;
}

struct tw_error *ext4_save(void *arg, struct tw_buf *out)
{
	const struct ext4 *fs = arg;
	tw_pack32(out, STATE_VERSION);
	ext4_geometry_save(&fs->geo, out);
	tw_buf_append(out, fs->superblock, sizeof(fs->superblock));
	tw_pack64(out, tw_view_inode_count(fs->view));
	const struct tw_inode *inode = tw_view_inode_next(fs->view, 1);
	for (; inode; inode = tw_view_inode_next(fs->view, inode->ino + 1))
		pack_inode(out, fs, inode);
	pack_roots(out, fs);
	pack_blocks(out, fs->nodes, fs->geo.blocksize);
	pack_xattrs(out, fs);
	pack_blocks(out, fs->recent, fs->geo.blocksize);
	pack_blocks(out, fs->direct, fs->geo.blocksize);
	pack_blocks(out, fs->early, fs->geo.blocksize);
	pack_blocks(out, fs->held, fs->geo.blocksize);
	tw_pack64(out, fs->direct_most);
	pack_journal(out, fs);
	pack_fast(out, fs);
	tw_changeset_save_ranges(fs->set, out);
	return out->failed ? tw_error_nomem() : NULL;
}

static struct tw_error *unpack_extents(
	struct tw_unpack *in, struct ext4 *fs, struct tw_inode *inode)
{
	uint32_t n = tw_unpack32(in);
	if (n > (in->span.len - in->off) / 20)
		return tw_error_create(
			TW_BAD_DATA, "inode %u: more extents than bytes", inode->ino);
	struct tw_extent *extents = calloc(n + 1ul, sizeof(*extents));
	if (!extents)
		return tw_error_nomem();
	for (uint32_t i = 0; i < n; i++) {
		struct tw_extent *e = &extents[i];
		e->block = tw_unpack64(in);
		e->lblk = tw_unpack32(in);
		e->count = tw_unpack32(in) & TW_EXTENT_MAX;
		e->unwritten = tw_unpack32(in) & 1;
	}
	struct tw_error *err = tw_inode_set_extents(inode, extents, n);
	if (!err)
		err = tw_view_claim_extents(fs->view, inode->ino, extents, n,
			ext4_data_kind(&fs->geo, inode->ino, tw_view_mode(fs->view, inode)));
	free(extents);
	return err;
}

static struct tw_error *unpack_inode(struct tw_unpack *in, struct ext4 *fs)
{
	struct tw_inode *inode;
	TW_TRY(tw_view_inode_add(fs->view, tw_unpack32(in), &inode));
	if (tw_view_mode(fs->view, inode))
		return tw_error_create(TW_BAD_DATA, "inode %u stands there twice", inode->ino);
	struct tw_attr attr = unpack_attr(in);
	TW_TRY(tw_view_set_attr(fs->view, inode, &attr));
	struct tw_span target = tw_unpack_bytes(in);
	if (S_ISLNK(attr.mode))
		TW_TRY(tw_inode_set_target(
			inode, target.len ? target.data : (const void *)"", (uint32_t)target.len));
	if (attr.flags & EXT4_INLINE_DATA_FL)
		TW_TRY(tw_numtab_set(&fs->inlines, inode->ino, tw_unpack64(in)));
	TW_TRY(ext4_attrs_has_block(fs, inode->ino, tw_unpack64(in)));
	TW_TRY(unpack_extents(in, fs, inode));
	uint32_t dir;
	while ((dir = tw_unpack32(in)) && !in->failed) {
		struct tw_name *made;
		bool opaque = tw_unpack32(in);
		uint64_t block = tw_unpack64(in);
		struct tw_span name = tw_unpack_bytes(in);
		if (in->failed || !name.len || name.len > 255)
			return tw_error_create(TW_BAD_DATA, "inode %u: no name", inode->ino);
		TW_TRY(tw_view_name_add(
			fs->view, dir, block, inode->ino, name.data, (uint8_t)name.len, &made));
		/* Its directory may come later. */
		made->opaque = opaque;
	}
	return NULL;
}

static struct tw_error *unpack_view(struct tw_unpack *in, struct ext4 *fs)
{
	TW_TRY(tw_view_create(
		fs->geo.ninodes, EXT4_ROOT_INO, fs->geo.nblocks, fs->geo.blockbits, &fs->view));
	TW_TRY(ext4_changeset(fs));
	TW_TRY(ext4_claim_tables(fs));
	uint64_t n = tw_unpack64(in);
	for (uint64_t i = 0; i < n && !in->failed; i++)
		TW_TRY(unpack_inode(in, fs));
	n = tw_unpack64(in);
	for (uint64_t i = 0; i < n && !in->failed; i++)
		TW_TRY(unpack_root(in, fs));
	return ext4_claim_nodes(fs);
}

static struct tw_error *load(struct ext4 *fs, struct tw_span state)
{
	struct tw_unpack in = {.span = state};
	if (tw_unpack32(&in) != STATE_VERSION)
		return tw_error_create(TW_BAD_DATA, "the saved state is of another version");
	TW_TRY(ext4_geometry_load(&in, &fs->geo));
	/* A volume may have shrunk since, but not to a thousandth: memory goes by its size. */
	if (fs->geo.nblocks >> 10 > fs->env.source.bytes >> fs->geo.blockbits)
		return tw_error_create(TW_BAD_DATA, "the saved geometry is not of this volume");
	const uint8_t *sb = tw_unpack_raw(&in, sizeof(fs->superblock));
	if (sb)
		memcpy(fs->superblock, sb, sizeof(fs->superblock));
	TW_TRY(unpack_view(&in, fs));
	if (!tw_view_inode(fs->view, EXT4_ROOT_INO))
		return tw_error_create(TW_BAD_DATA, "the saved state has no root directory");
	TW_TRY(unpack_blocks(&in, &fs->nodes, fs->geo.blocksize));
	TW_TRY(unpack_xattrs(&in, fs));
	TW_TRY(unpack_blocks(&in, &fs->recent, fs->geo.blocksize));
	TW_TRY(unpack_blocks(&in, &fs->direct, fs->geo.blocksize));
	TW_TRY(unpack_blocks(&in, &fs->early, fs->geo.blocksize));
	TW_TRY(unpack_blocks(&in, &fs->held, fs->geo.blocksize));
	fs->direct_most = tw_unpack64(&in);
	TW_TRY(unpack_journal(&in, fs));
	TW_TRY(unpack_fast(&in, fs));
	TW_TRY(tw_changeset_load_ranges(fs->set, &in));
	fs->data_logged = ext4_data_expected(fs);
	return in.failed ? tw_error_create(TW_BAD_DATA, "the saved state is cut off") : NULL;
}

struct tw_error *ext4_load(const struct tw_fs_env *env, struct tw_span state, void **out)
{
	struct ext4 *fs = calloc(1, sizeof(*fs));
	if (!fs)
		return tw_error_nomem();
	fs->env = *env;
	struct tw_error *err = load(fs, state);
	if (err) {
		ext4_destroy(fs);
		return err;
	}
	*out = fs;
	return NULL;
}
