/* SPDX-License-Identifier: BSD-3-Clause */
/* Paths, asked for in any order while names come and go. */
#include "changes.h"

#include <stdio.h>

enum { FIRST = 11, DIRS = 40, FILES = 200, LAST = FIRST + DIRS + FILES, NAIVE_BYTES = 8192 };

struct tree {
	struct changes *c;
	struct dice dice;
	struct tw_name *names[LAST];
	unsigned made;
};

/* The path as it is found from the bottom, step by step. */
static bool naive_path(const struct tw_view *view, const struct tw_name *name, char *out)
{
	char text[NAIVE_BYTES] = "", longer[NAIVE_BYTES];
	while (name && strlen(text) < 2000) {
		int n = snprintf(longer, sizeof(longer), "/%.*s%s", name->len, name->bytes, text);
		assert_true(n < 4000);
		memcpy(text, longer, sizeof(text));
		uint32_t dir = tw_view_name_dir(view, name);
		if (dir == ROOT) {
			memcpy(out, text, sizeof(text));
			return true;
		}
		const struct tw_inode *inode = tw_view_inode(view, dir);
		name = inode ? tw_view_link(view, inode, 0) : NULL;
	}
	return false;
}

static void check_path(const struct tree *t, uint32_t ino)
{
	char want[NAIVE_BYTES];
	struct tw_buf got = TW_BUF_INIT;
	if (!t->names[ino])
		return;
	tw_buf_puts(&got, "before");
	bool known = naive_path(t->c->view, t->names[ino], want);
	bool found = tw_view_path(t->c->view, t->names[ino], &got);
	assert_true(found || !known);
	if (known) {
		assert_int_equal(got.len, 6 + strlen(want));
		assert_memory_equal(got.data + 6, want, strlen(want));
	}
	tw_buf_deinit(&got);
}

static uint32_t some_dir(struct tree *t)
{
	return roll(&t->dice, 8) ? FIRST + roll(&t->dice, DIRS) : ROOT;
}

static bool below(const struct tree *t, uint32_t dir, uint32_t ino)
{
	while (dir != ROOT && dir != ino && t->names[dir])
		dir = tw_view_name_dir(t->c->view, t->names[dir]);
	return dir == ino;
}

/* Gives an inode a name in some directory, which need not have one itself. */
static void move(struct tree *t, uint32_t ino)
{
	char name[64];
	uint32_t dir = some_dir(t);
	if (t->names[ino])
		tw_view_name_remove(t->c->view, t->names[ino]);
	t->names[ino] = NULL;
	if (below(t, dir, ino) || !roll(&t->dice, 5))
		return;
	snprintf(name, sizeof(name), "%u-%0*u", t->made++, (int)roll(&t->dice, 12) + 1, ino);
	t->names[ino] = put(t->c, dir, name, ino, ino < FIRST + DIRS ? DIR_MODE : FILE_MODE);
}

static void a_path_is_what_the_names_say_whatever_was_asked_before(void **state)
{
	struct tree t = { .c = *state, .dice = { 11 } };
	for (unsigned round = 0; round < 20000; round++) {
		move(&t, FIRST + roll(&t.dice, roll(&t.dice, 4) ? LAST - FIRST : DIRS));
		uint32_t ino = FIRST + roll(&t.dice, LAST - FIRST);
		check_path(&t, ino);
		check_path(&t, ino); /* as it is remembered */
		check_path(&t, FIRST + roll(&t.dice, DIRS));
	}
}

/* A path at the very limit is whole, a longer one cut; both when it is asked for again. */
static void the_longest_path_is_remembered_no_further_than_it_fits(void **state)
{
	struct changes *c = *state;
	char name[256];
	struct tw_buf out = TW_BUF_INIT;
	uint32_t dir = ROOT;
	memset(name, 'd', sizeof(name));
	name[255] = '\0';
	for (uint32_t ino = FIRST; ino < FIRST + 15; dir = ino++)
		put(c, dir, name, ino, DIR_MODE);
	for (unsigned len = 240; len < 256; len++) {
		name[len] = '\0';
		const struct tw_name *file = put(c, dir, name, 100 + len, FILE_MODE);
		size_t full = 15 * 256 + 1 + len;
		for (unsigned again = 0; again < 2; again++) {
			tw_buf_reset(&out);
			assert_true(tw_view_path(c->view, file, &out));
			assert_int_equal(out.data[0] == '/', full <= TW_PATH_MAX);
			assert_int_equal(out.len, full <= TW_PATH_MAX ? full : full - 256 - 1);
		}
		name[len] = 'd';
	}
	tw_buf_deinit(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHANGE_TEST(a_path_is_what_the_names_say_whatever_was_asked_before),
		CHANGE_TEST(the_longest_path_is_remembered_no_further_than_it_fits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
