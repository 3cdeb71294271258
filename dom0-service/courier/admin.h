/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an operator may ask of a running courier, as JSON: {"command": ...} is answered by {"ok": true, ...} or
 * {"ok": false, "error": TEXT, "status": EXIT STATUS}.
 *
 *   targets                                   -> "targets": what each is and how it does
 *   suspend, resume      target               -> nothing more
 *   redeliver            target, since_ms     -> nothing more
 *   spool                                     -> "spool": its size, limits and dead letters
 *   dead-letters         [target] [after] [limit] -> "letters": id, target, time, status, answer, type, subject
 *   dead-letter          id                   -> "letter": the same, and "event"
 *   dead-letters-redeliver, dead-letters-drop  id or [target] and "all": true   -> "count"
 */
#ifndef TW_COURIER_ADMIN_H
#define TW_COURIER_ADMIN_H

#include "base/buf.h"
#include "config/config.h"
#include "courier/target.h"

struct tw_admin {
	const struct tw_config *config;
	struct tw_spool *spool;
	struct tw_target **targets;
	size_t ntargets;
};

/* Does what is asked, without a commit, and appends the answer. */
void tw_admin_answer(const struct tw_admin *admin, const char *body, size_t len, struct tw_buf *out);
/* Appends an answer that says no. */
void tw_admin_refuse(struct tw_buf *out, enum tw_code code, const char *why);

#endif
