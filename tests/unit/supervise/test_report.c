/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "supervise/report.h"

static void a_status_line_is_taken(void **state)
{
	(void)state;
	struct tw_report report = { 0 };
	assert_true(tw_report_take(&report, "status crawling 0 4096"));
	assert_int_equal(report.state, TW_REPORT_CRAWLING);
	assert_true(tw_report_take(&report, "status live 12345678901 0"));
	assert_int_equal(report.state, TW_REPORT_LIVE);
	assert_true(report.events == 12345678901u && report.lag == 0);
	assert_false(tw_report_take(&report, "status live 12345678901 0"));
	assert_string_equal(tw_report_state_name(report.state), "live");
}

static void what_is_no_status_changes_nothing(void **state)
{
	static const char *const lines[] = { "", "status", "status live", "status live 1", "status live 1 2 3",
		"status live x 2", "status nonsense 1 2", "status failed 1 2", "status waiting 1 2", "error ",
		"status aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 1 2", "ready", "Status live 1 2" };
	(void)state;
	struct tw_report report = { .state = TW_REPORT_RESYNC, .events = 7, .lag = 8 };
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_false(tw_report_take(&report, lines[i]));
	assert_true(report.state == TW_REPORT_RESYNC && report.events == 7 && report.lag == 8);
}

static void an_error_fails_the_disk_until_it_gets_further_than_before(void **state)
{
	(void)state;
	struct tw_report report = { .state = TW_REPORT_STARTING };
	assert_true(tw_report_take(&report, "error /srv/a.img: No such file or directory"));
	assert_int_equal(report.state, TW_REPORT_FAILED);
	assert_false(tw_report_ended(&report, 66)); /* it has said why */
	assert_false(tw_report_take(&report, "status starting 0 0"));
	assert_int_equal(report.state, TW_REPORT_FAILED);
	assert_true(tw_report_take(&report, "status crawling 0 0"));
	assert_string_equal(report.error, "/srv/a.img: No such file or directory");
}

static void an_end_without_a_word_fails_it_too(void **state)
{
	(void)state;
	struct tw_report report = { .state = TW_REPORT_LIVE };
	assert_true(tw_report_ended(&report, 128 + 11));
	assert_string_equal(report.error, "the inspector was killed by signal 11");
	report.state = TW_REPORT_LIVE;
	assert_true(tw_report_ended(&report, 3));
	assert_string_equal(report.error, "the inspector ended with status 3");
}

static void a_remark_is_kept_beside_the_rest(void **state)
{
	(void)state;
	struct tw_report report = { .state = TW_REPORT_LIVE };
	assert_true(tw_report_take(&report, "remark encrypted (LUKS): not\twatched"));
	assert_string_equal(report.remark, "encrypted (LUKS): not?watched");
	assert_false(tw_report_take(&report, "remark encrypted (LUKS): not\twatched"));
	assert_true(report.state == TW_REPORT_LIVE && !*report.error);
	assert_true(tw_report_take(&report, "remark "));
	assert_string_equal(report.remark, "");
}

static void without_its_mirror_a_disk_has_failed(void **state)
{
	(void)state;
	const struct tw_report report = { .state = TW_REPORT_LIVE, .events = 7, .error = "earlier" };
	struct tw_report told = tw_report_with_trouble(&report, "the sink has died");
	assert_int_equal(told.state, TW_REPORT_FAILED);
	assert_string_equal(told.error, "the sink has died");
	assert_true(told.events == 7);
	told = tw_report_with_trouble(&report, NULL);
	assert_int_equal(told.state, TW_REPORT_LIVE);
	assert_string_equal(told.error, "earlier");
}

static void an_error_is_cut_and_made_printable(void **state)
{
	char line[2000] = "error \x1b[31m";
	(void)state;
	struct tw_report report = { 0 };
	memset(line + strlen(line), 'x', sizeof(line) - 1 - strlen(line));
	assert_true(tw_report_take(&report, line));
	assert_int_equal(strlen(report.error), sizeof(report.error) - 1);
	assert_int_equal(report.error[0], '?');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_status_line_is_taken),
		cmocka_unit_test(what_is_no_status_changes_nothing),
		cmocka_unit_test(an_error_fails_the_disk_until_it_gets_further_than_before),
		cmocka_unit_test(an_end_without_a_word_fails_it_too),
		cmocka_unit_test(a_remark_is_kept_beside_the_rest),
		cmocka_unit_test(without_its_mirror_a_disk_has_failed),
		cmocka_unit_test(an_error_is_cut_and_made_printable),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
