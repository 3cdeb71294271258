/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the content of a file, or its digest, is in an event's text. */
#include "../check.h"

#include "courier/chunk.h"

#include <string.h>

#define DOMAIN "{\"data\":{\"size\":3,\"domain\":{\"id\":1,\"uuid\":\"x\"}"

static void assert_kept(unsigned keep, const char *body, const char *want)
{
	size_t cut, rest, len = strlen(body);
	char got[512] = "";
	if (tw_chunk_strip(body, len, keep, &cut, &rest)) {
		memcpy(got, body, cut);
		memcpy(got + cut, body + len - rest, rest);
		got[cut + rest] = '\0';
	}
	assert_string_equal(got, want);
}

static void assert_cut(const char *body, const char *want)
{
	assert_kept(0, body, want);
	assert_kept(TW_CHUNK_EXTRAS, body, "");
}

static void content_is_cut_off(void **state)
{
	(void)state;
	const char *want = DOMAIN "}}";
	assert_cut(DOMAIN ",\"content\":[]}}", want);
	assert_cut(DOMAIN ",\"content\":[{\"offset\":0,\"text\":\"a,\\\"content\\\":[\"}]}}", want);
	assert_cut(DOMAIN ",\"content\":[],\"content_whole\":true}}", want);
	assert_cut(DOMAIN ",\"content\":[],\"content_missing\":[[0,1]]}}", want);
}

static void each_is_kept_by_itself(void **state)
{
	(void)state;
	static const char content[] = DOMAIN ",\"content\":[{\"offset\":0,\"text\":\",\\\"sha256\"}]}}";
	static const char digest[] = DOMAIN ",\"sha256\":\"00ff\"}}";
	static const char none[] = DOMAIN ",\"sha256_left_out\":\"too_large\"}}";
	const char *want = DOMAIN "}}";
	assert_cut(digest, want);
	assert_cut(none, want);
	assert_kept(TW_CHUNK_CONTENT, digest, want);
	assert_kept(TW_CHUNK_CONTENT, none, want);
	assert_kept(TW_CHUNK_CONTENT, content, "");
	assert_kept(TW_CHUNK_SHA256, digest, "");
	assert_kept(TW_CHUNK_SHA256, content, want);
}

static void what_has_none_stays(void **state)
{
	(void)state;
	assert_cut(DOMAIN "}}", "");
	assert_cut("{\"data\":{\"old_path\":\"/a,\\\"content\\\":[\",\"domain\":{\"id\":1}}}", "");
	assert_cut("{\"data\":{\"old_path\":\",\\\"content\\\":[\",\"ranges\":[[1,2]]}}", "");
	assert_cut("{}", "");
	assert_cut("", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(content_is_cut_off),
		cmocka_unit_test(each_is_kept_by_itself),
		cmocka_unit_test(what_has_none_stays),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
