/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/live_status.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EVERY_MS 1000
/* The supervisor is told of another state at once, and of numbers so often. */
#define TELL_MS 3000

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void render(const struct tw_live_status *s, char *out, size_t size)
{
	snprintf(out, size,
		"{\"state\":\"%s\",\"volumes\":%" PRIu64 ",\"files\":%" PRIu64
		",\"events\":%" PRIu64 ",\"sequence\":%" PRIu64 ",\"gaps\":%" PRIu64
		",\"resyncs\":%" PRIu64 ",\"lag_bytes\":%" PRIu64 ",\"waiting_bytes\":%" PRIu64
		",\"digests_waiting\":%" PRIu64 ",\"digests_late\":%" PRIu64
		",\"read_bytes\":%" PRIu64 ",\"captured_bytes\":%" PRIu64
		",\"spared_bytes\":%" PRIu64 ",\"courier\":%s",
		s->state, s->volumes, s->files, s->events, s->events, s->gaps, s->resyncs,
		s->lag_bytes, s->waiting_bytes, s->digests, s->late_digests, s->read_bytes, s->captured_bytes,
		s->spared_bytes,
		s->courier ? "true" : "false");
}

/* "status STATE EVENTS LAG": see supervise/report.h, which reads it. */
static void render_line(const struct tw_live_status *s, char out[sizeof(s->told)])
{
	/* All that comes before the first look at the disk is one state. */
	bool early = strcmp(s->state, "waiting for the courier") == 0;
	snprintf(out, sizeof(s->told), "status %s %" PRIu64 " %" PRIu64 "\n", early ? "starting" : s->state,
		s->events, s->lag_bytes);
}

/* Milliseconds until the supervisor is to be told; -1: it knows. */
static int64_t tell_due(const struct tw_live_status *s)
{
	char line[sizeof(s->told)];
	if (s->fd < 0)
		return -1;
	if (s->remark_due)
		return 0;
	render_line(s, line);
	if (strcmp(line, s->told) == 0)
		return -1;
	int64_t left = s->state == s->told_state ? s->told_ms + TELL_MS - now_ms() : 0;
	return left > 0 ? left : 0;
}

/* "remark TEXT", which may be empty. */
static void tell_remark(struct tw_live_status *s)
{
	char line[sizeof(s->remark) + 16];
	snprintf(line, sizeof(line), "remark %s\n", s->remark);
	s->remark_due = false;
	if (write(s->fd, line, strlen(line)) < 0)
		s->remark_due = errno == EAGAIN;
}

/* Never waits: a supervisor that does not read is told later. */
static void tell(struct tw_live_status *s)
{
	char line[sizeof(s->told)];
	if (tell_due(s) != 0)
		return;
	if (s->remark_due)
		tell_remark(s);
	render_line(s, line);
	if (write(s->fd, line, strlen(line)) < 0 && errno != EAGAIN)
		s->fd = -1;
	memcpy(s->told, line, sizeof(line));
	s->told_state = s->state;
	s->told_ms = now_ms();
}

static void note_remark(struct tw_live_status *status, const struct tw_disk *disk)
{
	struct tw_buf text = TW_BUF_INIT;
	char before[sizeof(status->remark)];
	memcpy(before, status->remark, sizeof(before));
	tw_disk_remark(disk, &text);
	snprintf(status->remark, sizeof(status->remark), "%.*s", (int)text.len, text.len ? text.data : "");
	status->remark_due |= !status->remark_known || strcmp(before, status->remark) != 0;
	status->remark_known = true;
	tw_buf_deinit(&text);
}

void tw_live_status_places(struct tw_live_status *status, const struct tw_disk *disk)
{
	note_remark(status, disk);
	tw_buf_reset(&status->places);
	struct tw_error *err = tw_disk_describe(disk, &status->places);
	if (err)
		tw_log(TW_LOG_WARN, "", "%s", tw_error_message(err));
	tw_error_destroy(err);
	status->places_written = false;
}

void tw_live_status_deinit(struct tw_live_status *status)
{
	tw_buf_deinit(&status->places);
}

static struct tw_error *write_text(
	const struct tw_live_status *status, const char *head, const struct tw_statefile *state)
{
	struct tw_buf text = TW_BUF_INIT;
	tw_buf_puts(&text, head);
	if (status->places.len) {
		tw_buf_puts(&text, ",\"places\":");
		tw_buf_append(&text, status->places.data, status->places.len);
	}
	tw_buf_append(&text, "}\n", 3);
	struct tw_error *err =
		text.failed ? tw_error_nomem() : tw_statefile_status(state, text.data);
	tw_buf_deinit(&text);
	return err;
}

void tw_live_status_write(struct tw_live_status *status, const struct tw_statefile *state)
{
	char text[sizeof(status->written)];
	int64_t now = now_ms();
	tell(status);
	if (status->written_ms && now - status->written_ms < EVERY_MS)
		return;
	render(status, text, sizeof(text));
	if (!strcmp(text, status->written) && status->places_written)
		return;
	struct tw_error *err = write_text(status, text, state);
	if (err)
		tw_log(TW_LOG_WARN, "", "%s", tw_error_message(err));
	tw_error_destroy(err);
	memcpy(status->written, text, sizeof(text));
	status->places_written = true;
	status->written_ms = now;
}

int tw_live_status_due(const struct tw_live_status *status)
{
	char text[sizeof(status->written)];
	int64_t due = tell_due(status);
	render(status, text, sizeof(text));
	if (!strcmp(text, status->written) && status->places_written)
		return (int)due;
	int64_t left = status->written_ms + EVERY_MS - now_ms();
	left = left > 0 ? left : 0;
	return (int)(due < 0 || left < due ? left : due);
}
