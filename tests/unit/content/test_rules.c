/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "content/rules.h"

#include <stdlib.h>
#include <string.h>

#define VOLUME "0b0e"
#define UUID "6f9619ff-8b86-d011-b42d-00cf4fc964ff"

static struct tw_content_rules *parse(const char *text)
{
	struct tw_content_rules *rules;
	ok(tw_content_rules_parse(text, "xvda", &rules));
	return rules;
}

static void assert_wish(struct tw_content_rules *rules, enum tw_event_type type, const char *path,
	enum tw_content_mode mode, uint64_t max)
{
	struct tw_bytes bytes = { path, strlen(path) };
	struct tw_content_wish wish = tw_content_rules_match(rules, type, VOLUME, bytes);
	if (wish.mode != mode || wish.max_bytes != max)
		fail_msg("%s: mode %d, %llu bytes", path, wish.mode, (unsigned long long)wish.max_bytes);
}

static void the_most_that_a_rule_asks_for_counts(void **state)
{
	(void)state;
	struct tw_content_rules *rules =
		parse("rule changed 100 ffff\npath /var/log/**\npath !/var/log/private/**\n"
		      "rule full 10 2\npath /**/*.exe\nvolume xvda\n"
		      "rule full 1000 ffff\nvolume xvdb\n");
	assert_wish(rules, TW_EVENT_FILE_CREATED, "/var/log/syslog", TW_CONTENT_CHANGED, 100);
	assert_wish(rules, TW_EVENT_FILE_CREATED, "/var/log/private/x", TW_CONTENT_NONE, 0);
	assert_wish(rules, TW_EVENT_FILE_CREATED, "/etc/passwd", TW_CONTENT_NONE, 0);
	assert_wish(rules, TW_EVENT_FILE_CREATED, "/a/b.exe", TW_CONTENT_FULL, 10);
	assert_wish(rules, TW_EVENT_FILE_MODIFIED, "/a/b.exe", TW_CONTENT_NONE, 0);
	assert_wish(rules, TW_EVENT_FILE_CREATED, "/var/log/b.exe", TW_CONTENT_FULL, 100);
	tw_content_rules_destroy(rules);
}

static void a_rule_without_patterns_is_for_all(void **state)
{
	(void)state;
	struct tw_content_rules *rules = parse("rule full 4194304 ffffffffffffffff");
	assert_wish(rules, TW_EVENT_FILE_LINKED, "/any\nthing", TW_CONTENT_FULL, 4194304);
	struct tw_content_wish wish =
		tw_content_rules_match(rules, TW_EVENT_FILE_RENAMED, VOLUME, (struct tw_bytes){ NULL, 0 });
	assert_int_equal(wish.mode, TW_CONTENT_NONE);
	tw_content_rules_destroy(rules);
}

static void assert_digest(struct tw_content_rules *rules, const char *path, uint64_t quiet, uint64_t max)
{
	struct tw_digest_wish wish =
		tw_content_rules_digest(rules, VOLUME, (struct tw_bytes){ path, strlen(path) });
	if (wish.quiet_ms != quiet || wish.max_bytes != max)
		fail_msg("%s: %llu ms, %llu bytes", path, (unsigned long long)wish.quiet_ms,
			(unsigned long long)wish.max_bytes);
}

static void digests_have_rules_of_their_own(void **state)
{
	(void)state;
	struct tw_content_rules *rules = parse("rule full 10 ffff\npath /etc/**\n"
					       "sha256 2000 500\npath /etc/**\npath /usr/**\n"
					       "sha256 9000 700\npath /usr/bin/*\nvolume xvda\n"
					       "sha256 1 9000\nvolume xvdb\n");
	assert_digest(rules, "/etc/passwd", 2000, 500);
	assert_digest(rules, "/usr/bin/env", 2000, 700);
	assert_digest(rules, "/srv/x", 0, 0);
	assert_wish(rules, TW_EVENT_FILE_CREATED, "/etc/passwd", TW_CONTENT_FULL, 10);
	assert_wish(rules, TW_EVENT_FILE_CREATED, "/usr/bin/env", TW_CONTENT_NONE, 0);
	assert_true(tw_content_rules_has_content(rules) && tw_content_rules_has_digests(rules));
	tw_content_rules_destroy(rules);
	rules = parse("sha256 86400000 1");
	assert_true(!tw_content_rules_has_content(rules) && tw_content_rules_has_digests(rules));
	tw_content_rules_destroy(rules);
	rules = parse("rule full 1 1");
	assert_true(tw_content_rules_has_content(rules) && !tw_content_rules_has_digests(rules));
	assert_digest(rules, "/x", 0, 0);
	tw_content_rules_destroy(rules);
}

static void what_is_no_rule_is_refused(void **state)
{
	(void)state;
	static const char *const wrong[] = { "path /x", "rule", "rule none 1 1", "rule full", "rule full x 1",
		"rule full 1 1 1", "rule much 1 1", "rule full 1 ff\npath [a", "rule full 1 ff\nwhat ever",
		"sha256", "sha256 1", "sha256 0 1", "sha256 86400001 1",
		"sha256 1 1 1", "sha256 x 1", "sha256 1 1\npath [a" };
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct tw_content_rules *rules;
		struct tw_error *err = tw_content_rules_parse(wrong[i], "xvda", &rules);
		if (!err)
			fail_msg("taken: %s", wrong[i]);
		tw_error_destroy(err);
	}
}

static char *plan(const struct tw_config *config, const char *name)
{
	char *text;
	ok(tw_content_plan(config, name, UUID, &text));
	return text;
}

static void a_disk_gets_the_rules_of_its_domain(void **state)
{
	(void)state;
	char web[] = "web*", web9[] = "!web9", uuid[] = UUID, etc[] = "/etc/**", mtab[] = "!/etc/mtab";
	char *webs[] = { web, web9 }, *uuids[] = { uuid }, *paths[] = { etc, mtab };
	struct tw_config_target targets[] = {
		{ .events = 6 },
		{ .events = 6, .content = TW_CONTENT_FULL, .content_max = 5, .domains = { webs, 2 },
			.paths = { paths, 2 } },
		{ .events = 2, .content = TW_CONTENT_CHANGED, .content_max = 7, .domains = { uuids, 1 },
			.volumes = { webs, 1 } },
	};
	struct tw_config config = { .targets = targets, .ntargets = 1 };
	assert_null(plan(&config, "web1"));
	config.ntargets = 2;
	assert_null(plan(&config, "mail"));
	assert_null(plan(&config, "web9"));
	config.ntargets = 3;
	char *text = plan(&config, "mail");
	assert_string_equal(text, "rule changed 7 2\nvolume web*\n");
	free(text);
	text = plan(&config, "web1");
	assert_string_equal(text,
		"rule full 5 6\npath /etc/**\npath !/etc/mtab\nrule changed 7 2\nvolume web*\n");
	struct tw_content_rules *rules = parse(text);
	assert_wish(rules, TW_EVENT_FILE_CREATED, "/etc/hosts", TW_CONTENT_FULL, 5);
	assert_wish(rules, TW_EVENT_FILE_CREATED, "/etc/mtab", TW_CONTENT_NONE, 0);
	tw_content_rules_destroy(rules);
	free(text);
	targets[1].sha256 = true;
	targets[1].sha256_quiet_ms = 1000;
	targets[1].sha256_max = 8;
	text = plan(&config, "web1");
	assert_string_equal(text, "rule full 5 6\npath /etc/**\npath !/etc/mtab\nsha256 1000 8\npath /etc/**\n"
		"path !/etc/mtab\nrule changed 7 2\nvolume web*\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_most_that_a_rule_asks_for_counts),
		cmocka_unit_test(a_rule_without_patterns_is_for_all),
		cmocka_unit_test(digests_have_rules_of_their_own),
		cmocka_unit_test(what_is_no_rule_is_refused),
		cmocka_unit_test(a_disk_gets_the_rules_of_its_domain),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
