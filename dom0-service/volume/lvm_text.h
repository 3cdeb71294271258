/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * LVM2's metadata text (lvm.conf(5) has its grammar): sections in braces, "name = value", where a
 * value is a number, a string or a list of them, and comments. A guest wrote it.
 */
#ifndef TW_VOLUME_LVM_TEXT_H
#define TW_VOLUME_LVM_TEXT_H

#include "base/error.h"
#include "base/span.h"
#include <stdbool.h>
#include <stdint.h>

/* Sections within sections, no deeper. */
#define TW_LVM_MAX_DEPTH 8u

enum tw_lvm_kind {
	TW_LVM_SECTION,
	TW_LVM_NUMBER,
	TW_LVM_STRING,
	TW_LVM_LIST,
};

struct tw_lvm_node {
	enum tw_lvm_kind kind;
	struct tw_span key;  /* in the text; of a list's elements: empty */
	struct tw_span text; /* a string, without its quotes and as it is written */
	uint64_t number;     /* one that is negative, broken or too large: UINT64_MAX */
	struct tw_lvm_node *child, *next;
};

struct tw_lvm_text; /* owns the nodes */

/* text outlives the result. parts: how many it may have, less those that it has. TW_BAD_DATA: it
 * breaks the grammar, or has more. */
struct tw_error *tw_lvm_parse(
	struct tw_span text, size_t *parts, struct tw_lvm_text **out) TW_MUST_CHECK;
void tw_lvm_text_destroy(struct tw_lvm_text *text); /* NULL is fine */

/* The section that holds everything. */
const struct tw_lvm_node *tw_lvm_root(const struct tw_lvm_text *text);
/* The child of that name and kind, or NULL; node may be NULL. */
const struct tw_lvm_node *tw_lvm_child(
	const struct tw_lvm_node *node, const char *key, enum tw_lvm_kind kind);
/* The number of that name, or UINT64_MAX. */
uint64_t tw_lvm_number(const struct tw_lvm_node *node, const char *key);
/* True when the list of that name has this string. */
bool tw_lvm_has(const struct tw_lvm_node *node, const char *key, const char *word);
bool tw_lvm_is(struct tw_span text, const char *word);
bool tw_lvm_same(struct tw_span a, struct tw_span b);

#endif
