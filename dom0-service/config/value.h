/* SPDX-License-Identifier: BSD-3-Clause */
/* The values of the INI file, one function a kind. Each returns false when the text is not such a value. */
#ifndef TW_CONFIG_VALUE_H
#define TW_CONFIG_VALUE_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A number of bytes: digits and K, M, G or T (powers of 1024; "KiB", "k" and "KB" mean the same). */
bool tw_value_bytes(const char *text, uint64_t *out);
/* Milliseconds: digits and ms (the default), s, min or h; at most a day. */
bool tw_value_ms(const char *text, uint64_t *out);
/* Milliseconds: digits and s, min, h or d; at most ten years. 0 needs no unit. */
bool tw_value_age(const char *text, uint64_t *out);
/* A number from 1 to 1,000,000. */
bool tw_value_count(const char *text, uint64_t *out);
/* A number from 0 to 19. */
bool tw_value_nice(const char *text, uint64_t *out);
/* "auto", or a tapdisk as PID:MINOR. */
bool tw_value_tapdisk(const char *text);
/* A comma-separated list of event types without "org.tapwire.", or globs of them, as bits. A name that
 * matches no type makes the list wrong. */
bool tw_value_events(const char *text, uint64_t *out);
/* Whether a name is in a comma-separated list of names and globs. */
bool tw_value_matches(const char *list, const char *name);
/* An http or https URL with a host. */
bool tw_value_url(const char *text);
/* "Name: value" that may be added to a request: a token, printable text, not a header that the courier
 * sets itself. */
bool tw_value_header(const char *text);

/* A pattern of base/glob.h, with or without "!" before it. */
bool tw_value_pattern(const char *text);
/* Letters, digits and what is in more; at least one, at most 200. */
bool tw_value_name(const char *text, const char *more);
/* The URL of a proxy that libcurl knows. */
bool tw_value_proxy(const char *text);
/* Digests of public keys, as libcurl wants to have them. */
bool tw_value_pin(const char *text);
/* Puts the value of the environment variable NAME for ${env:NAME} and the first line of a file for ${file:PATH};
 * *out is the caller's, NULL when there is nothing of that kind in text. TW_CONFIG. */
struct tw_error *tw_value_expand(const char *text, char **out) TW_MUST_CHECK;

/* Reads the first line of the file at path (at most 64 KiB), without the white space around it. An empty one
 * is an error. The caller frees *out. *world_readable tells whether anyone may read the file. */
struct tw_error *tw_value_read_file(const char *path, char **out, bool *world_readable) TW_MUST_CHECK;
/* Decodes a Standard Webhooks secret: "whsec_" and the base64 of 24 to 64 bytes. The caller frees *key. */
bool tw_value_secret(const char *text, unsigned char **key, size_t *len);

#endif
