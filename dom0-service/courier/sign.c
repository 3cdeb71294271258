/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/sign.h"

#include <inttypes.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define DIGEST_BYTES 32

/* HMAC over two pieces, so that the body is not copied behind its prefix. */
static bool hmac_sha256(const unsigned char *key, size_t key_len, const char *prefix, const void *body,
	size_t body_len, unsigned char digest[DIGEST_BYTES])
{
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(mac);
	char name[] = "SHA256";
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
		OSSL_PARAM_construct_end(),
	};
	size_t len = 0;
	bool good = ctx && EVP_MAC_init(ctx, key, key_len, params) &&
		EVP_MAC_update(ctx, (const unsigned char *)prefix, strlen(prefix)) &&
		EVP_MAC_update(ctx, body, body_len) &&
		EVP_MAC_final(ctx, digest, &len, DIGEST_BYTES) && len == DIGEST_BYTES;
	EVP_MAC_CTX_free(ctx);
	EVP_MAC_free(mac);
	return good;
}

struct tw_error *tw_sign(const unsigned char *key, size_t key_len, const char *id, int64_t timestamp,
	const void *body, size_t body_len, char out[TW_SIGNATURE_SIZE])
{
	char prefix[128];
	int len = snprintf(prefix, sizeof(prefix), "%s.%" PRId64 ".", id, timestamp);
	if (len < 0 || (size_t)len >= sizeof(prefix))
		return tw_error_create(TW_BAD_DATA, "webhook id of %zu bytes is too long", strlen(id));
	unsigned char digest[DIGEST_BYTES];
	if (!hmac_sha256(key, key_len, prefix, body, body_len, digest))
		return tw_error_create(TW_UNAVAILABLE, "libcrypto does not do HMAC-SHA256");
	memcpy(out, "v1,", 3);
	EVP_EncodeBlock((unsigned char *)out + 3, digest, DIGEST_BYTES);
	return NULL;
}
