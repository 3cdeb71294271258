/* SPDX-License-Identifier: BSD-3-Clause */
#include "view/inside.h"

/* Deeper than any path that Linux lets a guest make; a loop ends here. */
#define MAX_DEPTH 2048

bool tw_view_path(const struct tw_view *view, const struct tw_name *name, struct tw_buf *out)
{
	const struct tw_name *steps[MAX_DEPTH];
	size_t n = 0, len = 0, fit = 0;
	for (;;) {
		if (n == MAX_DEPTH)
			return false;
		steps[n++] = name;
		len += name->len + 1ul;
		if (len <= TW_PATH_MAX)
			fit = n;
		uint32_t ino = tw_view_name_dir(view, name);
		if (ino == view->root)
			break;
		const struct tw_inode *dir = tw_view_inode(view, ino);
		name = dir ? tw_view_link(view, dir, 0) : NULL;
		if (!name)
			return false;
	}
	bool whole = fit == n;
	while (fit--) {
		if (whole)
			tw_buf_append(out, "/", 1);
		whole = true;
		tw_buf_append(out, steps[fit]->bytes, steps[fit]->len);
	}
	return true;
}

bool tw_view_inode_path(
	const struct tw_view *view, const struct tw_inode *inode, struct tw_buf *out)
{
	if (inode->ino == view->root) {
		tw_buf_append(out, "/", 1);
		return true;
	}
	const struct tw_name *name = tw_view_link(view, inode, 0);
	return name && tw_view_path(view, name, out);
}
