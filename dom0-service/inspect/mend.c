/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/mend.h"

#include "base/pack.h"
#include "inspect/volume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A volume that is looked at. */
struct part {
	void *found;
	bool stands;
	struct tw_buf gathered;
};

struct tw_mend {
	struct tw_disk *disk;
	struct part *parts; /* one for each volume of the disk; of those that are not watched, empty */
};

struct tw_error *tw_mend_survey(struct tw_disk *disk, struct tw_mend **out)
{
	struct tw_mend *mend = calloc(1, sizeof(*mend));
	if (!mend)
		return tw_error_nomem();
	mend->disk = disk;
	mend->parts = calloc(disk->nvolumes + 1, sizeof(*mend->parts));
	struct tw_error *err = mend->parts ? NULL : tw_error_nomem();
	for (size_t i = 0; i < disk->nvolumes && !err; i++) {
		const struct tw_volume *volume = disk->volumes[i];
		struct part *part = &mend->parts[i];
		if (volume->ops)
			err = volume->ops->survey(volume->fs, &part->found, &part->stands);
	}
	if (err) {
		tw_mend_destroy(mend);
		return err;
	}
	*out = mend;
	return NULL;
}

void tw_mend_destroy(struct tw_mend *mend)
{
	if (!mend)
		return;
	for (size_t i = 0; mend->parts && i < mend->disk->nvolumes; i++) {
		if (mend->parts[i].found)
			mend->disk->volumes[i]->ops->gathered_destroy(mend->parts[i].found);
		tw_buf_deinit(&mend->parts[i].gathered);
	}
	free(mend->parts);
	free(mend);
}

static struct tw_error *gather(struct tw_mend *mend, size_t i, const struct tw_missed *missed,
	const struct tw_source *kept, bool *again)
{
	struct tw_volume *volume = mend->disk->volumes[i];
	struct part *part = &mend->parts[i];
	struct tw_missed mine = {0};
	struct tw_error *err = tw_volume_missed(volume, missed, &mine);
	tw_disk_set_source(mend->disk, part->stands ? NULL : kept);
	if (!err)
		err = volume->ops->gather(part->found, &mine, &part->gathered, again);
	tw_disk_set_source(mend->disk, NULL);
	tw_missed_clear(&mine);
	return tw_error_context(err, "%s", volume->subject);
}

struct tw_error *tw_mend_gather(struct tw_mend *mend, struct tw_missed *missed,
	const struct tw_source *kept, bool *stands, bool *again)
{
	*stands = true;
	*again = false;
	tw_missed_tidy(missed);
	for (size_t i = 0; i < mend->disk->nvolumes && !*again; i++) {
		if (!mend->parts[i].found)
			continue;
		TW_TRY(gather(mend, i, missed, kept, again));
		*stands &= mend->parts[i].stands;
	}
	return NULL;
}

static struct tw_error *pack_volume(const struct tw_volume *volume, const struct part *part,
	const struct tw_missed *written, struct tw_buf *out)
{
	struct tw_missed mine = {0};
	tw_pack32(out, part->found != NULL);
	if (!part->found)
		return NULL;
	tw_pack_bytes(out, part->gathered.data, part->gathered.len);
	struct tw_error *err = tw_volume_missed(volume, written, &mine);
	tw_pack64(out, mine.n);
	for (size_t i = 0; i < mine.n; i++) {
		tw_pack64(out, mine.ranges[i].offset);
		tw_pack64(out, mine.ranges[i].length);
	}
	tw_missed_clear(&mine);
	return err;
}

struct tw_error *tw_mend_pack(struct tw_mend *mend, struct tw_missed *missed,
	struct tw_missed *written, const struct tw_mend_facts *facts, struct tw_buf *out)
{
	tw_pack64(out, (uint64_t)facts->now.sec);
	tw_pack32(out, facts->now.nsec);
	tw_pack_bytes(out, facts->reason, strlen(facts->reason));
	tw_pack64(out, facts->told);
	tw_pack64(out, missed->last_ns);
	tw_pack64(out, tw_missed_bytes(missed));
	for (size_t i = 0; i < missed->n; i++)
		TW_TRY(tw_missed_add_range(
			written, missed->ranges[i].offset, missed->ranges[i].length));
	tw_missed_tidy(written);
	tw_pack64(out, mend->disk->nvolumes);
	for (size_t i = 0; i < mend->disk->nvolumes; i++)
		TW_TRY(pack_volume(mend->disk->volumes[i], &mend->parts[i], written, out));
	return out->failed ? tw_error_nomem() : NULL;
}

/* --- and back --- */

static struct tw_error *damaged(void)
{
	return tw_error_create(TW_BAD_DATA, "what was gathered is cut off, or of another disk");
}

static struct tw_error *unpack_ranges(struct tw_unpack *in, struct tw_missed *out)
{
	uint64_t n = tw_unpack64(in);
	for (uint64_t i = 0; i < n && !in->failed; i++) {
		uint64_t offset = tw_unpack64(in);
		TW_TRY(tw_missed_add_range(out, offset, tw_unpack64(in)));
	}
	tw_missed_tidy(out);
	return in->failed ? damaged() : NULL;
}

static struct tw_error *mend_volume(
	struct tw_volume *volume, struct tw_unpack *in, struct tw_time now)
{
	struct tw_missed written = {0};
	if ((tw_unpack32(in) != 0) != (volume->ops != NULL))
		return damaged();
	if (!volume->ops)
		return NULL;
	struct tw_span gathered = tw_unpack_bytes(in);
	struct tw_error *err = unpack_ranges(in, &written);
	if (!err)
		err = volume->ops->mend(volume->fs, gathered, &written, now);
	tw_missed_clear(&written);
	return tw_error_context(err, "%s", volume->subject);
}

struct tw_error *tw_disk_mend(struct tw_disk *disk, struct tw_span gathered)
{
	struct tw_unpack in = {.span = gathered};
	struct tw_time now = {.sec = (int64_t)tw_unpack64(&in)};
	char reason[256];
	now.nsec = tw_unpack32(&in);
	struct tw_span text = tw_unpack_bytes(&in);
	snprintf(reason, sizeof(reason), "%.*s", (int)(text.len < 255 ? text.len : 255),
		text.data ? (const char *)text.data : "");
	uint64_t told = tw_unpack64(&in), last_ns = tw_unpack64(&in), bytes = tw_unpack64(&in);
	if (tw_unpack64(&in) != disk->nvolumes || in.failed)
		return damaged();
	disk->told = told;
	for (size_t i = 0; i < disk->nvolumes; i++)
		TW_TRY(mend_volume(disk->volumes[i], &in, now));
	return tw_disk_tell_resynced(disk, now, reason,
		&(struct tw_summary){
			.to = last_ns ? tw_time_of(last_ns) : now, .bytes = bytes, .bytes_known = true});
}
