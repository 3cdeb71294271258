/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "courier/fields.h"

static void expect(const struct tw_value *value, const char *want)
{
	struct tw_buf text = TW_BUF_INIT;
	tw_value_text(value, &text);
	assert_int_equal(text.len, strlen(want));
	assert_memory_equal(text.data ? text.data : "", want, text.len);
	tw_buf_deinit(&text);
}

static void fields_are_found_at_their_place(void **state)
{
	(void)state;
	static const char body[] =
		"{\"a\":{\"subject\":\"no\",\"x\":[\"}\",{\"id\":\"no\"}]}, \"id\" : \"e-7\" ,\"source\":\"/x/y\","
		"\"subject\":\"/\\u00e4\\ud83d\\ude00\\\\\\n\","
		"\"data\":{\"path_b64\":\"/w==\",\"n\":-1.5e3,\"old_path\":\"/old\","
		"\"domain\":{\"id\":3,\"name\":\"web1\",\"uuid\":\"u\"}},\"observedtime\":\"t\"}";
	struct tw_fields fields;
	tw_fields_get(body, sizeof(body) - 1, &fields);
	expect(&fields.id, "e-7");
	expect(&fields.source, "/x/y");
	expect(&fields.subject, "/\xc3\xa4\xf0\x9f\x98\x80\\\n");
	expect(&fields.old_path, "/old");
	expect(&fields.domain_name, "web1");
	expect(&fields.domain_uuid, "u");
	expect(&fields.observed, "t");
	assert_memory_equal(fields.domain_id.at, "3}", 1);
	assert_int_equal(fields.domain_id.len, 1);
	assert_null(fields.time.at);
	struct tw_buf raw = TW_BUF_INIT;
	tw_value_base64(&fields.path_b64, &raw);
	assert_int_equal(raw.len, 1);
	assert_memory_equal(raw.data, "\xff", 1);
	tw_buf_deinit(&raw);
}

/* What is no JSON does not come here; it harms nobody all the same. */
static void every_beginning_of_a_body_is_survived(void **state)
{
	(void)state;
	static const char body[] = "{\"id\":\"a\\u00e4\\\\\","
		"\"data\":{\"domain\":{\"name\":\"\\ud83d\\ude00\"},\"x\":[[1,2],{}]}}";
	for (size_t len = 0; len < sizeof(body); len++) {
		struct tw_fields fields;
		struct tw_buf text = TW_BUF_INIT;
		char copy[sizeof(body)];
		memcpy(copy, body, len);
		tw_fields_get(copy, len, &fields);
		tw_value_text(&fields.id, &text);
		tw_value_text(&fields.domain_name, &text);
		tw_buf_deinit(&text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_found_at_their_place),
		cmocka_unit_test(every_beginning_of_a_body_is_survived),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
