/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "xenstore/schema.h"

#include <stdio.h>

static const struct tw_xs_ids some = {
	.self = 2, .domid = 17, .devid = 51712, .kind = "vbd3", .uuid = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
};

static void a_path_has_the_ids_in_it(void **state)
{
	char path[TW_XS_PATH_MAX];
	(void)state;
	tw_xs_path(TW_XS_DISK_STATE, &some, path);
	assert_string_equal(path, "/local/domain/2/backend/vbd3/17/51712/tapwire/state");
	tw_xs_path(TW_XS_VM_NAME, &some, path);
	assert_string_equal(path, "/vm/6f9619ff-8b86-d011-b42d-00cf4fc964ff/name");
	tw_xs_path(TW_XS_INTRODUCE, &some, path);
	assert_string_equal(path, "@introduceDomain");
	tw_xs_path(TW_XS_GUEST_NAME, &some, path);
	assert_string_equal(path, "/local/domain/17/name");
}

static void every_path_is_recognised_with_its_ids(void **state)
{
	(void)state;
	for (int key = 0; key < TW_XS_END; key++) {
		char path[TW_XS_PATH_MAX];
		char again[TW_XS_PATH_MAX];
		struct tw_xs_ids ids = { .self = some.self };
		tw_xs_path((enum tw_xs_key)key, &some, path);
		assert_true(tw_xs_below((enum tw_xs_key)key, path, &ids));
		tw_xs_path((enum tw_xs_key)key, &ids, again);
		assert_string_equal(again, path);
	}
}

static void the_service_tells_of_itself_where_it_may_write(void **state)
{
	struct tw_xs_ids dom0 = { .self = 0 }, other = { .self = 2 };
	char path[TW_XS_PATH_MAX];
	(void)state;
	tw_xs_path(TW_XS_SERVICE_PID, &dom0, path);
	assert_string_equal(path, "/local/domain/0/tapwire/pid");
	tw_xs_path(TW_XS_SERVICE_PID, &other, path);
	assert_string_equal(path, "/local/domain/2/data/tapwire/pid");
	assert_true(tw_xs_below(TW_XS_SERVICE, "/local/domain/2/data/tapwire/x", &other));
	assert_false(tw_xs_below(TW_XS_SERVICE, "/local/domain/2/tapwire/x", &other));
	assert_false(tw_xs_below(TW_XS_SERVICE, "/local/domain/2/data", &other));
	assert_false(tw_xs_below(TW_XS_SERVICE, "/local/domain/0/data/tapwire", &dom0));
}

static void what_lies_below_is_recognised_and_what_lies_beside_is_not(void **state)
{
	struct tw_xs_ids ids = { .self = 0 };
	(void)state;
	assert_true(tw_xs_below(TW_XS_GUEST_DISKS, "/local/domain/0/backend/vbd/5/51712/state", &ids));
	assert_int_equal(ids.domid, 5);
	assert_string_equal(ids.kind, "vbd");
	assert_true(tw_xs_below(TW_XS_DISK_OURS, "/local/domain/0/backend/qdisk/5/1/tapwire/x/y", &ids));
	assert_false(tw_xs_below(TW_XS_DISK_OURS, "/local/domain/0/backend/qdisk/5/1/tapwired", &ids));
	assert_false(tw_xs_below(TW_XS_DISK_OURS, "/local/domain/0/backend/qdisk/5/1", &ids));
	assert_false(tw_xs_below(TW_XS_GUEST_DISKS, "/local/domain/1/backend/vbd/5", &ids)); /* another's */
	assert_false(tw_xs_below(TW_XS_GUEST_DISKS, "/local/domain/0/backend/vif/5", &ids));
	assert_false(tw_xs_below(TW_XS_GUEST_DISKS, "/local/domain/0/backend/vbd/", &ids));
}

static void numbers_in_paths_are_digits_in_range(void **state)
{
	static const char *const bad[] = { "-1", "+1", "1x", " 1", "01", "32752", "4294967301", "99999999999999999999",
		"" };
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char path[128];
		struct tw_xs_ids ids = { .self = 0 };
		snprintf(path, sizeof(path), "/local/domain/0/backend/vbd/%s/1", bad[i]);
		assert_false(tw_xs_below(TW_XS_DISK, path, &ids));
	}
}

static bool fits(enum tw_xs_key key, const char *value)
{
	return tw_xs_fits(key, value, strlen(value));
}

static void a_value_fits_its_type_or_not(void **state)
{
	(void)state;
	assert_true(fits(TW_XS_DISK_MODE, "w") && fits(TW_XS_DISK_MODE, "r"));
	assert_false(fits(TW_XS_DISK_MODE, "") || fits(TW_XS_DISK_MODE, "w|r") || fits(TW_XS_DISK_MODE, "rw"));
	assert_true(fits(TW_XS_DISK_STATE, "resync"));
	assert_false(fits(TW_XS_DISK_STATE, "resy"));
	assert_true(fits(TW_XS_DISK_EVENTS, "0") && fits(TW_XS_DISK_EVENTS, "18446744073709551615"));
	assert_false(fits(TW_XS_DISK_EVENTS, "") || fits(TW_XS_DISK_EVENTS, "-1") || fits(TW_XS_DISK_EVENTS, "1 "));
	assert_true(fits(TW_XS_DISK_PARAMS, "aio:/srv/a disk \"1\".img"));
	assert_true(fits(TW_XS_DISK_PARAMS, "aio:/srv/\xc3\xa4.img"));
	assert_false(fits(TW_XS_DISK_PARAMS, "aio:/srv/a\nb") || fits(TW_XS_DISK_PARAMS, ""));
	assert_false(tw_xs_fits(TW_XS_DISK_PARAMS, "aio:\0/etc/x", 11));
	assert_true(fits(TW_XS_DISK_VDEV, "xvda"));
	assert_false(fits(TW_XS_DISK_VDEV, "xv da"));
	assert_true(fits(TW_XS_DISK_RING, "/run/a ring"));
	assert_false(fits(TW_XS_DISK_RING, "run/ring"));
	assert_true(fits(TW_XS_GUEST_VM, "/vm/6F9619FF-8b86-d011-b42d-00cf4fc964ff"));
	assert_true(fits(TW_XS_GUEST_VM, "/vm/6f9619ff-8b86-d011-b42d-00cf4fc964ff-1"));
	assert_false(fits(TW_XS_GUEST_VM, "/vm/6f9619ff-8b86-d011-b42d-00cf4fc964f"));
	assert_false(fits(TW_XS_GUEST_VM, "/vm/6f9619ff-8b86-d011-b42d-00cf4fc964fg"));
}

static void a_uuid_is_read_in_lower_case(void **state)
{
	char uuid[TW_XS_UUID_MAX];
	(void)state;
	assert_true(tw_xs_read_uuid("6F9619FF-8B86-D011-B42D-00CF4FC964FF", uuid));
	assert_string_equal(uuid, "6f9619ff-8b86-d011-b42d-00cf4fc964ff");
	assert_false(tw_xs_read_uuid("6F9619FF8B86-D011-B42D-00CF4FC964FF0", uuid));
	assert_false(tw_xs_read_uuid("", uuid));
}

static void children_are_told_from_grandchildren(void **state)
{
	(void)state;
	assert_true(tw_xs_is_child(TW_XS_DISK_OURS, TW_XS_DISK));
	assert_true(tw_xs_is_child(TW_XS_DISK_STATE, TW_XS_DISK_OURS));
	assert_false(tw_xs_is_child(TW_XS_DISK_STATE, TW_XS_DISK));
	assert_false(tw_xs_is_child(TW_XS_DISK, TW_XS_DISK));
	assert_string_equal(tw_xs_name(TW_XS_DISK_STATE), "state");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_path_has_the_ids_in_it),
		cmocka_unit_test(every_path_is_recognised_with_its_ids),
		cmocka_unit_test(the_service_tells_of_itself_where_it_may_write),
		cmocka_unit_test(what_lies_below_is_recognised_and_what_lies_beside_is_not),
		cmocka_unit_test(numbers_in_paths_are_digits_in_range),
		cmocka_unit_test(a_value_fits_its_type_or_not),
		cmocka_unit_test(a_uuid_is_read_in_lower_case),
		cmocka_unit_test(children_are_told_from_grandchildren),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
