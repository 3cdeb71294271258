/* SPDX-License-Identifier: BSD-3-Clause */
/* How the live inspector comes to its state: from what was saved, or from a crawl. */
#include "inspect/live_inside.h"

#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static struct tw_error *create_disk(struct tw_live *live)
{
	TW_TRY(tw_disk_create(
		live->options.image, live->options.id.vdev, tw_live_take_event, live, &live->disk));
	tw_disk_set_content(live->disk, live->content);
	return NULL;
}

bool tw_live_state_is_old(const struct tw_live *live)
{
	return tw_outbox_acked(live->box) > tw_disk_sequence(live->disk);
}

static struct tw_error *load(struct tw_live *live)
{
	bool found;
	TW_TRY(create_disk(live));
	struct tw_error *err =
		tw_statefile_load(live->state, live->disk, live->box, &live->position, &found);
	if (!err && found)
		return NULL;
	if (err && tw_error_code(err) != TW_BAD_DATA && tw_error_code(err) != TW_UNSUPPORTED)
		return err;
	if (err)
		tw_log(TW_LOG_ERROR, live->id.vdev, "%s: starting anew, with a new epoch",
			tw_error_message(err));
	tw_error_destroy(err);
	tw_disk_destroy(live->disk);
	tw_outbox_destroy(live->box);
	live->disk = NULL;
	live->box = NULL;
	memset(&live->position, 0, sizeof(live->position));
	return tw_outbox_create(&live->box);
}

static struct tw_error *new_epoch(struct tw_live *live)
{
	uint8_t random[(TW_EPOCH_BYTES - 1) / 2];
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return tw_error_errno(errno, "getrandom");
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(live->position.epoch + 2 * i, 3, "%02x", random[i]);
	return NULL;
}

static struct tw_error *open_ring(struct tw_live *live)
{
	int ret = tw_ring_reader_open(live->options.ring, &live->ring);
	if (ret == -EBUSY)
		return tw_error_create(TW_UNAVAILABLE, "%s: another inspector reads this ring",
			live->options.ring);
	if (ret < 0)
		return tw_error_errno(ret, "%s", live->options.ring);
	if (tw_ring_reader_disk_bytes(live->ring) % TW_SECTOR_SIZE)
		return tw_error_create(TW_UNSUPPORTED, "%s: its size is no multiple of %u bytes",
			live->options.image, TW_SECTOR_SIZE);
	return NULL;
}

static struct tw_error *connect_courier(struct tw_live *live)
{
	struct tw_buf source = TW_BUF_INIT;
	tw_disk_source(&live->id, &source);
	tw_buf_append(&source, "", 1);
	struct tw_error *err =
		source.failed ? tw_error_nomem()
			      : tw_uplink_create(live->options.courier, live->position.epoch,
					source.data, live->box, &live->link);
	tw_buf_deinit(&source);
	TW_TRY(err);
	tw_uplink_connect(live->link, 2000);
	return NULL;
}

/* What the log holds is later than what is followed, until it is. */
static struct tw_error *expect_log(struct tw_live *live)
{
	if (!live->content)
		return NULL;
	tw_disk_content_set_told(live->content, tw_outbox_acked(live->box));
	return tw_statefile_look(live->state, tw_live_expect_record, live);
}

/* Goes on from the snapshot by the log. */
static struct tw_error *replay(struct tw_live *live)
{
	TW_TRY(expect_log(live));
	TW_TRY(tw_statefile_replay(live->state, tw_disk_loaded_bytes(live->disk), &live->position,
		tw_live_replay_record, live));
	tw_live_caught_up(live);
	if (tw_disk_loaded_bytes(live->disk) != tw_disk_bytes(live->disk)) {
		live->missed.unwatched = true;
		tw_live_need_crawl(live, "the disk was resized");
	}
	return NULL;
}

/* The numbers that were used since the state was saved are not known any more, nor what they told.
 */
static void mend_old_state(struct tw_live *live)
{
	if (!tw_live_state_is_old(live))
		return;
	tw_disk_set_sequence(live->disk, tw_outbox_acked(live->box));
	live->position.record = 0; /* the ring has gone on, too */
	live->missed.unwatched = true;
	tw_live_need_crawl(live, "the saved state is older than what was sent");
}

/* The events of a resync are in no log: before they get numbers, the courier has to say which it
 * has. */
static struct tw_error *ask_courier(struct tw_live *live)
{
	live->status.state = "waiting for the courier";
	while (!tw_uplink_connect(live->link, TW_LIVE_RECONNECT_MS)) {
		struct pollfd stop = {live->stop_fd, POLLIN, 0};
		tw_live_status_write(&live->status, live->state);
		if (poll(&stop, 1, TW_LIVE_RECONNECT_MS) > 0)
			return tw_error_create(
				TW_UNAVAILABLE, "told to end before the courier was there");
	}
	mend_old_state(live);
	return NULL;
}

/* Goes on from what was saved; what does not hold makes a resync due. */
static struct tw_error *resume(struct tw_live *live)
{
	TW_TRY(open_ring(live));
	bool same = !memcmp(live->position.ring, tw_ring_reader_id(live->ring), TW_RING_ID_BYTES);
	if (live->content)
		tw_disk_content_set_ring(live->content, same && !live->options.mirror ? live->ring : NULL);
	TW_TRY(replay(live));
	live->unsettled = true;
	if (!same) {
		live->position.record = 0;
		live->missed.unwatched = true;
		live->missed.in_use = live->options.mirror;
		tw_live_need_crawl(live, "the disk was not watched for a while");
	}
	tw_live_set_content_ring(live);
	if (tw_uplink_up(live->link))
		mend_old_state(live);
	return live->resync ? ask_courier(live) : NULL;
}

void tw_live_set_content_ring(struct tw_live *live)
{
	if (live->content)
		tw_disk_content_set_ring(live->content, live->options.mirror ? NULL : live->ring);
}

struct tw_error *tw_live_start(struct tw_live *live, int stop_fd)
{
	live->stop_fd = stop_fd;
	TW_TRY(load(live));
	bool known = live->disk != NULL;
	if (!known)
		TW_TRY(new_epoch(live));
	live->id.epoch = live->position.epoch;
	TW_TRY(tw_encoder_create(&live->id, &live->encoder));
	TW_TRY(connect_courier(live));
	TW_TRY(known ? resume(live) : open_ring(live));
	tw_live_set_content_ring(live);
	/* A mirror's next session may be far: what is known is sent meanwhile. */
	if (!known || (live->resync && !live->options.mirror)) {
		TW_TRY(tw_live_crawl(live));
		TW_TRY(tw_live_give_back(live));
	}
	live->status.state = "live";
	live->status.events = tw_disk_sequence(live->disk);
	tw_live_status_places(&live->status, live->disk);
	tw_live_status_write(&live->status, live->state);
	return NULL;
}

static struct tw_error *create_content(struct tw_live *live)
{
	struct tw_content_rules *rules;
	if (!live->options.content)
		return NULL;
	TW_TRY(tw_content_rules_parse(live->options.content, live->options.id.vdev, &rules));
	TW_TRY(tw_disk_content_create(rules, &live->content));
	if (live->options.mirror)
		tw_disk_content_keep_all(live->content);
	return NULL;
}

struct tw_error *tw_live_create(const struct tw_live_options *options, struct tw_live **out)
{
	struct tw_live *live = calloc(1, sizeof(*live));
	if (!live)
		return tw_error_nomem();
	live->options = *options;
	live->id = options->id;
	live->status.state = "starting";
	live->status.fd = options->status_fd;
	live->stop_fd = -1;
	struct tw_error *err = tw_outbox_create(&live->box);
	if (!err)
		err = tw_interest_create(&live->interest);
	if (!err)
		err = create_content(live);
	if (!err)
		err = tw_statefile_create(options->state, &live->state);
	if (err) {
		tw_live_destroy(live);
		return err;
	}
	*out = live;
	return NULL;
}

void tw_live_destroy(struct tw_live *live)
{
	if (!live)
		return;
	tw_disk_destroy(live->disk);
	tw_live_status_deinit(&live->status);
	tw_disk_content_destroy(live->content);
	tw_interest_destroy(live->interest);
	if (live->ring)
		tw_ring_reader_destroy(live->ring);
	tw_uplink_destroy(live->link);
	tw_outbox_destroy(live->box);
	tw_statefile_destroy(live->state);
	tw_missed_clear(&live->missed);
	tw_encoder_destroy(live->encoder);
	tw_buf_deinit(&live->json);
	tw_buf_deinit(&live->note);
	free(live);
}
