/* SPDX-License-Identifier: BSD-3-Clause */
/* What is left of a changeset that was given up. */
#include "changes.h"

#include <stdio.h>

static void nothing_of_it_is_told(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	put(c, ROOT, "b", 12, FILE_MODE);
	touch(c, 11)->uid = 7;
	gone(c, ROOT, "b");
	come(c, ROOT, "c", 12);
	make(c, 13, FILE_MODE, 1);
	come(c, ROOT, "d", 13);
	touch_end(c);
	tw_changeset_abandon(c->set);
	expect(c, "");
	assert_int_equal(tw_view_attr(c->view, tw_view_inode(c->view, 11)).uid, 0);
	name_of(c, ROOT, "b");
}

static void ranges_wait_for_the_next_one(void **state)
{
	struct changes *c = *state;
	put(c, ROOT, "a", 11, FILE_MODE);
	set_size(c, 11, 1000);
	range(c, 11, 0, 10);
	range(c, 11, 100, 10);
	range(c, 11, 300, 10);
	tw_changeset_abandon(c->set);
	range(c, 11, 200, 10);
	expect(c, "modified /a 0+10 100+10 200+10 300+10\n");
}

/* More changes than a chunk has, begun again by the next one. */
static void it_can_be_used_again(void **state)
{
	struct changes *c = *state;
	char name[16];
	for (uint32_t ino = 11; ino < 700; ino++) {
		snprintf(name, sizeof(name), "f%u", ino);
		put(c, ROOT, name, ino, FILE_MODE);
	}
	for (unsigned round = 0; round < 3; round++) {
		for (uint32_t ino = 699; ino > 10; ino--)
			touch(c, ino)->gid = round + 1;
		touch_end(c);
		tw_changeset_abandon(c->set);
		touch(c, 500)->gid = round + 1;
		expect(c, "attributes /f500\n");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHANGE_TEST(nothing_of_it_is_told),
		CHANGE_TEST(ranges_wait_for_the_next_one),
		CHANGE_TEST(it_can_be_used_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
