/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs in the project's root: it holds the sample and the man page against the parser. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "config/config.h"
#include "config/value.h"
#include "event/event.h"

#define SAMPLE "conf/tapwire.conf.sample"
#define PAGE "man/tapwire.conf.5"
#define SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define TARGET "[target t]\nurl = http://127.0.0.1/\n"

struct fixture {
	char dir[64];
	char conf[80];
	char secret[80];
};

static void write_file(const char *path, const char *text, mode_t mode)
{
	unlink(path);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	assert_int_equal(chmod(path, mode), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	if (!f)
		return -1;
	strcpy(f->dir, "/tmp/tapwire-config-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->conf, sizeof(f->conf), "%s/c", f->dir);
	snprintf(f->secret, sizeof(f->secret), "%s/s", f->dir);
	write_file(f->secret, SECRET "\n", 0600);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	unlink(f->conf);
	unlink(f->secret);
	int rc = rmdir(f->dir);
	free(f);
	return rc;
}

static struct tw_config *load(struct fixture *f, const char *text)
{
	write_file(f->conf, text, 0600);
	struct tw_config *config = NULL;
	struct tw_error *err = tw_config_load(f->conf, &config);
	if (err)
		fail_msg("%s", tw_error_message(err));
	return config;
}

/* The text is wrong at that line, and the message has both parts. */
static void expect_error(struct fixture *f, const char *text, int line, const char *found,
	const char *expected)
{
	write_file(f->conf, text, 0600);
	struct tw_config *config = NULL;
	struct tw_error *err = tw_config_load(f->conf, &config);
	if (!err)
		fail_msg("taken: %s", text);
	assert_int_equal(tw_error_code(err), TW_CONFIG);
	const char *message = tw_error_message(err);
	char where[128];
	snprintf(where, sizeof(where), "%s:%d: ", f->conf, line);
	if (strncmp(message, where, strlen(where)) != 0 || !strstr(message, found) ||
		!strstr(message, expected) || strchr(message, '\n'))
		fail_msg("%s\nwants %s... %s ... %s", message, where, found, expected);
	tw_error_destroy(err);
}

static void an_empty_file_is_the_defaults(void **state)
{
	struct tw_config *config = load(*state, "");
	assert_string_equal(config->state_dir, "/var/lib/tapwire");
	assert_string_equal(config->run_dir, "/run/tapwire");
	assert_int_equal(config->log_level, TW_LOG_INFO);
	assert_true(config->spool_max_bytes == 1ull << 30);
	assert_int_equal(config->ntargets, 0);
	assert_int_equal(config->ndisks, 0);
	tw_config_destroy(config);
}

static void a_target_has_defaults(void **state)
{
	struct tw_config *config = load(*state, TARGET);
	assert_int_equal(config->ntargets, 1);
	const struct tw_config_target *t = &config->targets[0];
	assert_string_equal(t->name, "t");
	assert_string_equal(t->url, "http://127.0.0.1/");
	for (int type = 1; type < TW_EVENT_TYPE_END; type++)
		assert_true(t->events >> type & 1);
	assert_int_equal(t->batch_events, 100);
	assert_int_equal(t->batch_bytes, 1 << 20);
	assert_int_equal(t->batch_delay_ms, 100);
	assert_int_equal(t->timeout_ms, 30000);
	assert_int_equal(t->connect_timeout_ms, 5000);
	assert_int_equal(t->retry_min_ms, 500);
	assert_int_equal(t->retry_max_ms, 60000);
	assert_int_equal(t->nsecrets, 0);
	assert_null(t->bearer_token);
	assert_null(t->ca_file);
	tw_config_destroy(config);
}

static void every_key_is_taken(void **state)
{
	struct fixture *f = *state;
	char text[2048];
	snprintf(text, sizeof(text),
		"; a comment\n# another\n[service]\nstate_dir = /s\nrun_dir=/r ; a comment\nlog_level = debug\n"
		"tap_ctl = /t\nmirror_stall_ms = 1s\nmirror_tries = 3\n"
		"[spool]\nmax_bytes = 64 MiB\n"
		"[target one]\n  url = https://example.org:8443/a?b=c\nevents = file.created, volume.*\n"
		"batch_events = 7\nbatch_bytes = 8K\nbatch_delay_ms = 0\ntimeout_ms = 2s\n"
		"connect_timeout_ms = 300\nretry_min_ms = 10ms\nretry_max_ms = 1min\nsecret_file = %s\n"
		"bearer_token_file = %s\nheader = X-A: 1\nheader = X-B: 2 3\nca_file = %s\n"
		"domains = web*, !web9\npaths = /etc/**\npaths = /a\\,b , !/etc/mtab\nvolumes = xvd?\n"
		"concurrency = 4\nmax_age = 7d\nmax_bytes = 1G\ntls_min = 1.3\nhttp_version = 2-direct\n"
		"compression = zstd\nproxy = socks5h://127.0.0.1:1080\ninterface = lo\nfollow_redirects = yes\n"
		"pinned_key = sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nsecret_file = %s\n"
		"[target two]\nurl = http://[::1]/\n"
		"[disk d]\nimage = /i\nring = /r\ndomain = web1\nvdev = xvdb\ntapdisk = 12:3\n",
		f->secret, f->secret, f->secret, f->secret);
	struct tw_config *config = load(f, text);
	assert_string_equal(config->state_dir, "/s");
	assert_string_equal(config->run_dir, "/r");
	assert_int_equal(config->log_level, TW_LOG_DEBUG);
	assert_int_equal(config->spool_max_bytes, 64 << 20);
	assert_int_equal(config->ntargets, 2);
	const struct tw_config_target *t = &config->targets[0];
	assert_int_equal(t->line, 12);
	assert_true(t->events == (1ull << TW_EVENT_FILE_CREATED | 1ull << TW_EVENT_VOLUME_FOUND |
		1ull << TW_EVENT_VOLUME_FORMATTED | 1ull << TW_EVENT_VOLUME_LOST));
	assert_int_equal(t->batch_events, 7);
	assert_int_equal(t->batch_bytes, 8192);
	assert_int_equal(t->batch_delay_ms, 0);
	assert_int_equal(t->timeout_ms, 2000);
	assert_int_equal(t->connect_timeout_ms, 300);
	assert_int_equal(t->retry_min_ms, 10);
	assert_int_equal(t->retry_max_ms, 60000);
	assert_int_equal(t->secrets[0].len, 24);
	assert_string_equal(t->bearer_token, SECRET);
	assert_int_equal(t->headers.n, 2);
	assert_string_equal(t->headers.items[1], "X-B: 2 3");
	assert_string_equal(t->ca_file, f->secret);
	assert_int_equal(t->domains.n, 2);
	assert_string_equal(t->domains.items[1], "!web9");
	assert_int_equal(t->paths.n, 3);
	assert_string_equal(t->paths.items[1], "/a,b");
	assert_int_equal(t->concurrency, 4);
	assert_true(t->max_age_ms == UINT64_C(7) * 86400000);
	assert_int_equal(t->max_bytes, 1 << 30);
	assert_int_equal(t->tls_min, 13);
	assert_int_equal(t->http_version, TW_HTTP_2_DIRECT);
	assert_int_equal(t->compression, TW_COMPRESSION_ZSTD);
	assert_string_equal(t->proxy, "socks5h://127.0.0.1:1080");
	assert_string_equal(t->interface, "lo");
	assert_true(t->follow_redirects);
	assert_int_equal(t->nsecrets, 2); /* the old one and the new one */
	assert_string_equal(config->disks[0].domain, "web1");
	assert_string_equal(config->disks[0].vdev, "xvdb");
	assert_string_equal(config->disks[0].tapdisk, "12:3");
	assert_string_equal(config->tap_ctl, "/t");
	assert_int_equal(config->mirror_stall_ms, 1000);
	assert_int_equal(config->mirror_tries, 3);
	tw_config_destroy(config);
}

static void variables_and_files_hold_what_the_ini_file_must_not(void **state)
{
	struct fixture *f = *state;
	char text[1024];
	setenv("TAPWIRE_TEST_HOST", "siem.example.org", 1);
	snprintf(text, sizeof(text),
		"[target t]\nurl = https://${env:TAPWIRE_TEST_HOST}/x\nheader = X-Key: ${file:%s} $ {x} ${y\n",
		f->secret);
	struct tw_config *config = load(f, text);
	assert_string_equal(config->targets[0].url, "https://siem.example.org/x");
	assert_string_equal(config->targets[0].headers.items[0], "X-Key: " SECRET " $ {x} ${y");
	tw_config_destroy(config);
	unsetenv("TAPWIRE_TEST_HOST");
}

static void mistakes_have_their_line(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *text;
		int line;
		const char *found;
		const char *expected;
	} cases[] = {
		{ "\n\n[servce]\n", 3, "[servce]", "[service]" },
		{ "[guest a]\nwatch = maybe\n", 2, "watch is \"maybe\"", "yes or no" },
		{ "[guest a]\nnice = 20\n", 2, "nice is \"20\"", "0 to 19" },
		{ "[guest]\n", 1, "[guest]", "[guest NAME]" },
		{ "[guest a]\n[guest a]\n", 2, "second time", "once" },
		{ "[service]\nxenstore = maybe\n", 2, "xenstore is \"maybe\"", "auto, on or off" },
		{ "[service]\nstatedir = /x\n", 2, "\"statedir\"", "tapwire.conf(5)" },
		{ "[service]\n[service]\n", 2, "a second time", "once" },
		{ "[service x]\n", 1, "[service x]", "[service]" },
		{ "[service\n", 1, "[service", "]" },
		{ "state_dir = /x\n", 1, "before any section", "[section]" },
		{ "[service]\nstate_dir\n", 2, "without a value", "absolute path" },
		{ "[service]\nstate_dir =\n", 2, "\"\"", "absolute path" },
		{ "[service]\nstate_dir = var\n", 2, "\"var\"", "absolute path" },
		{ "[service]\nlog_level = loud\n", 2, "\"loud\"", "debug" },
		{ "[service]\nrun_dir = /a\nrun_dir = /b\n", 3, "a second time", "once" },
		{ "[spool]\nmax_bytes = 1XB\n", 2, "\"1XB\"", "1GiB" },
		{ "[spool]\nmax_bytes = 0\n", 2, "\"0\"", "a size" },
		{ "[spool]\nmax_bytes = -1\n", 2, "\"-1\"", "a size" },
		{ "[spool]\nmax_bytes = 99999999999T\n", 2, "99999999999T", "a size" },
		{ "[spool]\nmax_bytes = 99999999999999999999999\n", 2, "9999", "a size" },
		{ "[target]\n", 1, "[target]", "NAME" },
		{ "[target a/b]\n", 1, "a/b", "NAME" },
		{ TARGET TARGET, 3, "a second time", "once" },
		{ "\n[target t]\n", 2, "without url", "http" },
		{ "[target t]\nurl = ftp://x/\n", 2, "ftp://x/", "http://" },
		{ "[target t]\nurl = nonsense\n", 2, "nonsense", "http://" },
		{ "[target t]\nurl = http://\n", 2, "http://", "URL" },
		{ "[target t]\nurl = http://a b/\n", 2, "a b", "URL" },
		{ TARGET "events = file.creatd\n", 3, "file.creatd", "file.created" },
		{ TARGET "events =\n", 3, "\"\"", "file.created" },
		{ TARGET "events = file.created,,\n", 3, ",,", "file.created" },
		{ TARGET "batch_events = 0\n", 3, "\"0\"", "1 to 1000000" },
		{ TARGET "batch_delay_ms = 2d\n", 3, "2d", "milliseconds" },
		{ TARGET "timeout_ms = 0\n", 3, "\"0\"", "at least 1" },
		{ TARGET "retry_min_ms = 2s\nretry_max_ms = 1s\n", 1, "retry_min_ms", "less" },
		{ TARGET "secret_file = /nonexistent/s\n", 3, "/nonexistent/s: No such file", "whsec_" },
		{ TARGET "secret_file = s\n", 3, "\"s\"", "absolute path" },
		{ TARGET "secret_file = /\n", 3, "not a file", "whsec_" },
		{ TARGET "ca_file = /nonexistent/c\n", 3, "No such file", "readable" },
		{ TARGET "header = nonsense\n", 3, "nonsense", "Name: value" },
		{ TARGET "header = X Y: z\n", 3, "X Y", "Name: value" },
		{ TARGET "header = Webhook-Id: z\n", 3, "Webhook-Id", "tapwire sets" },
		{ "[service]\nmirror_stall_ms = 199\n", 2, "\"199\"", "at least 200" },
		{ "[disk d]\nimage = /i\nring = /r\ntapdisk = 12\n", 4, "\"12\"", "1234:0" },
		{ "[disk d]\nimage = /i\nring = /r\ntapdisk = 1:2:3\n", 4, "1:2:3", "auto" },
		{ "[disk d]\nimage = /i\nring = /r\ntapdisk = :3\n", 4, "\":3\"", "auto" },
		{ "[disk d]\nimage = /i\n", 1, "without ring", "ring = " },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_error(f, cases[i].text, cases[i].line, cases[i].found, cases[i].expected);
}

static void mistakes_of_targets_have_their_line(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *text;
		int line;
		const char *found;
		const char *expected;
	} cases[] = {
		{ TARGET "header = X-A: ${env:NO_SUCH_VARIABLE}\n", 3, "NO_SUCH_VARIABLE", "expected one" },
		{ TARGET "header = X-A: ${file:/nonexistent/f}\n", 3, "/nonexistent/f", "one line" },
		{ TARGET "header = X-A: ${what:ever}\n", 3, "what", "${env:NAME}" },
		{ TARGET "proxy = ${env:PATH}\n", 3, "${env:PATH}", "socks5" },
		{ TARGET "paths = /etc/[a\n", 3, "/etc/[a", "patterns" },
		{ TARGET "paths = /etc,,/bin\n", 3, "/etc,,/bin", "patterns" },
		{ TARGET "domains = !\n", 3, "!", "patterns" },
		{ TARGET "tls_min = 1.1\n", 3, "1.1", "1.2 or 1.3" },
		{ TARGET "http_version = 3\n", 3, "3", "2-direct" },
		{ TARGET "compression = br\n", 3, "br", "zstd" },
		{ TARGET "pinned_key = sha256//abc\n", 3, "abc", "digest" },
		{ TARGET "concurrency = 65\n", 3, "65", "from 1 to 64" },
		{ TARGET "max_age = 5\n", 3, "5", "7d" },
		{ TARGET "sha256 = maybe\n", 3, "\"maybe\"", "yes or no" },
		{ TARGET "sha256_quiet = 10\n", 3, "\"10\"", "1s to 24h" },
		{ TARGET "sha256_quiet = 0\n", 3, "\"0\"", "1s to 24h" },
		{ TARGET "sha256_quiet = 500ms\n", 3, "500ms", "1s to 24h" },
		{ TARGET "sha256_quiet = 25h\n", 3, "25h", "1s to 24h" },
		{ TARGET "sha256_max = 0\n", 3, "\"0\"", "1TiB" },
		{ TARGET "sha256_max = 2TiB\n", 3, "2TiB", "1TiB" },
		{ TARGET "sha256 = yes\nevents = file.created, volume.*\n", 1, "file.settled", "in events" },
		{ TARGET "client_key_file = /etc/passwd\n", 1, "client_key_file", "both" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_error(f, cases[i].text, cases[i].line, cases[i].found, cases[i].expected);
}

static void a_long_line_is_refused_and_not_cut(void **state)
{
	static char text[8192] = "[service]\n#";
	memset(text + 11, 'x', 6000);
	strcpy(text + 6011, "\n[bogus]\n");
	expect_error(*state, text, 2, "more than", "fewer");
}

static const char *matched(const struct tw_config *config, const char *name, const char *vdev)
{
	const struct tw_config_guest *guest =
		tw_config_match(config, name, "6f9619ff-8b86-d011-b42d-00cf4fc964ff", vdev);
	return guest ? guest->name : "none";
}

static void the_first_section_that_matches_a_guests_disk_counts(void **state)
{
	struct tw_config *config = load(*state,
		"[guest a]\ndomain = web , mail-*\nvdev = xvd[ab]\nwatch = no\n"
		"[guest b]\ndomain = 6f9619ff-*\nvdev = xvdz\nmemory_max = 1GiB\nnice = 5\n"
		"[guest c]\ndomain = w?b\n");
	assert_string_equal(matched(config, "web", "xvda"), "a");
	assert_string_equal(matched(config, "mail-2", "xvdb"), "a");
	assert_string_equal(matched(config, "web", "xvdc"), "c");
	assert_string_equal(matched(config, "web2", "xvda"), "none");
	assert_string_equal(matched(config, "any", "xvdz"), "b");
	assert_false(config->guests[0].watch);
	assert_true(config->guests[1].watch && config->guests[1].memory_max == 1u << 30);
	assert_int_equal(config->guests[1].nice, 5);
	assert_true(config->guests[2].memory_max == 0 && config->guests[2].nice == 0);
	tw_config_destroy(config);
}

static void xenstore_is_asked_where_there_is_one_unless_the_file_says_otherwise(void **state)
{
	static const char *const texts[] = { "", "[service]\nxenstore = on\n", "[service]\nxenstore = off\n" };
	for (int i = 0; i < 3; i++) {
		struct tw_config *config = load(*state, texts[i]);
		assert_int_equal(config->xenstore, i);
		assert_string_equal(config->ring_dir, "/run/tapwire/rings");
		tw_config_destroy(config);
	}
}

static void a_secret_must_be_one(void **state)
{
	struct fixture *f = *state;
	char text[256];
	snprintf(text, sizeof(text), TARGET "secret_file = %s\n", f->secret);
	write_file(f->secret, "", 0600);
	expect_error(f, text, 3, "empty", "whsec_");
	write_file(f->secret, "\n \n", 0600);
	expect_error(f, text, 3, "empty", "whsec_");
	write_file(f->secret, "hunter2\n", 0600);
	expect_error(f, text, 3, f->secret, "whsec_");
	struct tw_config *config = NULL;
	struct tw_error *err = tw_config_load(f->conf, &config);
	assert_null(strstr(tw_error_message(err), "hunter2"));
	tw_error_destroy(err);
}

struct findings {
	int errors;
	int warnings;
	char last[512];
};

static void count(void *arg, enum tw_log_level level, const char *text)
{
	struct findings *findings = arg;
	findings->errors += level == TW_LOG_ERROR;
	findings->warnings += level == TW_LOG_WARN;
	snprintf(findings->last, sizeof(findings->last), "%s", text);
}

static void check_tells_of_every_mistake(void **state)
{
	struct fixture *f = *state;
	write_file(f->conf, "[service]\nx = 1\ny = 2\n[nope]\nz = 3\n[target t]\n", 0600);
	struct findings findings = { 0 };
	struct tw_error *err = tw_config_check(f->conf, count, &findings);
	assert_non_null(err);
	assert_non_null(strstr(tw_error_message(err), "c:2: "));
	assert_int_equal(findings.errors, 4); /* x, y, [nope], no url */
	tw_error_destroy(err);
}

static void a_secret_for_all_eyes_is_a_warning(void **state)
{
	struct fixture *f = *state;
	char text[256];
	snprintf(text, sizeof(text), TARGET "secret_file = %s\n", f->secret);
	write_file(f->conf, text, 0600);
	struct findings findings = { 0 };
	assert_null(tw_config_check(f->conf, count, &findings));
	assert_int_equal(findings.warnings, 0);
	chmod(f->secret, 0644);
	assert_null(tw_config_check(f->conf, count, &findings));
	assert_int_equal(findings.warnings, 1);
	assert_non_null(strstr(findings.last, "c:3: "));
}

static void a_file_that_is_not_there_is_named(void **state)
{
	(void)state;
	struct tw_config *config = NULL;
	struct tw_error *err = tw_config_load("/nonexistent/tapwire.conf", &config);
	assert_non_null(err);
	assert_int_equal(tw_error_code(err), TW_CONFIG);
	assert_non_null(strstr(tw_error_message(err), "/nonexistent/tapwire.conf: No such file"));
	tw_error_destroy(err);
}

static void a_url_is_a_config(void **state)
{
	struct fixture *f = *state;
	struct tw_config *config = NULL;
	assert_null(tw_config_for_url("http://127.0.0.1:1/x", f->secret, &config));
	assert_int_equal(config->ntargets, 1);
	assert_int_equal(config->targets[0].batch_delay_ms, 0);
	assert_int_equal(config->targets[0].secrets[0].len, 24);
	tw_config_destroy(config);
	struct tw_error *err = tw_config_for_url("nonsense", NULL, &config);
	assert_non_null(err);
	assert_int_equal(tw_error_code(err), TW_USAGE);
	tw_error_destroy(err);
}

static char *read_whole(const char *path)
{
	static char text[65536];
	FILE *file = fopen(path, "r");
	if (!file)
		fail_msg("%s: cannot read it; run this in the project's root", path);
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	fclose(file);
	return text;
}

/* The key's line in its section of the sample: "key = " or "#key = ". NULL when there is none. */
static const char *sample_line(const char *sample, const struct tw_config_key *key)
{
	char heading[32];
	snprintf(heading, sizeof(heading), "[%s", key->section);
	const char *at = strstr(sample, heading);
	const char *end = at ? strstr(at + 1, "\n[") : NULL;
	char line[64];
	for (int commented = 1; at && commented >= 0; commented--) {
		snprintf(line, sizeof(line), "\n%s%s = ", commented ? "#" : "", key->name);
		const char *found = strstr(at, line);
		if (found && (!end || found < end))
			return found + strlen(line);
	}
	return NULL;
}

static void the_sample_names_every_key_and_default(void **state)
{
	(void)state;
	const char *sample = read_whole(SAMPLE);
	struct tw_config_key key;
	for (size_t i = 0; tw_config_key(i, &key); i++) {
		const char *value = sample_line(sample, &key);
		if (!value)
			fail_msg("%s lacks [%s] %s", SAMPLE, key.section, key.name);
		size_t len = strcspn(value, "\n");
		if (key.fallback && (strlen(key.fallback) != len || strncmp(value, key.fallback, len) != 0))
			fail_msg("%s: %s is not the default %s", SAMPLE, key.name, key.fallback);
	}
}

/* With its comments taken off, but for the files that are not here, it loads. */
static void the_sample_is_a_config(void **state)
{
	char *sample = read_whole(SAMPLE);
	static char text[65536];
	text[0] = '\0';
	for (char *line; (line = strsep(&sample, "\n"));) {
		bool setting = *line != '#' || line[1] == '[' || (line[1] >= 'a' && line[1] <= 'z' &&
			strstr(line, " = ") && strspn(line + 1, "abcdefghijklmnopqrstuvwxyz_") ==
			(size_t)(strstr(line, " = ") - line - 1));
		if (!setting || strstr(line, "_file ="))
			continue;
		strcat(strcat(text, line + (*line == '#')), "\n");
	}
	struct tw_config *config = load(*state, text);
	assert_int_equal(config->ntargets, 1);
	assert_int_equal(config->ndisks, 1);
	assert_int_equal(config->targets[0].headers.n, 1);
	tw_config_destroy(config);
}

static void the_man_page_names_every_key_and_default(void **state)
{
	(void)state;
	const char *page = read_whole(PAGE);
	struct tw_config_key key;
	size_t keys = 0;
	for (; tw_config_key(keys, &key); keys++) {
		char heading[64], entry[64];
		snprintf(heading, sizeof(heading), "\n.SH SECTION [%s", key.section);
		snprintf(entry, sizeof(entry), "\n.TP\n.B %s\n", key.name);
		const char *at = strstr(page, heading);
		at = at ? strstr(at, entry) : NULL;
		if (!at)
			fail_msg("%s lacks %s", PAGE, key.name);
		const char *end = strstr(at + 1, "\n.TP");
		const char *section = strstr(at + 1, "\n.SH");
		if (!end || section < end)
			end = section;
		char says[128];
		snprintf(says, sizeof(says), "\n%s%s\n", key.required ? "Required." : "Default: ",
			key.required ? "" : key.fallback ? key.fallback : "");
		const char *found = strstr(at, key.required || key.fallback ? says : "\nNo default");
		if (!found || found > end)
			fail_msg("%s: %s should say: %s", PAGE, key.name, says + 1);
	}
	size_t entries = 0;
	for (const char *at = page; (at = strstr(at, "\n.TP\n.B ")); at++)
		entries++;
	assert_int_equal(entries, keys); /* and nothing that the parser does not know */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_empty_file_is_the_defaults),
		TEST(a_target_has_defaults),
		TEST(every_key_is_taken),
		TEST(variables_and_files_hold_what_the_ini_file_must_not),
		TEST(mistakes_have_their_line),
		TEST(mistakes_of_targets_have_their_line),
		TEST(a_long_line_is_refused_and_not_cut),
		TEST(the_first_section_that_matches_a_guests_disk_counts),
		TEST(xenstore_is_asked_where_there_is_one_unless_the_file_says_otherwise),
		TEST(a_secret_must_be_one),
		TEST(check_tells_of_every_mistake),
		TEST(a_secret_for_all_eyes_is_a_warning),
		TEST(a_file_that_is_not_there_is_named),
		TEST(a_url_is_a_config),
		TEST(the_sample_names_every_key_and_default),
		TEST(the_sample_is_a_config),
		TEST(the_man_page_names_every_key_and_default),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
