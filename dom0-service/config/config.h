/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The INI file of tapwire (tapwire.conf(5)): sections [service], [spool], [target NAME],
 * [disk NAME], [guest NAME].
 * Parsing reads the file and the secret files that it names, and has no other effect. Every complaint is
 * one line, "FILE:LINE: what was found, what was expected".
 */
#ifndef TW_CONFIG_CONFIG_H
#define TW_CONFIG_CONFIG_H

#include "base/error.h"
#include "base/log.h"
#include "event/event.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tw_config_list {
	char **items;
	size_t n;
};

struct tw_config_secret {
	unsigned char *key;
	size_t len;
};

enum tw_http_version { TW_HTTP_AUTO, TW_HTTP_1_1, TW_HTTP_2, TW_HTTP_2_DIRECT };
enum tw_format {
	TW_FORMAT_CLOUDEVENTS,
	TW_FORMAT_NDJSON,
	TW_FORMAT_ELASTICSEARCH,
	TW_FORMAT_CLICKHOUSE,
	TW_FORMAT_LOKI,
	TW_FORMAT_SPLUNK_HEC
};
enum tw_compression { TW_COMPRESSION_NONE, TW_COMPRESSION_GZIP, TW_COMPRESSION_ZSTD };

/* Of content in an event, as base64 and with all else, less than a frame takes (link/frame.h). */
#define TW_CONTENT_MAX_BYTES (4u << 20)

/* How long a file may have to be quiet before its digest is told. */
#define TW_SHA256_QUIET_MAX_MS 86400000

/* One HTTP endpoint. Strings are owned by the config; optional ones are NULL when not given. */
struct tw_config_target {
	char *name;
	int line; /* of the section, 0 when made without a file */
	char *url;
	bool follow_redirects;
	enum tw_format format;
	char *index; /* of Elasticsearch or Splunk */
	char *table; /* of ClickHouse */
	uint64_t events; /* bit 1 << enum tw_event_type for each type that is sent */
	struct tw_config_list domains; /* patterns (base/glob.h), "!" before those that exclude */
	struct tw_config_list volumes;
	struct tw_config_list paths;
	enum tw_content_mode content; /* that its events carry */
	uint64_t content_max;	      /* bytes an event */
	bool sha256;		      /* of files that have been quiet */
	uint64_t sha256_quiet_ms;     /* for so long */
	uint64_t sha256_max;	      /* bytes a file */
	uint64_t batch_events;
	uint64_t batch_bytes;
	uint64_t batch_delay_ms;
	uint64_t concurrency;
	uint64_t timeout_ms;
	uint64_t connect_timeout_ms;
	uint64_t retry_min_ms;
	uint64_t retry_max_ms;
	uint64_t max_age_ms; /* of its backlog; 0: no limit */
	uint64_t max_bytes;
	struct tw_config_secret *secrets; /* the decoded keys of the secret_files; none: not signed */
	size_t nsecrets;
	char *bearer_token;
	char *basic_auth; /* "user:password" */
	struct tw_config_list headers; /* "Name: value" */
	char *ca_file;
	char *client_cert_file;
	char *client_key_file;
	int tls_min; /* 12 or 13 */
	char *pinned_key; /* as libcurl wants to have it */
	char *proxy;
	char *proxy_auth;
	char *interface;
	enum tw_http_version http_version;
	enum tw_compression compression;
};

/* A disk that is watched without asking xenstore. */
struct tw_config_disk {
	char *name;
	int line;
	char *image;
	char *ring;
	char *domain; /* name, UUID or number, as given; NULL: the section's name */
	char *vdev;
	char *tapdisk; /* "PID:MINOR" or "auto": the unmodified tapdisk to mirror; NULL: none */
};

/* Whether xenstore is asked for guests. AUTO: where there is one. */
enum tw_config_xenstore { TW_XENSTORE_AUTO, TW_XENSTORE_ON, TW_XENSTORE_OFF };

/* What becomes of the disks of some guests that xenstore tells of. The first section that matches a disk counts. */
struct tw_config_guest {
	char *name;
	int line;
	char *domain;        /* names, UUIDs or globs of them, with commas between */
	char *vdev;          /* the same of devices */
	bool watch;
	bool attach;         /* put a mirror under the unmodified tapdisk that serves the disk */
	uint64_t memory_max; /* bytes that an inspector may have, 0: no limit */
	uint64_t nice;       /* its nice value, 0 to 19 */
};

struct tw_config {
	char *path; /* NULL when made without a file */
	char *state_dir;
	char *run_dir;
	enum tw_log_level log_level;
	enum tw_config_xenstore xenstore;
	char *ring_dir; /* of the rings of guests' disks */
	char *tap_ctl;            /* the program, for mirrors */
	uint64_t mirror_stall_ms; /* what a guest's write may wait for a sink */
	uint64_t mirror_tries;    /* failures in a row until a mirror is given up */
	uint64_t spool_max_bytes;
	uint64_t spool_keep_ms;
	struct tw_config_target *targets;
	size_t ntargets;
	struct tw_config_disk *disks;
	size_t ndisks;
	struct tw_config_guest *guests;
	size_t nguests;
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

/* The section that says what becomes of a disk of a guest, NULL: none does. uuid is in lower case. */
const struct tw_config_guest *tw_config_match(const struct tw_config *config, const char *domain_name,
	const char *uuid, const char *vdev);

/* Frees config and forgets its secrets; NULL is fine. */
void tw_config_destroy(struct tw_config *config);

/* A key that the parser knows, for documentation and the tests that hold it against the parser. */
struct tw_config_key {
	const char *section;  /* "service", "spool", "target", "disk" or "guest" */
	const char *name;
	const char *fallback; /* the default as one would write it; NULL: none */
	const char *expected; /* what a value looks like */
	bool required;
	bool repeatable;
};

/* Tells of the n-th key; false after the last. The strings are static. */
bool tw_config_key(size_t n, struct tw_config_key *out);

#endif
