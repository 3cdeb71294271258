/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"
#include "base/crc32c.h"

#include <ext2fs/ext2fs.h>

static const char digits[] = "123456789";

/* RFC 3720, B.4, and the check values of the catalogue of CRCs; both are inverted at the end. */
static void known_vectors(void **state)
{
	(void)state;
	uint8_t bytes[32];
	memset(bytes, 0, sizeof(bytes));
	assert_int_equal(~tw_crc32c(~0u, bytes, 32), 0x8a9136aau);
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(~tw_crc32c(~0u, bytes, 32), 0x62a8ab43u);
	for (unsigned i = 0; i < 32; i++)
		bytes[i] = (uint8_t)i;
	assert_int_equal(~tw_crc32c(~0u, bytes, 32), 0x46dd794eu);
	assert_int_equal(~tw_crc32c(~0u, digits, 9), 0xe3069283u);
	assert_int_equal(~tw_crc32_be(~0u, digits, 9), 0xfc891918u); /* CRC-32/BZIP2 */
}

static void nothing_changes_nothing(void **state)
{
	(void)state;
	assert_int_equal(tw_crc32c(0x12345678, digits, 0), 0x12345678);
	assert_int_equal(tw_crc32_be(0x12345678, digits, 0), 0x12345678);
}

/* Lengths and offsets at which other code paths of the library begin. */
static void as_libext2fs_in_any_length_at_any_offset(void **state)
{
	(void)state;
	static uint8_t bytes[9000];
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 167 + (i >> 8) * 13);
	for (size_t len = 0; len < 8200; len += len < 600 ? 1 : 61) {
		const uint8_t *at = bytes + len % 17;
		uint32_t seed = (uint32_t)len * 2654435761u;
		assert_int_equal(tw_crc32c(seed, at, len), ext2fs_crc32c_le(seed, at, len));
		assert_int_equal(tw_crc32_be(seed, at, len), ext2fs_crc32_be(seed, at, len));
	}
}

static void parts_make_the_whole(void **state)
{
	(void)state;
	for (size_t cut = 0; cut <= 9; cut++) {
		uint32_t crc = tw_crc32c(~0u, digits, cut);
		assert_int_equal(tw_crc32c(crc, digits + cut, 9 - cut), ~0xe3069283u);
		crc = tw_crc32_be(~0u, digits, cut);
		assert_int_equal(tw_crc32_be(crc, digits + cut, 9 - cut), ~0xfc891918u);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_vectors),
		cmocka_unit_test(nothing_changes_nothing),
		cmocka_unit_test(as_libext2fs_in_any_length_at_any_offset),
		cmocka_unit_test(parts_make_the_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
