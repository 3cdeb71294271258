/* SPDX-License-Identifier: BSD-3-Clause */
/* All targets of the courier, as the configuration of the moment has them. */
#ifndef TW_COURIER_TARGETS_H
#define TW_COURIER_TARGETS_H

#include "base/error.h"
#include "config/config.h"
#include "courier/target.h"

struct tw_targets;

/* Attaches the config's targets to the spool, and forgets what waits for others. loop, spool and config are
 * borrowed. */
struct tw_error *tw_targets_create(uv_loop_t *loop, struct tw_spool *spool, const struct tw_config *config,
	const struct tw_target_hooks *hooks, struct tw_targets **out) TW_MUST_CHECK;
/* Closes what it has on the loop, which must run once more before tw_targets_free(). NULL is fine for both. */
void tw_targets_close(struct tw_targets *targets);
void tw_targets_free(struct tw_targets *targets);

/* Takes the file at path as the configuration: targets that stay go on with what they have, under their new
 * settings; what waits for targets that are gone is dropped. A file with a mistake changes nothing. Requests that are
 * under way end as they began. */
struct tw_error *tw_targets_reload(struct tw_targets *targets, const char *path) TW_MUST_CHECK;
/* The configuration of the moment. */
const struct tw_config *tw_targets_config(const struct tw_targets *targets);
struct tw_target **tw_targets_all(const struct tw_targets *targets, size_t *n);

/* For each of them: see courier/target.h. */
struct tw_error *tw_targets_plan(struct tw_targets *targets, bool flush, bool *planned, bool *more)
	TW_MUST_CHECK;
struct tw_error *tw_targets_enforce(struct tw_targets *targets, const char *host, bool *more) TW_MUST_CHECK;
void tw_targets_kick(struct tw_targets *targets);
bool tw_targets_idle(const struct tw_targets *targets);

#endif
