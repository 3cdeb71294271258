/* SPDX-License-Identifier: BSD-3-Clause */
/* The signature of the Standard Webhooks specification 1.0: "v1," and the base64 of HMAC-SHA256 over
 * "id.timestamp.body". */
#ifndef TW_COURIER_SIGN_H
#define TW_COURIER_SIGN_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

#define TW_SIGNATURE_SIZE 48 /* with its NUL: 3 + 44 + 1 */

/* Writes the signature as a string into out. id holds no dot; timestamp is in seconds since the epoch. */
struct tw_error *tw_sign(const unsigned char *key, size_t key_len, const char *id, int64_t timestamp,
	const void *body, size_t body_len, char out[TW_SIGNATURE_SIZE]) TW_MUST_CHECK;

#endif
