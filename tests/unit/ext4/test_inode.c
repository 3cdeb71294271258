/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "ext4/ext4.h"

#include <stdlib.h>
#include <sys/stat.h>

struct raw {
	uint8_t bytes[256];
};

static void le16(struct raw *raw, size_t off, uint16_t v)
{
	v = htole16(v);
	memcpy(raw->bytes + off, &v, 2);
}

static void le32(struct raw *raw, size_t off, uint32_t v)
{
	v = htole32(v);
	memcpy(raw->bytes + off, &v, 4);
}

static struct ext4_inode decode(const struct raw *raw, size_t len)
{
	uint8_t *copy = malloc(len);
	struct ext4_inode inode;
	memcpy(copy, raw->bytes, len);
	ext4_inode_decode(tw_span(copy, len), &inode);
	free(copy);
	return inode;
}

static void fields_are_read_with_their_high_halves(void **state)
{
	(void)state;
	struct raw raw = { 0 };
	le16(&raw, 0x00, S_IFREG | 04755);
	le16(&raw, 0x02, 0x5678);
	le16(&raw, 0x78, 0x1234);
	le16(&raw, 0x18, 0xcdef);
	le16(&raw, 0x7a, 0xab);
	le32(&raw, 0x04, 0x89abcdef);
	le32(&raw, 0x6c, 0x7);
	le16(&raw, 0x1a, 65000);
	le32(&raw, 0x1c, 16);
	le16(&raw, 0x74, 1);
	le32(&raw, 0x64, 0xdeadbeef);
	le32(&raw, 0x68, 500);
	le16(&raw, 0x76, 2);
	struct ext4_inode inode = decode(&raw, 128);
	assert_int_equal(inode.attr.mode, S_IFREG | 04755);
	assert_int_equal(inode.attr.uid, 0x12345678);
	assert_int_equal(inode.attr.gid, 0xabcdef);
	assert_true(inode.attr.size == 0x789abcdef);
	assert_int_equal(inode.attr.nlink, 65000);
	assert_true(inode.sectors == 0x100000010);
	assert_int_equal(inode.attr.generation, 0xdeadbeef);
	assert_true(inode.file_acl == 0x2000001f4);
}

static void a_small_inode_has_whole_seconds(void **state)
{
	(void)state;
	struct raw raw = { 0 };
	le32(&raw, 0x10, 1000);
	le32(&raw, 0x0c, 0xffffffff);
	le32(&raw, 0x88, 0xffffffff); /* beyond the end of a small inode */
	struct ext4_inode inode = decode(&raw, 128);
	assert_int_equal(inode.attr.mtime.sec, 1000);
	assert_int_equal(inode.attr.mtime.nsec, 0);
	assert_int_equal(inode.attr.ctime.sec, -1);
}

static void epoch_bits_reach_beyond_2038(void **state)
{
	(void)state;
	/* inodes.rst: the two bits extend the signed 32-bit seconds upwards. */
	static const struct { uint32_t base, epoch; int64_t sec; } cases[] = {
		{ 0x80000000, 0, -0x80000000ll }, { 0xffffffff, 0, -1 }, { 0, 0, 0 },
		{ 0x7fffffff, 0, 0x7fffffff }, { 0x80000000, 1, 0x80000000ll },
		{ 0xffffffff, 1, 0xffffffffll }, { 0, 1, 0x100000000ll },
		{ 0x7fffffff, 1, 0x17fffffffll }, { 0x80000000, 2, 0x180000000ll },
		{ 0, 2, 0x200000000ll }, { 0x7fffffff, 3, 0x37fffffffll },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct raw raw = { 0 };
		le16(&raw, 0x80, 32);
		le32(&raw, 0x10, cases[i].base);
		le32(&raw, 0x88, cases[i].epoch | 999999999u << 2);
		struct ext4_inode inode = decode(&raw, 256);
		assert_true(inode.attr.mtime.sec == cases[i].sec);
		assert_int_equal(inode.attr.mtime.nsec, 999999999);
		assert_int_equal(inode.attr.ctime.nsec, 0);
	}
}

/* The kernel may have made the extra part shorter than the fields that we know. */
static void extra_fields_count_only_where_the_inode_has_them(void **state)
{
	(void)state;
	struct raw raw = { 0 };
	le32(&raw, 0x84, 5 << 2);
	le32(&raw, 0x88, 6 << 2);
	le16(&raw, 0x80, 8);
	assert_int_equal(decode(&raw, 256).attr.ctime.nsec, 5);
	assert_int_equal(decode(&raw, 256).attr.mtime.nsec, 0);
	le16(&raw, 0x80, 12);
	assert_int_equal(decode(&raw, 256).attr.mtime.nsec, 6);
	le16(&raw, 0x80, 0);
	assert_int_equal(decode(&raw, 256).attr.ctime.nsec, 0);
	le16(&raw, 0x80, 0xffff);
	assert_int_equal(decode(&raw, 256).attr.xattrs, 0);
}

static void old_and_new_device_numbers(void **state)
{
	(void)state;
	static const struct { uint32_t old, new, major, minor; } cases[] = {
		{ 0x0103, 0, 1, 3 }, { 0xffff, 0, 255, 255 }, { 0, 0x10300, 259, 0 },
		{ 0, 0x00100100, 1, 256 }, { 0, 0xfff00000 | 0xfff00 | 0xff, 4095, 0xfffff },
		{ 0x0801, 0x10300, 8, 1 },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct raw raw = { 0 };
		le16(&raw, 0, S_IFBLK | 0600);
		le32(&raw, 0x28, cases[i].old);
		le32(&raw, 0x2c, cases[i].new);
		struct ext4_inode inode = decode(&raw, 256);
		assert_int_equal(inode.attr.rdev >> 20, cases[i].major);
		assert_int_equal(inode.attr.rdev & 0xfffff, cases[i].minor);
		le16(&raw, 0, S_IFREG | 0600);
		assert_int_equal(decode(&raw, 256).attr.rdev, 0);
	}
}

static void the_kernels_own_flags_are_no_attributes(void **state)
{
	(void)state;
	struct raw raw = { 0 };
	le32(&raw, 0x20, 0x80000 | 0x1000 | 0x10 | 0x20); /* extents, index; immutable, append */
	struct ext4_inode inode = decode(&raw, 256);
	assert_int_equal(inode.attr.flags, 0x30);
	assert_int_equal(inode.flags, 0x81030);
}

static void a_truncated_slot_is_decoded_without_harm(void **state)
{
	(void)state;
	struct raw raw;
	memset(&raw, 0xff, sizeof(raw));
	for (size_t len = 1; len < 256; len++)
		decode(&raw, len);
}

static void an_inode_counts_with_links_or_blocks(void **state)
{
	(void)state;
	const struct ext4_geometry geo = { .ninodes = 1000 };
	struct ext4_inode inode = { .attr = { .mode = S_IFREG } };
	assert_false(ext4_inode_tracked(&geo, &inode));
	inode.sectors = 8;
	assert_true(ext4_inode_tracked(&geo, &inode));
	inode.dtime = 1000; /* the next orphan */
	assert_true(ext4_inode_tracked(&geo, &inode));
	inode.dtime = 1700000000;
	assert_false(ext4_inode_tracked(&geo, &inode));
	inode.sectors = 0;
	inode.attr.nlink = 1;
	assert_true(ext4_inode_tracked(&geo, &inode));
	inode.attr.mode = 0;
	assert_false(ext4_inode_tracked(&geo, &inode));
}

static void short_targets_are_in_the_inode(void **state)
{
	(void)state;
	struct ext4_inode inode = { .attr = { .mode = S_IFLNK, .size = 59 } };
	assert_true(ext4_inode_fast_symlink(&inode));
	inode.attr.size = 60;
	assert_false(ext4_inode_fast_symlink(&inode));
	inode.attr.size = UINT64_MAX;
	assert_false(ext4_inode_fast_symlink(&inode));
	inode.attr.size = 5;
	inode.flags = EXT4_EXTENTS_FL;
	assert_false(ext4_inode_fast_symlink(&inode));
	inode = (struct ext4_inode){ .attr = { .mode = S_IFREG, .size = 5 } };
	assert_false(ext4_inode_fast_symlink(&inode));
}

/* Inline data: content in i_block, and the rest of it in the value of a hidden attribute. */
static void inline_data(struct raw *raw, uint16_t mode, uint32_t size, const char *rest)
{
	static const uint8_t entry[] = { 0, 0, 2, 0xea, 4, 7, 40, 0, 0, 0, 0, 0 };
	memset(raw, 0, sizeof(*raw));
	le16(raw, 0x00, mode);
	le16(raw, 0x1a, 1);
	le32(raw, 0x04, size);
	le32(raw, 0x20, EXT4_INLINE_DATA_FL);
	le16(raw, 0x80, 32);
	for (uint8_t i = 0; i < 60; i++)
		raw->bytes[0x28 + i] = i;
	memcpy(raw->bytes + 160, entry, sizeof(entry));
	le32(raw, 172, (uint32_t)strlen(rest));
	memcpy(raw->bytes + 180, "data", 4);
	memcpy(raw->bytes + 164 + 40, rest, strlen(rest));
}

static void inline_data_has_two_parts(void **state)
{
	(void)state;
	struct raw raw;
	struct ext4_inode inode;
	inline_data(&raw, S_IFREG | 0644, 65, "abcde");
	ext4_inode_decode(tw_span(raw.bytes, 256), &inode);
	struct tw_span first = ext4_inline_part(&inode, 0), second = ext4_inline_part(&inode, 1);
	assert_int_equal(first.len, 60);
	assert_memory_equal(first.data, raw.bytes + 0x28, 60);
	assert_int_equal(second.len, 5);
	assert_memory_equal(second.data, "abcde", 5);
	assert_true(inode.attr.xattrs == 0); /* no attribute of anybody's */
	inline_data(&raw, S_IFDIR | 0755, 65, "abcde");
	ext4_inode_decode(tw_span(raw.bytes, 256), &inode);
	first = ext4_inline_part(&inode, 0);
	assert_int_equal(first.len, 56); /* without its parent */
	assert_memory_equal(first.data, raw.bytes + 0x2c, 56);
	le32(&raw, 0x20, EXT4_EXTENTS_FL);
	ext4_inode_decode(tw_span(raw.bytes, 256), &inode);
	assert_int_equal(ext4_inline_part(&inode, 0).len + ext4_inline_part(&inode, 1).len, 0);
}

static uint64_t digest_of(uint16_t mode, uint32_t size, const char *rest, int at)
{
	struct raw raw;
	struct ext4_inode inode;
	inline_data(&raw, mode, size, rest);
	if (at >= 0)
		raw.bytes[at] ^= 1;
	ext4_inode_decode(tw_span(raw.bytes, 256), &inode);
	return ext4_inline_digest(&inode);
}

static void the_digest_of_inline_data_is_of_the_content(void **state)
{
	(void)state;
	uint64_t is = digest_of(S_IFREG, 64, "abcdefgh", -1);
	assert_true(is == digest_of(S_IFREG, 64, "abcdef", -1)); /* room is no content */
	assert_true(is == digest_of(S_IFREG, 64, "abcdefgh", 164 + 40 + 4));
	assert_true(is != digest_of(S_IFREG, 64, "abcdefgh", 164 + 40 + 3));
	assert_true(is != digest_of(S_IFREG, 64, "abcdefgh", 0x28));
	assert_true(is != digest_of(S_IFREG, 64, "abcdefgh", 0x28 + 59));
	assert_true(is != digest_of(S_IFREG, 63, "abcdefgh", -1));
	assert_true(digest_of(S_IFREG, 3, "", 0x28 + 3) == digest_of(S_IFREG, 3, "", -1));
	/* A directory's parent is not in it, all entries are. */
	is = digest_of(S_IFDIR, 60, "abcdefgh", -1);
	assert_true(is == digest_of(S_IFDIR, 60, "abcdefgh", 0x28));
	assert_true(is != digest_of(S_IFDIR, 60, "abcdefgh", 164 + 40 + 7));
}

static void reserved_inodes_own_blocks_of_their_own_kind(void **state)
{
	(void)state;
	const struct ext4_geometry geo = { .journal_ino = 8, .first_ino = 11 };
	assert_int_equal(ext4_data_kind(&geo, 8, S_IFREG), TW_OWNER_JOURNAL);
	assert_int_equal(ext4_data_kind(&geo, 7, S_IFREG), TW_OWNER_SYSTEM);
	assert_int_equal(ext4_data_kind(&geo, 2, S_IFDIR), TW_OWNER_DIR);
	assert_int_equal(ext4_data_kind(&geo, 11, S_IFDIR), TW_OWNER_DIR);
	assert_int_equal(ext4_data_kind(&geo, 12, S_IFLNK), TW_OWNER_SYMLINK);
	assert_int_equal(ext4_data_kind(&geo, 12, S_IFREG), TW_OWNER_DATA);
}

/* A file of one extent, with an attribute in the inode. */
static struct raw usual(void)
{
	struct raw raw = { 0 };
	le16(&raw, 0x00, S_IFREG | 0644);
	le32(&raw, 0x04, 5000);
	le32(&raw, 0x0c, 1700000000);
	le32(&raw, 0x10, 1600000000);
	le16(&raw, 0x1a, 1);
	le32(&raw, 0x20, EXT4_EXTENTS_FL | 0x10);
	le16(&raw, 0x28, 0xf30a);
	le16(&raw, 0x2a, 1);
	le16(&raw, 0x2c, 4);
	le16(&raw, 0x38, 2);
	le32(&raw, 0x3c, 1000);
	le32(&raw, 0x64, 77);
	le16(&raw, 0x80, 32);
	le32(&raw, 0x84, 5 << 2);
	le32(&raw, 0xa0, 0xea020000);
	memcpy(raw.bytes + 0xa4, "\4\1\x40\0\0\0\0\0\4\0\0\0\0\0\0\0user", 20);
	memcpy(raw.bytes + 0xa4 + 0x40, "blue", 4);
	return raw;
}

static bool is(const struct raw *raw, const struct ext4_inode *was, const struct tw_extent *extent)
{
	struct tw_span map;
	return ext4_inode_is(tw_span(raw->bytes, sizeof(raw->bytes)), &was->attr, &map) &&
	       ext4_root_is(map, extent, 1);
}

/* Each bit of a slot, alone: where it counts for the decoders, the slot is not taken for what it was. */
static void a_slot_is_what_it_was_only_if_nothing_that_counts_changed(void **state)
{
	(void)state;
	const struct tw_extent extent = { .block = 1000, .count = 2 };
	struct raw raw = usual();
	struct ext4_inode was = decode(&raw, sizeof(raw.bytes));
	unsigned same = 0;
	assert_true(is(&raw, &was, &extent));
	for (unsigned bit = 0; bit < 8 * sizeof(raw.bytes); bit++) {
		raw = usual();
		raw.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (!is(&raw, &was, &extent))
			continue;
		struct ext4_inode now = decode(&raw, sizeof(raw.bytes));
		assert_true(ext4_same_attr(&now.attr, &was.attr));
		assert_true(now.file_acl == 0 && now.attr.nlink);
		assert_int_equal((now.flags ^ was.flags) & (EXT4_INLINE_DATA_FL | EXT4_EXTENTS_FL), 0);
		assert_memory_equal(now.map + 2, was.map + 2, 2);
		assert_memory_equal(now.map + 6, was.map + 6, 2);
		assert_memory_equal(now.map + 12, was.map + 12, 12);
		same++;
	}
	assert_true(same > 100); /* access times, checksums, unused fields */
}

static void what_is_not_usual_is_never_taken_for_what_it_was(void **state)
{
	(void)state;
	const struct { size_t off; uint16_t value; } cases[] = {
		{ 0x00, S_IFLNK | 0777 }, { 0x00, S_IFCHR | 0600 }, { 0x1a, 0 }, { 0x20, 0x10 },
		{ 0x22, 0x1008 }, { 0x68, 9 }, { 0x76, 1 },
	};
	const struct tw_extent extent = { .block = 1000, .count = 2 };
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct raw raw = usual();
		le16(&raw, cases[i].off, cases[i].value);
		if (cases[i].off == 0x20)
			le16(&raw, 0x22, 0); /* no extents */
		struct ext4_inode was = decode(&raw, sizeof(raw.bytes));
		assert_false(is(&raw, &was, &extent));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_read_with_their_high_halves),
		cmocka_unit_test(a_small_inode_has_whole_seconds),
		cmocka_unit_test(epoch_bits_reach_beyond_2038),
		cmocka_unit_test(extra_fields_count_only_where_the_inode_has_them),
		cmocka_unit_test(old_and_new_device_numbers),
		cmocka_unit_test(the_kernels_own_flags_are_no_attributes),
		cmocka_unit_test(a_truncated_slot_is_decoded_without_harm),
		cmocka_unit_test(an_inode_counts_with_links_or_blocks),
		cmocka_unit_test(short_targets_are_in_the_inode),
		cmocka_unit_test(inline_data_has_two_parts),
		cmocka_unit_test(the_digest_of_inline_data_is_of_the_content),
		cmocka_unit_test(reserved_inodes_own_blocks_of_their_own_kind),
		cmocka_unit_test(a_slot_is_what_it_was_only_if_nothing_that_counts_changed),
		cmocka_unit_test(what_is_not_usual_is_never_taken_for_what_it_was),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
