/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include <sys/stat.h>
#include <xxhash.h>

/* Offsets in struct ext4_inode (inodes.rst). */
enum {
	I_MODE = 0x00,
	I_UID = 0x02,
	I_SIZE = 0x04,
	I_CTIME = 0x0c,
	I_MTIME = 0x10,
	I_DTIME = 0x14,
	I_GID = 0x18,
	I_LINKS = 0x1a,
	I_BLOCKS = 0x1c,
	I_FLAGS = 0x20,
	I_BLOCK = 0x28,
	I_GENERATION = 0x64,
	I_FILE_ACL = 0x68,
	I_SIZE_HIGH = 0x6c,
	I_BLOCKS_HIGH = 0x74,
	I_FILE_ACL_HIGH = 0x76,
	I_UID_HIGH = 0x78,
	I_GID_HIGH = 0x7a,
	I_EXTRA_ISIZE = 0x80,
	I_CTIME_EXTRA = 0x84,
	I_MTIME_EXTRA = 0x88,
	I_BASE_BYTES = 0x80,
};

/* The flags that chattr can set (EXT4_FL_USER_MODIFIABLE), encrypt, verity and inline data, without
 * those that the kernel keeps for itself (extents, htree index, huge file). */
#define KEPT_FLAGS (0x6213c0ffu | EXT4_ENCRYPT_FL | EXT4_INLINE_DATA_FL)

static uint16_t at16(const uint8_t *raw, size_t off)
{
	uint16_t v;
	memcpy(&v, raw + off, sizeof(v));
	return le16toh(v);
}

static uint32_t at32(const uint8_t *raw, size_t off)
{
	uint32_t v;
	memcpy(&v, raw + off, sizeof(v));
	return le32toh(v);
}

static struct tw_time decode_time(const uint8_t *raw, size_t base, size_t extra, size_t end)
{
	struct tw_time time = {.sec = (int32_t)at32(raw, base)};
	if (extra + 4 <= end) {
		uint32_t more = at32(raw, extra);
		time.sec += (int64_t)(more & 3) << 32;
		time.nsec = more >> 2;
	}
	return time;
}

static uint32_t decode_rdev(const uint8_t *raw)
{
	uint32_t old = at32(raw, I_BLOCK), new = at32(raw, I_BLOCK + 4);
	uint32_t major = (new & 0xfff00) >> 8, minor = (new & 0xff) | ((new >> 12) & 0xfff00);
	if (old) {
		major = (old >> 8) & 0xff;
		minor = old & 0xff;
	}
	return major << 20 | minor;
}

/* Where the fixed fields end and extended attributes begin. */
static size_t fields_end(struct tw_span raw)
{
	size_t end = I_BASE_BYTES;
	if (raw.len > I_BASE_BYTES)
		end += tw_le16(raw, I_EXTRA_ISIZE);
	return end < raw.len ? end : raw.len;
}

static void decode_attr(struct tw_span span, size_t end, struct tw_attr *out)
{
	const uint8_t *raw = span.data;
	out->mode = at16(raw, I_MODE);
	out->size = at32(raw, I_SIZE) | (uint64_t)at32(raw, I_SIZE_HIGH) << 32;
	out->uid = at16(raw, I_UID) | (uint32_t)at16(raw, I_UID_HIGH) << 16;
	out->gid = at16(raw, I_GID) | (uint32_t)at16(raw, I_GID_HIGH) << 16;
	out->nlink = at16(raw, I_LINKS);
	out->generation = at32(raw, I_GENERATION);
	out->flags = at32(raw, I_FLAGS) & KEPT_FLAGS;
	out->mtime = decode_time(raw, I_MTIME, I_MTIME_EXTRA, end);
	out->ctime = decode_time(raw, I_CTIME, I_CTIME_EXTRA, end);
	out->rdev = 0;
	if (S_ISCHR(out->mode) || S_ISBLK(out->mode))
		out->rdev = decode_rdev(raw);
	out->xattrs = 0;
	/* Most have none: where the magic would be is zero. */
	if (end + 4 <= span.len && at32(raw, end))
		out->xattrs =
			ext4_xattrs_digest(ext4_xattrs_of_inode(tw_span_sub(span, end, span.len)));
}

bool ext4_inode_plain(struct tw_span span, struct tw_attr *attr, const uint8_t **map)
{
	const uint8_t *raw = span.data;
	if (span.len < I_BASE_BYTES || !at16(raw, I_LINKS) ||
		(at32(raw, I_FLAGS) & (EXT4_EXTENTS_FL | EXT4_INLINE_DATA_FL)) != EXT4_EXTENTS_FL ||
		at32(raw, I_FILE_ACL) || at16(raw, I_FILE_ACL_HIGH))
		return false;
	uint16_t mode = at16(raw, I_MODE);
	if (!S_ISREG(mode) && !S_ISDIR(mode))
		return false;
	decode_attr(span, fields_end(span), attr);
	*map = raw + I_BLOCK;
	return true;
}

void ext4_inode_decode(struct tw_span span, struct ext4_inode *out)
{
	const uint8_t *raw = span.data;
	memset(out, 0, sizeof(*out));
	if (span.len < I_BASE_BYTES)
		return;
	size_t end = fields_end(span);
	decode_attr(span, end, &out->attr);
	out->rest = tw_span_sub(span, end, span.len);
	out->flags = at32(raw, I_FLAGS);
	out->dtime = at32(raw, I_DTIME);
	out->file_acl = at32(raw, I_FILE_ACL) | (uint64_t)at16(raw, I_FILE_ACL_HIGH) << 32;
	out->sectors = at32(raw, I_BLOCKS) | (uint64_t)at16(raw, I_BLOCKS_HIGH) << 32;
	memcpy(out->map, raw + I_BLOCK, sizeof(out->map));
}

struct tw_span ext4_inline_part(const struct ext4_inode *inode, unsigned part)
{
	enum { PARENT_BYTES = 4 };
	struct tw_span map = tw_span(inode->map, sizeof(inode->map));
	if (!(inode->flags & EXT4_INLINE_DATA_FL))
		return tw_span(NULL, 0);
	if (part)
		return ext4_xattr_inline_data(inode->rest);
	return S_ISDIR(inode->attr.mode) ? tw_span_sub(map, PARENT_BYTES, map.len) : map;
}

uint64_t ext4_inline_digest(const struct ext4_inode *inode)
{
	uint64_t digest = 0, left = S_ISDIR(inode->attr.mode) ? UINT64_MAX : inode->attr.size;
	for (unsigned i = 0; i < EXT4_INLINE_PARTS; i++) {
		struct tw_span part = ext4_inline_part(inode, i);
		size_t len = part.len < left ? part.len : (size_t)left;
		digest = XXH64(part.data, len, digest);
		left -= len;
	}
	return digest;
}

bool ext4_same_attr(const struct tw_attr *a, const struct tw_attr *b)
{
	return a->size == b->size && a->mtime.sec == b->mtime.sec &&
	       a->mtime.nsec == b->mtime.nsec && a->ctime.sec == b->ctime.sec &&
	       a->ctime.nsec == b->ctime.nsec && a->xattrs == b->xattrs &&
	       a->generation == b->generation && a->flags == b->flags && a->uid == b->uid &&
	       a->gid == b->gid && a->nlink == b->nlink && a->rdev == b->rdev && a->mode == b->mode;
}

static bool same_time(struct tw_time a, struct tw_time b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

static bool xattrs_are(struct tw_span rest, uint64_t digest)
{
	if (!tw_le32(rest, 0) && !digest)
		return true;
	return ext4_xattrs_digest(ext4_xattrs_of_inode(rest)) == digest;
}

bool ext4_inode_is(struct tw_span raw, const struct tw_attr *attr, struct tw_span *map)
{
	enum { PLAIN_FLAGS = KEPT_FLAGS & ~EXT4_INLINE_DATA_FL };
	uint32_t flags = tw_le32(raw, I_FLAGS);
	if (raw.len < I_BASE_BYTES)
		return false;
	size_t end = fields_end(raw);
	*map = tw_span_sub(raw, I_BLOCK, EXT4_MAP_BYTES);
	return (S_ISREG(attr->mode) || S_ISDIR(attr->mode)) && flags & EXT4_EXTENTS_FL &&
	       (flags & KEPT_FLAGS) == attr->flags && !(attr->flags & ~PLAIN_FLAGS) &&
	       attr->nlink && tw_le16(raw, I_LINKS) == attr->nlink &&
	       tw_le16(raw, I_MODE) == attr->mode &&
	       tw_le32(raw, I_GENERATION) == attr->generation &&
	       same_time(decode_time(raw.data, I_CTIME, I_CTIME_EXTRA, end), attr->ctime) &&
	       same_time(decode_time(raw.data, I_MTIME, I_MTIME_EXTRA, end), attr->mtime) &&
	       (tw_le32(raw, I_SIZE) | (uint64_t)tw_le32(raw, I_SIZE_HIGH) << 32) == attr->size &&
	       (tw_le16(raw, I_UID) | (uint32_t)tw_le16(raw, I_UID_HIGH) << 16) == attr->uid &&
	       (tw_le16(raw, I_GID) | (uint32_t)tw_le16(raw, I_GID_HIGH) << 16) == attr->gid &&
	       !tw_le32(raw, I_FILE_ACL) && !tw_le16(raw, I_FILE_ACL_HIGH) &&
	       xattrs_are(tw_span_sub(raw, end, raw.len), attr->xattrs);
}

bool ext4_inode_tracked(const struct ext4_geometry *geo, const struct ext4_inode *inode)
{
	if (!inode->attr.mode)
		return false;
	/* A time is larger than any inode number. */
	bool open = inode->dtime <= geo->ninodes;
	return inode->attr.nlink || (inode->sectors && open);
}

/* Inline data that fits looks the same. */
bool ext4_inode_fast_symlink(const struct ext4_inode *inode)
{
	return S_ISLNK(inode->attr.mode) && !(inode->flags & EXT4_EXTENTS_FL) &&
	       inode->attr.size < EXT4_MAP_BYTES;
}

enum tw_owner_kind ext4_data_kind(const struct ext4_geometry *geo, uint32_t ino, uint16_t mode)
{
	if (ino == geo->journal_ino)
		return TW_OWNER_JOURNAL;
	if (ino < geo->first_ino && ino != EXT4_ROOT_INO)
		return TW_OWNER_SYSTEM;
	if (S_ISDIR(mode))
		return TW_OWNER_DIR;
	if (S_ISLNK(mode))
		return TW_OWNER_SYMLINK;
	return TW_OWNER_DATA;
}

struct tw_error *ext4_inline_keep(struct ext4 *fs, uint32_t ino, const struct ext4_inode *inode)
{
	struct tw_buf data = TW_BUF_INIT;
	struct tw_error *err = NULL;
	struct ext4_block *kept;
	for (unsigned i = 0; i < EXT4_INLINE_PARTS; i++) {
		struct tw_span part = ext4_inline_part(inode, i);
		tw_buf_append(&data, part.data, part.len);
	}
	ext4_block_drop(&fs->inline_now, ino);
	if (data.failed)
		err = tw_error_nomem();
	if (!err && data.len)
		err = ext4_block_store(&fs->inline_now, ino, ino, (const uint8_t *)data.data, (uint32_t)data.len);
	kept = err ? NULL : ext4_block_find(fs->inline_now, ino);
	if (kept)
		kept->digest = data.len;
	tw_buf_deinit(&data);
	return err;
}

bool ext4_inline_data(void *arg, uint32_t ino, struct tw_buf *out)
{
	const struct ext4 *fs = arg;
	const struct ext4_block *kept = ext4_block_find(fs->inline_now, ino);
	if (kept)
		tw_buf_append(out, kept->data, kept->digest);
	return kept && !out->failed;
}
