/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "courier/limit.h"

static void a_target_that_keeps_up_gets_all_that_it_may(void **state)
{
	(void)state;
	struct tw_limit limit;
	tw_limit_init(&limit, 8);
	assert_int_equal(tw_limit_get(&limit), 1);
	for (int i = 0; i < 200; i++)
		tw_limit_answer(&limit, (uint64_t)i * 10, 10, false);
	assert_int_equal(tw_limit_get(&limit), 8);
}

static void a_trouble_counts_once(void **state)
{
	(void)state;
	struct tw_limit limit;
	tw_limit_init(&limit, 8);
	for (int i = 0; i < 200; i++)
		tw_limit_answer(&limit, (uint64_t)i * 10, 10, false);
	for (int i = 0; i < 8; i++) /* all that were under way */
		tw_limit_answer(&limit, 3000, 10, true);
	assert_int_equal(tw_limit_get(&limit), 5);
	for (int i = 0; i < 50; i++)
		tw_limit_answer(&limit, 4000 + (uint64_t)i * 20, 10, true);
	assert_int_equal(tw_limit_get(&limit), 1);
}

/* A queue of fixed speed: each request more makes all of them slower. */
static void a_target_with_a_queue_is_not_filled(void **state)
{
	(void)state;
	struct tw_limit limit;
	tw_limit_init(&limit, 64);
	uint64_t now = 0;
	for (int i = 0; i < 2000; i++) {
		unsigned int under_way = tw_limit_get(&limit);
		uint64_t took = under_way <= 4 ? 20 : 20 * under_way / 4;
		now += took;
		tw_limit_answer(&limit, now, took, false);
	}
	assert_in_range(tw_limit_get(&limit), 3, 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_target_that_keeps_up_gets_all_that_it_may),
		cmocka_unit_test(a_trouble_counts_once),
		cmocka_unit_test(a_target_with_a_queue_is_not_filled),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
