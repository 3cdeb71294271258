/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/buf.h"
#include "base/log.h"
#include "base/scope.h"
#include "content/rules.h"
#include "ring.h"
#include "supervise/guests_inside.h"
#include "supervise/paths.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOTE "guest"
#define NOTE_MAX 16384
#define RING_SUFFIX ".ring"

/* Three lines: the image, the guest's name, its number. None of them has a line end in it. */
struct note {
	char *image;
	char *name;
	unsigned domid;
};

static struct tw_error *write_note(const char *path, const char *text)
{
	TW_AUTO_FREE char *new = NULL;
	if (asprintf(&new, "%s.new", path) < 0) {
		new = NULL;
		return tw_error_nomem();
	}
	TW_AUTO_CLOSE int fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || rename(new, path) < 0)
		return tw_error_errno(errno, "%s", path);
	return NULL;
}

static char *read_note_text(const char *path)
{
	TW_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = fd >= 0 ? calloc(1, NOTE_MAX) : NULL;
	if (text && read(fd, text, NOTE_MAX - 1) < 0)
		*text = '\0';
	return text;
}

void tw_leftovers_note(const struct tw_disk_spec *spec)
{
	TW_AUTO_FREE char *path = tw_path_join(spec->state_dir, NOTE);
	TW_AUTO_FREE char *before = path ? read_note_text(path) : NULL;
	TW_AUTO_FREE char *text = NULL;
	if (asprintf(&text, "%s\n%s\n%u\n", spec->image, spec->id.domain_name, spec->id.domid) < 0)
		text = NULL;
	if (before && text && strcmp(before, text) == 0)
		return;
	struct tw_error *err = text && path ? write_note(path, text) : tw_error_nomem();
	if (err)
		tw_log(TW_LOG_WARN, spec->name, "%s", tw_error_message(err));
	tw_error_destroy(err);
}

/* The strings are parts of text. */
static bool parse_note(char *text, struct note *out)
{
	char *end;
	out->image = strsep(&text, "\n");
	out->name = strsep(&text, "\n");
	if (!text || *out->image != '/')
		return false;
	out->domid = (unsigned)strtoul(text, &end, 10);
	return end != text && *end == '\n';
}

/* UUID-VDEV.ring */
static bool parse_ring(const char *name, char uuid[TW_XS_UUID_MAX], char vdev[64])
{
	size_t len = strlen(name);
	size_t rest = TW_XS_UUID_MAX + strlen(RING_SUFFIX);
	if (len <= rest || len - rest >= 64 || strcmp(name + len - strlen(RING_SUFFIX), RING_SUFFIX) != 0 ||
		!tw_xs_read_uuid(name, uuid) || name[TW_XS_UUID_MAX - 1] != '-')
		return false;
	snprintf(vdev, 64, "%.*s", (int)(len - rest), name + TW_XS_UUID_MAX);
	return true;
}

struct search {
	const char *ring;
	bool found;
};

static void compare_ring(void *arg, const struct tw_disk_spec *spec, const struct tw_report *report)
{
	struct search *search = arg;
	(void)report;
	search->found |= strcmp(spec->ring, search->ring) == 0;
}

/* A disk that was never watched: nothing was told of it, so nothing is missing. */
static void remove_unknown(const char *ring)
{
	int ret = tw_ring_remove(ring);
	if (ret == 0)
		tw_log(TW_LOG_INFO, "", "%s: removed; its guest came and went unseen", ring);
	else if (ret != -EBUSY && ret != -ENOENT)
		tw_log(TW_LOG_WARN, "", "%s: %s", ring, strerror(-ret));
}

static struct tw_error *drain(struct tw_guests *guests, const char *file)
{
	char uuid[TW_XS_UUID_MAX], vdev[64];
	TW_AUTO_FREE char *state_dir = NULL;
	TW_AUTO_FREE char *ring = tw_path_join(guests->config->ring_dir, file);
	struct note note;
	if (!parse_ring(file, uuid, vdev))
		return NULL;
	if (!ring || asprintf(&state_dir, "%s/guests/%s/%s", guests->config->state_dir, uuid, vdev) < 0) {
		state_dir = NULL;
		return tw_error_nomem();
	}
	struct search search = { .ring = ring };
	tw_fleet_each(guests->fleet, compare_ring, &search);
	if (search.found || tw_fleet_is_ending(guests->fleet, state_dir) || tw_ring_has_producer(ring))
		return NULL;
	TW_AUTO_FREE char *path = tw_path_join(state_dir, NOTE);
	TW_AUTO_FREE char *text = path ? read_note_text(path) : NULL;
	if (!text || !parse_note(text, &note)) {
		remove_unknown(ring);
		return NULL;
	}
	TW_AUTO_FREE char *content = NULL;
	TW_TRY(tw_content_plan(guests->config, note.name, uuid, &content));
	const struct tw_disk_spec spec = {
		.name = vdev,
		.image = note.image,
		.ring = ring,
		.state_dir = state_dir,
		.courier_socket = guests->courier_socket,
		.id = { .host = guests->host, .domain_uuid = uuid, .domain_name = note.name, .domid = note.domid,
			.vdev = vdev },
		.content = content,
	};
	tw_log(TW_LOG_INFO, "", "%s: of a guest that is gone; reading what is left in it", ring);
	TW_TRY(tw_fleet_put(guests->fleet, &spec));
	tw_fleet_drop(guests->fleet, state_dir, true);
	return NULL;
}

void tw_leftovers_drain(struct tw_guests *guests)
{
	DIR *dir = opendir(guests->config->ring_dir);
	struct dirent *file;
	while (dir && (file = readdir(dir))) {
		struct tw_error *err = drain(guests, file->d_name);
		if (err)
			tw_log(TW_LOG_WARN, "", "%s", tw_error_message(err));
		tw_error_destroy(err);
	}
	if (dir)
		closedir(dir);
}
