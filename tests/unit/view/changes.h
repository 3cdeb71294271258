/* SPDX-License-Identifier: BSD-3-Clause */
/* A view with a changeset whose events are kept as lines of text: "created /a", "renamed /b <- /a", ... */
#ifndef VIEW_CHANGES_H
#define VIEW_CHANGES_H

#include "../check.h"

#include "view/change.h"

#include <stdlib.h>
#include <sys/stat.h>

#define ROOT 2u
#define FILE_MODE (S_IFREG | 0644)
#define DIR_MODE (S_IFDIR | 0755)
#define LINK_MODE (S_IFLNK | 0777)

struct changes {
	struct tw_view *view;
	struct tw_changeset *set;
	struct tw_buf lines;
	struct tw_event last; /* scalars only */
	struct tw_attr attrs[1001]; /* of inodes that are being changed */
	bool touched[1001];
};

static inline const char *short_type(enum tw_event_type type)
{
	return tw_event_type_name(type) + strlen("org.tapwire.file.");
}

/* A name that is only parked is written as "*": what it is called is nobody's business. */
static inline void put_path(struct tw_buf *out, const char *before, struct tw_bytes path)
{
	static const char parked[] = "/.tapwire-parked-";
	const char *at = path.data, *end = at + path.len;
	tw_buf_puts(out, before);
	if (path.len > strlen(parked) && !memcmp(at, parked, strlen(parked))) {
		tw_buf_puts(out, "*");
		for (at++; at < end && *at != '/';)
			at++;
	}
	tw_buf_append(out, at, (size_t)(end - at));
}

static inline struct tw_error *keep_event(struct tw_event *event, void *arg)
{
	struct changes *c = arg;
	c->last = *event;
	tw_buf_puts(&c->lines, short_type(event->type));
	put_path(&c->lines, " ", event->path);
	if (event->old_path.data)
		put_path(&c->lines, event->exchange ? " <-> " : " <- ", event->old_path);
	if (event->target.data)
		put_path(&c->lines, " -> ", event->target);
	for (size_t i = 0; i < event->nranges; i++)
		tw_buf_printf(&c->lines, " %llu+%llu", (unsigned long long)event->ranges[i].offset,
			(unsigned long long)event->ranges[i].length);
	if (event->resync)
		tw_buf_puts(&c->lines, " resync");
	tw_buf_puts(&c->lines, "\n");
	return NULL;
}

static inline struct tw_name *put(struct changes *c, uint32_t dir, const char *name, uint32_t ino,
	uint16_t mode)
{
	struct tw_inode *inode;
	struct tw_name *out;
	ok(tw_view_inode_add(c->view, ino, &inode));
	struct tw_attr attr = tw_view_attr(c->view, inode);
	attr.mode = mode;
	attr.generation = 1;
	attr.nlink++;
	ok(tw_view_set_attr(c->view, inode, &attr));
	ok(tw_view_name_add(c->view, dir, dir * 100, ino, name, (uint8_t)strlen(name), &out));
	return out;
}

static inline void set_size(struct changes *c, uint32_t ino, uint64_t size)
{
	struct tw_inode *inode = tw_view_inode(c->view, ino);
	struct tw_attr attr = tw_view_attr(c->view, inode);
	attr.size = size;
	ok(tw_view_set_attr(c->view, inode, &attr));
}

/* Begins or goes on with the change of an inode; what comes back will be its attr in the view. */
static inline struct tw_attr *touch(struct changes *c, uint32_t ino)
{
	struct tw_change *change;
	struct tw_inode *inode;
	ok(tw_changeset_inode(c->set, ino, &change));
	ok(tw_view_inode_add(c->view, ino, &inode));
	if (!c->touched[ino])
		c->attrs[ino] = tw_view_attr(c->view, inode);
	c->touched[ino] = true;
	return &c->attrs[ino];
}

static inline void touch_end(struct changes *c)
{
	for (uint32_t ino = 0; ino < 1001; ino++) {
		if (c->touched[ino])
			ok(tw_view_set_attr(c->view, tw_view_inode(c->view, ino), &c->attrs[ino]));
		c->touched[ino] = false;
	}
}

static inline void make(struct changes *c, uint32_t ino, uint16_t mode, uint32_t generation)
{
	*touch(c, ino) = (struct tw_attr){ .mode = mode, .generation = generation, .nlink = 1 };
}

static inline void free_inode(struct changes *c, uint32_t ino)
{
	*touch(c, ino) = (struct tw_attr){ 0 };
}

static inline struct tw_name *look_up(const struct tw_view *view, const struct tw_inode *dir,
	const char *name)
{
	for (uint32_t b = 0; b < tw_inode_nblocks(dir); b++) {
		struct tw_name *n = tw_view_block_names(view, tw_view_dirblock_at(view, dir, b));
		for (; n; n = tw_view_block_next(view, n))
			if (n->len == strlen(name) && !memcmp(n->bytes, name, n->len))
				return n;
	}
	return NULL;
}

static inline struct tw_name *name_of(const struct changes *c, uint32_t dir, const char *name)
{
	const struct tw_inode *inode = tw_view_inode(c->view, dir);
	struct tw_name *found = inode ? look_up(c->view, inode, name) : NULL;
	if (found)
		return found;
	fail_msg("directory %u has no %s", dir, name);
	return NULL;
}

static inline void gone(struct changes *c, uint32_t dir, const char *name)
{
	ok(tw_changeset_remove_name(c->set, name_of(c, dir, name)));
}

static inline void come(struct changes *c, uint32_t dir, const char *name, uint32_t ino)
{
	ok(tw_changeset_add_name(c->set, dir, dir * 100 + 1, ino, name, (uint8_t)strlen(name)));
}

static inline void range(struct changes *c, uint32_t ino, uint64_t offset, uint64_t length)
{
	struct tw_change *change;
	ok(tw_changeset_inode(c->set, ino, &change));
	ok(tw_changeset_range(change, offset, length));
}

/* Emits, and checks the lines. */
static inline void expect(struct changes *c, const char *lines)
{
	const struct tw_commit commit = { { 100, 5 }, { 200, 6 }, 77, false };
	touch_end(c);
	ok(tw_changeset_emit(c->set, &commit));
	tw_buf_append(&c->lines, "", 1);
	assert_string_equal(c->lines.data, lines);
	tw_buf_reset(&c->lines);
}

static inline int changes_setup(void **state)
{
	struct changes *c = calloc(1, sizeof(*c));
	ok(tw_view_create(1000, ROOT, 100000, 12, &c->view));
	ok(tw_changeset_create(c->view, keep_event, c, &c->set));
	struct tw_inode *root;
	ok(tw_view_inode_add(c->view, ROOT, &root));
	ok(tw_view_set_attr(c->view, root, &(struct tw_attr){ .mode = DIR_MODE }));
	*state = c;
	return 0;
}

static inline int changes_teardown(void **state)
{
	struct changes *c = *state;
	tw_changeset_destroy(c->set);
	tw_view_destroy(c->view);
	tw_buf_deinit(&c->lines);
	free(c);
	return 0;
}

#define CHANGE_TEST(f) cmocka_unit_test_setup_teardown(f, changes_setup, changes_teardown)

#endif
