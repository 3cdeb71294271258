/* SPDX-License-Identifier: BSD-3-Clause */
#include "content/rules.h"

#include "base/mem.h"
#include "base/patterns.h"
#include "base/scope.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const mode_names[] = {
	[TW_CONTENT_NONE] = "none", [TW_CONTENT_CHANGED] = "changed", [TW_CONTENT_FULL] = "full"};

/* --- from an INI file --- */

static struct tw_error *is_of_domain(const struct tw_config_list *domains, const char *name,
	const char *uuid, bool *out)
{
	struct tw_patterns patterns = {0};
	struct tw_error *err = NULL;
	for (size_t i = 0; !err && i < domains->n; i++)
		err = tw_patterns_add(&patterns, domains->items[i]);
	TW_AUTO_FREE char *names = NULL;
	int len = err ? 0 : asprintf(&names, "%s%c%s", uuid, '\0', name);
	if (len < 0) {
		names = NULL;
		err = tw_error_nomem();
	}
	*out = !err && (!domains->n || tw_patterns_match_any(&patterns, names, (size_t)len + 1));
	tw_patterns_deinit(&patterns);
	return err;
}

static void put_list(struct tw_buf *out, const char *word, const struct tw_config_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		tw_buf_printf(out, "%s %s\n", word, list->items[i]);
}

static void put_patterns(struct tw_buf *out, const struct tw_config_target *target)
{
	put_list(out, "path", &target->paths);
	put_list(out, "volume", &target->volumes);
}

static void put_rules(struct tw_buf *out, const struct tw_config_target *target)
{
	if (target->content != TW_CONTENT_NONE) {
		tw_buf_printf(out, "rule %s %" PRIu64 " %" PRIx64 "\n", mode_names[target->content],
			target->content_max, target->events);
		put_patterns(out, target);
	}
	if (target->sha256) {
		tw_buf_printf(out, "sha256 %" PRIu64 " %" PRIu64 "\n", target->sha256_quiet_ms,
			target->sha256_max);
		put_patterns(out, target);
	}
}

struct tw_error *tw_content_plan(
	const struct tw_config *config, const char *domain_name, const char *domain_uuid, char **out)
{
	struct tw_buf text = TW_BUF_INIT;
	struct tw_error *err = NULL;
	*out = NULL;
	for (size_t i = 0; !err && i < config->ntargets; i++) {
		const struct tw_config_target *target = &config->targets[i];
		bool here = false;
		if (target->content != TW_CONTENT_NONE || target->sha256)
			err = is_of_domain(&target->domains, domain_name, domain_uuid, &here);
		if (here)
			put_rules(&text, target);
	}
	if (!err && text.len)
		tw_buf_append(&text, "", 1);
	if (!err && text.failed)
		err = tw_error_nomem();
	if (err)
		tw_buf_deinit(&text);
	*out = text.data;
	return err;
}

/* --- of a disk --- */

struct rule {
	struct tw_content_wish wish; /* NONE: it is about digests */
	struct tw_digest_wish digest;
	uint64_t events;
	struct tw_patterns paths, volumes;
};

struct tw_content_rules {
	struct rule *all;
	size_t n, cap;
	char *vdev;
	struct tw_buf names; /* of the volume that was asked for last */
};

void tw_content_rules_destroy(struct tw_content_rules *rules)
{
	if (!rules)
		return;
	for (size_t i = 0; i < rules->n; i++) {
		tw_patterns_deinit(&rules->all[i].paths);
		tw_patterns_deinit(&rules->all[i].volumes);
	}
	free(rules->all);
	free(rules->vdev);
	tw_buf_deinit(&rules->names);
	free(rules);
}

static struct tw_error *add_rule(struct tw_content_rules *rules, const struct rule *rule)
{
	if (!TW_GROW(rules->all, rules->n, rules->cap))
		return tw_error_nomem();
	rules->all[rules->n++] = *rule;
	return NULL;
}

static struct tw_error *take_rule(struct tw_content_rules *rules, const char *line)
{
	struct rule rule = {0};
	char mode[16], more;
	if (sscanf(line, "%15s %" SCNu64 " %" SCNx64 " %c", mode, &rule.wish.max_bytes, &rule.events,
		    &more) != 3)
		return tw_error_create(TW_USAGE, "\"rule %s\" is no rule for content", line);
	for (unsigned i = TW_CONTENT_CHANGED; i <= TW_CONTENT_FULL; i++)
		if (!strcmp(mode, mode_names[i]))
			rule.wish.mode = (enum tw_content_mode)i;
	if (!rule.wish.mode)
		return tw_error_create(TW_USAGE, "\"%s\" is no mode of content", mode);
	return add_rule(rules, &rule);
}

static struct tw_error *take_digest(struct tw_content_rules *rules, const char *line)
{
	struct rule rule = {0};
	char more;
	if (sscanf(line, "%" SCNu64 " %" SCNu64 " %c", &rule.digest.quiet_ms, &rule.digest.max_bytes, &more) != 2 ||
		!rule.digest.quiet_ms || rule.digest.quiet_ms > TW_SHA256_QUIET_MAX_MS)
		return tw_error_create(TW_USAGE, "\"sha256 %s\" is no rule for digests", line);
	return add_rule(rules, &rule);
}

static struct tw_error *take_line(struct tw_content_rules *rules, const char *line)
{
	struct rule *last = rules->n ? &rules->all[rules->n - 1] : NULL;
	if (!strncmp(line, "rule ", 5))
		return take_rule(rules, line + 5);
	if (!strncmp(line, "sha256 ", 7))
		return take_digest(rules, line + 7);
	if (last && !strncmp(line, "path ", 5))
		return tw_patterns_add(&last->paths, line + 5);
	if (last && !strncmp(line, "volume ", 7))
		return tw_patterns_add(&last->volumes, line + 7);
	return tw_error_create(TW_USAGE, "\"%s\" is no rule for content", line);
}

static struct tw_error *take_lines(struct tw_content_rules *rules, const char *text)
{
	TW_AUTO_FREE char *copy = strdup(text);
	char *rest = copy, *line;
	if (!copy)
		return tw_error_nomem();
	while ((line = strsep(&rest, "\n")))
		if (*line)
			TW_TRY(take_line(rules, line));
	return NULL;
}

struct tw_error *tw_content_rules_parse(
	const char *text, const char *vdev, struct tw_content_rules **out)
{
	struct tw_content_rules *rules = calloc(1, sizeof(*rules));
	if (!rules)
		return tw_error_nomem();
	rules->vdev = strdup(vdev);
	struct tw_error *err = rules->vdev ? take_lines(rules, text) : tw_error_nomem();
	if (err)
		tw_content_rules_destroy(rules);
	else
		*out = rules;
	return err;
}

/* The names that the courier knows a volume by (courier/filter.c). */
static void name_volume(struct tw_content_rules *rules, const char *volume)
{
	tw_buf_reset(&rules->names);
	tw_buf_printf(&rules->names, "%s%c%s/%s%c%s%c", rules->vdev, '\0', rules->vdev, volume, '\0', volume,
		'\0');
}

static bool applies(
	const struct tw_content_rules *rules, const struct rule *rule, struct tw_bytes path)
{
	if (rule->volumes.n &&
		!tw_patterns_match_any(&rule->volumes, rules->names.data, rules->names.len))
		return false;
	return !rule->paths.n || tw_patterns_match(&rule->paths, path.data, path.len);
}

struct tw_content_wish tw_content_rules_match(struct tw_content_rules *rules,
	enum tw_event_type type, const char *volume, struct tw_bytes path)
{
	struct tw_content_wish wish = {TW_CONTENT_NONE, 0};
	name_volume(rules, volume);
	for (size_t i = 0; !rules->names.failed && path.data && i < rules->n; i++) {
		const struct rule *rule = &rules->all[i];
		if (!rule->wish.mode || !(rule->events >> type & 1) || !applies(rules, rule, path))
			continue;
		if (rule->wish.mode > wish.mode)
			wish.mode = rule->wish.mode;
		if (rule->wish.max_bytes > wish.max_bytes)
			wish.max_bytes = rule->wish.max_bytes;
	}
	return wish;
}

struct tw_digest_wish tw_content_rules_digest(
	struct tw_content_rules *rules, const char *volume, struct tw_bytes path)
{
	struct tw_digest_wish wish = {0, 0};
	name_volume(rules, volume);
	for (size_t i = 0; !rules->names.failed && path.data && i < rules->n; i++) {
		const struct rule *rule = &rules->all[i];
		if (!rule->digest.quiet_ms || !applies(rules, rule, path))
			continue;
		if (!wish.quiet_ms || rule->digest.quiet_ms < wish.quiet_ms)
			wish.quiet_ms = rule->digest.quiet_ms;
		if (rule->digest.max_bytes > wish.max_bytes)
			wish.max_bytes = rule->digest.max_bytes;
	}
	return wish;
}

bool tw_content_rules_has_content(const struct tw_content_rules *rules)
{
	for (size_t i = 0; i < rules->n; i++)
		if (rules->all[i].wish.mode)
			return true;
	return false;
}

bool tw_content_rules_has_digests(const struct tw_content_rules *rules)
{
	for (size_t i = 0; i < rules->n; i++)
		if (rules->all[i].digest.quiet_ms)
			return true;
	return false;
}
