/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The sessions of a mirror (tapdisk-plugin/sink.h). What was written between two of them nobody has
 * seen, so each begins with a crawl; and a crawl is exact only from a session's beginning on, when
 * all that was written before had reached the image. An inspector that has lost its place within
 * one asks for the next.
 */
#include "inspect/live_inside.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ASK_MS 1000
#define LOOK_MS 20

static bool session_lives(const struct tw_live *live)
{
	return tw_ring_reader_producer_alive(live->ring);
}

/* -EBUSY: it is the ring that we hold. The others: it is just being put in place. */
static bool not_yet(int ret)
{
	return ret == -EBUSY || ret == -ENOENT || ret == -EBADMSG;
}

/* What is left of a session was not followed: it is part of what was missed. */
static struct tw_error *pass_rest(struct tw_live *live)
{
	struct tw_record record;
	while (tw_ring_next(live->ring, &record) > 0)
		TW_TRY(record.flags & TW_RECORD_GAP ? tw_live_take_gap(live, &record)
						    : tw_live_pass_record(&record, live));
	return tw_live_take_open_gap(live);
}

static struct tw_error *open_next(struct tw_live *live)
{
	struct tw_ring_reader *next;
	int ret = tw_ring_reader_open(live->options.ring, &next);
	if (ret < 0)
		return not_yet(ret) ? NULL : tw_error_errno(ret, "%s", live->options.ring);
	struct tw_error *err = live->disk ? pass_rest(live) : NULL;
	if (!err && tw_statefile_has_log(live->state))
		err = tw_statefile_flush(live->state);
	tw_ring_reader_destroy(live->ring);
	live->ring = next;
	TW_TRY(err);
	live->position.record = 0;
	live->missed.unwatched = true;
	live->missed.in_use = true;
	live->asked_ms = 0;
	tw_interest_reset(live->interest, live->ring);
	tw_live_need_crawl(live, "the mirror was away");
	return NULL;
}

/* Nobody may be there to hear it; then there is nobody who could do it, either. */
static void ask(struct tw_live *live)
{
	const int64_t now = tw_live_now_ms();
	char path[PATH_MAX];
	if (live->asked_ms && now - live->asked_ms < ASK_MS)
		return;
	if (!live->asked_ms)
		tw_log(TW_LOG_INFO, live->id.vdev, "asking for a new session of the mirror");
	live->asked_ms = now;
	int n = snprintf(path, sizeof(path), "%s.renew", live->options.ring);
	if (n < 0 || (size_t)n >= sizeof(path))
		return;
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return;
	ssize_t written = write(fd, "", 1);
	(void)written;
	close(fd);
}

struct tw_error *tw_live_may_crawl(struct tw_live *live, bool *may)
{
	*may = true;
	if (!live->options.mirror)
		return NULL;
	*may = tw_ring_reader_is_whole(live->ring) && session_lives(live);
	if (*may)
		return NULL;
	live->status.state = "waiting for the mirror";
	if (session_lives(live))
		ask(live);
	TW_TRY(open_next(live));
	*may = tw_ring_reader_is_whole(live->ring) && session_lives(live);
	return NULL;
}

struct tw_error *tw_live_await_session(struct tw_live *live)
{
	while (true) {
		struct pollfd stop = {live->stop_fd, POLLIN, 0};
		bool may;
		TW_TRY(tw_live_may_crawl(live, &may));
		if (may)
			return NULL;
		tw_live_status_write(&live->status, live->state);
		if (poll(&stop, 1, LOOK_MS) > 0)
			return tw_error_create(
				TW_UNAVAILABLE, "told to end before the mirror was there");
	}
}

struct tw_error *tw_live_next_session(struct tw_live *live)
{
	if (!live->options.mirror || session_lives(live) || tw_ring_reader_backlog(live->ring))
		return NULL;
	return open_next(live);
}
