/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "ext4/xattr.h"

#include <stdlib.h>

enum { BLOCK = 1024, IN_BLOCK = 32, IN_INODE = 4 };

static uint64_t in_block(struct tw_span block)
{
	return ext4_xattrs_digest(ext4_xattrs_of_block(block));
}

static uint64_t in_inode(struct tw_span region)
{
	return ext4_xattrs_digest(ext4_xattrs_of_inode(region));
}

struct attribute {
	const char *name;
	const char *value;
	uint8_t index;
	uint16_t at; /* of the value, from its base */
	uint32_t inum, hash;
};
#define A(name, value, index, at) { name, value, index, at, 0, 0 }

static void le32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, 4);
}

/* Builds a region: header bytes, entries, and values counted from base. */
static uint8_t *build(size_t size, size_t header, size_t base, const struct attribute *attrs,
	size_t n)
{
	uint8_t *region = calloc(1, size), *at = region + header;
	le32(region, 0xea020000);
	for (size_t i = 0; i < n; i++) {
		size_t name = strlen(attrs[i].name), value = strlen(attrs[i].value);
		at[0] = (uint8_t)name;
		at[1] = attrs[i].index;
		memcpy(at + 2, &(uint16_t){ htole16(attrs[i].at) }, 2);
		le32(at + 8, (uint32_t)value);
		le32(at + 4, attrs[i].inum);
		le32(at + 12, attrs[i].hash ? attrs[i].hash : (uint32_t)i * 77 + 1);
		memcpy(at + 16, attrs[i].name, name);
		memcpy(region + base + attrs[i].at, attrs[i].value, value);
		at += (16 + name + 3) & ~(size_t)3;
	}
	return region;
}

static uint64_t block_digest(const struct attribute *attrs, size_t n)
{
	uint8_t *region = build(BLOCK, IN_BLOCK, 0, attrs, n);
	uint64_t digest = in_block(tw_span(region, BLOCK));
	free(region);
	return digest;
}

static void the_order_of_entries_does_not_count(void **state)
{
	(void)state;
	const struct attribute ab[] = { A("a", "1", 1, 900), A("bcd", "22", 1, 800) };
	const struct attribute ba[] = { A("bcd", "22", 1, 700), A("a", "1", 1, 600) };
	assert_true(block_digest(ab, 2) == block_digest(ba, 2));
	assert_true(block_digest(ab, 2) != 0);
}

static void reference_count_and_padding_do_not_count(void **state)
{
	(void)state;
	const struct attribute one[] = { A("a", "value", 1, 900) };
	uint8_t *region = build(BLOCK, IN_BLOCK, 0, one, 1);
	region[4] = 77;	   /* h_refcount */
	region[16] = 99;   /* h_checksum */
	region[500] = 1;   /* between entries and values */
	region[905] = 'x'; /* behind the value */
	assert_true(in_block(tw_span(region, BLOCK)) == block_digest(one, 1));
	free(region);
}

static void name_value_and_namespace_count(void **state)
{
	(void)state;
	const struct attribute is[] = { A("ab", "1", 1, 900) };
	const struct attribute others[] = { A("ac", "1", 1, 900), A("ab", "2", 1, 900),
		A("ab", "1", 6, 900), A("ab", "", 1, 900), A("ab", "11", 1, 900), A("a", "1", 1, 900) };
	for (size_t i = 0; i < 6; i++)
		assert_true(block_digest(is, 1) != block_digest(&others[i], 1));
	const struct attribute twice[] = { A("ab", "1", 1, 900), A("ab", "1", 1, 800) };
	assert_true(block_digest(is, 1) != block_digest(twice, 2));
}

static void values_in_an_inode_count_from_the_entries(void **state)
{
	(void)state;
	const struct attribute one[] = { A("a", "value", 1, 80) };
	const struct attribute other[] = { A("a", "valu3", 1, 80) };
	uint8_t *a = build(96, IN_INODE, IN_INODE, one, 1), *b = build(96, IN_INODE, IN_INODE, other, 1);
	uint64_t digest = in_inode(tw_span(a, 96));
	assert_true(digest && digest != in_inode(tw_span(b, 96)));
	free(a);
	free(b);
}

static void an_attribute_may_move_between_inode_and_block(void **state)
{
	(void)state;
	const struct attribute one[] = { A("a", "value", 1, 80) };
	uint8_t *a = build(96, IN_INODE, IN_INODE, one, 1);
	assert_true(in_inode(tw_span(a, 96)) == block_digest(one, 1));
	free(a);
}

static void without_the_magic_there_are_none(void **state)
{
	(void)state;
	const struct attribute one[] = { A("a", "value", 1, 80) };
	uint8_t *a = build(BLOCK, IN_BLOCK, 0, one, 1);
	a[0] ^= 1;
	assert_true(in_block(tw_span(a, BLOCK)) == 0);
	assert_true(in_inode(tw_span(a, BLOCK)) == 0);
	assert_true(in_inode(tw_span(a, 3)) == 0);
	free(a);
}

static void a_value_in_an_inode_counts_by_its_hash_and_size(void **state)
{
	(void)state;
	const struct attribute is[] = { { "big", "12345678", 1, 900, 77, 0xabcdef } };
	const struct attribute shared[] = { { "big", "87654321", 1, 500, 78, 0xabcdef } };
	const struct attribute other[] = { { "big", "12345678", 1, 900, 77, 0xabcdee } };
	const struct attribute shorter[] = { { "big", "1234567", 1, 900, 77, 0xabcdef } };
	const struct attribute here[] = { { "big", "12345678", 1, 500, 0, 0xabcdef } };
	const struct attribute here_too[] = { { "big", "12345678", 1, 500, 0, 0xabcdee } };
	assert_true(block_digest(is, 1) == block_digest(shared, 1));
	assert_true(block_digest(is, 1) != block_digest(other, 1));
	assert_true(block_digest(is, 1) != block_digest(shorter, 1));
	assert_true(block_digest(here, 1) == block_digest(here_too, 1));
}

static void inline_data_is_no_attribute(void **state)
{
	(void)state;
	const struct attribute both[] = { A("data", "content", 7, 80), A("a", "1", 1, 60) };
	const struct attribute one[] = { A("a", "1", 1, 60) };
	uint8_t *a = build(128, IN_INODE, IN_INODE, both, 2), *b = build(128, IN_INODE, IN_INODE, one, 1);
	assert_true(in_inode(tw_span(a, 128)) == in_inode(tw_span(b, 128)));
	struct tw_span data = ext4_xattr_inline_data(tw_span(a, 128));
	assert_int_equal(data.len, 7);
	assert_memory_equal(data.data, "content", 7);
	assert_int_equal(ext4_xattr_inline_data(tw_span(b, 128)).len, 0);
	free(a);
	free(b);
}

static void other_names_are_not_inline_data(void **state)
{
	(void)state;
	const struct attribute others[] = { A("data", "1", 1, 900), A("dat", "1", 7, 800),
		A("dat\301", "1", 7, 700), A("datas", "1", 7, 600) };
	for (size_t i = 0; i < 4; i++)
		assert_true(block_digest(&others[i], 1) != 0);
}

static void inline_data_beyond_the_inode_is_cut(void **state)
{
	(void)state;
	const struct attribute one[] = { A("data", "content", 7, 80) };
	uint8_t *a = build(128, IN_INODE, IN_INODE, one, 1);
	for (size_t len = 1; len < 128; len++) {
		uint8_t *copy = malloc(len);
		memcpy(copy, a, len);
		struct tw_span data = ext4_xattr_inline_data(tw_span(copy, len));
		assert_true(!data.len || data.data + data.len <= copy + len);
		free(copy);
	}
	free(a);
}

static void entries_of_nonsense_end_at_the_regions_end(void **state)
{
	(void)state;
	uint8_t *region = malloc(BLOCK);
	for (unsigned fill = 1; fill < 256; fill++) {
		memset(region, (int)fill, BLOCK);
		le32(region, 0xea020000);
		in_block(tw_span(region, BLOCK));
		in_inode(tw_span(region, BLOCK));
		in_inode(tw_span(region, 5));
	}
	free(region);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_order_of_entries_does_not_count),
		cmocka_unit_test(reference_count_and_padding_do_not_count),
		cmocka_unit_test(name_value_and_namespace_count),
		cmocka_unit_test(values_in_an_inode_count_from_the_entries),
		cmocka_unit_test(an_attribute_may_move_between_inode_and_block),
		cmocka_unit_test(without_the_magic_there_are_none),
		cmocka_unit_test(a_value_in_an_inode_counts_by_its_hash_and_size),
		cmocka_unit_test(inline_data_is_no_attribute),
		cmocka_unit_test(other_names_are_not_inline_data),
		cmocka_unit_test(inline_data_beyond_the_inode_is_cut),
		cmocka_unit_test(entries_of_nonsense_end_at_the_regions_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
