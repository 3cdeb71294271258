/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the content of a file is in an event's text. */
#include "../check.h"

#include "courier/chunk.h"

#include <string.h>

#define DOMAIN "{\"data\":{\"size\":3,\"domain\":{\"id\":1,\"uuid\":\"x\"}"

static void assert_cut(const char *body, const char *want)
{
	size_t cut, rest, len = strlen(body);
	char got[512] = "";
	if (tw_chunk_content(body, len, &cut, &rest)) {
		memcpy(got, body, cut);
		memcpy(got + cut, body + len - rest, rest);
		got[cut + rest] = '\0';
	}
	assert_string_equal(got, want);
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
		cmocka_unit_test(what_has_none_stays),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
