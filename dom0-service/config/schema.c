/* SPDX-License-Identifier: BSD-3-Clause */
#include "config/schema.h"

#include "base/scope.h"
#include "config/value.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <openssl/crypto.h>

enum kind { PATH, TEXT, LEVEL, BYTES, MS, WAIT, COUNT, EVENTS, URL, SECRET, TOKEN, HEADER, READABLE };

static const char *const expectations[] = {
	[PATH] = "an absolute path",
	[TEXT] = "a text",
	[LEVEL] = "error, warn, info or debug",
	[BYTES] = "a size such as 4096, 64KiB or 1GiB",
	[MS] = "milliseconds, or a time such as 30s or 5min, up to 24h",
	[WAIT] = "milliseconds of at least 1, or a time such as 30s or 5min, up to 24h",
	[COUNT] = "a number from 1 to 1000000",
	[EVENTS] = "event types such as file.created, or globs such as file.*, with commas between",
	[URL] = "an http:// or https:// URL",
	[SECRET] = "the absolute path of a file that holds whsec_ and the base64 of 24 to 64 bytes",
	[TOKEN] = "the absolute path of a file that holds a token",
	[HEADER] = "Name: value, not a header that tapwire sets itself",
	[READABLE] = "the absolute path of a readable file",
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
#define IN_CONFIG(field) offsetof(struct tw_config, field)
#define IN_TARGET(field) offsetof(struct tw_config_target, field)
#define IN_DISK(field) offsetof(struct tw_config_disk, field)

static const struct key keys[] = {
	{ SERVICE(state_dir), "/var/lib/tapwire", PATH, IN_CONFIG(state_dir), false },
	{ SERVICE(run_dir), "/run/tapwire", PATH, IN_CONFIG(run_dir), false },
	{ SERVICE(log_level), "info", LEVEL, IN_CONFIG(log_level), false },
	{ TW_SECTION_SPOOL, "max_bytes", "1GiB", BYTES, IN_CONFIG(spool_max_bytes), false },
	{ TARGET(url), NULL, URL, IN_TARGET(url), true },
	{ TARGET(events), "*", EVENTS, IN_TARGET(events), false },
	{ TARGET(batch_events), "100", COUNT, IN_TARGET(batch_events), false },
	{ TARGET(batch_bytes), "1MiB", BYTES, IN_TARGET(batch_bytes), false },
	{ TARGET(batch_delay_ms), "100", MS, IN_TARGET(batch_delay_ms), false },
	{ TARGET(timeout_ms), "30s", WAIT, IN_TARGET(timeout_ms), false },
	{ TARGET(connect_timeout_ms), "5s", WAIT, IN_TARGET(connect_timeout_ms), false },
	{ TARGET(retry_min_ms), "500", WAIT, IN_TARGET(retry_min_ms), false },
	{ TARGET(retry_max_ms), "60s", WAIT, IN_TARGET(retry_max_ms), false },
	{ TARGET(secret_file), NULL, SECRET, IN_TARGET(secret_file), false },
	{ TARGET(bearer_token_file), NULL, TOKEN, IN_TARGET(bearer_token_file), false },
	{ TARGET(header), NULL, HEADER, IN_TARGET(headers), false },
	{ TARGET(ca_file), NULL, READABLE, IN_TARGET(ca_file), false },
	{ DISK(image), NULL, PATH, IN_DISK(image), true },
	{ DISK(ring), NULL, PATH, IN_DISK(ring), true },
	{ DISK(domain), NULL, TEXT, IN_DISK(domain), false },
	{ DISK(vdev), "xvda", TEXT, IN_DISK(vdev), false },
};
#define NKEYS (sizeof(keys) / sizeof(keys[0]))

static const char *const section_names[] = { "service", "spool", "target", "disk" };

const char *tw_schema_section_name(enum tw_section section)
{
	return section_names[section];
}

bool tw_schema_section_named(enum tw_section section)
{
	return section == TW_SECTION_TARGET || section == TW_SECTION_DISK;
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
		.repeatable = keys[n].kind == HEADER,
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

static struct tw_error *add_header(struct tw_config_target *target, const char *value)
{
	char **grown = reallocarray(target->headers, target->nheaders + 1, sizeof(*grown));
	if (!grown)
		return tw_error_nomem();
	target->headers = grown;
	target->headers[target->nheaders] = strdup(value);
	if (!target->headers[target->nheaders])
		return tw_error_nomem();
	target->nheaders++;
	return NULL;
}

/* Files that hold a secret: the path is kept for messages, what counts is the content. */
static struct tw_error *set_secret(const struct key *key, struct tw_config_target *target,
	const char *path, const char **warning)
{
	char *text = NULL;
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
	if (key->kind == TOKEN) {
		free(target->bearer_token);
		target->bearer_token = text;
		return set_text(&target->bearer_token_file, path);
	}
	free(target->secret);
	target->secret = NULL;
	bool good = tw_value_secret(text, &target->secret, &target->secret_len);
	OPENSSL_cleanse(text, strlen(text));
	free(text);
	if (!good) /* what the file holds stays out of the log */
		return tw_error_create(TW_CONFIG, "%s is %s, which holds something else, expected %s",
			key->name, path, expectations[key->kind]);
	return set_text(&target->secret_file, path);
}

struct tw_error *tw_schema_set(int n, void *base, const char *value, const char **warning)
{
	const struct key *key = &keys[n];
	void *field = (char *)base + key->offset;
	bool good = false;
	switch (key->kind) {
	case TEXT:
		return *value ? set_text(field, value) : unexpected(key, value);
	case PATH:
		return *value == '/' ? set_text(field, value) : unexpected(key, value);
	case URL:
		return tw_value_url(value) ? set_text(field, value) : unexpected(key, value);
	case HEADER:
		return tw_value_header(value) ? add_header(base, value) : unexpected(key, value);
	case READABLE:
		if (*value != '/')
			return unexpected(key, value);
		if (access(value, R_OK) < 0)
			return tw_error_create(TW_CONFIG, "%s is %s: %s, expected %s", key->name, value,
				strerror(errno), expectations[key->kind]);
		return set_text(field, value);
	case SECRET:
	case TOKEN:
		return *value == '/' ? set_secret(key, base, value, warning) : unexpected(key, value);
	case LEVEL:
		good = set_level(field, value);
		break;
	case BYTES:
		good = tw_value_bytes(value, field);
		break;
	case MS:
		good = tw_value_ms(value, field);
		break;
	case WAIT:
		good = tw_value_ms(value, field) && *(uint64_t *)field > 0;
		break;
	case COUNT:
		good = tw_value_count(value, field);
		break;
	case EVENTS:
		good = tw_value_events(value, field);
		break;
	}
	return good ? NULL : unexpected(key, value);
}

struct tw_error *tw_schema_defaults(enum tw_section section, void *base)
{
	const char *warning;
	for (size_t i = 0; i < NKEYS; i++)
		if (keys[i].section == section && keys[i].fallback)
			TW_TRY(tw_schema_set((int)i, base, keys[i].fallback, &warning));
	return NULL;
}

static void release_target(struct tw_config_target *target)
{
	if (target->secret)
		OPENSSL_cleanse(target->secret, target->secret_len);
	free(target->secret);
	if (target->bearer_token)
		OPENSSL_cleanse(target->bearer_token, strlen(target->bearer_token));
	free(target->bearer_token);
	for (size_t i = 0; i < target->nheaders; i++)
		free(target->headers[i]);
	free(target->headers);
}

void tw_schema_release(enum tw_section section, void *base)
{
	for (size_t i = 0; i < NKEYS; i++) {
		if (keys[i].section != section)
			continue;
		switch (keys[i].kind) {
		case PATH:
		case TEXT:
		case URL:
		case SECRET:
		case TOKEN:
		case READABLE:
			free(*(char **)((char *)base + keys[i].offset));
			break;
		default:
			break;
		}
	}
	if (section == TW_SECTION_TARGET)
		release_target(base);
}
