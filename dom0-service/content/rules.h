/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Of which files' events the content is wanted, and of which files a digest when they have been quiet:
 * what the targets of an INI file ask for, as far as it concerns one disk. As text, a line each: "rule
 * MODE MAX-BYTES EVENTS" with MODE changed or full and the event types as a hexadecimal mask, or "sha256
 * QUIET-MS MAX-BYTES", then "path PATTERN" and "volume PATTERN" for each pattern of that rule
 * (base/patterns.h).
 */
#ifndef TW_CONTENT_RULES_H
#define TW_CONTENT_RULES_H

#include "config/config.h"
#include "event/event.h"

struct tw_content_rules;

/* What of a file an event is to hold. */
struct tw_content_wish {
	enum tw_content_mode mode;
	uint64_t max_bytes;
};

/* Whether a digest of a file is to be told. */
struct tw_digest_wish {
	uint64_t quiet_ms; /* without a change; 0: no */
	uint64_t max_bytes;
};

/* The rules of a disk of a domain, as text that the caller frees; NULL: no target wants anything of it. */
struct tw_error *tw_content_plan(const struct tw_config *config, const char *domain_name,
	const char *domain_uuid, char **out) TW_MUST_CHECK;

/* TW_USAGE: the text is none. vdev is copied. */
struct tw_error *tw_content_rules_parse(
	const char *text, const char *vdev, struct tw_content_rules **out) TW_MUST_CHECK;
void tw_content_rules_destroy(struct tw_content_rules *rules); /* NULL is fine */

/* What is wanted of an event of this type about a path (raw bytes) in a volume: the most that any rule
 * asks for. */
struct tw_content_wish tw_content_rules_match(struct tw_content_rules *rules,
	enum tw_event_type type, const char *volume, struct tw_bytes path);

/* The same for a file's digest: the shortest time, and the greatest size. */
struct tw_digest_wish tw_content_rules_digest(
	struct tw_content_rules *rules, const char *volume, struct tw_bytes path);
/* Whether any rule asks for content, and for digests. */
bool tw_content_rules_has_content(const struct tw_content_rules *rules);
bool tw_content_rules_has_digests(const struct tw_content_rules *rules);

#endif
