/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/glob.h"

static const struct {
	const char *pattern;
	const char *yes[6];
	const char *no[6];
} cases[] = {
	{ "/etc/passwd", { "/etc/passwd" }, { "/etc/passwd-", "/etc/passw", "", "/ETC/passwd" } },
	{ "/etc/*", { "/etc/a", "/etc/.b", "/etc/" }, { "/etc", "/etc/a/b", "/etcetera/a" } },
	{ "/etc/**", { "/etc/a", "/etc/a/b/c" }, { "/etc", "/etcetera/a" } },
	{ "/**", { "/", "/a/b" }, { "a" } },
	{ "**", { "", "/", "/a/b" }, { NULL } },
	{ "*", { "", "a" }, { "/", "a/b" } },
	{ "/**/*.log", { "/a.log", "/var/log/x/y.log", "/.log" }, { "/a.log/b", "a.log" } },
	{ "**/x", { "x", "/x", "a/x", "a/b/x" }, { "ax", "a/bx" } },
	{ "/a/**/b", { "/a/b", "/a/x/b", "/a/x/y/b" }, { "/ab", "/a/xb", "/axb" } },
	{ "/a/**b", { "/a/b", "/a/xb", "/a/x/yb" }, { "/b" } },
	{ "/home/*/.ssh/**", { "/home/me/.ssh/id" }, { "/home/.ssh/id", "/home/a/b/.ssh/id" } },
	{ "web?", { "web1", "webx" }, { "web", "web12", "web/" } },
	{ "[a-c]x", { "ax", "cx" }, { "dx", "x", "-x" } },
	{ "[!a-c]x", { "dx" }, { "ax", "/x" } },
	{ "[]a]x", { "]x", "ax" }, { "bx" } },
	{ "\\*", { "*" }, { "a", "\\*" } },
	{ "a\\", { "a\\" }, { "a" } },
	{ "\xc3\xa4*", { "\xc3\xa4", "\xc3\xa4\xff" }, { "\xc3" } },
};

static void patterns_match_what_they_say(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tw_glob *glob = tw_glob_create(cases[i].pattern);
		assert_non_null(glob);
		for (size_t k = 0; k < 6 && cases[i].yes[k]; k++)
			if (!tw_glob_match(glob, cases[i].yes[k], strlen(cases[i].yes[k])))
				fail_msg("%s does not match \"%s\"", cases[i].pattern, cases[i].yes[k]);
		for (size_t k = 0; k < 6 && cases[i].no[k]; k++)
			if (tw_glob_match(glob, cases[i].no[k], strlen(cases[i].no[k])))
				fail_msg("%s matches \"%s\"", cases[i].pattern, cases[i].no[k]);
		tw_glob_destroy(glob);
	}
}

static void what_is_no_pattern_is_refused(void **state)
{
	(void)state;
	char *longer = calloc(1, 502);
	memset(longer, 'a', 501);
	assert_null(tw_glob_create("[a"));
	assert_null(tw_glob_create("["));
	assert_null(tw_glob_create("[]"));
	assert_null(tw_glob_create(longer));
	longer[500] = '\0';
	struct tw_glob *glob = tw_glob_create(longer);
	assert_non_null(glob);
	tw_glob_destroy(glob);
	free(longer);
}

/* With backtracking this takes longer than anybody waits. */
static void a_hostile_name_takes_no_time(void **state)
{
	(void)state;
	static char text[4096];
	char pattern[101];
	memset(text, 'a', sizeof(text));
	for (size_t i = 0; i < 100; i++)
		pattern[i] = i % 2 ? '*' : 'a';
	pattern[98] = 'b';
	pattern[99] = pattern[100] = '\0';
	struct tw_glob *glob = tw_glob_create(pattern);
	assert_false(tw_glob_match(glob, text, sizeof(text)));
	tw_glob_destroy(glob);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(patterns_match_what_they_say),
		cmocka_unit_test(what_is_no_pattern_is_refused),
		cmocka_unit_test(a_hostile_name_takes_no_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
