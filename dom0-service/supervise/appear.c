/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/appear.h"
#include "base/hash.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>
#include <utlist.h>

/* How often a directory that is not there is looked for. */
#define MISSING_MS 2000
/* Not what libuv asks for: each write to a ring's bell would be an event. */
#define EVENTS (IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

struct tw_appear_wait {
	struct tw_appear *appear;
	char *path;
	void (*there)(void *arg);
	void *arg;
	bool due; /* it is there; the next round tells */
	struct tw_appear_wait *prev, *next; /* of those with the same path */
	struct file *file;
};

/* A path that somebody waits for. */
struct file {
	char *path;
	struct tw_appear_wait *waits;
	struct dir *dir;
	UT_hash_handle hh;
};

/* A directory with such files. */
struct dir {
	struct tw_appear *appear;
	char *path;
	size_t files;
	int wd; /* -1: not watched, because it is not there */
	UT_hash_handle hh;
};

struct tw_appear {
	uv_loop_t *loop;
	struct file *files;
	struct dir *dirs;
	int fd;
	uv_poll_t poll;
	uv_timer_t round; /* at once: what is due is told; later: missing directories are looked for */
	unsigned open;    /* handles */
	bool closing;
};

/* --- directories --- */

static void watch_dir(struct dir *dir)
{
	dir->wd = inotify_add_watch(dir->appear->fd, dir->path, EVENTS);
}

static void unwatch_dir(struct dir *dir)
{
	if (dir->wd >= 0)
		inotify_rm_watch(dir->appear->fd, dir->wd);
	dir->wd = -1;
}

static void drop_dir(struct dir *dir)
{
	unwatch_dir(dir);
	HASH_DEL(dir->appear->dirs, dir);
	free(dir->path);
	free(dir);
}

static struct dir *get_dir(struct tw_appear *appear, const char *path, size_t len)
{
	struct dir *dir;
	HASH_FIND(hh, appear->dirs, path, len, dir);
	if (dir)
		return dir;
	dir = calloc(1, sizeof(*dir));
	if (!dir)
		return NULL;
	dir->appear = appear;
	dir->path = strndup(path, len);
	if (!dir->path) {
		free(dir);
		return NULL;
	}
	watch_dir(dir);
	HASH_ADD_KEYPTR(hh, appear->dirs, dir->path, len, dir);
	return dir;
}

/* --- files --- */

static struct file *get_file(struct tw_appear *appear, const char *path)
{
	struct file *file;
	const char *slash = strrchr(path, '/');
	HASH_FIND_STR(appear->files, path, file);
	if (file)
		return file;
	struct dir *dir = get_dir(appear, path, slash == path ? 1 : (size_t)(slash - path));
	file = calloc(1, sizeof(*file));
	if (file)
		file->path = strdup(path);
	if (!dir || !file || !file->path) {
		if (dir && !dir->files)
			drop_dir(dir);
		free(file ? file->path : NULL);
		free(file);
		return NULL;
	}
	dir->files++;
	file->dir = dir;
	HASH_ADD_KEYPTR(hh, appear->files, file->path, strlen(file->path), file);
	return file;
}

static void drop_wait(struct tw_appear_wait *wait)
{
	struct file *file = wait->file;
	DL_DELETE(file->waits, wait);
	free(wait);
	if (file->waits)
		return;
	HASH_DEL(file->dir->appear->files, file);
	if (--file->dir->files == 0)
		drop_dir(file->dir);
	free(file->path);
	free(file);
}

/* --- rounds --- */

static void on_round(uv_timer_t *timer);

static void plan_round(struct tw_appear *appear, uint64_t ms)
{
	if (!appear->closing && (!uv_is_active((uv_handle_t *)&appear->round) || ms == 0))
		uv_timer_start(&appear->round, on_round, ms, 0);
}

static void mark_due(struct file *file)
{
	struct tw_appear_wait *wait;
	if (access(file->path, F_OK) < 0)
		return;
	DL_FOREACH (file->waits, wait)
		wait->due = true;
	plan_round(file->dir->appear, 0);
}

static void look_at_all(struct tw_appear *appear, const struct dir *dir)
{
	struct file *file, *next_file;
	HASH_ITER (hh, appear->files, file, next_file)
		if (file->dir == dir)
			mark_due(file);
}

static void look_at(struct tw_appear *appear, const struct dir *dir, const char *name)
{
	char path[4096];
	struct file *file;
	const char *parent = strcmp(dir->path, "/") ? dir->path : "";
	if (snprintf(path, sizeof(path), "%s/%s", parent, name) >= (int)sizeof(path))
		return;
	HASH_FIND_STR(appear->files, path, file);
	if (file)
		mark_due(file);
}

static void take_event(struct tw_appear *appear, const struct inotify_event *event)
{
	struct dir *dir, *next_dir;
	HASH_ITER (hh, appear->dirs, dir, next_dir) {
		if (event->mask & IN_Q_OVERFLOW) { /* who knows what happened */
			look_at_all(appear, dir);
		} else if (dir->wd == event->wd && event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED)) {
			unwatch_dir(dir);
			plan_round(appear, MISSING_MS);
		} else if (dir->wd == event->wd && event->len) {
			look_at(appear, dir, event->name);
		}
	}
}

static void on_events(uv_poll_t *poll, int status, int events)
{
	struct tw_appear *appear = poll->data;
	char buf[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;
	(void)status;
	(void)events;
	while ((n = read(appear->fd, buf, sizeof(buf))) > 0)
		for (const char *at = buf; at < buf + n;) {
			const struct inotify_event *event = (const void *)at;
			take_event(appear, event);
			at += sizeof(*event) + event->len;
		}
}

static struct tw_appear_wait *next_due(struct tw_appear *appear)
{
	struct file *file, *next_file;
	struct tw_appear_wait *wait;
	HASH_ITER (hh, appear->files, file, next_file)
		DL_FOREACH (file->waits, wait)
			if (wait->due)
				return wait;
	return NULL;
}

static void on_round(uv_timer_t *timer)
{
	struct tw_appear *appear = timer->data;
	struct dir *dir, *next_dir;
	bool missing = false;
	HASH_ITER (hh, appear->dirs, dir, next_dir) {
		if (dir->wd >= 0)
			continue;
		watch_dir(dir);
		missing |= dir->wd < 0;
		look_at_all(appear, dir);
	}
	struct tw_appear_wait *wait;
	while ((wait = next_due(appear))) {
		void (*there)(void *) = wait->there;
		void *arg = wait->arg;
		drop_wait(wait);
		there(arg); /* may begin and end other waits */
	}
	if (missing)
		plan_round(appear, MISSING_MS);
}

/* --- the whole --- */

struct tw_error *tw_appear_create(uv_loop_t *loop, struct tw_appear **out)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd < 0)
		return tw_error_errno(errno, "inotify");
	struct tw_appear *appear = calloc(1, sizeof(*appear));
	if (!appear) {
		close(fd);
		return tw_error_nomem();
	}
	appear->loop = loop;
	appear->fd = fd;
	uv_timer_init(loop, &appear->round);
	uv_poll_init(loop, &appear->poll, fd);
	uv_poll_start(&appear->poll, UV_READABLE, on_events);
	appear->round.data = appear;
	appear->poll.data = appear;
	appear->open = 2;
	*out = appear;
	return NULL;
}

static void on_closed(uv_handle_t *handle)
{
	struct tw_appear *appear = handle->data;
	if (--appear->open)
		return;
	close(appear->fd);
	free(appear);
}

void tw_appear_destroy(struct tw_appear *appear)
{
	if (!appear)
		return;
	appear->closing = true;
	while (appear->files)
		drop_wait(appear->files->waits);
	uv_close((uv_handle_t *)&appear->round, on_closed);
	uv_close((uv_handle_t *)&appear->poll, on_closed);
}

struct tw_error *tw_appear_wait(struct tw_appear *appear, const char *path, void (*there)(void *arg), void *arg,
	struct tw_appear_wait **out)
{
	struct tw_appear_wait *wait = calloc(1, sizeof(*wait));
	struct file *file = wait ? get_file(appear, path) : NULL;
	if (!file) {
		free(wait);
		return tw_error_nomem();
	}
	wait->file = file;
	wait->there = there;
	wait->arg = arg;
	DL_APPEND(file->waits, wait);
	if (file->dir->wd < 0)
		plan_round(appear, MISSING_MS);
	mark_due(file);
	*out = wait;
	return NULL;
}

void tw_appear_cancel(struct tw_appear_wait *wait)
{
	if (wait)
		drop_wait(wait);
}
