/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "ext4/ext4.h"

#include <stdlib.h>

static const struct ext4_geometry geo = { .ninodes = 1000, .first_ino = 11 };

struct block {
	uint8_t *data;
	size_t len, end;
};

static struct block new_block(size_t len)
{
	return (struct block){ calloc(1, len), len, 0 };
}

/* Appends an entry of rec_len bytes. */
static void entry(struct block *b, uint32_t ino, unsigned rec_len, const void *name, unsigned len)
{
	uint8_t *at = b->data + b->end;
	memcpy(at, &(uint32_t){ htole32(ino) }, 4);
	memcpy(at + 4, &(uint16_t){ htole16((uint16_t)rec_len) }, 2);
	at[6] = (uint8_t)len;
	at[7] = 1;
	memcpy(at + 8, name, len);
	b->end += rec_len;
}

static void text(struct block *b, uint32_t ino, unsigned rec_len, const char *name)
{
	entry(b, ino, rec_len, name, (unsigned)strlen(name));
}

/* The names in the block, with a comma behind each. */
static void names_are_of(const struct block *b, bool encrypted, const char *expected)
{
	char got[8192];
	size_t off = 0, n = 0;
	struct ext4_dirent e;
	while (ext4_dirent_next(&geo, tw_span(b->data, b->len), encrypted, &off, &e)) {
		assert_true(e.bytes >= b->data && e.bytes + e.len <= b->data + b->len);
		memcpy(got + n, e.bytes, e.len);
		n += e.len;
		got[n++] = ',';
	}
	got[n] = 0;
	assert_string_equal(got, expected);
	free(b->data);
}

static void names_are(const struct block *b, const char *expected)
{
	names_are_of(b, false, expected);
}

/* Slashes and NULs make no name, unless it is encrypted: then it may be any bytes. */
static void an_encrypted_name_may_hold_any_byte(void **state)
{
	(void)state;
	for (int encrypted = 0; encrypted < 2; encrypted++) {
		struct block b = new_block(1024);
		text(&b, 2, 12, ".");
		text(&b, 2, 12, "..");
		text(&b, 11, 32, "0123456789abcde/");
		text(&b, 12, 32, "0123456789abcdef"); /* and 8 bytes behind it: a hash */
		entry(&b, 13, 1024 - 88, "xy\0z", 4);
		if (encrypted)
			b.data[88 + 8 + 2] = '/'; /* so that it can be compared as text */
		names_are_of(&b, encrypted,
			encrypted ? "0123456789abcde/,0123456789abcdef,xy/z," : "0123456789abcdef,");
	}
	struct block b = new_block(1024);
	struct ext4_dirent e;
	size_t off = 0;
	entry(&b, 13, 1024, "\0\0", 2);
	assert_true(ext4_dirent_next(&geo, tw_span(b.data, b.len), true, &off, &e));
	assert_int_equal(e.len, 2);
	free(b.data);
}

static void names_come_in_the_order_of_the_block(void **state)
{
	(void)state;
	struct block b = new_block(1024);
	text(&b, 2, 12, ".");
	text(&b, 2, 12, "..");
	text(&b, 11, 16, "first");
	text(&b, 12, 12, "b");
	text(&b, 13, 1024 - 52, "last");
	names_are(&b, "first,b,last,");
}

static void unused_entries_are_passed_over(void **state)
{
	(void)state;
	struct block b = new_block(1024);
	text(&b, 0, 100, "gone");
	text(&b, 11, 912, "here");
	entry(&b, 0, 12, "\xde\xad\xbe\xef", 4); /* the checksum's tail */
	names_are(&b, "here,");
}

static void a_hashed_directorys_root_has_only_its_dots(void **state)
{
	(void)state;
	struct block b = new_block(1024);
	text(&b, 2, 12, ".");
	text(&b, 2, 1012, "..");
	memset(b.data + 24, 0x41, 1000);
	names_are(&b, "");
}

static void dots_are_no_names(void **state)
{
	(void)state;
	struct block b = new_block(1024);
	text(&b, 11, 12, ".");
	text(&b, 11, 12, "..");
	text(&b, 11, 12, "...");
	text(&b, 11, 12, ".a");
	text(&b, 11, 1024 - 48, "..b");
	names_are(&b, "...,.a,..b,");
}

static void names_with_a_slash_or_a_nul_are_not_taken(void **state)
{
	(void)state;
	struct block b = new_block(1024);
	entry(&b, 11, 16, "a/b", 3);
	entry(&b, 11, 16, "a\0b", 3);
	entry(&b, 11, 16, "/", 1);
	entry(&b, 11, 16, "", 0);
	entry(&b, 11, 1024 - 64, "\xff\n", 2);
	names_are(&b, "\xff\n,");
}

static void inode_numbers_out_of_range_are_not_taken(void **state)
{
	(void)state;
	struct block b = new_block(1024);
	text(&b, 1001, 12, "a");
	text(&b, UINT32_MAX, 12, "b");
	text(&b, 10, 12, "c");
	text(&b, 2, 12, "d");
	text(&b, 1000, 12, "e");
	text(&b, 11, 1024 - 60, "f");
	names_are(&b, "e,f,");
}

static void a_record_length_of_nonsense_ends_the_block(void **state)
{
	(void)state;
	static const unsigned lengths[] = { 0, 1, 8, 11, 1024 - 11, 1024, 60000, 65535 };
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		struct block b = new_block(1024);
		text(&b, 11, 12, "a");
		text(&b, 12, 12, "b");
		memcpy(b.data + 16, &(uint16_t){ htole16((uint16_t)lengths[i]) }, 2);
		names_are(&b, "a,");
	}
}

static void a_name_longer_than_its_record_is_not_taken(void **state)
{
	(void)state;
	struct block b = new_block(1024);
	text(&b, 11, 12, "abcd");
	b.data[6] = 5;
	text(&b, 12, 1024 - 12, "b");
	names_are(&b, "b,");
}

static void the_longest_name_ends_with_the_block(void **state)
{
	(void)state;
	char name[257];
	struct block b = new_block(1024);
	memset(name, 'n', 255);
	text(&b, 11, 1024 - 264, "a");
	entry(&b, 12, 264, name, 255);
	char expected[300] = "a,";
	memcpy(expected + 2, name, 255);
	memcpy(expected + 257, ",", 2);
	names_are(&b, expected);
}

static void an_entry_may_fill_64_kib(void **state)
{
	(void)state;
	static const unsigned lengths[] = { 0, 65535 };
	for (size_t i = 0; i < 2; i++) {
		struct block b = new_block(65536);
		entry(&b, 11, 0, "whole", 5);
		memcpy(b.data + 4, &(uint16_t){ htole16((uint16_t)lengths[i]) }, 2);
		names_are(&b, "whole,");
		b = new_block(65536);
		text(&b, 11, 12, "a");
		entry(&b, 12, 65536 - 12, "b", 1);
		names_are(&b, "a,b,");
	}
}

static void random_blocks_stay_in_bounds_and_end(void **state)
{
	(void)state;
	struct dice dice = { 4 };
	uint8_t *data = malloc(1024);
	for (unsigned round = 0; round < 20000; round++) {
		for (unsigned i = 0; i < 1024; i++)
			data[i] = roll(&dice, 3) ? (uint8_t)(i % 4 ? 0 : 12) : (uint8_t)roll(&dice, 256);
		size_t off = 0;
		unsigned n = 0;
		struct ext4_dirent e;
		while (ext4_dirent_next(&geo, tw_span(data, 1024), false, &off, &e)) {
			assert_true(e.bytes + e.len <= data + 1024 && e.len);
			n++;
		}
		assert_true(n <= 1024 / 12);
	}
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_encrypted_name_may_hold_any_byte),
		cmocka_unit_test(names_come_in_the_order_of_the_block),
		cmocka_unit_test(unused_entries_are_passed_over),
		cmocka_unit_test(a_hashed_directorys_root_has_only_its_dots),
		cmocka_unit_test(dots_are_no_names),
		cmocka_unit_test(names_with_a_slash_or_a_nul_are_not_taken),
		cmocka_unit_test(inode_numbers_out_of_range_are_not_taken),
		cmocka_unit_test(a_record_length_of_nonsense_ends_the_block),
		cmocka_unit_test(a_name_longer_than_its_record_is_not_taken),
		cmocka_unit_test(the_longest_name_ends_with_the_block),
		cmocka_unit_test(an_entry_may_fill_64_kib),
		cmocka_unit_test(random_blocks_stay_in_bounds_and_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
