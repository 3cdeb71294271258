/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/serve.h"
#include "base/scope.h"
#include "config/config.h"
#include "content/rules.h"
#include "supervise/paths.h"
#include "supervise/query.h"
#include "supervise/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Strings that a service needs as long as it runs; all absolute paths. */
struct places {
	char *image;
	char *state_dir;
	char *disk_dir;
	char *ring;
	char *socket;
	char *courier_socket;
	char *config;
	char *record;
	char *content; /* rules */
};

static void places_deinit(struct places *p)
{
	char *const all[] = { p->image, p->state_dir, p->disk_dir, p->ring, p->socket,
		p->courier_socket, p->config, p->record, p->content };
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		free(all[i]);
}

static struct tw_error *absolute(const char *path, char **out)
{
	TW_AUTO_FREE char *here = getcwd(NULL, 0);
	if (!here)
		return tw_error_errno(errno, "working directory");
	*out = *path == '/' ? strdup(path) : tw_path_join(here, path);
	return *out ? NULL : tw_error_nomem();
}

/* Complains in one line about what nbdkit would say in three. */
static struct tw_error *check_image(const char *image, int how)
{
	struct stat st;
	TW_AUTO_CLOSE int fd = open(image, how | O_CLOEXEC);
	if (fd < 0)
		return tw_error_errno(errno, "%s", image);
	if (fstat(fd, &st) < 0)
		return tw_error_errno(errno, "%s", image);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return tw_error_create(TW_USAGE, "%s: neither a file nor a block device", image);
	if (S_ISREG(st.st_mode) && (st.st_size == 0 || st.st_size % 512))
		return tw_error_create(TW_BAD_DATA,
			"%s: %jd bytes are no disk: not a whole number of 512-byte sectors", image,
			(intmax_t)st.st_size);
	return NULL;
}

/* A trace tells a disk's changes from one state on; it is not gone on with from another. */
static struct tw_error *check_record(const char *record)
{
	struct stat st;
	if (stat(record, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
		return tw_error_create(TW_USAGE, "%s: exists; --record needs a new file", record);
	return NULL;
}

static bool has_control_character(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ')
			return true;
	return false;
}

static struct tw_error *check_for_file(const struct tw_serve *serve)
{
	struct tw_config *config = NULL;
	if (!serve->post)
		return NULL;
	if (has_control_character(serve->post) ||
		(serve->secret_file && has_control_character(serve->secret_file)))
		return tw_error_create(TW_USAGE, "--post or --secret-file has a control character");
	TW_TRY(tw_config_for_url(serve->post, serve->secret_file, &config));
	tw_config_destroy(config);
	return NULL;
}

/* --post becomes the INI file that it stands for; without a target, an empty one. */
static struct tw_error *write_config(const struct tw_serve *serve, const char *path)
{
	TW_AUTO_FREE char *secret = NULL;
	TW_TRY(check_for_file(serve));
	if (serve->secret_file)
		TW_TRY(absolute(serve->secret_file, &secret));
	FILE *file = fopen(path, "we");
	if (!file)
		return tw_error_errno(errno, "%s", path);
	fputs("; written by tapwire serve\n", file);
	if (serve->post)
		fprintf(file, "[target default]\nurl = %s\nbatch_delay_ms = 0\n", serve->post);
	if (secret)
		fprintf(file, "secret_file = %s\n", secret);
	bool failed = ferror(file);
	if (fclose(file) != 0 || failed)
		return tw_error_errno(errno ? errno : EIO, "%s", path);
	return NULL;
}

static struct tw_error *read_config(const struct tw_serve *serve, struct places *p)
{
	struct tw_config *config = NULL;
	TW_TRY(tw_config_load(serve->config, &config));
	struct tw_error *err =
		tw_content_plan(config, serve->id.domain_name, serve->id.domain_uuid, &p->content);
	tw_config_destroy(config);
	return err;
}

static struct tw_error *find_state_dir(const struct tw_serve *serve, struct places *p)
{
	if (serve->state_dir)
		TW_TRY(absolute(serve->state_dir, &p->state_dir));
	else
		TW_TRY(tw_path_serve_state(&p->state_dir));
	return tw_path_make_dir(p->state_dir);
}

static struct tw_error *find_disk_dir(struct places *p)
{
	TW_AUTO_FREE char *key = NULL;
	TW_AUTO_FREE char *ring_dir = NULL;
	TW_TRY(tw_path_disk_key(p->image, &key));
	TW_TRY(tw_path_ring_dir(p->state_dir, &ring_dir));
	if (asprintf(&p->disk_dir, "%s/disks/%s", p->state_dir, key) < 0) {
		p->disk_dir = NULL;
		return tw_error_nomem();
	}
	if (asprintf(&p->ring, "%s/%s.ring", ring_dir, key) < 0) {
		p->ring = NULL;
		return tw_error_nomem();
	}
	return tw_path_make_dir(p->disk_dir);
}

/* After the state directory is locked. */
static struct tw_error *find_places(const struct tw_serve *serve, struct places *p)
{
	TW_TRY(find_disk_dir(p));
	if (serve->socket)
		TW_TRY(absolute(serve->socket, &p->socket));
	else if (!serve->tapdisk)
		p->socket = tw_path_join(p->state_dir, "nbd.sock");
	if (serve->record)
		TW_TRY(absolute(serve->record, &p->record));
	p->courier_socket = tw_path_join(p->state_dir, TW_COURIER_SOCKET);
	if ((!p->socket && !serve->tapdisk) || !p->courier_socket)
		return tw_error_nomem();
	if (serve->config) {
		TW_TRY(read_config(serve, p));
		return absolute(serve->config, &p->config);
	}
	p->config = tw_path_join(p->state_dir, "serve.conf");
	return p->config ? write_config(serve, p->config) : tw_error_nomem();
}

struct announcement {
	const struct tw_serve *serve;
	const char *socket;
};

static void on_live(void *arg)
{
	const struct announcement *a = arg;
	a->serve->ready(a->serve->arg, a->socket);
}

static struct tw_error *supervise(const struct tw_serve *serve, const struct places *p, int *status)
{
	const struct tw_disk_spec spec = {
		.name = serve->id.vdev,
		.image = p->image,
		.ring = p->ring,
		.state_dir = p->disk_dir,
		.courier_socket = p->courier_socket,
		.id = serve->id,
		.nbd_socket = p->socket,
		.ring_size = serve->ring_size,
		.record = p->record,
		.content = p->content,
		.tapdisk = serve->tapdisk,
		.tap_ctl = serve->tap_ctl,
		.stall_ms = serve->stall_ms,
		.tries = serve->tries,
	};
	struct announcement announcement = { serve, p->socket };
	const struct tw_supervisor_options options = {
		.state_dir = p->state_dir,
		.run_dir = p->state_dir,
		.config = p->config,
		.linger_s = serve->linger_s,
		.setup = { .disks = &spec, .ndisks = 1 },
		.embedded = true,
		.live = on_live,
		.arg = &announcement,
	};
	return tw_supervise(&options, status);
}

static struct tw_error *serve_at(const struct tw_serve *serve, struct places *p, int *status)
{
	TW_AUTO_CLOSE int lock = -1;
	TW_TRY(check_image(serve->image, serve->tapdisk ? O_RDONLY : O_RDWR));
	p->image = realpath(serve->image, NULL);
	if (!p->image)
		return tw_error_errno(errno, "%s", serve->image);
	if (serve->record)
		TW_TRY(check_record(serve->record));
	TW_TRY(find_state_dir(serve, p));
	TW_TRY(tw_path_lock(p->state_dir, &lock));
	TW_TRY(find_places(serve, p));
	struct tw_error *err = supervise(serve, p, status);
	/* The ring's own directory goes with the ring; one that still holds a ring stays. */
	*strrchr(p->ring, '/') = '\0';
	rmdir(p->ring);
	return err;
}

struct tw_error *tw_serve(const struct tw_serve *serve, int *status)
{
	struct places places = { 0 };
	struct tw_error *err = serve_at(serve, &places, status);
	places_deinit(&places);
	return err;
}
