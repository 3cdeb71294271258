/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/mirror.h"
#include "base/log.h"
#include "base/scope.h"
#include "ring.h"
#include "supervise/change.h"
#include "supervise/child.h"
#include "supervise/handle.h"
#include "supervise/paths.h"
#include "supervise/watchdog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#define TICK_MS 100
#define SINK_PATIENCE_MS 1000
/* Between two tries. A session that lasted so long was well: the next pause is the first again. */
#define PAUSE_FIRST_MS 500
#define PAUSE_MAX_MS 60000
#define WELL_MS 60000
/* A guest that is not there, or that somebody else has paused, costs one look at all tapdisks. */
#define ABSENT_MS 2000
/* A tap-ctl that takes so long has a tapdisk that hangs. */
#define SLOW_CHANGE_MS 10000

struct tw_mirror {
	uv_loop_t *loop;
	const struct tw_mirror_spec *spec;
	const struct tw_mirror_ops *ops;
	void *arg;
	char *socket;
	char *pidfile;
	char *page;
	char *mark;
	char *next_ring; /* of the sink, for the next session */
	char *renew_path;
	struct tw_child *sink;
	struct tw_watchdog *dog;
	uv_timer_t *tick;
	uv_poll_t *renew;
	int renew_fd;

	struct tw_change *change;
	bool leaving; /* it takes the mirror away */
	uint64_t change_at; /* its start */

	bool ours;          /* a sink of ours had the ring: what lies beside it is not another one's */
	bool in;            /* the tapdisk is connected */
	bool renew_wanted;  /* the inspector has asked for a new session */
	bool stopping;
	bool given_up;
	unsigned failures;  /* in a row */
	unsigned sessions;  /* in all, over all sinks */
	unsigned kills;     /* by the watchdog */
	uint64_t began_at;  /* the session; the loop's clock, ms */
	uint64_t next_at;   /* the next try is not before */
	uint64_t pause_ms;
	char trouble[512];  /* the last one, for status */
};

static void start_change(struct tw_mirror *m, bool leave);

static bool log_trouble(struct tw_mirror *m, const char *what)
{
	if (strcmp(m->trouble, what) == 0)
		return false;
	tw_log(TW_LOG_WARN, m->spec->name, "%s", what);
	snprintf(m->trouble, sizeof(m->trouble), "%s", what);
	return true;
}

static void note_trouble(struct tw_mirror *m, const char *what)
{
	if (log_trouble(m, what))
		m->ops->trouble(m->arg, m->trouble);
}

static void forget_trouble(struct tw_mirror *m)
{
	if (!*m->trouble)
		return;
	m->trouble[0] = '\0';
	m->ops->trouble(m->arg, NULL);
}

/* --- sessions and failures --- */

static void try_again_later(struct tw_mirror *m)
{
	m->next_at = uv_now(m->loop) + m->pause_ms;
	m->pause_ms = m->pause_ms * 2 < PAUSE_MAX_MS ? m->pause_ms * 2 : PAUSE_MAX_MS;
}

/* What has failed is tried again, so many times in a row. */
static void count_failure(struct tw_mirror *m)
{
	m->failures++;
	try_again_later(m);
	if (m->stopping || m->given_up || !m->spec->tries || m->failures < m->spec->tries)
		return;
	m->given_up = true;
	TW_AUTO_FREE char *last = strdup(m->trouble);
	char text[sizeof(m->trouble)];
	snprintf(text, sizeof(text),
		"given up after %u failures of the mirror in a row; the guest goes on without being watched, until the "
		"service is reloaded or started again; the last: %s",
		m->failures, last ? last : "");
	note_trouble(m, text);
	if (tw_child_state(m->sink) == TW_CHILD_LIVE)
		tw_child_stop(m->sink, SINK_PATIENCE_MS);
}

static void end_session(struct tw_mirror *m)
{
	if (!m->in)
		return;
	m->in = false;
	if (uv_now(m->loop) - m->began_at < WELL_MS)
		return;
	m->failures = 0;
	m->pause_ms = PAUSE_FIRST_MS;
}

static bool connected(struct tw_mirror *m)
{
	struct tw_sink_counts counts;
	return tw_watchdog_counts(m->dog, &counts) && counts.sessions > counts.closed;
}

static void begin_session(struct tw_mirror *m, const char *who)
{
	m->in = true;
	m->sessions++;
	forget_trouble(m);
	m->renew_wanted = false;
	m->began_at = uv_now(m->loop);
	/* Should the next one come soon, it comes after a pause. */
	m->next_at = m->began_at + m->pause_ms;
	tw_log(TW_LOG_INFO, m->spec->name, "mirrored (%s)", who);
	m->ops->live(m->arg);
}

/* --- the sink --- */

/* What a sink that has ended had for itself: the next session's ring, in whatever state it was; its page,
 * its socket. They lie in memory. */
static void remove_leftovers(const struct tw_mirror *m)
{
	if (!m->ours)
		return;
	TW_AUTO_FREE char *dir_path = strdup(m->spec->ring);
	char *slash = dir_path ? strrchr(dir_path, '/') : NULL;
	const char *const paths[] = { m->page, m->socket, m->pidfile };
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		unlink(paths[i]);
	if (!slash)
		return;
	*slash = '\0';
	const char *next = m->next_ring + (slash + 1 - dir_path);
	DIR *dir = opendir(*dir_path ? dir_path : "/");
	if (!dir)
		return;
	for (const struct dirent *entry; (entry = readdir(dir));)
		if (strncmp(entry->d_name, next, strlen(next)) == 0)
			unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
}

static bool sink_probe(void *arg)
{
	const struct tw_mirror *m = arg;
	struct stat st;
	return stat(m->pidfile, &st) == 0 && st.st_size > 0;
}

static void sink_ready(void *arg)
{
	struct tw_mirror *m = arg;
	m->ours = true;
	unlink(m->pidfile);
	struct tw_error *err = tw_watchdog_watch(m->dog, tw_child_pid(m->sink), m->page);
	if (!err)
		return;
	/* Never without a watchdog. */
	note_trouble(m, tw_error_message(err));
	tw_error_destroy(err);
	tw_child_kill(m->sink);
}

static bool sink_ended(void *arg, int status, bool was_ready)
{
	struct tw_mirror *m = arg;
	const enum tw_watchdog_verdict verdict = tw_watchdog_unwatch(m->dog);
	(void)was_ready;
	remove_leftovers(m);
	m->kills += verdict != TW_WATCHDOG_WELL;
	if (verdict == TW_WATCHDOG_NO_BEAT)
		note_trouble(m, "the sink stood still and was killed; the guest goes on without it");
	else if (verdict == TW_WATCHDOG_PENDING)
		note_trouble(m, "the sink left a write unanswered and was killed; the guest goes on "
				"without it");
	else if (m->in)
		note_trouble(m, "the sink has died; the guest goes on without it");
	end_session(m);
	if (m->stopping)
		return false;
	if (!m->sessions && status && status < 128)
		return m->ops->failed(m->arg, status);
	count_failure(m);
	return !m->given_up;
}

static void sink_stopped(void *arg, int status)
{
	struct tw_mirror *m = arg;
	(void)status;
	(void)tw_watchdog_unwatch(m->dog);
	remove_leftovers(m);
	m->in = false;
	if (m->stopping)
		m->ops->stopped(m->arg);
	else if (!m->given_up)
		tw_child_start(m->sink); /* meanwhile it was told to try again */
}

static const struct tw_child_ops sink_ops = {
	.ready = sink_ready,
	.ended = sink_ended,
	.stopped = sink_stopped,
	.probe = sink_probe,
};

static struct tw_error *image_bytes(const char *image, uint64_t *out)
{
	TW_AUTO_CLOSE int fd = open(image, O_RDONLY | O_CLOEXEC);
	off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	if (end < 0)
		return tw_error_errno(errno, "%s", image);
	*out = (uint64_t)end;
	return NULL;
}

static struct tw_error *create_sink(struct tw_mirror *m)
{
	TW_AUTO_FREE char *program = NULL;
	TW_AUTO_FREE char *plugin = NULL;
	TW_AUTO_FREE char *sink = NULL;
	TW_AUTO_FREE char *ring_size = NULL;
	char size[32];
	uint64_t bytes;
	TW_TRY(image_bytes(m->spec->image, &bytes));
	TW_TRY(tw_path_program("nbdkit", &program));
	TW_TRY(tw_path_plugin(&plugin));
	snprintf(size, sizeof(size), "size=%" PRIu64, bytes);
	if (asprintf(&sink, "sink=%s", m->spec->ring) < 0) {
		sink = NULL;
		return tw_error_nomem();
	}
	if (asprintf(&ring_size, "ring-size=%s", m->spec->ring_size ? m->spec->ring_size : "") < 0) {
		ring_size = NULL;
		return tw_error_nomem();
	}
	/* tapdisk's client names its export in a way that nbdkit refuses: the old handshake has no
	 * names. */
	const char *const argv[] = { program, "--foreground", "-o", "-P", m->pidfile, "-U", m->socket,
		plugin, sink, size, m->spec->ring_size ? ring_size : NULL, NULL };
	return tw_child_create(m->loop, "sink", argv, &sink_ops, m, &m->sink);
}

/* --- the change of the tapdisk --- */

static void left(struct tw_mirror *m, int status, const char *said)
{
	if (status)
		tw_log(TW_LOG_WARN, m->spec->name, "taking the mirror away: %s", said);
	/* It goes on without one in any case, once the sink is gone. */
	tw_child_stop(m->sink, SINK_PATIENCE_MS);
}

/* What is not there yet is waited for, without counting: a guest that is off is no failure. */
static void not_changed(struct tw_mirror *m, int status, const char *said)
{
	if (status == TW_SWITCH_ABSENT)
		(void)log_trouble(m, said);
	else
		note_trouble(m, said);
	if (status == TW_SWITCH_ABSENT || status == TW_SWITCH_BUSY)
		m->next_at = uv_now(m->loop) + ABSENT_MS;
	else if (status == TW_SWITCH_REFUSED)
		m->next_at = uv_now(m->loop) + PAUSE_MAX_MS;
	else
		count_failure(m);
	if (!m->sessions && !m->stopping && !m->ops->failed(m->arg, EX_UNAVAILABLE))
		m->given_up = true;
}

static void change_done(void *arg, int status, const char *said)
{
	struct tw_mirror *m = arg;
	const bool there = connected(m);
	if (!there || status == 0)
		end_session(m);
	if (m->leaving) {
		left(m, status, said);
		return;
	}
	if (status == 0 && there)
		begin_session(m, said);
	else
		not_changed(m, status,
			status ? said : "the tapdisk has not connected to the sink");
	if (m->stopping)
		start_change(m, true);
}

static void start_change(struct tw_mirror *m, bool leave)
{
	const struct tw_mirror_switch what = {
		.tap_ctl = m->spec->tap_ctl,
		.target = m->spec->target,
		.image = m->spec->image,
		.socket = leave ? NULL : m->socket,
		.mark = m->mark,
	};
	m->leaving = leave;
	m->change_at = uv_now(m->loop);
	tw_change_start(m->change, &what);
}

/* --- the loop --- */


static void on_tick(uv_timer_t *timer)
{
	struct tw_mirror *m = timer->data;
	if (tw_change_runs(m->change) && uv_now(m->loop) - m->change_at >= SLOW_CHANGE_MS)
		note_trouble(m, "tap-ctl does not get on with the tapdisk, and is tried until it does: see to the "
				"image's storage");
	if (tw_change_runs(m->change) || m->stopping || m->given_up || tw_child_state(m->sink) != TW_CHILD_LIVE)
		return;
	const bool there = connected(m);
	if (m->in && !there) {
		note_trouble(m, "the tapdisk has let the mirror go");
		end_session(m);
		try_again_later(m);
	} else if (!m->in && there) {
		begin_session(m, "the tapdisk came by itself");
	}
	if ((!m->in || m->renew_wanted) && uv_now(m->loop) >= m->next_at) {
		if (m->in)
			try_again_later(m);
		start_change(m, false);
	}
}

/* The inspector may be somebody else's by now: it cannot do more than have the guest pause now and then. */
static void on_renew(uv_poll_t *poll, int status, int events)
{
	struct tw_mirror *m = poll->data;
	char bytes[64];
	(void)status;
	(void)events;
	if (read(m->renew_fd, bytes, sizeof(bytes)) > 0)
		m->renew_wanted = true;
}

static struct tw_error *create_renew(struct tw_mirror *m)
{
	struct stat st;
	if (mkfifo(m->renew_path, 0600) < 0 && errno != EEXIST)
		return tw_error_errno(errno, "%s", m->renew_path);
	m->renew_fd = open(m->renew_path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	if (m->renew_fd < 0 || fstat(m->renew_fd, &st) < 0)
		return tw_error_errno(errno, "%s", m->renew_path);
	if (!S_ISFIFO(st.st_mode))
		return tw_error_create(TW_USAGE, "%s: exists and is no FIFO", m->renew_path);
	m->renew = calloc(1, sizeof(*m->renew));
	if (!m->renew)
		return tw_error_nomem();
	int ret = uv_poll_init(m->loop, m->renew, m->renew_fd);
	if (ret < 0) {
		free(TW_STEAL(m->renew));
		return tw_error_errno(ret, "%s", m->renew_path);
	}
	m->renew->data = m;
	uv_poll_start(m->renew, UV_READABLE, on_renew);
	return NULL;
}

static struct tw_error *beside_ring(const struct tw_mirror *m, const char *suffix, char **out)
{
	if (asprintf(out, "%s%s", m->spec->ring, suffix) < 0) {
		*out = NULL;
		return tw_error_nomem();
	}
	return NULL;
}

static struct tw_error *create_parts(struct tw_mirror *m)
{
	TW_TRY(beside_ring(m, ".sock", &m->socket));
	TW_TRY(beside_ring(m, ".pid", &m->pidfile));
	TW_TRY(beside_ring(m, ".progress", &m->page));
	TW_TRY(beside_ring(m, ".paused", &m->mark));
	TW_TRY(beside_ring(m, ".next", &m->next_ring));
	TW_TRY(beside_ring(m, ".renew", &m->renew_path));
	TW_TRY(tw_path_check_socket(m->socket));
	m->tick = calloc(1, sizeof(*m->tick));
	if (!m->tick)
		return tw_error_nomem();
	uv_timer_init(m->loop, m->tick);
	m->tick->data = m;
	TW_TRY(create_renew(m));
	TW_TRY(tw_change_create(m->loop, change_done, m, &m->change));
	TW_TRY(tw_watchdog_create(m->spec->stall_ms, &m->dog));
	return create_sink(m);
}

struct tw_error *tw_mirror_create(uv_loop_t *loop, const struct tw_mirror_spec *spec,
	const struct tw_mirror_ops *ops, void *arg, struct tw_mirror **out)
{
	struct tw_mirror *m = calloc(1, sizeof(*m));
	if (!m)
		return tw_error_nomem();
	m->loop = loop;
	m->spec = spec;
	m->ops = ops;
	m->arg = arg;
	m->renew_fd = -1;
	m->pause_ms = PAUSE_FIRST_MS;
	struct tw_error *err = create_parts(m);
	if (err)
		tw_mirror_destroy(m);
	else
		*out = m;
	return err;
}

void tw_mirror_start(struct tw_mirror *m)
{
	/* A supervisor that was killed may have left something. */
	m->ours = tw_ring_vacant(m->spec->ring) == 0 && tw_ring_vacant(m->next_ring) == 0;
	remove_leftovers(m);
	uv_timer_start(m->tick, on_tick, TICK_MS, TICK_MS);
	tw_child_start(m->sink);
}

void tw_mirror_stop(struct tw_mirror *m)
{
	m->stopping = true;
	uv_timer_stop(m->tick);
	if (tw_change_runs(m->change))
		return; /* its end goes on with this */
	if (tw_child_state(m->sink) == TW_CHILD_LIVE && connected(m))
		start_change(m, true);
	else
		tw_child_stop(m->sink, SINK_PATIENCE_MS);
}

void tw_mirror_retry(struct tw_mirror *m)
{
	if (m->stopping || m->in)
		return;
	m->failures = 0;
	m->pause_ms = PAUSE_FIRST_MS;
	m->next_at = 0;
	if (!m->given_up)
		return;
	m->given_up = false;
	if (tw_child_state(m->sink) == TW_CHILD_IDLE)
		tw_child_start(m->sink);
}

void tw_mirror_kill(struct tw_mirror *m)
{
	tw_child_kill(m->sink);
}

void tw_mirror_destroy(struct tw_mirror *m)
{
	if (!m)
		return;
	tw_watchdog_destroy(m->dog);
	tw_child_destroy(m->sink);
	tw_change_destroy(m->change);
	tw_handle_close(&m->tick);
	tw_handle_close(&m->renew);
	if (m->renew_fd >= 0) {
		close(m->renew_fd);
		unlink(m->renew_path);
	}
	remove_leftovers(m);
	free(m->socket);
	free(m->pidfile);
	free(m->page);
	free(m->mark);
	free(m->next_ring);
	free(m->renew_path);
	free(m);
}

/* --- status --- */

bool tw_mirror_is_live(const struct tw_mirror *m)
{
	return m->in && !tw_change_runs(m->change);
}

void tw_mirror_status(const struct tw_mirror *m, struct tw_json *json)
{
	struct tw_sink_counts counts = { 0 };
	(void)tw_watchdog_counts(m->dog, &counts);
	tw_json_open(json, "mirror");
	tw_json_text(json, "state",
		m->given_up ? "given up"
		: tw_change_runs(m->change) ? "changing"
		: m->in     ? "live"
			    : "waiting");
	tw_json_text(json, "tapdisk", m->spec->target);
	tw_json_u64(json, "sessions", m->sessions);
	tw_json_u64(json, "killed", m->kills);
	tw_json_u64(json, "failures", m->failures);
	tw_json_u64(json, "writes", counts.writes);
	tw_json_u64(json, "written", counts.written);
	tw_json_u64(json, "reads", counts.reads);
	if (*m->trouble)
		tw_json_text(json, "trouble", m->trouble);
	tw_json_close(json);
}
