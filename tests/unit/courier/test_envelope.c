/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "courier/envelope.h"

#define SOURCE "/xen/host/uuid/xvda"
#define ID "\"id\":\"epoch-7\""

static void expect(const char *body, size_t len, bool good)
{
	const struct tw_envelope envelope = { .source = SOURCE, .epoch = "epoch", .sequence = 7 };
	struct tw_error *err = tw_envelope_check(body, len, &envelope);
	if (!err != good)
		fail_msg("%s: %s", body, err ? tw_error_message(err) : "taken");
	tw_error_destroy(err);
}

static void objects_of_the_disk_are_taken(void **state)
{
	(void)state;
	static const char *const bodies[] = {
		"{" ID ",\"source\":\"" SOURCE "\"}",
		"{" ID ",\"source\":\"" SOURCE "/volume\",\"data\":{\"a\":[1,2,{\"source\":\"/x\"}]}}",
		"{ " ID ", \"data\" : null , \"source\" : \"" SOURCE "\" }",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":[true,false,null,-0.5e+7,0,\"\\u00e9\\ud83d\\ude00\\n\"]}",
		"{" ID ",\"source\":\"" SOURCE "\",\"subject\":\"/\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80/0123456789\"}",
	};
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
		expect(bodies[i], strlen(bodies[i]), true);
}

static void what_would_spoil_a_batch_is_refused(void **state)
{
	(void)state;
	static const char *const bodies[] = {
		"",
		"{}",
		"[]",
		"{",
		"}",
		"null",
		"{" ID ",\"source\":\"" SOURCE "\"},{\"source\":\"" SOURCE "\"}",
		"{" ID ",\"source\":\"" SOURCE "\"}{}",
		"{" ID ",\"source\":\"" SOURCE "\"} {}",
		"{" ID ",\"source\":\"" SOURCE "\",}",
		"{" ID ",\"source\":\"" SOURCE "\"}]",
		"{" ID ",\"source\":\"" SOURCE "\" /* */}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":\"\xff\"}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":\"\n\"}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":NaN}",
		"{" ID ",\"source\":\"\\/xen\\/host\\/uuid\\/xvda\"}", /* it is never written so */
		"{" ID ",\"source\":\"" SOURCE "\",\"\\u0069d\":\"epoch-8\"}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":\"\\ud83d\"}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":\"\\ude00\\ud83d\"}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":\"\\x\"}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":01}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":1.}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":.5}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":-}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":1e}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":tru}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":\"\xed\xa0\x80\"}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":\"\xc0\xaf\"}",
		"{" ID ",\"source\":\"" SOURCE "\",\"a\":\"\xf4\x90\x80\x80\"}",
		"{" ID ",\"source\":[\"" SOURCE "\"]}",
		"{" ID ",\"source\":7}",
		"{" ID ",\"source\":\"/xen/host/uuid/xvdb\"}",
		"{" ID ",\"source\":\"" SOURCE "b\"}",
		"{" ID ",\"source\":\"" SOURCE "\",\"source\":\"/xen/host/other/xvda\"}",
		"{" ID ",\"data\":{\"source\":\"" SOURCE "\"}}",
		"{\"source\":\"" SOURCE "\"}",
		"{\"id\":7,\"source\":\"" SOURCE "\"}",
		"{\"id\":\"epoch-8\",\"source\":\"" SOURCE "\"}",
		"{\"id\":\"other-7\",\"source\":\"" SOURCE "\"}",
		"{\"id\":\"epoch-77\",\"source\":\"" SOURCE "\"}",
		"{" ID "," ID ",\"source\":\"" SOURCE "\"}",
	};
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
		expect(bodies[i], strlen(bodies[i]), false);
	static const char nul[] = "{" ID ",\"source\":\"" SOURCE "\",\"a\":\"\0\"}";
	expect(nul, sizeof(nul) - 1, false);
}

static void nesting_without_end_harms_nobody(void **state)
{
	(void)state;
	static char body[1 << 20];
	memset(body, '[', sizeof(body));
	body[0] = '{';
	body[sizeof(body) - 1] = '}';
	expect(body, sizeof(body), false);
	memcpy(body, "{\"a\":", 5);
	expect(body, sizeof(body), false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_of_the_disk_are_taken),
		cmocka_unit_test(what_would_spoil_a_batch_is_refused),
		cmocka_unit_test(nesting_without_end_harms_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
