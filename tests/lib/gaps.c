/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Follows a trace of one ext4 volume as an inspector that misses some of it: every now and then writes
 * are missed and then looked at, while the disk goes on. After each time the view has to be what a crawl
 * finds, and so in the end. FIRST and LAST: records in the middle of which the disk is no state to compare
 * with (a recovery); 0 0: none. RESTARTS: once in so many records it is saved and goes on from that; 0: never.
 * EVENTS: a file for what it tells.
 *
 *   gaps BASE TRACE SEED GAPS FIRST LAST RESTARTS EVENTS
 *
 * Prints how many gaps were mended, how many crawled, and how many bytes were read for either.
 */
#include "../unit/ext4/view_dump.h"

#include "ext4/module.h"
#include "trace.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

struct follower {
	uint8_t *image;
	size_t bytes;
	struct tw_record *records;
	size_t n;
	size_t played;   /* records that are on the image */
	unsigned goes_on; /* one of so many reads lets the disk go on; 0: none */
	struct ext4 *fs;
	FILE *events;
	uint64_t read, first, last;
	uint64_t mended, crawled, mended_bytes, crawled_bytes;
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "gaps: %s: %s\n", what, why);
	exit(1);
}

static void sound(struct tw_error *err, const char *what)
{
	if (err)
		die(what, tw_error_message(err));
}

static void play(struct follower *f)
{
	const struct tw_record *r = &f->records[f->played++];
	uint8_t *at = f->image + (r->sector << TW_SECTOR_SHIFT);
	if (r->payload)
		memcpy(at, r->payload, (size_t)r->nsectors << TW_SECTOR_SHIFT);
	else if (r->flags & TW_RECORD_ZEROES)
		memset(at, 0, (size_t)r->nsectors << TW_SECTOR_SHIFT);
}

static struct tw_error *read_image(void *arg, uint64_t offset, void *buf, size_t len)
{
	struct follower *f = arg;
	while (f->goes_on && f->played < f->n && !(random() % f->goes_on))
		play(f);
	f->read += len;
	memcpy(buf, f->image + offset, len);
	return NULL;
}

static struct tw_error *no_event(struct tw_event *event, void *arg)
{
	(void)event, (void)arg;
	return NULL;
}

static struct tw_error *tell(struct tw_event *event, void *arg)
{
	struct follower *f = arg;
	fprintf(f->events, "%s %.*s %d\n", tw_event_type_name(event->type), (int)event->path.len,
		(const char *)event->path.data, event->resync);
	return NULL;
}

static struct ext4 *crawl(struct follower *f, tw_emit_fn event)
{
	struct tw_fs_env env = { { .read = read_image, .arg = f, .bytes = f->bytes }, event, f, "gaps", NULL };
	struct ext4 *fs;
	sound(tw_fs_ext4.open(&env, (void **)&fs), "crawl");
	return fs;
}

/* From what is on the image on. */
static void crawl_anew(struct follower *f, struct tw_error *why)
{
	fprintf(stderr, "record %zu: crawled: %s\n", f->played, tw_error_message(why));
	if (tw_error_code(why) != TW_GAP)
		exit(1);
	tw_error_destroy(why);
	tw_fs_ext4.destroy(f->fs);
	f->read = 0;
	f->fs = crawl(f, tell);
	f->crawled_bytes += f->read;
	f->crawled++;
}

static void restart(struct follower *f)
{
	struct tw_buf saved = TW_BUF_INIT;
	struct tw_fs_env env = f->fs->env;
	sound(ext4_save(f->fs, &saved), "save");
	tw_fs_ext4.destroy(f->fs);
	sound(ext4_load(&env, tw_span(saved.data, saved.len), (void **)&f->fs), "load");
	tw_buf_deinit(&saved);
}

static struct tw_error *see(struct follower *f, size_t i, bool told)
{
	const struct tw_record *r = &f->records[i];
	struct tw_write write = { r->sector << TW_SECTOR_SHIFT, (uint64_t)r->nsectors << TW_SECTOR_SHIFT, r->payload,
		r->flags, { 1, 0 }, told };
	struct tw_error *err = ext4_write(f->fs, &write);
	return err || !(r->flags & TW_RECORD_FLUSH) ? err : ext4_settle(f->fs, (struct tw_time){ 1, 0 }, false);
}

static void follow(struct follower *f)
{
	play(f);
	struct tw_error *err = see(f, f->played - 1, false);
	if (err)
		crawl_anew(f, err);
}

static void compare(struct follower *f, const char *when)
{
	struct tw_buf got = TW_BUF_INIT, expected = TW_BUF_INIT;
	if (f->first && f->played >= f->first && f->played <= f->last)
		return;
	struct ext4 *newer = crawl(f, no_event);
	dump_inodes(f->fs, false, &got);
	dump_owners(f->fs, &got);
	dump_inodes(newer, false, &expected);
	dump_owners(newer, &expected);
	size_t same = 0, line = 0;
	while (same < got.len && same < expected.len && got.data[same] == expected.data[same])
		line = got.data[same++] == '\n' ? same : line;
	if (same < got.len || same < expected.len) {
		fprintf(stderr, "gaps: %s, record %zu:\nthe view has %.200s\nthe disk %.200s\n", when, f->played,
			got.data + line, expected.data + line);
		exit(1);
	}
	tw_fs_ext4.destroy(newer);
	tw_buf_deinit(&got);
	tw_buf_deinit(&expected);
}

static void miss_range(struct tw_missed *missed, const struct tw_record *r)
{
	uint64_t from = r->sector << TW_SECTOR_SHIFT, to = from + ((uint64_t)r->nsectors << TW_SECTOR_SHIFT);
	from &= ~4095ull;
	to = (to + 4095) & ~4095ull;
	if (to > from)
		sound(tw_missed_add_range(missed, from, to - from), "missed");
}

/* What is read, after writes were missed. */
static struct tw_error *gather(
	struct follower *f, struct tw_missed *missed, size_t *seen, struct tw_buf *out, bool *again)
{
	void *found;
	bool stands;
	*again = false;
	TW_TRY(ext4_survey(f->fs, &found, &stands));
	/* A disk that goes on is another one then. */
	f->goes_on = stands ? f->goes_on : 0;
	while (f->goes_on && f->played < f->n && random() % 3)
		play(f);
	for (; *seen < f->played; ++*seen)
		miss_range(missed, &f->records[*seen]);
	tw_missed_tidy(missed);
	struct tw_error *err = ext4_gather(found, missed, out, again);
	ext4_gathered_destroy(found);
	return err;
}

static struct tw_error *mend(struct follower *f, struct tw_missed *missed, size_t *seen, bool *again)
{
	struct tw_buf out = TW_BUF_INIT;
	f->read = 0;
	struct tw_error *err = gather(f, missed, seen, &out, again);
	f->mended_bytes += f->read;
	f->goes_on = 0;
	if (!err && !*again) {
		for (size_t i = *seen; i < f->played; i++)
			miss_range(missed, &f->records[i]);
		tw_missed_tidy(missed);
		err = ext4_mend(f->fs, tw_span(out.data, out.len), missed, (struct tw_time){ 1, 0 });
	}
	tw_buf_deinit(&out);
	return err;
}

static void miss(struct follower *f)
{
	struct tw_missed missed = { 0 };
	struct tw_error *err;
	bool again;
	size_t seen, n = 1 + (size_t)random() % (random() % 4 ? 25 : 250);
	for (; n-- && f->played < f->n; play(f))
		miss_range(&missed, &f->records[f->played]);
	do {
		seen = f->played;
		f->goes_on = random() % 2 ? 5 + (unsigned)random() % 30 : 0;
		err = mend(f, &missed, &seen, &again);
		for (size_t i = seen; again && i < f->played; i++)
			miss_range(&missed, &f->records[i]);
	} while (again && !err);
	if (!err)
		f->mended++;
	for (size_t i = seen; i < f->played && !err; i++)
		err = see(f, i, true);
	if (err)
		crawl_anew(f, err);
	tw_missed_clear(&missed);
	compare(f, "a gap");
}

static void load(struct follower *f, const char *base, const char *path)
{
	struct tw_trace_reader *trace;
	struct tw_record r;
	if (tw_trace_reader_open(path, &trace) < 0)
		die(path, "no trace");
	f->bytes = tw_trace_disk_bytes(trace);
	f->image = calloc(1, f->bytes);
	FILE *file = fopen(base, "rb");
	if (!file || fread(f->image, 1, f->bytes, file) != f->bytes)
		die(base, strerror(errno));
	fclose(file);
	while (tw_trace_next(trace, &r) > 0) {
		f->records = realloc(f->records, (f->n + 1) * sizeof(r));
		if (r.payload)
			r.payload = memcpy(malloc((size_t)r.nsectors << TW_SECTOR_SHIFT), r.payload,
				(size_t)r.nsectors << TW_SECTOR_SHIFT);
		f->records[f->n++] = r;
	}
	tw_trace_reader_destroy(trace);
}

static void unload(struct follower *f)
{
	fclose(f->events);
	tw_fs_ext4.destroy(f->fs);
	for (size_t i = 0; i < f->n; i++)
		free((void *)f->records[i].payload);
	free(f->records);
	free(f->image);
}

int main(int argc, char **argv)
{
	struct follower f = { 0 };
	if (argc != 9)
		return 2;
	load(&f, argv[1], argv[2]);
	srandom((unsigned)atoi(argv[3]));
	size_t gaps = (size_t)atoi(argv[4]);
	f.first = strtoull(argv[5], NULL, 10);
	f.last = strtoull(argv[6], NULL, 10);
	unsigned dice = 1, restarts = (unsigned)atoi(argv[7]);
	f.events = fopen(argv[8], "w");
	if (!f.events)
		die(argv[8], strerror(errno));
	f.fs = crawl(&f, tell);
	while (f.played < f.n) {
		if (restarts && !((unsigned)rand_r(&dice) % restarts))
			restart(&f);
		if (gaps && !((size_t)random() % (f.n / gaps + 1)))
			miss(&f);
		else
			follow(&f);
	}
	sound(ext4_settle(f.fs, (struct tw_time){ 1, 0 }, true), "settle");
	f.first = 0;
	compare(&f, "the end");
	printf("%zu records: %llu mended, %llu bytes; %llu crawled, %llu bytes\n", f.n,
		(unsigned long long)f.mended, (unsigned long long)f.mended_bytes, (unsigned long long)f.crawled,
		(unsigned long long)f.crawled_bytes);
	unload(&f);
	return 0;
}
