/* SPDX-License-Identifier: BSD-3-Clause */
/* Questions to a running courier (courier/admin.h), and how their answers are shown. */
#ifndef TW_CLI_ASK_H
#define TW_CLI_ASK_H

#include "base/buf.h"
#include "base/error.h"
#include "cli/table.h"
#include <yajl/yajl_tree.h>

struct tw_answer {
	struct tw_buf text; /* as the courier gave it */
	yajl_val tree;
};

/* Asks the courier of the service in state (NULL: where one is running). A no is an error with the courier's own
 * words. tw_answer_deinit() frees what is in *out, also after an error. */
struct tw_error *tw_ask(const char *state, const char *question, struct tw_answer *out) TW_MUST_CHECK;
void tw_answer_deinit(struct tw_answer *answer);

/* A member as text: a string or number as it is, yes or no, "" for anything else. */
const char *tw_answer_text(yajl_val object, const char *name);
/* Prints an array of objects as a table of these members (NULL ends both lists). */
struct tw_error *tw_answer_table(yajl_val array, const char *const *heads, const char *const *members)
	TW_MUST_CHECK;

#endif
