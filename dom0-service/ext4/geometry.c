/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include "base/pack.h"

#include <e2p/e2p.h>
#include <et/com_err.h>
#include <ext2fs/ext2fs.h>
#include <stdio.h>
#include <stdlib.h>

#define COMPAT_FOLLOWED                                                                            \
	(EXT2_FEATURE_COMPAT_DIR_PREALLOC | EXT3_FEATURE_COMPAT_HAS_JOURNAL |                      \
		EXT2_FEATURE_COMPAT_EXT_ATTR | EXT2_FEATURE_COMPAT_RESIZE_INODE |                  \
		EXT2_FEATURE_COMPAT_DIR_INDEX | EXT4_FEATURE_COMPAT_SPARSE_SUPER2 |                \
		EXT4_FEATURE_COMPAT_STABLE_INODES | EXT4_FEATURE_COMPAT_ORPHAN_FILE |              \
		EXT4_FEATURE_COMPAT_FAST_COMMIT)
#define INCOMPAT_FOLLOWED                                                                          \
	(EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_RECOVER |                          \
		EXT2_FEATURE_INCOMPAT_META_BG | EXT3_FEATURE_INCOMPAT_EXTENTS |                    \
		EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_MMP |                          \
		EXT4_FEATURE_INCOMPAT_FLEX_BG | EXT4_FEATURE_INCOMPAT_CSUM_SEED |                  \
		EXT4_FEATURE_INCOMPAT_LARGEDIR | EXT4_FEATURE_INCOMPAT_INLINE_DATA |               \
		EXT4_FEATURE_INCOMPAT_EA_INODE | EXT4_FEATURE_INCOMPAT_ENCRYPT |                   \
		EXT4_FEATURE_INCOMPAT_CASEFOLD)
#define RO_COMPAT_FOLLOWED                                                                         \
	(EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE |                 \
		EXT4_FEATURE_RO_COMPAT_HUGE_FILE | EXT4_FEATURE_RO_COMPAT_GDT_CSUM |               \
		EXT4_FEATURE_RO_COMPAT_DIR_NLINK | EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE |            \
		EXT4_FEATURE_RO_COMPAT_QUOTA | EXT4_FEATURE_RO_COMPAT_METADATA_CSUM |              \
		EXT4_FEATURE_RO_COMPAT_PROJECT | EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT |           \
		EXT4_FEATURE_RO_COMPAT_BIGALLOC | EXT4_FEATURE_RO_COMPAT_VERITY)

/* Those that move things about. */
#define LAYOUT_FEATURES                                                                            \
	(EXT2_FEATURE_INCOMPAT_META_BG | EXT4_FEATURE_INCOMPAT_64BIT |                             \
		EXT4_FEATURE_INCOMPAT_FLEX_BG | EXT4_FEATURE_INCOMPAT_CSUM_SEED)

/* libext2fs opens by name; ours is the address of a tw_source in digits. */
static errcode_t io_open(const char *name, int flags, io_channel *out);

static errcode_t io_close(io_channel io)
{
	free(io->name);
	free(io);
	return 0;
}

static errcode_t io_set_blksize(io_channel io, int blksize)
{
	io->block_size = blksize;
	return 0;
}

/* A negative count is bytes. */
static errcode_t io_read_blk64(io_channel io, unsigned long long block, int count, void *data)
{
	size_t len = count < 0 ? (size_t) - (int64_t)count : (size_t)count * (size_t)io->block_size;
	unsigned long long offset;
	if (__builtin_mul_overflow(block, (unsigned long long)io->block_size, &offset))
		return EXT2_ET_SHORT_READ;
	struct tw_error *err = tw_source_read(io->private_data, offset, data, len);
	tw_error_destroy(err);
	return err ? EXT2_ET_SHORT_READ : 0;
}

static errcode_t io_read_blk(io_channel io, unsigned long block, int count, void *data)
{
	return io_read_blk64(io, block, count, data);
}

static errcode_t io_refuse(io_channel io, unsigned long block, int count, const void *data)
{
	(void)io, (void)block, (void)count, (void)data;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t io_refuse64(io_channel io, unsigned long long block, int count, const void *data)
{
	(void)io, (void)block, (void)count, (void)data;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t io_flush(io_channel io)
{
	(void)io;
	return 0;
}

static struct struct_io_manager source_io = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "tapwire",
	.open = io_open,
	.close = io_close,
	.set_blksize = io_set_blksize,
	.read_blk = io_read_blk,
	.read_blk64 = io_read_blk64,
	.write_blk = io_refuse,
	.write_blk64 = io_refuse64,
	.flush = io_flush,
};

static errcode_t io_open(const char *name, int flags, io_channel *out)
{
	void *source;
	(void)flags;
	if (sscanf(name, "%p", &source) != 1)
		return EXT2_ET_BAD_DEVICE_NAME;
	io_channel io = calloc(1, sizeof(*io));
	if (!io)
		return EXT2_ET_NO_MEMORY;
	io->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	io->manager = &source_io;
	io->name = strdup(name);
	io->block_size = 1024;
	io->refcount = 1;
	io->private_data = source;
	*out = io;
	return 0;
}

static struct tw_error *unsupported(int kind, uint32_t mask)
{
	uint32_t lowest = mask & -mask;
	return tw_error_create(TW_UNSUPPORTED, "ext4 feature %s is not followed",
		e2p_feature2string(kind, lowest));
}

static struct tw_error *check_features(const struct ext2_super_block *sb)
{
	uint32_t compat = sb->s_feature_compat & ~(uint32_t)COMPAT_FOLLOWED;
	uint32_t incompat = sb->s_feature_incompat & ~(uint32_t)INCOMPAT_FOLLOWED;
	uint32_t ro_compat = sb->s_feature_ro_compat & ~(uint32_t)RO_COMPAT_FOLLOWED;
	if (incompat)
		return unsupported(E2P_FEATURE_INCOMPAT, incompat);
	if (ro_compat)
		return unsupported(E2P_FEATURE_RO_INCOMPAT, ro_compat);
	if (compat)
		return unsupported(E2P_FEATURE_COMPAT, compat);
	/* tune2fs may make it a file, when the volume is mounted. */
	if (sb->s_feature_compat & EXT3_FEATURE_COMPAT_HAS_JOURNAL && !sb->s_journal_inum)
		return tw_error_create(TW_UNSUPPORTED,
			"a journal outside of the file system (journal_dev) is not followed");
	return NULL;
}

static int by_itable(const void *a, const void *b, void *arg)
{
	const struct ext4_geometry *geo = arg;
	uint64_t x = geo->itable[*(const uint32_t *)a];
	uint64_t y = geo->itable[*(const uint32_t *)b];
	return x < y ? -1 : x > y;
}

static struct tw_error *alloc_groups(struct ext4_geometry *geo)
{
	geo->itable = calloc(geo->ngroups, sizeof(*geo->itable));
	geo->used = calloc(geo->ngroups, sizeof(*geo->used));
	geo->by_block = calloc(geo->ngroups, sizeof(*geo->by_block));
	return geo->itable && geo->used && geo->by_block ? NULL : tw_error_nomem();
}

static void sort_groups(struct ext4_geometry *geo)
{
	for (uint32_t g = 0; g < geo->ngroups; g++)
		geo->by_block[g] = g;
	qsort_r(geo->by_block, geo->ngroups, sizeof(*geo->by_block), by_itable, geo);
}

static struct tw_error *fill_groups(ext2_filsys fs, struct ext4_geometry *geo)
{
	TW_TRY(alloc_groups(geo));
	for (uint32_t g = 0; g < geo->ngroups; g++) {
		geo->itable[g] = ext2fs_inode_table_loc(fs, g);
		if (!geo->itable[g] || geo->itable[g] > geo->nblocks ||
			geo->itable_blocks > geo->nblocks - geo->itable[g])
			return tw_error_create(
				TW_BAD_DATA, "the inode table of group %u is out of range", g);
		geo->used[g] = geo->inodes_per_group;
		if (ext2fs_has_group_desc_csum(fs)) {
			uint32_t unused = ext2fs_bg_itable_unused(fs, g);
			if (ext2fs_bg_flags_test(fs, g, EXT2_BG_INODE_UNINIT))
				unused = geo->inodes_per_group;
			geo->used[g] -= unused < geo->used[g] ? unused : geo->used[g];
		}
	}
	sort_groups(geo);
	return NULL;
}

static void name_uuid(struct ext4_geometry *geo)
{
	const uint8_t *u = geo->uuid_raw;
	snprintf(geo->uuid, sizeof(geo->uuid),
		"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
		u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
		u[15]);
}

/* The journal's inode, or 0. */
static uint32_t journal_of(const struct ext2_super_block *sb)
{
	return sb->s_feature_compat & EXT3_FEATURE_COMPAT_HAS_JOURNAL ? sb->s_journal_inum : 0;
}

static struct tw_error *fill(
	ext2_filsys fs, const struct tw_source *source, struct ext4_geometry *geo)
{
	struct ext2_super_block *sb = fs->super;
	TW_TRY(check_features(sb));
	geo->blocksize = fs->blocksize;
	geo->blockbits = (uint32_t)__builtin_ctz(fs->blocksize);
	geo->nblocks = ext2fs_blocks_count(sb);
	geo->layout_features = sb->s_feature_incompat & LAYOUT_FEATURES;
	if (geo->nblocks > source->bytes >> geo->blockbits)
		return tw_error_create(TW_BAD_DATA,
			"the file system has %llu bytes, its volume only %llu: the image is cut "
			"off",
			(unsigned long long)geo->nblocks << geo->blockbits,
			(unsigned long long)source->bytes);
	geo->inode_size = EXT2_INODE_SIZE(sb);
	geo->ninodes = sb->s_inodes_count;
	geo->inodes_per_group = sb->s_inodes_per_group;
	geo->itable_blocks = fs->inode_blocks_per_group;
	geo->first_ino = EXT2_FIRST_INO(sb);
	geo->first_data_block = sb->s_first_data_block;
	geo->ngroups = fs->group_desc_count;
	geo->journal_ino = journal_of(sb);
	memcpy(geo->uuid_raw, sb->s_uuid, sizeof(geo->uuid_raw));
	name_uuid(geo);
	return fill_groups(fs, geo);
}

/* The fields that check_features() looks at, from a superblock as it is on disk. */
static struct ext2_super_block features_of(struct tw_span sb)
{
	return (struct ext2_super_block){
		.s_feature_compat = tw_le32(sb, 0x5c),
		.s_feature_incompat = tw_le32(sb, 0x60),
		.s_feature_ro_compat = tw_le32(sb, 0x64),
		.s_journal_inum = tw_le32(sb, 0xe0),
	};
}

const char *ext4_geometry_changed(const struct ext4_geometry *geo, struct tw_span sb)
{
	struct ext2_super_block features = features_of(sb);
	uint64_t nblocks = tw_le32(sb, 0x04);
	if (features.s_feature_incompat & EXT4_FEATURE_INCOMPAT_64BIT)
		nblocks |= (uint64_t)tw_le32(sb, 0x150) << 32;
	if (tw_le16(sb, 0x38) != EXT2_SUPER_MAGIC ||
		memcmp(sb.data + 0x68, geo->uuid_raw, sizeof(geo->uuid_raw)) ||
		1024u << (tw_le32(sb, 0x18) & 31) != geo->blocksize)
		return "the volume was formatted";
	if (nblocks != geo->nblocks || tw_le32(sb, 0x00) != geo->ninodes ||
		tw_le32(sb, 0x28) != geo->inodes_per_group)
		return "the volume was resized";
	struct tw_error *err = check_features(&features);
	bool other = err || tw_le16(sb, 0x58) != geo->inode_size ||
		     (features.s_feature_incompat & LAYOUT_FEATURES) != geo->layout_features;
	tw_error_destroy(err);
	if (!err && journal_of(&features) != geo->journal_ino)
		return "a journal was added or removed";
	return other ? "the volume's features were changed" : NULL;
}

/* The superblock once more, for features that libext2fs refuses to open. */
static struct tw_error *why_not(const struct tw_source *source, errcode_t code)
{
	uint8_t raw[SUPERBLOCK_SIZE];
	TW_TRY(tw_source_read(source, SUPERBLOCK_OFFSET, raw, sizeof(raw)));
	struct tw_span span = tw_span(raw, sizeof(raw));
	if (tw_le16(span, 0x38) != EXT2_SUPER_MAGIC)
		return tw_error_create(TW_BAD_DATA, "no ext4 superblock");
	struct ext2_super_block features = features_of(span);
	TW_TRY(check_features(&features));
	return tw_error_create(
		TW_BAD_DATA, "the file system cannot be opened: %s", error_message(code));
}

struct tw_error *ext4_geometry_read(const struct tw_source *source, struct ext4_geometry *out)
{
	char name[32];
	ext2_filsys fs;
	memset(out, 0, sizeof(*out));
	initialize_ext2_error_table();
	snprintf(name, sizeof(name), "%p", (const void *)source);
	errcode_t code = ext2fs_open2(
		name, NULL, EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES, 0, 0, &source_io, &fs);
	if (code)
		return why_not(source, code);
	struct tw_error *err = fill(fs, source, out);
	ext2fs_free(fs);
	if (err)
		ext4_geometry_deinit(out);
	return err;
}

void ext4_geometry_save(const struct ext4_geometry *geo, struct tw_buf *out)
{
	tw_buf_append(out, geo->uuid_raw, sizeof(geo->uuid_raw));
	tw_pack64(out, geo->nblocks);
	tw_pack64(out, geo->first_data_block);
	tw_pack32(out, geo->blocksize);
	tw_pack32(out, geo->inode_size);
	tw_pack32(out, geo->ninodes);
	tw_pack32(out, geo->inodes_per_group);
	tw_pack32(out, geo->itable_blocks);
	tw_pack32(out, geo->first_ino);
	tw_pack32(out, geo->journal_ino);
	tw_pack32(out, geo->layout_features);
	tw_pack32(out, geo->ngroups);
	for (uint32_t g = 0; g < geo->ngroups; g++)
		tw_pack64(out, geo->itable[g]);
}

static bool plausible(const struct ext4_geometry *geo)
{
	return geo->blocksize >= 1024 && geo->blocksize <= 65536 &&
	       !(geo->blocksize & (geo->blocksize - 1)) && geo->inode_size >= 128 &&
	       geo->inode_size <= geo->blocksize && geo->inodes_per_group && geo->ninodes;
}

struct tw_error *ext4_geometry_load(struct tw_unpack *in, struct ext4_geometry *out)
{
	const uint8_t *uuid = tw_unpack_raw(in, sizeof(out->uuid_raw));
	memset(out, 0, sizeof(*out));
	if (uuid)
		memcpy(out->uuid_raw, uuid, sizeof(out->uuid_raw));
	name_uuid(out);
	out->nblocks = tw_unpack64(in);
	out->first_data_block = tw_unpack64(in);
	out->blocksize = tw_unpack32(in);
	out->inode_size = tw_unpack32(in);
	out->ninodes = tw_unpack32(in);
	out->inodes_per_group = tw_unpack32(in);
	out->itable_blocks = tw_unpack32(in);
	out->first_ino = tw_unpack32(in);
	out->journal_ino = tw_unpack32(in);
	out->layout_features = tw_unpack32(in);
	uint32_t ngroups = tw_unpack32(in);
	if (in->failed || !plausible(out) || ngroups > (in->span.len - in->off) / 8)
		return tw_error_create(TW_BAD_DATA, "the saved geometry is damaged");
	out->blockbits = (uint32_t)__builtin_ctz(out->blocksize);
	out->ngroups = ngroups;
	TW_TRY(alloc_groups(out));
	for (uint32_t g = 0; g < ngroups; g++)
		out->itable[g] = tw_unpack64(in);
	sort_groups(out);
	return NULL;
}

void ext4_geometry_deinit(struct ext4_geometry *geo)
{
	free(geo->itable);
	free(geo->used);
	free(geo->by_block);
	geo->itable = NULL;
	geo->used = NULL;
	geo->by_block = NULL;
}

uint64_t ext4_geometry_slot(const struct ext4_geometry *geo, uint32_t ino)
{
	uint32_t group = (ino - 1) / geo->inodes_per_group, slot = (ino - 1) % geo->inodes_per_group;
	return geo->itable[group] + (((uint64_t)slot * geo->inode_size) >> geo->blockbits);
}

uint32_t ext4_geometry_itable(const struct ext4_geometry *geo, uint64_t block, uint32_t *first_ino)
{
	uint32_t lo = 0, hi = geo->ngroups;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (geo->itable[geo->by_block[mid]] <= block)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return 0;
	uint32_t group = geo->by_block[lo - 1];
	uint64_t index = block - geo->itable[group];
	if (index >= geo->itable_blocks)
		return 0;
	uint32_t per_block = geo->blocksize / geo->inode_size;
	uint32_t before = (uint32_t)index * per_block;
	*first_ino = group * geo->inodes_per_group + before + 1;
	uint32_t left = geo->inodes_per_group - before;
	return left < per_block ? left : per_block;
}
