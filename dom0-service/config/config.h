/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The INI file of tapwire (tapwire.conf(5)): sections [service], [spool], [target NAME], [disk NAME].
 * Parsing reads the file and the secret files that it names, and has no other effect. Every complaint is
 * one line, "FILE:LINE: what was found, what was expected".
 */
#ifndef TW_CONFIG_CONFIG_H
#define TW_CONFIG_CONFIG_H

#include "base/error.h"
#include "base/log.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One HTTP endpoint. Strings are owned by the config; optional ones are NULL when not given. */
struct tw_config_target {
	char *name;
	int line; /* of the section, 0 when made without a file */
	char *url;
	uint64_t events; /* bit 1 << enum tw_event_type for each type that is sent */
	uint64_t batch_events;
	uint64_t batch_bytes;
	uint64_t batch_delay_ms;
	uint64_t timeout_ms;
	uint64_t connect_timeout_ms;
	uint64_t retry_min_ms;
	uint64_t retry_max_ms;
	char *secret_file;
	unsigned char *secret; /* the decoded key of secret_file, NULL: batches are not signed */
	size_t secret_len;
	char *bearer_token_file;
	char *bearer_token;
	char **headers; /* "Name: value" */
	size_t nheaders;
	char *ca_file;
};

/* A disk that is watched without asking xenstore. */
struct tw_config_disk {
	char *name;
	int line;
	char *image;
	char *ring;
	char *domain; /* name, UUID or number, as given; NULL: the section's name */
	char *vdev;
};

struct tw_config {
	char *path; /* NULL when made without a file */
	char *state_dir;
	char *run_dir;
	enum tw_log_level log_level;
	uint64_t spool_max_bytes;
	struct tw_config_target *targets;
	size_t ntargets;
	struct tw_config_disk *disks;
	size_t ndisks;
};

/* Reads the file at path. The first mistake in it is a TW_CONFIG error; a file that cannot be read is
 * TW_CONFIG too ("PATH: No such file or directory, ..."). Warnings (a secret that anyone may read) are
 * logged. The caller owns *out. Not for two threads at a time: inih has settings, not contexts. */
struct tw_error *tw_config_load(const char *path, struct tw_config **out) TW_MUST_CHECK;

/* Takes one complaint: level is TW_LOG_ERROR or TW_LOG_WARN, text one line without its end. */
typedef void (*tw_config_report_fn)(void *arg, enum tw_log_level level, const char *text);

/* Reads the file at path as tw_config_load() does and hands every complaint to report, in the order of
 * the file. Returns the first error, or NULL when the file is fit for use. */
struct tw_error *tw_config_check(const char *path, tw_config_report_fn report, void *arg) TW_MUST_CHECK;

/* Makes a config without a file: the defaults and one target named "default" that gets everything at
 * once (batch_delay_ms 0). secret_file may be NULL. A bad URL or secret is TW_USAGE: it comes from a
 * command line. The caller owns *out. */
struct tw_error *tw_config_for_url(const char *url, const char *secret_file, struct tw_config **out)
	TW_MUST_CHECK;

/* Frees config and forgets its secrets; NULL is fine. */
void tw_config_destroy(struct tw_config *config);

/* A key that the parser knows, for documentation and the tests that hold it against the parser. */
struct tw_config_key {
	const char *section;  /* "service", "spool", "target" or "disk" */
	const char *name;
	const char *fallback; /* the default as one would write it; NULL: none */
	const char *expected; /* what a value looks like */
	bool required;
	bool repeatable;
};

/* Tells of the n-th key; false after the last. The strings are static. */
bool tw_config_key(size_t n, struct tw_config_key *out);

#endif
