/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/attach.h"

#include "base/log.h"

#include <stdlib.h>
#include <time.h>

/* A guest that changes its metadata all the time, and faster than the ring can hold it, is waited
 * for. */
#define PATIENT_ROUNDS 8
#define MAX_WAIT_MS 1000

struct attach {
	const struct tw_attach_ops *ops;
	struct tw_kept kept;
	unsigned round;
};

static void soon_marked(void *arg, uint64_t offset, uint64_t len)
{
	const struct tw_kept *kept = arg;
	tw_source_soon(kept->image, offset, len);
}

/* The source of a round. The first one keeps nothing: of a guest that is quiet it is the last one,
 * and it is read by all processors at the same time. */
static struct tw_error *begin_round(
	struct attach *a, const struct tw_disk *disk, struct tw_source *out)
{
	struct tw_kept *kept = &a->kept;
	kept->image = tw_disk_image(disk);
	*out = (struct tw_source){
		.read = tw_kept_read, .arg = kept, .bytes = tw_disk_bytes(disk)};
	kept->fresh = false;
	if (a->round || kept->ahead)
		return NULL;
	TW_TRY(tw_kept_begin_marks(kept, out->bytes));
	out->read = tw_kept_read_marked;
	out->parallel = kept->image->parallel;
	out->soon = soon_marked;
	kept->fresh = true;
	return NULL;
}

static void end_round(struct attach *a)
{
	tw_kept_end_marks(&a->kept);
	a->kept.image = NULL;
}

static struct tw_error *one_round(struct attach *a, const char *path, const char *subject,
	tw_disk_emit_fn emit, void *emit_arg, struct tw_disk **out)
{
	struct tw_kept *kept = &a->kept;
	struct tw_disk *disk;
	TW_TRY(tw_disk_create(path, subject, emit, emit_arg, &disk));
	struct tw_source source;
	struct tw_error *err = begin_round(a, disk, &source);
	tw_disk_set_source(disk, &source);
	if (!err)
		err = tw_disk_crawl(disk, false);
	tw_disk_set_source(disk, NULL);
	if (!err)
		err = tw_kept_drain(kept);
	/* Nothing new was read, and nothing missed: it is what was kept, as of the position where
	 * the round began. Else no record that came meanwhile may have changed what was read. */
	bool done = !err && !kept->lost &&
		    ((!kept->fresh && !tw_kept_gap(kept)) || !tw_kept_touched(kept));
	if (!err && !done)
		err = tw_kept_absorb(kept, &a->ops->kept);
	end_round(a);
	if (!done) {
		tw_disk_destroy(disk);
		return err;
	}
	*out = disk;
	return NULL;
}

static void wait_for_guest(const struct attach *a, const char *subject)
{
	if (a->round < PATIENT_ROUNDS)
		return;
	if (a->round == PATIENT_ROUNDS)
		tw_log(TW_LOG_WARN, subject,
			"the guest changes its metadata faster than it can be crawled: waiting");
	unsigned ms = 10u << (a->round - PATIENT_ROUNDS < 7 ? a->round - PATIENT_ROUNDS : 7);
	ms = ms < MAX_WAIT_MS ? ms : MAX_WAIT_MS;
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000l}, NULL);
}

static struct tw_error *rounds(struct attach *a, const char *path, const char *subject,
	tw_disk_emit_fn emit, void *emit_arg)
{
	const struct tw_attach_ops *ops = a->ops;
	struct tw_disk *disk = NULL;
	/* What is in the ring now is in the image already. Of a mirror it is laid over it. */
	if (!a->kept.ahead) {
		TW_TRY(tw_kept_drain(&a->kept));
		TW_TRY(tw_kept_absorb(&a->kept, &ops->kept));
	}
	for (a->round = 0; !disk && !a->kept.lost; a->round++) {
		wait_for_guest(a, subject);
		TW_TRY(one_round(a, path, subject, emit, emit_arg, &disk));
	}
	if (!disk)
		return NULL;
	tw_log(TW_LOG_DEBUG, subject, "crawled in %u rounds", a->round);
	struct tw_error *err = NULL;
	for (size_t i = 0; ops->expects && !err && i < a->kept.held.n; i++)
		err = ops->expects(&a->kept.held.records[i], ops->kept.arg);
	if (err) {
		tw_disk_destroy(disk);
		return err;
	}
	TW_TRY(ops->crawled(disk, ops->kept.arg));
	for (size_t i = 0; i < a->kept.held.n; i++)
		TW_TRY(ops->follows(&a->kept.held.records[i], ops->kept.arg));
	return NULL;
}

struct tw_error *tw_attach(const char *image, const char *subject, struct tw_ring_reader *ring,
	tw_disk_emit_fn emit, void *emit_arg, const struct tw_attach_ops *ops)
{
	struct attach a = {.ops = ops, .kept.ring = ring};
	struct tw_error *err = rounds(&a, image, subject, emit, emit_arg);
	tw_kept_deinit(&a.kept);
	return err;
}

struct tw_error *tw_attach_mirror(const char *image, const char *subject,
	struct tw_ring_reader *ring, size_t keep_bytes, tw_disk_emit_fn emit, void *emit_arg,
	const struct tw_attach_ops *ops)
{
	struct attach a = {.ops = ops};
	a.kept = (struct tw_kept){.ring = ring, .ahead = true, .keep_bytes = keep_bytes};
	struct tw_error *err = rounds(&a, image, subject, emit, emit_arg);
	tw_kept_deinit(&a.kept);
	return err;
}
