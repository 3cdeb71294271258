/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/mem.h"
#include "inspect/volume.h"

#include <stdlib.h>

struct walk {
	struct tw_volume *volume;
	struct tw_view *view;
	struct tw_buf path;
	uint32_t *queue; /* directories whose names are still to be told */
	size_t head, n, cap;
	tw_disk_emit_fn each;
	void *arg;
};

static struct tw_error *push(struct walk *w, uint32_t ino)
{
	if (!TW_GROW(w->queue, w->n, w->cap))
		return tw_error_nomem();
	w->queue[w->n++] = ino;
	return NULL;
}

static struct tw_error *tell(struct walk *w, const struct tw_inode *inode, bool opaque)
{
	struct tw_event event = {.volume = w->volume->place.uuid};
	if (w->path.failed)
		return tw_error_nomem();
	event.path = (struct tw_bytes){w->path.data, w->path.len};
	struct tw_attr attr = tw_view_attr(w->view, inode);
	tw_view_describe(inode, &attr, &event);
	event.encrypted |= opaque;
	TW_TRY(w->volume->ops->xattrs(w->volume->fs, 0, attr.xattrs, &event));
	return w->each(&event, w->arg);
}

static int by_bytes(const void *a, const void *b)
{
	const struct tw_name *x = *(struct tw_name *const *)a, *y = *(struct tw_name *const *)b;
	int ret = memcmp(x->bytes, y->bytes, x->len < y->len ? x->len : y->len);
	return ret ? ret : (int)x->len - (int)y->len;
}

static struct tw_error *walk_names(struct walk *w, struct tw_name **names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct tw_inode *inode = tw_view_inode(w->view, names[i]->ino);
		tw_buf_reset(&w->path);
		if (!tw_view_path(w->view, names[i], &w->path))
			continue;
		TW_TRY(tell(w, inode, names[i]->opaque));
		/* A directory by its first name only: a guest may have made loops. */
		if (tw_inode_nblocks(inode) && tw_view_link(w->view, inode, 0) == names[i])
			TW_TRY(push(w, inode->ino));
	}
	return NULL;
}

static struct tw_error *walk_dir(struct walk *w, const struct tw_inode *dir)
{
	struct tw_name **names = calloc(tw_inode_nentries(dir) + 1ul, sizeof(struct tw_name *));
	size_t n = 0;
	if (!names)
		return tw_error_nomem();
	for (uint32_t b = 0; b < tw_inode_nblocks(dir); b++) {
		const struct tw_dirblock *holder = tw_view_dirblock_at(w->view, dir, b);
		struct tw_name *name = tw_view_block_names(w->view, holder);
		for (; name; name = tw_view_block_next(w->view, name))
			names[n++] = name;
	}
	qsort(names, n, sizeof(struct tw_name *), by_bytes);
	struct tw_error *err = walk_names(w, names, n);
	free(names);
	return err;
}

static struct tw_error *walk_volume(struct walk *w)
{
	uint32_t root = tw_view_root(w->view);
	tw_buf_reset(&w->path);
	tw_buf_puts(&w->path, "/");
	TW_TRY(tell(w, tw_view_inode(w->view, root), false));
	TW_TRY(push(w, root));
	while (w->head < w->n)
		TW_TRY(walk_dir(w, tw_view_inode(w->view, w->queue[w->head++])));
	return NULL;
}

struct tw_error *tw_disk_walk(struct tw_disk *disk, tw_disk_emit_fn each, void *arg)
{
	for (size_t i = 0; i < disk->nvolumes; i++) {
		struct tw_volume *volume = disk->volumes[i];
		if (!volume->ops)
			continue;
		struct walk w = {.volume = volume,
			.view = volume->ops->view(volume->fs),
			.each = each,
			.arg = arg};
		struct tw_error *err = walk_volume(&w);
		tw_buf_deinit(&w.path);
		free(w.queue);
		TW_TRY(err);
	}
	return NULL;
}
