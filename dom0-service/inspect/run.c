/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/run.h"

#include "inspect/disk.h"
#include "trace.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

struct printer {
	FILE *out;
	const struct tw_disk_id *id;
	struct tw_buf line;
};

static struct tw_error *print_line(struct printer *p)
{
	tw_buf_append(&p->line, "\n", 1);
	if (p->line.failed)
		return tw_error_nomem();
	if (fwrite(p->line.data, 1, p->line.len, p->out) != p->line.len)
		return tw_error_errno(errno, "standard output");
	tw_buf_reset(&p->line);
	return NULL;
}

static struct tw_error *print_event(const struct tw_event *event, void *arg)
{
	struct printer *p = arg;
	TW_TRY(tw_event_encode(event, p->id, &p->line));
	return print_line(p);
}

static struct tw_error *print_entry(const struct tw_event *entry, void *arg)
{
	struct printer *p = arg;
	TW_TRY(tw_event_encode_entry(entry, &p->line));
	return print_line(p);
}

static struct tw_error *finish(struct printer *p, struct tw_error *err)
{
	tw_buf_deinit(&p->line);
	if (!err && fflush(p->out))
		err = tw_error_errno(errno, "standard output");
	return err;
}

struct tw_error *tw_run_crawl(const char *image, const struct tw_disk_id *id, FILE *out)
{
	struct printer p = {.out = out, .id = id, .line = TW_BUF_INIT};
	struct tw_disk *disk;
	TW_TRY(tw_disk_create(image, id->vdev, print_event, &p, &disk));
	struct tw_error *err = tw_disk_crawl(disk, true);
	if (!err)
		err = tw_disk_walk(disk, print_entry, &p);
	tw_disk_destroy(disk);
	return finish(&p, err);
}

static struct tw_error *trace_error(int ret, const char *path, uint64_t offset)
{
	switch (-ret) {
	case EPIPE:
		return tw_error_create(TW_BAD_DATA,
			"%s: the trace ends in the middle of the record at byte %llu", path,
			(unsigned long long)offset);
	case EBADMSG:
		return tw_error_create(TW_BAD_DATA, "%s: no trace, or damaged, at byte %llu", path,
			(unsigned long long)offset);
	case ERANGE:
		return tw_error_create(TW_BAD_DATA,
			"%s: the record at byte %llu lies beyond the end of the disk", path,
			(unsigned long long)offset);
	}
	return tw_error_errno(ret, "%s", path);
}

struct tally {
	uint64_t records, bytes, last_ns;
};

static struct tw_error *feed_trace(
	struct tw_disk *disk, struct tw_trace_reader *reader, const char *path, struct tally *tally)
{
	struct tw_record record;
	int ret;
	while ((ret = tw_trace_next(reader, &record)) > 0) {
		if (!tally->records)
			TW_TRY(tw_disk_attached(
				disk, (struct tw_time){(int64_t)(record.time_ns / 1000000000),
					      (uint32_t)(record.time_ns % 1000000000)}));
		tally->records++;
		tally->bytes += (uint64_t)record.nsectors << TW_SECTOR_SHIFT;
		tally->last_ns = record.time_ns;
		TW_TRY(tw_error_context(tw_disk_feed(disk, &record), "%s", path));
	}
	if (ret < 0)
		return trace_error(ret, path, tw_trace_offset(reader));
	return tw_disk_settle(disk,
		(struct tw_time){(int64_t)(tally->last_ns / 1000000000),
			(uint32_t)(tally->last_ns % 1000000000)},
		true);
}

static double now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static struct tw_error *infer(struct tw_disk *disk, const char *image,
	struct tw_trace_reader *reader, const char *path, bool stats)
{
	struct tally tally = {0};
	if (tw_trace_disk_bytes(reader) != tw_disk_bytes(disk))
		return tw_error_create(TW_BAD_DATA,
			"%s: recorded on a disk of %llu bytes, %s has %llu", path,
			(unsigned long long)tw_trace_disk_bytes(reader), image,
			(unsigned long long)tw_disk_bytes(disk));
	double start = now();
	TW_TRY(tw_disk_crawl(disk, true));
	double crawled = now();
	struct tw_error *err = feed_trace(disk, reader, path, &tally);
	double fed = now();
	if (stats) {
		struct tw_disk_stats s;
		tw_disk_stats(disk, &s);
		fprintf(stderr,
			"{\"crawl_s\":%.6f,\"infer_s\":%.6f,\"records\":%llu,\"bytes\":%llu,"
			"\"events\":%llu,\"inodes\":%llu,\"names\":%llu,\"extents\":%llu}\n",
			crawled - start, fed - crawled, (unsigned long long)tally.records,
			(unsigned long long)tally.bytes, (unsigned long long)s.events,
			(unsigned long long)s.inodes, (unsigned long long)s.names,
			(unsigned long long)s.extents);
	}
	return err;
}

struct tw_error *tw_run_infer(
	const char *image, const char *trace, const struct tw_disk_id *id, FILE *out, bool stats)
{
	struct printer p = {.out = out, .id = id, .line = TW_BUF_INIT};
	struct tw_trace_reader *reader;
	struct tw_disk *disk;
	TW_TRY(tw_disk_create(image, id->vdev, print_event, &p, &disk));
	int ret = tw_trace_reader_open(trace, &reader);
	struct tw_error *err = NULL;
	if (ret < 0)
		err = trace_error(ret, trace, 0);
	else
		err = infer(disk, image, reader, trace, stats);
	if (ret >= 0)
		tw_trace_reader_destroy(reader);
	tw_disk_destroy(disk);
	return finish(&p, err);
}
