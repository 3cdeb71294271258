/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "config/value.h"
#include "courier/sign.h"

#define SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

static void expect_signature(const char *id, int64_t timestamp, const char *body, const char *want)
{
	unsigned char *key = NULL;
	size_t len = 0;
	assert_true(tw_value_secret(SECRET, &key, &len));
	char out[TW_SIGNATURE_SIZE];
	assert_null(tw_sign(key, len, id, timestamp, body, strlen(body), out));
	assert_string_equal(out, want);
	free(key);
}

/* The example of the Standard Webhooks reference libraries. */
static void the_reference_vector_comes_out(void **state)
{
	(void)state;
	expect_signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, "{\"test\": 2432232314}",
		"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

/* openssl dgst -sha256 -mac HMAC -macopt hexkey:... over "msg_1.0." */
static void an_empty_body_is_signed_too(void **state)
{
	(void)state;
	expect_signature("msg_1", 0, "", "v1,ij2G0S51rXTp+PMwqJOjeWFLEpktT32X6cQ9P08rbws=");
}

static void an_id_that_does_not_fit_is_an_error(void **state)
{
	(void)state;
	char id[200];
	memset(id, 'a', sizeof(id) - 1);
	id[sizeof(id) - 1] = '\0';
	char out[TW_SIGNATURE_SIZE];
	struct tw_error *err = tw_sign((const unsigned char *)"k", 1, id, 0, "", 0, out);
	assert_non_null(err);
	tw_error_destroy(err);
}

static void secrets_are_taken_as_the_specification_says(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t len;
	} cases[] = {
		{ SECRET, 24 },
		{ "whsec_" "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 32 },
		{ "whsec_" "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", 31 },
		{ "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 0 },
		{ "whsec_", 0 },
		{ "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", 0 },
		{ "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa=w", 0 },
		{ "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa w", 0 },
		{ "whsec_MfKQ9r8GKYqrTwjUPD8ILPZI", 0 }, /* 18 bytes */
		{ "whsec_====", 0 },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned char *key = NULL;
		size_t len = 0;
		assert_int_equal(tw_value_secret(cases[i].text, &key, &len), cases[i].len != 0);
		assert_int_equal(len, cases[i].len);
		free(key);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_reference_vector_comes_out),
		cmocka_unit_test(an_empty_body_is_signed_too),
		cmocka_unit_test(an_id_that_does_not_fit_is_an_error),
		cmocka_unit_test(secrets_are_taken_as_the_specification_says),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
