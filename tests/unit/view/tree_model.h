/* SPDX-License-Identifier: BSD-3-Clause */
/* A receiver's picture of a volume, kept by nothing but events, applied strictly: an event that does not fit fails. */
#ifndef VIEW_TREE_MODEL_H
#define VIEW_TREE_MODEL_H

#include "changes.h"

#include <stdio.h>

enum { MODEL_INOS = 128, MODEL_NAMES = 512 };

struct model_name {
	uint32_t dir, ino; /* dir 0: free */
	char name[64];
};

struct model {
	struct tw_attr inodes[MODEL_INOS]; /* mode 0: there is none */
	struct model_name names[MODEL_NAMES];
	char trouble[256]; /* the first event that did not fit */
	struct tw_buf log;
};

static inline struct model_name *model_lookup(struct model *m, uint32_t dir, const char *name)
{
	for (size_t i = 0; i < MODEL_NAMES; i++)
		if (m->names[i].dir == dir && !strcmp(m->names[i].name, name))
			return &m->names[i];
	return NULL;
}

/* Finds the directory of a path and cuts its last component out. 0: there is no such directory. */
static inline uint32_t model_parent(struct model *m, struct tw_bytes path, char leaf[64])
{
	char text[4096];
	snprintf(text, sizeof(text), "%.*s", (int)path.len, (const char *)path.data);
	uint32_t dir = ROOT;
	char *at = text + 1, *slash;
	while ((slash = strchr(at, '/'))) {
		*slash = 0;
		const struct model_name *name = model_lookup(m, dir, at);
		if (!name || !S_ISDIR(m->inodes[name->ino].mode))
			return 0;
		dir = name->ino;
		at = slash + 1;
	}
	snprintf(leaf, 64, "%.63s", at);
	return m->inodes[dir].mode ? dir : 0;
}

static inline struct model_name *model_find(struct model *m, struct tw_bytes path)
{
	char leaf[64];
	uint32_t dir = model_parent(m, path, leaf);
	return dir ? model_lookup(m, dir, leaf) : NULL;
}

static inline unsigned model_links(const struct model *m, uint32_t ino)
{
	unsigned n = 0;
	for (size_t i = 0; i < MODEL_NAMES; i++)
		n += m->names[i].dir && m->names[i].ino == ino;
	return n;
}

static inline bool model_empty(const struct model *m, uint32_t dir)
{
	for (size_t i = 0; i < MODEL_NAMES; i++)
		if (m->names[i].dir == dir)
			return false;
	return true;
}

/* True when ino is dir or above it. */
static inline bool model_holds(const struct model *m, uint32_t ino, uint32_t dir)
{
	for (unsigned depth = 0; depth < MODEL_INOS && dir != ROOT; depth++) {
		if (dir == ino)
			return true;
		uint32_t parent = ROOT;
		for (size_t i = 0; i < MODEL_NAMES; i++)
			if (m->names[i].dir && m->names[i].ino == dir)
				parent = m->names[i].dir;
		dir = parent;
	}
	return dir == ino;
}

static inline const char *model_enter(struct model *m, struct tw_bytes path, uint32_t ino)
{
	char leaf[64];
	uint32_t dir = model_parent(m, path, leaf);
	if (!dir)
		return "its directory is not there";
	if (model_lookup(m, dir, leaf))
		return "the name is taken";
	if (model_holds(m, ino, dir))
		return "it would be below itself";
	for (size_t i = 0; i < MODEL_NAMES; i++) {
		if (m->names[i].dir)
			continue;
		m->names[i].dir = dir;
		m->names[i].ino = ino;
		snprintf(m->names[i].name, sizeof(m->names[i].name), "%s", leaf);
		return NULL;
	}
	return "too many names";
}

static inline struct tw_attr model_attr(const struct tw_event *e)
{
	static const uint16_t types[] = { 0, S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR,
		S_IFBLK };
	return (struct tw_attr){ .mode = (uint16_t)(types[e->kind] | e->mode), .size = e->size,
		.uid = e->uid, .gid = e->gid, .nlink = e->nlink, .generation = e->generation,
		.mtime = e->mtime, .ctime = e->ctime };
}

static inline bool same_attr(const struct tw_attr *a, const struct tw_attr *b)
{
	return a->mode == b->mode && a->size == b->size && a->uid == b->uid && a->gid == b->gid &&
		a->nlink == b->nlink && a->generation == b->generation &&
		a->mtime.sec == b->mtime.sec && a->mtime.nsec == b->mtime.nsec &&
		a->ctime.sec == b->ctime.sec && a->ctime.nsec == b->ctime.nsec;
}

static inline bool model_same(const struct tw_attr *a, const struct tw_event *e)
{
	struct tw_attr b = model_attr(e);
	return a->generation == b.generation && (a->mode & S_IFMT) == (b.mode & S_IFMT);
}

static inline const char *model_gone(struct model *m, const struct tw_event *e,
	struct model_name *name)
{
	bool last = e->type == TW_EVENT_FILE_DELETED;
	if (last != (model_links(m, name->ino) == 1))
		return last ? "it has other names" : "it was the last name";
	if (last && S_ISDIR(m->inodes[name->ino].mode) && !model_empty(m, name->ino))
		return "the directory is not empty";
	if (last)
		m->inodes[name->ino] = (struct tw_attr){ 0 };
	name->dir = 0;
	return NULL;
}

static inline const char *model_rename(struct model *m, const struct tw_event *e,
	struct model_name *name)
{
	struct model_name *other = model_find(m, e->path);
	if (!name)
		return "the old name is not there";
	if (!e->exchange && other)
		return "the new name is taken";
	if (e->exchange) {
		if (!other)
			return "there is nothing to exchange with";
		if (model_holds(m, name->ino, other->dir) || model_holds(m, other->ino, name->dir))
			return "one of the two is below the other";
		uint32_t ino = name->ino;
		name->ino = other->ino;
		other->ino = ino;
		return NULL;
	}
	uint32_t ino = name->ino;
	const char *what = model_enter(m, e->path, ino);
	if (!what)
		name->dir = 0;
	return what;
}

static inline const char *model_apply(struct model *m, const struct tw_event *e)
{
	struct tw_bytes at = e->type == TW_EVENT_FILE_RENAMED ? e->old_path : e->path;
	bool comes = e->type == TW_EVENT_FILE_CREATED || e->type == TW_EVENT_FILE_LINKED;
	bool root = e->path.len == 1;
	struct model_name *name = comes || root ? NULL : model_find(m, at);
	struct tw_attr *attr = &m->inodes[e->inode];
	const char *what = NULL;
	if (e->inode >= MODEL_INOS)
		return "no such inode";
	if (!comes && !root && (!name || name->ino != e->inode))
		return "the name is not there, or not this inode's";
	if (e->type != TW_EVENT_FILE_CREATED && !model_same(attr, e))
		return "it is another inode";
	if (e->type == TW_EVENT_FILE_CREATED && attr->mode)
		return "the inode is there already";
	if (e->type == TW_EVENT_FILE_DELETED || e->type == TW_EVENT_FILE_UNLINKED)
		what = model_gone(m, e, name);
	else if (e->type == TW_EVENT_FILE_RENAMED)
		what = model_rename(m, e, name);
	else if (comes)
		what = model_enter(m, e->path, (uint32_t)e->inode);
	if (e->type != TW_EVENT_FILE_DELETED && !what)
		*attr = model_attr(e);
	return what;
}

static inline struct tw_error *model_take(struct tw_event *e, void *arg)
{
	struct model *m = arg;
	const char *what = model_apply(m, e);
	tw_buf_printf(&m->log, "  %s %.*s <- %.*s ino %llu%s\n", short_type(e->type), (int)e->path.len,
		(const char *)e->path.data, (int)e->old_path.len,
		e->old_path.data ? (const char *)e->old_path.data : "", (unsigned long long)e->inode,
		e->exchange ? " exchange" : "");
	if (what && !*m->trouble)
		snprintf(m->trouble, sizeof(m->trouble), "%s %.*s: %s", short_type(e->type),
			(int)e->path.len, (const char *)e->path.data, what);
	return NULL;
}

#endif
