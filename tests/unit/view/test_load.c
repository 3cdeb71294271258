/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "base/parallel.h"
#include "view/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A volume of directories 100 .. 139 with files that have their names anywhere, some several. */
#define ROOT 2u
#define FIRST_DIR 100u
#define DIRS 40u
#define FIRST_FILE 1000u
#define FILES 3000u
#define BLOCKS 200000u
#define MAX_THREADS 4u

struct plan {
	struct tw_view *view;
	struct tw_load *load;
	unsigned nthreads;
};

static struct tw_attr attr_of(uint32_t ino)
{
	return (struct tw_attr){ .mode = ino < FIRST_FILE ? S_IFDIR | 0755 : S_IFREG | 0644,
		.size = ino, .uid = ino % 50, .xattrs = ino % 7, .nlink = 1, .mtime = { ino, 5 } };
}

static struct tw_error *load_inodes(void *arg, unsigned i)
{
	struct plan *p = arg;
	struct tw_loader *loader = tw_load_thread(p->load, i);
	for (uint32_t ino = ROOT; ino < FIRST_FILE + FILES; ino++) {
		bool there = ino == ROOT || (ino >= FIRST_DIR && ino < FIRST_DIR + DIRS) ||
			     ino >= FIRST_FILE;
		const struct tw_extent extents[] = { { ino * 40ul, 0, ino % 9 + 1, false },
			{ ino * 40ul + 15, 50, 3, true } };
		struct tw_attr attr = attr_of(ino);
		enum tw_owner_kind kind = S_ISDIR(attr.mode) ? TW_OWNER_DIR : TW_OWNER_DATA;
		if (there && ino % p->nthreads == i)
			TW_TRY(tw_loader_inode(loader, ino, &attr, extents, ino % 3, kind));
	}
	tw_loader_rest(loader);
	return NULL;
}

static struct tw_error *load_owners(void *arg, unsigned i)
{
	const struct plan *p = arg;
	return tw_load_owners(p->load, i);
}

/* What stands in block b of a directory; a file may stand in several. */
static uint32_t file_at(uint32_t dir, uint32_t b, uint32_t k)
{
	return FIRST_FILE + (dir * 7919 + b * 104729 + k * 31) % FILES;
}

static struct tw_error *load_names(void *arg, unsigned i)
{
	struct plan *p = arg;
	struct tw_loader *loader = tw_load_thread(p->load, i);
	for (uint32_t d = 0; d < DIRS; d++) {
		char names[60][16];
		if (d % p->nthreads != i)
			continue;
		TW_TRY(tw_loader_dir(loader, tw_view_inode(p->view, FIRST_DIR + d)));
		for (uint32_t b = 0; b < 5; b++) {
			/* In no order, and one without names. */
			tw_loader_dirblock(loader, (b * 7 + d) % 11 + d * 100);
			for (uint32_t k = 0; b != 3 && k < 60; k++) {
				int len = snprintf(names[k], sizeof(names[k]), "%u-%u", b, k);
				TW_TRY(tw_loader_name(
					loader, file_at(d, b, k), names[k], (uint8_t)len));
			}
			TW_TRY(tw_loader_dirblock_end(loader));
		}
		TW_TRY(tw_loader_dir_end(loader));
	}
	return NULL;
}

static struct tw_view *loaded(unsigned nthreads)
{
	struct plan p = { .nthreads = nthreads };
	ok(tw_view_create(FIRST_FILE + FILES, ROOT, BLOCKS, 12, &p.view));
	ok(tw_load_begin(p.view, nthreads, &p.load));
	ok(tw_parallel(nthreads, load_inodes, &p));
	ok(tw_parallel(nthreads, load_owners, &p));
	ok(tw_parallel(nthreads, load_names, &p));
	ok(tw_load_end(p.load));
	return p.view;
}

static void put_names(struct tw_view *view, const struct tw_inode *inode, struct tw_buf *out)
{
	const struct tw_name *name;
	for (uint32_t i = 0; (name = tw_view_link(view, inode, i)); i++)
		tw_buf_printf(out, " %u/%llu/%.*s", tw_view_name_dir(view, name),
			(unsigned long long)tw_view_name_block(view, name), name->len,
			(const char *)name->bytes);
	for (uint32_t b = 0; b < tw_inode_nblocks(inode); b++)
		tw_buf_printf(out, " [%llu]",
			(unsigned long long)tw_view_dirblock_at(view, inode, b)->block);
}

static void put_all(struct tw_view *view, struct tw_buf *out)
{
	struct tw_owner o;
	const struct tw_inode *inode = tw_view_inode_next(view, 1);
	for (; inode; inode = tw_view_inode_next(view, inode->ino + 1)) {
		struct tw_attr attr = tw_view_attr(view, inode);
		tw_buf_printf(out, "%u %o %llu %u %llu %lld %u:", inode->ino, attr.mode,
			(unsigned long long)attr.size, attr.uid, (unsigned long long)attr.xattrs,
			(long long)attr.mtime.sec, tw_inode_nentries(inode));
		put_names(view, inode, out);
		tw_buf_puts(out, "\n");
	}
	for (uint64_t at = 0; tw_owners_find(tw_view_owners(view), at, UINT64_MAX, &o);
		at = o.block + o.count)
		tw_buf_printf(out, "%llu+%u %u %u %d\n", (unsigned long long)o.block, o.count, o.ino,
			o.lblk, o.kind);
	tw_buf_printf(out, "%llu %llu", (unsigned long long)tw_view_inode_count(view),
		(unsigned long long)tw_view_name_count(view));
	tw_buf_append(out, "", 1);
}

static void any_number_of_threads_makes_the_same_view(void **state)
{
	(void)state;
	struct tw_buf one = TW_BUF_INIT, many = TW_BUF_INIT;
	struct tw_view *view = loaded(1);
	put_all(view, &one);
	assert_true(one.len > 100000);
	assert_int_equal(tw_view_name_count(view), DIRS * 4 * 60);
	tw_view_destroy(view);
	for (unsigned round = 0; round < 20; round++) {
		view = loaded(2 + round % (MAX_THREADS - 1));
		put_all(view, &many);
		assert_string_equal(one.data, many.data);
		tw_view_destroy(view);
		tw_buf_reset(&many);
	}
	tw_buf_deinit(&one);
	tw_buf_deinit(&many);
}

static void a_loaded_view_goes_on_as_any_other(void **state)
{
	(void)state;
	struct tw_view *view = loaded(2);
	struct tw_name *name;
	/* What inodes share is counted: when all have gone, nobody has it. */
	for (uint32_t ino = FIRST_FILE; ino < FIRST_FILE + FILES; ino++) {
		struct tw_inode *inode = tw_view_inode(view, ino);
		while ((name = tw_view_link(view, inode, 0)))
			tw_view_name_remove(view, name);
		tw_view_inode_drop(view, ino);
	}
	assert_int_equal(tw_view_name_count(view), 0);
	assert_int_equal(tw_view_inode_count(view), DIRS + 1);
	for (uint32_t i = 0; i < 20000; i++) {
		char text[8];
		int len = snprintf(text, sizeof(text), "%u", i);
		ok(tw_view_name_add(view, FIRST_DIR + i % DIRS, i % 500, FIRST_FILE + i % FILES, text,
			(uint8_t)len, &name));
	}
	assert_int_equal(tw_inode_nentries(tw_view_inode(view, FIRST_DIR)), 20000 / DIRS);
	tw_view_destroy(view);
}

static void a_number_beyond_the_volume_is_refused(void **state)
{
	(void)state;
	struct tw_view *view;
	struct tw_load *load;
	struct tw_attr attr = attr_of(ROOT);
	ok(tw_view_create(100, ROOT, 1000, 12, &view));
	ok(tw_load_begin(view, 1, &load));
	struct tw_loader *loader = tw_load_thread(load, 0);
	fails(tw_loader_inode(loader, 101, &attr, NULL, 0, TW_OWNER_DIR), TW_BAD_DATA);
	fails(tw_loader_inode(loader, 0, &attr, NULL, 0, TW_OWNER_DIR), TW_BAD_DATA);
	ok(tw_loader_inode(loader, ROOT, &attr, NULL, 0, TW_OWNER_DIR));
	ok(tw_loader_dir(loader, tw_view_inode(view, ROOT)));
	tw_loader_dirblock(loader, 5);
	ok(tw_loader_name(loader, 101, "a", 1));
	fails(tw_loader_dirblock_end(loader), TW_BAD_DATA);
	ok(tw_load_end(load));
	tw_view_destroy(view);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_number_of_threads_makes_the_same_view),
		cmocka_unit_test(a_loaded_view_goes_on_as_any_other),
		cmocka_unit_test(a_number_beyond_the_volume_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
