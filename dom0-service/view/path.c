/* SPDX-License-Identifier: BSD-3-Clause */
#include "view/inside.h"

#include <string.h>

/* Deeper than any path that Linux lets a guest make; a loop ends here. */
#define MAX_DEPTH 2048

static size_t shown_len(const struct tw_name *name)
{
	return name->opaque ? (name->len * 4ul + 2) / 3 : name->len;
}

/* RFC 4648's base64url: an encrypted name may have slashes in it. */
static void put_name(struct tw_buf *out, const struct tw_name *name)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	char text[(UINT8_MAX + 2) / 3 * 4], *at = text;
	if (!name->opaque) {
		tw_buf_append(out, name->bytes, name->len);
		return;
	}
	for (unsigned i = 0; i < name->len; i += 3) {
		uint32_t three = (uint32_t)name->bytes[i] << 16;
		if (i + 1 < name->len)
			three |= (uint32_t)name->bytes[i + 1] << 8;
		if (i + 2 < name->len)
			three |= name->bytes[i + 2];
		for (int shift = 18; shift >= 0; shift -= 6)
			*at++ = digits[three >> shift & 63];
	}
	tw_buf_append(out, text, shown_len(name));
}

/* Without memory, out remembers it. */
static bool by_memo(const struct tw_path_memo *memo, const struct tw_name *name, struct tw_buf *out)
{
	size_t len = memo->len + 1 + shown_len(name);
	char *at = len <= TW_PATH_MAX ? tw_buf_reserve(out, len) : NULL;
	if (!at)
		return len <= TW_PATH_MAX;
	memcpy(at, memo->text, memo->len);
	at[memo->len] = '/';
	out->len += memo->len + 1;
	put_name(out, name);
	return true;
}

static void remember(struct tw_path_memo *memo, uint32_t dir, const char *path, size_t len)
{
	memo->dir = dir;
	memo->len = len;
	memcpy(memo->text, path, len);
}

bool tw_view_path(const struct tw_view *view, const struct tw_name *name, struct tw_buf *out)
{
	const struct tw_name *steps[MAX_DEPTH];
	uint32_t dir = tw_view_name_dir(view, name);
	size_t n = 0, len = 0, fit = 0, start = out->len;
	if (view->memo->dir == dir && by_memo(view->memo, name, out))
		return true;
	for (uint32_t ino = dir;; ino = tw_view_name_dir(view, name)) {
		if (n == MAX_DEPTH)
			return false;
		steps[n++] = name;
		len += shown_len(name) + 1;
		if (len <= TW_PATH_MAX)
			fit = n;
		if (ino == view->root)
			break;
		const struct tw_inode *above = tw_view_inode(view, ino);
		name = above ? tw_view_link(view, above, 0) : NULL;
		if (!name)
			return false;
	}
	bool whole = fit == n, slash = whole;
	for (; fit--; slash = true) {
		if (slash)
			tw_buf_append(out, "/", 1);
		put_name(out, steps[fit]);
	}
	if (whole && !out->failed)
		remember(view->memo, dir, out->data + start, len - shown_len(steps[0]) - 1);
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
