/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "ext4/xattr.h"

#include <stdio.h>
#include <stdlib.h>

enum { BLOCK = 4096 };

/* An attribute block that is being built. */
struct region {
	uint8_t bytes[BLOCK];
	size_t at, value;
};

static struct region *region_new(void)
{
	struct region *region = calloc(1, sizeof(*region));
	memcpy(region->bytes, &(uint32_t){ htole32(0xea020000) }, 4);
	region->at = 32;
	region->value = BLOCK;
	return region;
}

static void put(struct region *region, uint8_t index, const char *name, const char *value)
{
	uint8_t *at = region->bytes + region->at;
	size_t len = strlen(name), bytes = strlen(value);
	region->value -= (bytes + 3) & ~(size_t)3;
	at[0] = (uint8_t)len;
	at[1] = index;
	memcpy(at + 2, &(uint16_t){ htole16(region->value) }, 2);
	memcpy(at + 8, &(uint32_t){ htole32(bytes) }, 4);
	memcpy(at + 12, "h", 1); /* an entry is not all zeroes */
	memcpy(at + 16, name, len);
	memcpy(region->bytes + region->value, value, bytes);
	region->at += (16 + len + 3) & ~(size_t)3;
}

static struct ext4_xattrs list_of(const struct region *region)
{
	return ext4_xattrs_of_block(tw_span(region->bytes, BLOCK));
}

/* Keeps the set and frees the region. */
static uint64_t keep(struct ext4_xattr_sets **sets, struct region *region, uint64_t more)
{
	uint64_t digest = ext4_xattrs_digest(list_of(region)) + more;
	ok(ext4_xattr_sets_keep(sets, digest, list_of(region), more));
	free(region);
	return digest;
}

/* "+set ... -removed ..." */
static void expect(const struct ext4_xattr_sets *sets, const struct ext4_xattr_sets *others,
	uint64_t old, uint64_t now, const char *expected)
{
	struct ext4_xattr_diff diff = { 0 };
	char text[1024] = "";
	for (int twice = 0; twice < 2; twice++) {
		ok(ext4_xattr_sets_diff(sets, others, old, now, &diff));
		text[0] = '\0';
		for (size_t i = 0; i < diff.nset + diff.nremoved; i++)
			sprintf(text + strlen(text), "%s%c%.*s", i ? " " : "", i < diff.nset ? '+' : '-',
				(int)diff.names[i].len, (const char *)diff.names[i].data);
		assert_string_equal(text, expected);
	}
	ext4_xattr_diff_deinit(&diff);
}

static void what_came_changed_and_went_is_named(void **state)
{
	(void)state;
	struct ext4_xattr_sets *sets = NULL;
	struct region *a = region_new(), *b = region_new();
	put(a, 6, "selinux", "label");
	put(a, 1, "same", "1");
	put(a, 1, "other", "1");
	put(a, 1, "gone", "1");
	put(b, 1, "other", "2");
	put(b, 2, "", "acl");
	put(b, 1, "same", "1");
	put(b, 6, "capability", "x");
	put(b, 6, "selinux", "label");
	uint64_t old = keep(&sets, a, 0), now = keep(&sets, b, 0);
	expect(sets, NULL, old, now, "+user.other +system.posix_acl_access +security.capability -user.gone");
	expect(sets, NULL, now, old, "+user.gone +user.other -system.posix_acl_access -security.capability");
	expect(sets, NULL, 0, old, "+user.gone +user.other +user.same +security.selinux");
	expect(sets, NULL, old, 0, "-user.gone -user.other -user.same -security.selinux");
	expect(sets, NULL, now, now, "");
	ext4_xattr_sets_destroy(sets);
}

static void each_namespace_has_its_name(void **state)
{
	(void)state;
	struct ext4_xattr_sets *sets = NULL;
	struct region *a = region_new();
	for (uint8_t index = 0; index < 14; index++)
		put(a, index, index == 2 || index == 3 || index == 8 ? "" : "n", "v");
	uint64_t now = keep(&sets, a, 0);
	expect(sets, NULL, 0, now, "+n +user.n +system.posix_acl_access +system.posix_acl_default "
		"+trusted.n +lustre.n +security.n +system.n +system.richacl +encryption.n +gnu.n +11.n "
		"+12.n +13.n");
	ext4_xattr_sets_destroy(sets);
}

/* An inode's set is what stands in it, and the set of its block. */
static void a_set_may_have_another_as_a_part(void **state)
{
	(void)state;
	struct ext4_xattr_sets *sets = NULL;
	struct region *block = region_new(), *inode = region_new();
	put(block, 1, "b", "1");
	put(inode, 1, "a", "1");
	put(inode, 1, "c", "1");
	uint64_t shared = keep(&sets, block, 0), both = keep(&sets, inode, shared);
	expect(sets, NULL, 0, both, "+user.a +user.b +user.c");
	expect(sets, NULL, shared, both, "+user.a +user.c");
	ext4_xattr_sets_destroy(sets);
}

static void two_tables_may_have_one_each(void **state)
{
	(void)state;
	struct ext4_xattr_sets *one = NULL, *other = NULL;
	struct region *a = region_new(), *b = region_new();
	put(a, 1, "a", "1");
	put(b, 1, "b", "1");
	uint64_t old = keep(&one, a, 0), now = keep(&other, b, 0);
	expect(one, other, old, now, "+user.b -user.a");
	expect(NULL, other, 0, now, "+user.b");
	ext4_xattr_sets_destroy(one);
	ext4_xattr_sets_destroy(other);
}

static void what_nobody_has_is_forgotten(void **state)
{
	(void)state;
	struct ext4_xattr_sets *sets = NULL;
	uint64_t digests[1000];
	char name[16];
	for (unsigned i = 0; i < 1000; i++) {
		struct region *a = region_new();
		snprintf(name, sizeof(name), "n%u", i);
		put(a, 1, name, "1");
		digests[i] = keep(&sets, a, 0);
		if (!ext4_xattr_sets_due(sets, 0))
			continue;
		ext4_xattr_sets_mark(sets, digests[0]);
		ext4_xattr_sets_mark(sets, digests[i]);
		ext4_xattr_sets_mark(sets, 77);
		ext4_xattr_sets_sweep(sets);
		assert_int_equal(ext4_xattr_sets_count(sets), 2);
		char expected[64];
		snprintf(expected, sizeof(expected), "+user.%s -user.n0", name);
		expect(sets, NULL, digests[0], digests[i], expected);
	}
	assert_true(ext4_xattr_sets_count(sets) < 100);
	ext4_xattr_sets_destroy(sets);
}

static void sets_survive_a_restart(void **state)
{
	(void)state;
	struct ext4_xattr_sets *sets = NULL, *loaded = NULL;
	struct region *a = region_new(), *b = region_new();
	struct tw_buf saved = TW_BUF_INIT, again = TW_BUF_INIT;
	put(a, 1, "a", "1");
	put(a, 6, "selinux", "x");
	put(b, 1, "a", "2");
	uint64_t old = keep(&sets, a, 0), now = keep(&sets, b, 0);
	ext4_xattr_sets_save(sets, &saved);
	struct tw_unpack in = { .span = tw_span(saved.data, saved.len) };
	ok(ext4_xattr_sets_load(&loaded, &in));
	assert_false(in.failed);
	expect(loaded, NULL, old, now, "+user.a -security.selinux");
	ext4_xattr_sets_save(loaded, &again);
	assert_int_equal(saved.len, again.len);
	assert_memory_equal(saved.data, again.data, saved.len);
	ext4_xattr_sets_destroy(sets);
	ext4_xattr_sets_destroy(loaded);
	tw_buf_deinit(&saved);
	tw_buf_deinit(&again);
}

static void damaged_sets_are_refused_without_harm(void **state)
{
	(void)state;
	struct ext4_xattr_sets *sets = NULL;
	struct tw_buf saved = TW_BUF_INIT;
	struct region *a = region_new();
	put(a, 1, "name", "1");
	put(a, 1, "more", "1");
	keep(&sets, a, 0);
	ext4_xattr_sets_save(sets, &saved);
	ext4_xattr_sets_destroy(sets);
	for (size_t at = 0; at < saved.len; at++) {
		uint8_t *copy = malloc(saved.len);
		memcpy(copy, saved.data, saved.len);
		copy[at] ^= 0x41;
		struct tw_unpack in = { .span = tw_span(copy, saved.len) };
		sets = NULL;
		tw_error_destroy(ext4_xattr_sets_load(&sets, &in));
		ext4_xattr_sets_destroy(sets);
		in = (struct tw_unpack){ .span = tw_span(saved.data, at) };
		sets = NULL;
		tw_error_destroy(ext4_xattr_sets_load(&sets, &in));
		assert_true(in.failed);
		ext4_xattr_sets_destroy(sets);
		free(copy);
	}
	/* A set that stands there twice. */
	struct tw_buf twice = TW_BUF_INIT;
	tw_pack64(&twice, 2);
	tw_buf_append(&twice, saved.data + 8, saved.len - 8);
	tw_buf_append(&twice, saved.data + 8, saved.len - 8);
	struct tw_unpack in = { .span = tw_span(twice.data, twice.len) };
	sets = NULL;
	fails(ext4_xattr_sets_load(&sets, &in), TW_BAD_DATA);
	ext4_xattr_sets_destroy(sets);
	tw_buf_deinit(&twice);
	tw_buf_deinit(&saved);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_came_changed_and_went_is_named),
		cmocka_unit_test(each_namespace_has_its_name),
		cmocka_unit_test(a_set_may_have_another_as_a_part),
		cmocka_unit_test(two_tables_may_have_one_each),
		cmocka_unit_test(what_nobody_has_is_forgotten),
		cmocka_unit_test(sets_survive_a_restart),
		cmocka_unit_test(damaged_sets_are_refused_without_harm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
