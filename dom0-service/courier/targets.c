/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/targets.h"

#include "base/log.h"
#include "base/scope.h"

#include <stdlib.h>
#include <string.h>

struct tw_targets {
	uv_loop_t *loop;
	struct tw_spool *spool;
	struct tw_webhook *hook;
	struct tw_target_hooks hooks;
	const struct tw_config *config;
	struct tw_config **loaded; /* by reloads; requests that are under way may still use an older one */
	size_t nloaded;
	struct tw_target **all;
	size_t n;
};

static struct tw_target *find(const struct tw_targets *targets, const char *name)
{
	for (size_t i = 0; i < targets->n; i++)
		if (strcmp(tw_target_config(targets->all[i])->name, name) == 0)
			return targets->all[i];
	return NULL;
}

static struct tw_error *add(struct tw_targets *targets, const struct tw_config_target *config)
{
	struct tw_target **grown = reallocarray(targets->all, targets->n + 1, sizeof(struct tw_target *));
	if (!grown)
		return tw_error_nomem();
	targets->all = grown;
	TW_TRY(tw_target_create(targets->loop, targets->hook, targets->spool, config, &targets->hooks,
		&grown[targets->n]));
	targets->n++;
	return NULL;
}

static struct tw_error *add_all(struct tw_targets *targets)
{
	unsigned int forgotten;
	TW_TRY(tw_webhook_create(targets->loop, &targets->hook));
	for (size_t i = 0; i < targets->config->ntargets; i++)
		TW_TRY(add(targets, &targets->config->targets[i]));
	TW_TRY(tw_spool_forget_others(targets->spool, &forgotten));
	if (forgotten)
		tw_log(TW_LOG_WARN, "", "%u targets are no longer configured: what waited for them is dropped",
			forgotten);
	return tw_spool_commit(targets->spool, true);
}

struct tw_error *tw_targets_create(uv_loop_t *loop, struct tw_spool *spool, const struct tw_config *config,
	const struct tw_target_hooks *hooks, struct tw_targets **out)
{
	struct tw_targets *targets = calloc(1, sizeof(*targets));
	if (!targets)
		return tw_error_nomem();
	*targets = (struct tw_targets){ .loop = loop, .spool = spool, .config = config, .hooks = *hooks };
	*out = targets; /* the caller closes it, also after an error */
	return add_all(targets);
}

void tw_targets_close(struct tw_targets *targets)
{
	if (!targets)
		return;
	for (size_t i = 0; i < targets->n; i++)
		tw_target_destroy(targets->all[i]);
	targets->n = 0;
	tw_webhook_destroy(targets->hook);
}

static void free_loaded(struct tw_targets *targets, size_t keep)
{
	size_t drop = targets->nloaded > keep ? targets->nloaded - keep : 0;
	for (size_t i = 0; i < drop; i++)
		tw_config_destroy(targets->loaded[i]);
	targets->nloaded -= drop;
	memmove(targets->loaded, targets->loaded + drop, targets->nloaded * sizeof(struct tw_config *));
}

void tw_targets_free(struct tw_targets *targets)
{
	if (!targets)
		return;
	if (targets->loaded)
		free_loaded(targets, 0);
	free(targets->loaded);
	free(targets->all);
	free(targets);
}

/* --- another configuration --- */

static bool is_configured(const struct tw_config *config, const char *name)
{
	for (size_t i = 0; i < config->ntargets; i++)
		if (strcmp(config->targets[i].name, name) == 0)
			return true;
	return false;
}

static struct tw_error *remove_gone(struct tw_targets *targets, const struct tw_config *config)
{
	for (size_t i = 0; i < targets->n;) {
		struct tw_target *target = targets->all[i];
		const char *name = tw_target_config(target)->name;
		if (is_configured(config, name)) {
			i++;
			continue;
		}
		tw_log(TW_LOG_WARN, name, "no longer configured: what waited for it is dropped");
		targets->all[i] = targets->all[--targets->n];
		TW_TRY(tw_target_forget(target));
	}
	return NULL;
}

/* The targets in the order of the file. */
static void sort(struct tw_targets *targets, const struct tw_config *config)
{
	for (size_t i = 0; i < config->ntargets; i++)
		for (size_t k = i; k < targets->n; k++) {
			if (strcmp(tw_target_config(targets->all[k])->name, config->targets[i].name) != 0)
				continue;
			struct tw_target *swap = targets->all[i];
			targets->all[i] = targets->all[k];
			targets->all[k] = swap;
			break;
		}
}

static struct tw_error *apply(struct tw_targets *targets, const struct tw_config *config)
{
	TW_TRY(remove_gone(targets, config));
	for (size_t i = 0; i < config->ntargets; i++) {
		struct tw_target *target = find(targets, config->targets[i].name);
		if (target)
			TW_TRY(tw_target_reconfigure(target, targets->hook, &config->targets[i]));
		else
			TW_TRY(add(targets, &config->targets[i]));
	}
	sort(targets, config);
	tw_spool_set_limits(targets->spool, config->spool_max_bytes, config->spool_keep_ms);
	return NULL;
}

static bool all_renewed(const struct tw_targets *targets)
{
	for (size_t i = 0; i < targets->n; i++)
		if (!tw_target_is_renewed(targets->all[i]))
			return false;
	return true;
}

struct tw_error *tw_targets_reload(struct tw_targets *targets, const char *path)
{
	struct tw_config *config;
	struct tw_error *err = tw_config_load(path, &config);
	if (err) {
		tw_log(TW_LOG_ERROR, "", "%s; going on as before", tw_error_message(err));
		tw_error_destroy(err);
		return NULL;
	}
	struct tw_config **grown =
		reallocarray(targets->loaded, targets->nloaded + 1, sizeof(struct tw_config *));
	if (!grown) {
		tw_config_destroy(config);
		return tw_error_nomem();
	}
	targets->loaded = grown;
	targets->loaded[targets->nloaded++] = config;
	TW_TRY(apply(targets, config));
	targets->config = config;
	tw_log_init("tapwire-courier", config->log_level);
	tw_log(TW_LOG_INFO, "", "%s is read again: %zu targets", path, config->ntargets);
	return NULL;
}

const struct tw_config *tw_targets_config(const struct tw_targets *targets)
{
	return targets->config;
}

struct tw_target **tw_targets_all(const struct tw_targets *targets, size_t *n)
{
	*n = targets->n;
	return targets->all;
}

/* --- each of them --- */

struct tw_error *tw_targets_plan(struct tw_targets *targets, bool flush, bool *planned, bool *more)
{
	if (targets->nloaded > 1 && all_renewed(targets))
		free_loaded(targets, 1);
	for (size_t i = 0; i < targets->n; i++)
		TW_TRY(tw_target_plan(targets->all[i], flush, planned, more));
	return NULL;
}

struct tw_error *tw_targets_enforce(struct tw_targets *targets, const char *host, bool *more)
{
	for (size_t i = 0; i < targets->n; i++)
		TW_TRY(tw_target_enforce(targets->all[i], host, more));
	return NULL;
}

void tw_targets_kick(struct tw_targets *targets)
{
	for (size_t i = 0; i < targets->n; i++)
		tw_target_kick(targets->all[i]);
}

bool tw_targets_idle(const struct tw_targets *targets)
{
	for (size_t i = 0; i < targets->n; i++)
		if (!tw_target_idle(targets->all[i]))
			return false;
	return true;
}
