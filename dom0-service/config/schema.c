/* SPDX-License-Identifier: BSD-3-Clause */
#include "config/schema.h"

#include "base/scope.h"
#include "config/value.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <openssl/crypto.h>

enum kind {
	PATH, TEXT, LEVEL, BYTES, MS, WAIT, STALL, AGE, COUNT, LANES, YESNO, EVENTS, URL, SECRET, TOKEN, AUTH, HEADER,
	READABLE, PATTERNS, PROXY, PIN, TLS, HTTP, COMPRESSION, FORMAT, INDEX, TABLE, XENSTORE, GLOBS, NICE, TAPDISK,
	CONTENT, CONTENT_MAX, QUIET, SHA256_MAX
};

/* A watchdog that knows less of the sink's heart would take a busy host for a dead sink. */
#define STALL_MIN_MS 200
/* Shorter than what a guest takes to write a file, each part of it would be one. */
#define QUIET_MIN_MS 1000
/* What may be hashed for one event. */
#define SHA256_MAX_BYTES (UINT64_C(1) << 40)

static const char *const expectations[] = {
	[PATH] = "an absolute path",
	[TEXT] = "a text",
	[LEVEL] = "error, warn, info or debug",
	[BYTES] = "a size such as 4096, 64KiB or 1GiB",
	[MS] = "milliseconds, or a time such as 30s or 5min, up to 24h",
	[WAIT] = "milliseconds of at least 1, or a time such as 30s or 5min, up to 24h",
	[STALL] = "milliseconds of at least 200, or a time such as 1s",
	[TAPDISK] = "auto, or a tapdisk's process id and minor number, as 1234:0",
	[COUNT] = "a number from 1 to 1000000",
	[EVENTS] = "event types such as file.created, or globs such as file.*, with commas between",
	[URL] = "an http:// or https:// URL",
	[SECRET] = "the absolute path of a file that holds whsec_ and the base64 of 24 to 64 bytes",
	[TOKEN] = "the absolute path of a file that holds a token",
	[AUTH] = "the absolute path of a file that holds user:password",
	[PATTERNS] = "patterns such as web*, /etc/** or !/etc/mtab, with commas between",
	[PROXY] = "an http://, https://, socks5:// or socks5h:// URL",
	[PIN] = "sha256// and the base64 of a digest, or several of them with ; between",
	[TLS] = "1.2 or 1.3",
	[HTTP] = "auto, 1.1, 2 or 2-direct",
	[FORMAT] = "cloudevents, ndjson, elasticsearch, clickhouse, loki or splunk_hec",
	[INDEX] = "an index's name of letters, digits, \"-\", \"_\", \".\" and {date}",
	[TABLE] = "a table's name, with or without its database's",
	[COMPRESSION] = "none, gzip or zstd",
	[HEADER] = "Name: value, not a header that tapwire sets itself",
	[AGE] = "a time such as 90s, 12h or 7d, up to 3650d",
	[LANES] = "a number from 1 to 64",
	[READABLE] = "the absolute path of a readable file",
	[XENSTORE] = "auto, on or off",
	[GLOBS] = "names or globs, with commas between",
	[YESNO] = "yes or no",
	[NICE] = "a number from 0 to 19",
	[CONTENT] = "none, append, changed or full",
	[CONTENT_MAX] = "a size from 1 to 4MiB",
	[QUIET] = "a time from 1s to 24h, such as 10s or 5min",
	[SHA256_MAX] = "a size from 1 to 1TiB",
};

struct key {
	enum tw_section section;
	const char *name;
	const char *fallback;
	enum kind kind;
	size_t offset;
	bool required;
};

#define SERVICE(field) TW_SECTION_SERVICE, #field
#define TARGET(field) TW_SECTION_TARGET, #field
#define DISK(field) TW_SECTION_DISK, #field
#define GUEST(field) TW_SECTION_GUEST, #field
#define IN_CONFIG(field) offsetof(struct tw_config, field)
#define IN_TARGET(field) offsetof(struct tw_config_target, field)
#define IN_DISK(field) offsetof(struct tw_config_disk, field)
#define IN_GUEST(field) offsetof(struct tw_config_guest, field)

static const struct key keys[] = {
	{ SERVICE(state_dir), "/var/lib/tapwire", PATH, IN_CONFIG(state_dir), false },
	{ SERVICE(run_dir), "/run/tapwire", PATH, IN_CONFIG(run_dir), false },
	{ SERVICE(log_level), "info", LEVEL, IN_CONFIG(log_level), false },
	{ SERVICE(xenstore), "auto", XENSTORE, IN_CONFIG(xenstore), false },
	{ SERVICE(ring_dir), "/run/tapwire/rings", PATH, IN_CONFIG(ring_dir), false },
	{ SERVICE(tap_ctl), "/usr/sbin/tap-ctl", PATH, IN_CONFIG(tap_ctl), false },
	{ SERVICE(mirror_stall_ms), "500", STALL, IN_CONFIG(mirror_stall_ms), false },
	{ SERVICE(mirror_tries), "10", COUNT, IN_CONFIG(mirror_tries), false },
	{ TW_SECTION_SPOOL, "max_bytes", "1GiB", BYTES, IN_CONFIG(spool_max_bytes), false },
	{ TW_SECTION_SPOOL, "keep", "1h", AGE, IN_CONFIG(spool_keep_ms), false },
	{ TARGET(url), NULL, URL, IN_TARGET(url), true },
	{ TARGET(follow_redirects), "no", YESNO, IN_TARGET(follow_redirects), false },
	{ TARGET(format), "cloudevents", FORMAT, IN_TARGET(format), false },
	{ TARGET(index), NULL, INDEX, IN_TARGET(index), false },
	{ TARGET(table), NULL, TABLE, IN_TARGET(table), false },
	{ TARGET(events), "*", EVENTS, IN_TARGET(events), false },
	{ TARGET(domains), NULL, PATTERNS, IN_TARGET(domains), false },
	{ TARGET(volumes), NULL, PATTERNS, IN_TARGET(volumes), false },
	{ TARGET(paths), NULL, PATTERNS, IN_TARGET(paths), false },
	{ TARGET(content), "none", CONTENT, IN_TARGET(content), false },
	{ TARGET(content_max), "1MiB", CONTENT_MAX, IN_TARGET(content_max), false },
	{ TARGET(sha256), "no", YESNO, IN_TARGET(sha256), false },
	{ TW_SECTION_TARGET, "sha256_quiet", "10s", QUIET, IN_TARGET(sha256_quiet_ms), false },
	{ TARGET(sha256_max), "1GiB", SHA256_MAX, IN_TARGET(sha256_max), false },
	{ TARGET(batch_events), "100", COUNT, IN_TARGET(batch_events), false },
	{ TARGET(batch_bytes), "1MiB", BYTES, IN_TARGET(batch_bytes), false },
	{ TARGET(batch_delay_ms), "100", MS, IN_TARGET(batch_delay_ms), false },
	{ TARGET(concurrency), "1", LANES, IN_TARGET(concurrency), false },
	{ TARGET(timeout_ms), "30s", WAIT, IN_TARGET(timeout_ms), false },
	{ TARGET(connect_timeout_ms), "5s", WAIT, IN_TARGET(connect_timeout_ms), false },
	{ TARGET(retry_min_ms), "500", WAIT, IN_TARGET(retry_min_ms), false },
	{ TARGET(retry_max_ms), "60s", WAIT, IN_TARGET(retry_max_ms), false },
	{ TW_SECTION_TARGET, "max_age", NULL, AGE, IN_TARGET(max_age_ms), false },
	{ TARGET(max_bytes), NULL, BYTES, IN_TARGET(max_bytes), false },
	{ TW_SECTION_TARGET, "secret_file", NULL, SECRET, IN_TARGET(secrets), false },
	{ TW_SECTION_TARGET, "bearer_token_file", NULL, TOKEN, IN_TARGET(bearer_token), false },
	{ TW_SECTION_TARGET, "basic_auth_file", NULL, AUTH, IN_TARGET(basic_auth), false },
	{ TW_SECTION_TARGET, "header", NULL, HEADER, IN_TARGET(headers), false },
	{ TARGET(ca_file), NULL, READABLE, IN_TARGET(ca_file), false },
	{ TARGET(client_cert_file), NULL, READABLE, IN_TARGET(client_cert_file), false },
	{ TARGET(client_key_file), NULL, READABLE, IN_TARGET(client_key_file), false },
	{ TARGET(tls_min), "1.2", TLS, IN_TARGET(tls_min), false },
	{ TARGET(pinned_key), NULL, PIN, IN_TARGET(pinned_key), false },
	{ TARGET(proxy), NULL, PROXY, IN_TARGET(proxy), false },
	{ TW_SECTION_TARGET, "proxy_auth_file", NULL, AUTH, IN_TARGET(proxy_auth), false },
	{ TARGET(interface), NULL, TEXT, IN_TARGET(interface), false },
	{ TARGET(http_version), "auto", HTTP, IN_TARGET(http_version), false },
	{ TARGET(compression), "none", COMPRESSION, IN_TARGET(compression), false },
	{ DISK(image), NULL, PATH, IN_DISK(image), true },
	{ DISK(ring), NULL, PATH, IN_DISK(ring), true },
	{ DISK(domain), NULL, TEXT, IN_DISK(domain), false },
	{ DISK(vdev), "xvda", TEXT, IN_DISK(vdev), false },
	{ DISK(tapdisk), NULL, TAPDISK, IN_DISK(tapdisk), false },
	{ GUEST(domain), "*", GLOBS, IN_GUEST(domain), false },
	{ GUEST(vdev), "*", GLOBS, IN_GUEST(vdev), false },
	{ GUEST(watch), "yes", YESNO, IN_GUEST(watch), false },
	{ GUEST(attach), "no", YESNO, IN_GUEST(attach), false },
	{ GUEST(memory_max), NULL, BYTES, IN_GUEST(memory_max), false },
	{ GUEST(nice), "0", NICE, IN_GUEST(nice), false },
};
#define NKEYS (sizeof(keys) / sizeof(keys[0]))

static const char *const section_names[] = { "service", "spool", "target", "disk", "guest" };

const char *tw_schema_section_name(enum tw_section section)
{
	return section_names[section];
}

bool tw_schema_section_named(enum tw_section section)
{
	return section >= TW_SECTION_TARGET;
}

int tw_schema_find(enum tw_section section, const char *name)
{
	for (size_t i = 0; i < NKEYS; i++)
		if (keys[i].section == section && strcmp(keys[i].name, name) == 0)
			return (int)i;
	return -1;
}

bool tw_config_key(size_t n, struct tw_config_key *out)
{
	if (n >= NKEYS)
		return false;
	*out = (struct tw_config_key){
		.section = section_names[keys[n].section],
		.name = keys[n].name,
		.fallback = keys[n].fallback,
		.expected = expectations[keys[n].kind],
		.required = keys[n].required,
		.repeatable = keys[n].kind == HEADER || keys[n].kind == PATTERNS || keys[n].kind == SECRET,
	};
	return true;
}

static struct tw_error *unexpected(const struct key *key, const char *value)
{
	return tw_error_create(TW_CONFIG, "%s is \"%s\", expected %s", key->name, value,
		expectations[key->kind]);
}

static struct tw_error *set_text(char **field, const char *value)
{
	char *copy = strdup(value);
	if (!copy)
		return tw_error_nomem();
	free(*field);
	*field = copy;
	return NULL;
}

static bool set_level(enum tw_log_level *field, const char *value)
{
	static const struct {
		const char *name;
		enum tw_log_level level;
	} levels[] = { { "error", TW_LOG_ERROR }, { "warn", TW_LOG_WARN }, { "info", TW_LOG_INFO },
		{ "debug", TW_LOG_DEBUG } };
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (strcmp(value, levels[i].name) != 0)
			continue;
		*field = levels[i].level;
		return true;
	}
	return false;
}

static bool set_choice(const char *const *names, unsigned *field, const char *value)
{
	for (unsigned i = 0; names[i]; i++) {
		if (strcmp(value, names[i]) != 0)
			continue;
		*field = i;
		return true;
	}
	return false;
}

static bool set_xenstore(enum tw_config_xenstore *field, const char *value)
{
	static const char *const names[] = { "auto", "on", "off", NULL };
	unsigned n;
	if (!set_choice(names, &n, value))
		return false;
	*field = (enum tw_config_xenstore)n;
	return true;
}

/* What is appended to a file is what changes in it. */
static bool set_content(enum tw_content_mode *field, const char *value)
{
	static const char *const names[] = { "none", "append", "changed", "full", NULL };
	static const enum tw_content_mode modes[] = { TW_CONTENT_NONE, TW_CONTENT_CHANGED, TW_CONTENT_CHANGED,
		TW_CONTENT_FULL };
	unsigned n;
	if (!set_choice(names, &n, value))
		return false;
	*field = modes[n];
	return true;
}

static bool set_yesno(bool *field, const char *value)
{
	static const char *const names[] = { "no", "yes", NULL };
	unsigned n;
	if (!set_choice(names, &n, value))
		return false;
	*field = n;
	return true;
}

static struct tw_error *add_item(struct tw_config_list *list, const char *value)
{
	char **grown = reallocarray(list->items, list->n + 1, sizeof(*grown));
	if (!grown)
		return tw_error_nomem();
	list->items = grown;
	list->items[list->n] = strdup(value);
	if (!list->items[list->n])
		return tw_error_nomem();
	list->n++;
	return NULL;
}

/* Words with commas between; a backslash before a comma makes it part of the word. */
static struct tw_error *add_patterns(const struct key *key, struct tw_config_list *list, const char *value)
{
	TW_AUTO_FREE char *word = malloc(strlen(value) + 1);
	if (!word)
		return tw_error_nomem();
	for (const char *at = value;; at++) {
		size_t len = 0;
		at += strspn(at, " \t");
		for (; *at && *at != ','; at++) {
			if (at[0] == '\\' && at[1] == ',')
				at++;
			word[len++] = *at;
		}
		while (len && (word[len - 1] == ' ' || word[len - 1] == '\t'))
			len--;
		word[len] = '\0';
		if (!tw_value_pattern(word))
			return unexpected(key, value);
		TW_TRY(add_item(list, word));
		if (!*at)
			return NULL;
	}
}

static bool choose(int *field, const char *const *names, const char *value)
{
	unsigned n;
	if (!set_choice(names, &n, value))
		return false;
	*field = (int)n;
	return true;
}

/* Files that hold a secret: the path is kept for messages, what counts is the content. */
static struct tw_error *set_secret(const struct key *key, void *field, struct tw_config_target *target,
	const char *path, const char **warning)
{
	TW_AUTO_FREE char *text = NULL;
	bool world_readable = false;
	struct tw_error *err = tw_value_read_file(path, &text, &world_readable);
	if (err) {
		struct tw_error *told = tw_error_create(TW_CONFIG, "%s is %s, expected %s", key->name,
			tw_error_message(err), expectations[key->kind]);
		tw_error_destroy(err);
		return told;
	}
	if (world_readable)
		*warning = "the file may be read by anyone, expected mode 0600 or 0640";
	if (key->kind == TOKEN || (key->kind == AUTH && strchr(text, ':'))) {
		char **word = field;
		free(*word);
		*word = TW_STEAL(text);
		return NULL;
	}
	bool good = false;
	if (key->kind == SECRET) {
		struct tw_config_secret *grown =
			reallocarray(target->secrets, target->nsecrets + 1, sizeof(*grown));
		if (!grown)
			return tw_error_nomem();
		target->secrets = grown;
		grown += target->nsecrets;
		good = tw_value_secret(text, &grown->key, &grown->len);
		target->nsecrets += good;
	}
	OPENSSL_cleanse(text, strlen(text));
	if (!good) /* what the file holds stays out of the log */
		return tw_error_create(TW_CONFIG, "%s is %s, which holds something else, expected %s",
			key->name, path, expectations[key->kind]);
	return NULL;
}

/* Values that need no memory. */
static bool set_plain(enum kind kind, void *field, const char *value)
{
	static const char *const tls_names[] = { "1.2", "1.3", NULL };
	static const char *const http_names[] = { "auto", "1.1", "2", "2-direct", NULL };
	static const char *const format_names[] = { "cloudevents", "ndjson", "elasticsearch", "clickhouse", "loki",
		"splunk_hec", NULL };
	static const char *const compression_names[] = { "none", "gzip", "zstd", NULL };
	switch (kind) {
	case LEVEL:
		return set_level(field, value);
	case BYTES:
		return tw_value_bytes(value, field);
	case MS:
		return tw_value_ms(value, field);
	case AGE:
		return tw_value_age(value, field);
	case WAIT:
		return tw_value_ms(value, field) && *(uint64_t *)field > 0;
	case STALL:
		return tw_value_ms(value, field) && *(uint64_t *)field >= STALL_MIN_MS;
	case COUNT:
		return tw_value_count(value, field);
	case LANES:
		return tw_value_count(value, field) && *(uint64_t *)field <= 64;
	case EVENTS:
		return tw_value_events(value, field);
	case XENSTORE:
		return set_xenstore(field, value);
	case YESNO:
		return set_yesno(field, value);
	case CONTENT:
		return set_content(field, value);
	case CONTENT_MAX:
		return tw_value_bytes(value, field) && *(uint64_t *)field > 0 &&
			*(uint64_t *)field <= TW_CONTENT_MAX_BYTES;
	case QUIET:
		return tw_value_age(value, field) && *(uint64_t *)field >= QUIET_MIN_MS &&
			*(uint64_t *)field <= TW_SHA256_QUIET_MAX_MS;
	case SHA256_MAX:
		return tw_value_bytes(value, field) && *(uint64_t *)field <= SHA256_MAX_BYTES;
	case NICE:
		return tw_value_nice(value, field);
	case TLS:
		if (!choose(field, tls_names, value))
			return false;
		*(int *)field += 12;
		return true;
	case HTTP:
		return choose(field, http_names, value);
	case FORMAT:
		return choose(field, format_names, value);
	case COMPRESSION:
		return choose(field, compression_names, value);
	default:
		return false;
	}
}

/* Whether a value that is kept as a text is one of its kind. */
static bool is_text_of(enum kind kind, const char *value)
{
	switch (kind) {
	case TEXT:
	case GLOBS:
		return *value;
	case PATH:
	case READABLE:
		return *value == '/';
	case URL:
		return tw_value_url(value);
	case TAPDISK:
		return tw_value_tapdisk(value);
	case PROXY:
		return tw_value_proxy(value);
	case PIN:
		return tw_value_pin(value);
	case INDEX:
		return tw_value_name(value, "-_.{}");
	case TABLE:
		return tw_value_name(value, "_.");
	default:
		return false;
	}
}

struct tw_error *tw_schema_set(int n, void *base, const char *value, const char **warning)
{
	const struct key *key = &keys[n];
	void *field = (char *)base + key->offset;
	if (is_text_of(key->kind, value)) {
		if (key->kind == READABLE && access(value, R_OK) < 0)
			return tw_error_create(TW_CONFIG, "%s is %s: %s, expected %s", key->name, value,
				strerror(errno), expectations[key->kind]);
		return set_text(field, value);
	}
	switch (key->kind) {
	case HEADER:
		return tw_value_header(value) ? add_item(field, value) : unexpected(key, value);
	case PATTERNS:
		return add_patterns(key, field, value);
	case SECRET:
	case TOKEN:
	case AUTH:
		return *value == '/' ? set_secret(key, field, base, value, warning) : unexpected(key, value);
	default:
		return set_plain(key->kind, field, value) ? NULL : unexpected(key, value);
	}
}

struct tw_error *tw_schema_defaults(enum tw_section section, void *base)
{
	const char *warning;
	for (size_t i = 0; i < NKEYS; i++)
		if (keys[i].section == section && keys[i].fallback)
			TW_TRY(tw_schema_set((int)i, base, keys[i].fallback, &warning));
	return NULL;
}

static void release_secret(void *text, size_t len)
{
	if (text)
		OPENSSL_cleanse(text, len);
	free(text);
}

static void release_list(struct tw_config_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		release_secret(list->items[i], strlen(list->items[i])); /* a header may hold one */
	free(list->items);
}

static void release_target(struct tw_config_target *target)
{
	for (size_t i = 0; i < target->nsecrets; i++)
		release_secret(target->secrets[i].key, target->secrets[i].len);
	free(target->secrets);
}

static void release_word(char *word)
{
	release_secret(word, word ? strlen(word) : 0);
}

void tw_schema_release(enum tw_section section, void *base)
{
	for (size_t i = 0; i < NKEYS; i++) {
		if (keys[i].section != section)
			continue;
		switch (keys[i].kind) {
		case PATH:
		case TEXT:
		case GLOBS:
		case URL:
		case TAPDISK:
		case PROXY:
		case INDEX:
		case TABLE:
		case PIN:
		case TOKEN:
		case AUTH:
		case READABLE:
			release_word(*(char **)((char *)base + keys[i].offset));
			break;
		case HEADER:
		case PATTERNS:
			release_list((struct tw_config_list *)((char *)base + keys[i].offset));
			break;
		default:
			break;
		}
	}
	if (section == TW_SECTION_TARGET)
		release_target(base);
}
