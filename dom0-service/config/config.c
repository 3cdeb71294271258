/* SPDX-License-Identifier: BSD-3-Clause */
#include "config/config.h"

#include "base/scope.h"
#include "config/schema.h"
#include "config/value.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#define LINE_MAX_BYTES 4096
#define NAME_MAX_BYTES 64

struct parser {
	const char *path;
	FILE *file;
	int line;
	struct tw_config *config;
	tw_config_report_fn report;
	void *arg;
	struct tw_error *first;
	bool in_section; /* a heading that we know has been read */
	bool bad_section; /* its lines are skipped: the heading was the mistake */
	bool seen_section[TW_SECTION_END];
	enum tw_section section;
	int section_line;
	uint64_t seen_keys;
};

/* Hands a complaint on and keeps the first error. Takes err. */
static void complain(struct parser *p, int line, struct tw_error *err)
{
	if (tw_error_code(err) == TW_CONFIG)
		err = tw_error_context(err, "%s:%d", p->path, line);
	p->report(p->arg, TW_LOG_ERROR, tw_error_message(err));
	if (p->first)
		tw_error_destroy(err);
	else
		p->first = err;
}

/* What the keys of the current section fill in. */
static void *section_base(struct parser *p)
{
	if (p->section == TW_SECTION_TARGET)
		return &p->config->targets[p->config->ntargets - 1];
	if (p->section == TW_SECTION_DISK)
		return &p->config->disks[p->config->ndisks - 1];
	if (p->section == TW_SECTION_GUEST)
		return &p->config->guests[p->config->nguests - 1];
	return p->config;
}

/* A section is over: complain about what it lacks. */
static void finish_section(struct parser *p)
{
	if (!p->in_section || p->bad_section)
		return;
	struct tw_config_key key;
	for (size_t i = 0; tw_config_key(i, &key); i++) {
		if (!key.required || p->seen_keys & 1ull << i ||
			strcmp(key.section, tw_schema_section_name(p->section)) != 0)
			continue;
		complain(p, p->section_line, tw_error_create(TW_CONFIG, "[%s] without %s, expected %s = %s",
			key.section, key.name, key.name, key.expected));
	}
	if (p->section != TW_SECTION_TARGET)
		return;
	struct tw_config_target *target = section_base(p);
	if (target->client_key_file && !target->client_cert_file)
		complain(p, p->section_line, tw_error_create(TW_CONFIG,
			"client_key_file without client_cert_file, expected both"));
	if (target->bearer_token && target->basic_auth)
		complain(p, p->section_line, tw_error_create(TW_CONFIG,
			"bearer_token_file and basic_auth_file, expected one of them"));
	if (target->sha256 && !(target->events >> TW_EVENT_FILE_SETTLED & 1))
		complain(p, p->section_line, tw_error_create(TW_CONFIG,
			"sha256 comes with the event file.settled, expected it in events"));
	if (target->retry_min_ms > target->retry_max_ms)
		complain(p, p->section_line, tw_error_create(TW_CONFIG,
			"retry_min_ms is greater than retry_max_ms, expected it to be less"));
}

static struct tw_error *add_target(struct tw_config *config, const char *name, int line)
{
	struct tw_config_target *grown =
		reallocarray(config->targets, config->ntargets + 1, sizeof(*grown));
	if (!grown)
		return tw_error_nomem();
	config->targets = grown;
	struct tw_config_target *target = &grown[config->ntargets++];
	*target = (struct tw_config_target){ .line = line, .name = strdup(name) };
	return target->name ? tw_schema_defaults(TW_SECTION_TARGET, target) : tw_error_nomem();
}

static struct tw_error *add_disk(struct tw_config *config, const char *name, int line)
{
	struct tw_config_disk *grown = reallocarray(config->disks, config->ndisks + 1, sizeof(*grown));
	if (!grown)
		return tw_error_nomem();
	config->disks = grown;
	struct tw_config_disk *disk = &grown[config->ndisks++];
	*disk = (struct tw_config_disk){ .line = line, .name = strdup(name) };
	return disk->name ? tw_schema_defaults(TW_SECTION_DISK, disk) : tw_error_nomem();
}

static struct tw_error *add_guest(struct tw_config *config, const char *name, int line)
{
	struct tw_config_guest *grown = reallocarray(config->guests, config->nguests + 1, sizeof(*grown));
	if (!grown)
		return tw_error_nomem();
	config->guests = grown;
	struct tw_config_guest *guest = &grown[config->nguests++];
	*guest = (struct tw_config_guest){ .line = line, .name = strdup(name) };
	return guest->name ? tw_schema_defaults(TW_SECTION_GUEST, guest) : tw_error_nomem();
}

static bool name_taken(const struct parser *p, const char *name)
{
	if (!tw_schema_section_named(p->section))
		return p->seen_section[p->section];
	if (p->section == TW_SECTION_TARGET) {
		for (size_t i = 0; i < p->config->ntargets; i++)
			if (strcmp(p->config->targets[i].name, name) == 0)
				return true;
	} else if (p->section == TW_SECTION_GUEST) {
		for (size_t i = 0; i < p->config->nguests; i++)
			if (strcmp(p->config->guests[i].name, name) == 0)
				return true;
	} else {
		for (size_t i = 0; i < p->config->ndisks; i++)
			if (strcmp(p->config->disks[i].name, name) == 0)
				return true;
	}
	return false;
}

/* A name ends up in log lines, status and file names. */
static bool good_name(const char *name)
{
	size_t len = strlen(name);
	if (!len || len > NAME_MAX_BYTES || *name == '.')
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && !strchr("-_.", *name))
			return false;
	return true;
}

static bool find_section(const char *word, size_t len, enum tw_section *out)
{
	for (int s = 0; s < TW_SECTION_END; s++) {
		const char *name = tw_schema_section_name((enum tw_section)s);
		if (strlen(name) != len || strncmp(name, word, len) != 0)
			continue;
		*out = (enum tw_section)s;
		return true;
	}
	return false;
}

/* text is what stands between the brackets. */
static struct tw_error *open_section(struct parser *p, const char *text)
{
	size_t len = strcspn(text, " \t");
	const char *name = text + len + strspn(text + len, " \t");
	if (!find_section(text, len, &p->section))
		return tw_error_create(TW_CONFIG,
			"unknown section [%s], expected [service], [spool], [target NAME], [disk NAME] or [guest NAME]",
			text);
	const char *section = tw_schema_section_name(p->section);
	if (!tw_schema_section_named(p->section) && *name)
		return tw_error_create(TW_CONFIG, "section [%s], expected [%s]", text, section);
	if (tw_schema_section_named(p->section) && !good_name(name))
		return tw_error_create(TW_CONFIG,
			"section [%s], expected [%s NAME] with a name of letters, digits, \"-\", \"_\" and \".\"",
			text, section);
	if (name_taken(p, name))
		return tw_error_create(TW_CONFIG, "section [%s] a second time, expected it once", text);
	p->seen_section[p->section] = true;
	if (p->section == TW_SECTION_TARGET)
		return add_target(p->config, name, p->line);
	if (p->section == TW_SECTION_DISK)
		return add_disk(p->config, name, p->line);
	if (p->section == TW_SECTION_GUEST)
		return add_guest(p->config, name, p->line);
	return NULL;
}

/* inih does not tell of a section without keys and cuts its name: read headings here. */
static void read_heading(struct parser *p, const char *line)
{
	finish_section(p);
	p->in_section = true;
	p->bad_section = false;
	p->section_line = p->line;
	p->seen_keys = 0;
	char text[LINE_MAX_BYTES];
	snprintf(text, sizeof(text), "%s", line + 1);
	char *end = strchr(text, ']');
	struct tw_error *err = NULL;
	if (end) {
		*end = '\0';
		err = open_section(p, text);
	} else {
		text[strcspn(text, "\r\n")] = '\0';
		err = tw_error_create(TW_CONFIG, "\"[%s\" without its closing bracket, expected ]", text);
	}
	if (!err)
		return;
	p->bad_section = true;
	complain(p, p->line, err);
}

/* ini_reader: one line a call, so that the parser knows where it is (Debian's inih does not tell). */
static char *read_line(char *buf, int size, void *arg)
{
	struct parser *p = arg;
	if (!fgets(buf, size, p->file))
		return NULL;
	p->line++;
	size_t len = strlen(buf);
	if (len + 1 == (size_t)size && buf[len - 1] != '\n') {
		complain(p, p->line, tw_error_create(TW_CONFIG, "a line of more than %d bytes, expected fewer",
			size - 1));
		for (int c = 0; c != '\n' && c != EOF;)
			c = getc(p->file);
		snprintf(buf, (size_t)size, "#\n");
	}
	const char *line = buf;
	if (p->line == 1 && strncmp(line, "\xEF\xBB\xBF", 3) == 0)
		line += 3;
	line += strspn(line, " \t");
	if (*line == '[')
		read_heading(p, line);
	return buf;
}

/* What a variable or a file holds stays out of the messages. */
static struct tw_error *set_expanded(struct parser *p, int key, const char *name, const char *value,
	const char **warning)
{
	TW_AUTO_FREE char *expanded = NULL;
	TW_TRY(tw_value_expand(value, &expanded));
	if (!expanded)
		return tw_schema_set(key, section_base(p), value, warning);
	struct tw_error *err = tw_schema_set(key, section_base(p), expanded, warning);
	OPENSSL_cleanse(expanded, strlen(expanded));
	if (!err || tw_error_code(err) != TW_CONFIG)
		return err;
	tw_error_destroy(err);
	struct tw_config_key about;
	tw_config_key((size_t)key, &about);
	return tw_error_create(TW_CONFIG, "%s is not what it should be with what %s stands for, expected %s", name,
		value, about.expected);
}

/* ini_handler */
static int take_key(void *arg, const char *section, const char *name, const char *value)
{
	(void)section; /* cut to 50 bytes by inih */
	struct parser *p = arg;
	if (p->bad_section)
		return 1;
	struct tw_error *err = NULL;
	const char *warning = NULL;
	struct tw_config_key about = { 0 };
	int key = p->in_section ? tw_schema_find(p->section, name) : -1;
	if (key >= 0)
		tw_config_key((size_t)key, &about);
	if (!p->in_section)
		err = tw_error_create(TW_CONFIG, "\"%s\" before any section, expected a [section] first", name);
	else if (key < 0)
		err = tw_error_create(TW_CONFIG, "unknown key \"%s\" in [%s], expected one of tapwire.conf(5)",
			name, tw_schema_section_name(p->section));
	else if (!value)
		err = tw_error_create(TW_CONFIG, "%s without a value, expected %s = %s", name, name,
			about.expected);
	else if (p->seen_keys & 1ull << key && !about.repeatable)
		err = tw_error_create(TW_CONFIG, "%s a second time in this section, expected it once", name);
	else
		err = set_expanded(p, key, about.name, value, &warning);
	if (key >= 0)
		p->seen_keys |= 1ull << key;
	if (err)
		complain(p, p->line, err);
	if (warning) {
		char text[LINE_MAX_BYTES * 2];
		snprintf(text, sizeof(text), "%s:%d: %s %s: %s", p->path, p->line, name, value, warning);
		p->report(p->arg, TW_LOG_WARN, text);
	}
	return 1;
}

static struct tw_error *config_create(const char *path, struct tw_config **out)
{
	struct tw_config *config = calloc(1, sizeof(*config));
	if (!config)
		return tw_error_nomem();
	struct tw_error *err = NULL;
	if (path && !(config->path = strdup(path)))
		err = tw_error_nomem();
	if (!err)
		err = tw_schema_defaults(TW_SECTION_SERVICE, config);
	if (!err)
		err = tw_schema_defaults(TW_SECTION_SPOOL, config);
	if (err)
		tw_config_destroy(config);
	else
		*out = config;
	return err;
}

static struct tw_error *parse(const char *path, tw_config_report_fn report, void *arg,
	struct tw_config *config)
{
	struct parser p = { .path = path, .config = config, .report = report, .arg = arg };
	p.file = fopen(path, "re");
	if (!p.file) {
		p.first = tw_error_create(TW_CONFIG, "%s: %s, expected a readable INI file", path,
			strerror(errno));
		report(arg, TW_LOG_ERROR, tw_error_message(p.first));
		return p.first;
	}
	ini_use_stack = false; /* its stack holds lines of 200 bytes */
	ini_initial_alloc = LINE_MAX_BYTES;
	ini_max_line = LINE_MAX_BYTES;
	ini_allow_multiline = false;
	ini_allow_no_value = true;
	if (ini_parse_stream(read_line, &p, take_key, &p) == -2)
		complain(&p, p.line, tw_error_nomem());
	if (ferror(p.file))
		complain(&p, p.line, tw_error_create(TW_CONFIG, "%s, expected a readable INI file",
			strerror(errno)));
	finish_section(&p);
	fclose(p.file);
	return p.first;
}

static void log_warnings(void *arg, enum tw_log_level level, const char *text)
{
	(void)arg;
	if (level == TW_LOG_WARN)
		tw_log(level, "", "%s", text);
}

struct tw_error *tw_config_load(const char *path, struct tw_config **out)
{
	struct tw_config *config;
	TW_TRY(config_create(path, &config));
	struct tw_error *err = parse(path, log_warnings, NULL, config);
	if (err)
		tw_config_destroy(config);
	else
		*out = config;
	return err;
}

struct tw_error *tw_config_check(const char *path, tw_config_report_fn report, void *arg)
{
	struct tw_config *config;
	TW_TRY(config_create(path, &config));
	struct tw_error *err = parse(path, report, arg, config);
	tw_config_destroy(config);
	return err;
}

static struct tw_error *set_key(struct tw_config_target *target, const char *name, const char *value)
{
	const char *warning = NULL;
	struct tw_error *err =
		tw_schema_set(tw_schema_find(TW_SECTION_TARGET, name), target, value, &warning);
	if (warning)
		tw_log(TW_LOG_WARN, "", "%s: %s", value, warning);
	if (!err || tw_error_code(err) != TW_CONFIG)
		return err;
	struct tw_error *usage = tw_error_create(TW_USAGE, "%s", tw_error_message(err));
	tw_error_destroy(err);
	return usage;
}

static struct tw_error *fill_for_url(struct tw_config *config, const char *url, const char *secret_file)
{
	TW_TRY(add_target(config, "default", 0));
	struct tw_config_target *target = &config->targets[0];
	TW_TRY(set_key(target, "url", url));
	TW_TRY(set_key(target, "batch_delay_ms", "0"));
	if (!secret_file)
		return NULL;
	TW_AUTO_FREE char *absolute = realpath(secret_file, NULL);
	if (!absolute)
		return tw_error_errno(errno, "%s", secret_file);
	return set_key(target, "secret_file", absolute);
}

struct tw_error *tw_config_for_url(const char *url, const char *secret_file, struct tw_config **out)
{
	struct tw_config *config;
	TW_TRY(config_create(NULL, &config));
	struct tw_error *err = fill_for_url(config, url, secret_file);
	if (err)
		tw_config_destroy(config);
	else
		*out = config;
	return err;
}

const struct tw_config_guest *tw_config_match(const struct tw_config *config, const char *domain_name,
	const char *uuid, const char *vdev)
{
	for (size_t i = 0; i < config->nguests; i++) {
		const struct tw_config_guest *guest = &config->guests[i];
		bool domain = tw_value_matches(guest->domain, domain_name) || tw_value_matches(guest->domain, uuid);
		if (domain && tw_value_matches(guest->vdev, vdev))
			return guest;
	}
	return NULL;
}

void tw_config_destroy(struct tw_config *config)
{
	if (!config)
		return;
	for (size_t i = 0; i < config->ntargets; i++) {
		tw_schema_release(TW_SECTION_TARGET, &config->targets[i]);
		free(config->targets[i].name);
	}
	for (size_t i = 0; i < config->ndisks; i++) {
		tw_schema_release(TW_SECTION_DISK, &config->disks[i]);
		free(config->disks[i].name);
	}
	for (size_t i = 0; i < config->nguests; i++) {
		tw_schema_release(TW_SECTION_GUEST, &config->guests[i]);
		free(config->guests[i].name);
	}
	free(config->targets);
	free(config->disks);
	free(config->guests);
	tw_schema_release(TW_SECTION_SERVICE, config);
	tw_schema_release(TW_SECTION_SPOOL, config);
	free(config->path);
	free(config);
}
