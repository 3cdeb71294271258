/* SPDX-License-Identifier: BSD-3-Clause */
/* A resync that reads no more than what was missed, while the guest goes on writing. */
#include "inspect/live_inside.h"

#include "base/log.h"
#include "inspect/kept.h"
#include "inspect/mend.h"

#include <time.h>

/* A volume without a journal in use is waited for so often; then it is taken as it was read: what
 * contradicts itself is put right by the records that follow. */
#define PATIENT_ROUNDS 16
/* A capture point that lives announces a gap as soon as the ring is empty. */
#define MAX_WAIT_MS 10000u

struct rounds {
	struct tw_live *live;
	struct tw_kept kept;
	struct tw_source source;
	struct tw_mend *mend;
	bool done;
};

static struct tw_error *take_all(struct rounds *r)
{
	const struct tw_kept_ops ops = {tw_live_pass_record, tw_live_keep_log, r->live};
	TW_TRY(tw_kept_drain(&r->kept));
	return tw_kept_absorb(&r->kept, &ops);
}

/* All that was written until now becomes part of what was missed. A gap that is open has some of
 * it, and is announced with the guest's next write, or by the capture point's clock. */
static struct tw_error *catch_up(struct rounds *r)
{
	struct tw_live *live = r->live;
	uint64_t open = tw_ring_reader_open_gap(live->ring);
	TW_TRY(take_all(r));
	for (unsigned ms = 0; open && tw_ring_reader_open_gap(live->ring) == open; ms++) {
		if (!tw_ring_reader_producer_alive(live->ring))
			return tw_live_take_open_gap(live);
		if (ms == MAX_WAIT_MS)
			return tw_error_create(TW_GAP, "the capture point does not announce a gap");
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		TW_TRY(take_all(r));
	}
	return open ? take_all(r) : NULL;
}

static struct tw_error *one_round(struct rounds *r, bool last)
{
	struct tw_live *live = r->live;
	struct tw_kept *kept = &r->kept;
	bool stands, again;
	tw_mend_destroy(r->mend);
	r->mend = NULL;
	TW_TRY(tw_mend_survey(live->disk, &r->mend));
	TW_TRY(catch_up(r));
	kept->fresh = false;
	TW_TRY(tw_mend_gather(r->mend, &live->missed, &r->source, &stands, &again));
	if (again)
		return last ? tw_error_create(TW_GAP, "the guest's log goes on too fast") : NULL;
	TW_TRY(tw_kept_drain(kept));
	/* Of writes that are in no record yet, nothing is known. */
	bool gap = tw_ring_reader_open_gap(live->ring) || tw_kept_gap(kept);
	r->done = stands || last || (!gap && (!kept->fresh || !tw_kept_touched(kept)));
	return NULL;
}

/* What is held belongs to the time after; but what it wrote to files is told now, by who owns the
 * blocks now. What comes after a gap is part of the next resync. */
static struct tw_error *written_meanwhile(
	const struct rounds *r, struct tw_missed *written, uint64_t *told)
{
	const struct tw_held *held = &r->kept.held;
	*told = r->live->position.record;
	for (size_t i = 0; i < held->n && !(held->records[i].flags & TW_RECORD_GAP); i++) {
		const struct tw_record *record = &held->records[i];
		bool undefined = record->flags & TW_RECORD_DISCARD &&
				 !(record->flags & TW_RECORD_ZEROES);
		*told = record->sequence;
		if (!undefined && record->nsectors && !(record->flags & TW_RECORD_FLUSH))
			TW_TRY(tw_missed_add(written, record));
	}
	return NULL;
}

static struct tw_error *pack(const struct rounds *r, struct tw_buf *out)
{
	struct tw_live *live = r->live;
	struct tw_mend_facts facts = {.now = tw_live_clock(), .reason = live->reason};
	struct tw_missed written = {0};
	struct tw_error *err = written_meanwhile(r, &written, &facts.told);
	if (!err)
		err = tw_mend_pack(r->mend, &live->missed, &written, &facts, out);
	tw_missed_clear(&written);
	return err;
}

struct tw_error *tw_live_apply_mend(struct tw_live *live, struct tw_span gathered)
{
	if (live->content) {
		tw_disk_content_forget(live->content);
		tw_disk_content_at(live->content, live->position.record);
	}
	struct tw_error *err = tw_disk_mend(live->disk, gathered);
	if (err)
		return err;
	live->status.resyncs++;
	tw_missed_clear(&live->missed);
	live->resync = NULL;
	return NULL;
}

/* Logged first: from there on it is done again in the same way, whatever the image becomes. */
static struct tw_error *apply(struct rounds *r)
{
	struct tw_live *live = r->live;
	struct tw_record at = {.sequence = live->position.record, .time_ns = live->missed.last_ns};
	struct tw_buf gathered = TW_BUF_INIT;
	struct tw_error *err = pack(r, &gathered);
	struct tw_span span = tw_span(gathered.data, gathered.len);
	if (!err)
		err = tw_statefile_log_resync(live->state, &at, span);
	if (!err)
		err = tw_statefile_flush(live->state);
	if (!err)
		err = tw_live_apply_mend(live, span);
	tw_buf_deinit(&gathered);
	return err;
}

static struct tw_error *run(struct rounds *r)
{
	struct tw_live *live = r->live;
	unsigned round = 0;
	for (; !r->done; round++)
		TW_TRY(one_round(r, round == PATIENT_ROUNDS));
	bool changed;
	TW_TRY(tw_disk_check_missed_layout(live->disk, &live->missed, &changed));
	if (changed)
		return tw_error_create(TW_GAP, "partitions or file systems have changed");
	for (size_t i = 0; i < r->kept.held.n; i++)
		TW_TRY(tw_live_expect_record(&r->kept.held.records[i], live));
	TW_TRY(apply(r));
	tw_log(TW_LOG_DEBUG, live->id.vdev, "looked at what was missed in %u rounds", round);
	for (size_t i = 0; i < r->kept.held.n; i++)
		TW_TRY(tw_live_take_record(&r->kept.held.records[i], live));
	return NULL;
}

static bool only_a_crawl_helps(const struct tw_error *err)
{
	enum tw_code code = tw_error_code(err);
	return code == TW_GAP || code == TW_BAD_DATA || code == TW_UNSUPPORTED;
}

struct tw_error *tw_live_mend(struct tw_live *live)
{
	struct rounds r = {.live = live, .kept = {.ring = live->ring}};
	const struct tw_source *image = tw_disk_image(live->disk);
	r.kept.image = image;
	r.source = (struct tw_source){
		.read = tw_kept_read, .arg = &r.kept, .bytes = image->bytes};
	struct tw_error *err = run(&r);
	struct tw_error *passed = NULL;
	if (err && only_a_crawl_helps(err)) {
		tw_log(TW_LOG_INFO, live->id.vdev, "crawling: %s", tw_error_message(err));
		tw_error_destroy(err);
		tw_live_need_crawl(live, live->reason);
		/* What was taken from the ring is part of it. */
		err = NULL;
		for (size_t i = 0; i < r.kept.held.n && !passed; i++)
			passed = tw_live_pass_record(&r.kept.held.records[i], live);
	}
	tw_live_caught_up(live);
	tw_mend_destroy(r.mend);
	tw_kept_deinit(&r.kept);
	return err ? err : passed;
}
