/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/run.h"

#include "event/encode.h"
#include "inspect/content.h"
#include "inspect/disk.h"
#include "trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Lines are written so many bytes at a time: a pipe holds 64 KiB, and a core's cache twice that. */
#define ENOUGH (128u << 10)

struct printer {
	int fd;
	size_t enough;
	struct tw_encoder *encoder;
	struct tw_buf lines;
};

static struct tw_error *printer_init(struct printer *p, int fd, const struct tw_disk_id *id)
{
	*p = (struct printer){.fd = fd, .lines = TW_BUF_INIT};
	/* Somebody looks on. */
	p->enough = isatty(fd) ? 1 : ENOUGH;
	return tw_encoder_create(id, &p->encoder);
}

static void printer_deinit(struct printer *p)
{
	tw_encoder_destroy(p->encoder);
	tw_buf_deinit(&p->lines);
}

static struct tw_error *flush(struct printer *p)
{
	for (size_t done = 0; done < p->lines.len;) {
		ssize_t n = write(p->fd, p->lines.data + done, p->lines.len - done);
		if (n < 0 && errno != EINTR)
			return tw_error_errno(errno, "standard output");
		done += n > 0 ? (size_t)n : 0;
	}
	tw_buf_reset(&p->lines);
	return NULL;
}

static struct tw_error *end_line(struct printer *p)
{
	tw_buf_append(&p->lines, "\n", 1);
	if (p->lines.failed)
		return tw_error_nomem();
	return p->lines.len >= p->enough ? flush(p) : NULL;
}

static struct tw_error *print_event(const struct tw_event *event, void *arg)
{
	struct printer *p = arg;
	TW_TRY(tw_encode_event(p->encoder, event, &p->lines));
	return end_line(p);
}

static struct tw_error *print_entry(const struct tw_event *entry, void *arg)
{
	struct printer *p = arg;
	TW_TRY(tw_encode_entry(p->encoder, entry, &p->lines));
	return end_line(p);
}

/* What was printed before an error is there, and the first error counts. */
static struct tw_error *finish(struct printer *p, struct tw_error *err)
{
	struct tw_error *last = flush(p);
	printer_deinit(p);
	if (!err)
		return last;
	tw_error_destroy(last);
	return err;
}

static struct tw_error *no_event(const struct tw_event *event, void *arg)
{
	(void)event;
	(void)arg;
	return NULL;
}

struct tw_error *tw_run_crawl(const char *image, const struct tw_disk_id *id, int out)
{
	struct printer p;
	struct tw_disk *disk;
	TW_TRY(tw_disk_create(image, id->vdev, no_event, NULL, &disk));
	struct tw_error *err = printer_init(&p, out, id);
	if (!err)
		err = tw_disk_crawl(disk, true);
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

struct clocks {
	double wall, cpu; /* seconds */
};

static double seconds(clockid_t clock)
{
	struct timespec ts;
	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static struct clocks now(void)
{
	return (struct clocks){seconds(CLOCK_MONOTONIC), seconds(CLOCK_PROCESS_CPUTIME_ID)};
}

static struct clocks between(struct clocks from, struct clocks to)
{
	return (struct clocks){to.wall - from.wall, to.cpu - from.cpu};
}

static struct tw_error *print_summary(int fd, const struct tw_disk *disk, const struct tally *tally,
	struct clocks crawl, struct clocks infer)
{
	struct tw_disk_stats s;
	tw_disk_stats(disk, &s);
	int n = dprintf(fd,
		"{\"crawl_s\":%.6f,\"crawl_cpu_s\":%.6f,\"infer_s\":%.6f,\"infer_cpu_s\":%.6f,"
		"\"records\":%llu,\"bytes\":%llu,"
		"\"events\":%llu,\"inodes\":%llu,\"names\":%llu,\"extents\":%llu}\n",
		crawl.wall, crawl.cpu, infer.wall, infer.cpu, (unsigned long long)tally->records,
		(unsigned long long)tally->bytes, (unsigned long long)s.events,
		(unsigned long long)s.inodes, (unsigned long long)s.names,
		(unsigned long long)s.extents);
	return n < 0 ? tw_error_errno(errno, "summary") : NULL;
}

/* summary_fd: -1 for none. */
static struct tw_error *infer(struct tw_disk *disk, const char *image,
	struct tw_trace_reader *reader, const char *path, int summary_fd)
{
	struct tally tally = {0};
	if (tw_trace_disk_bytes(reader) != tw_disk_bytes(disk))
		return tw_error_create(TW_BAD_DATA,
			"%s: recorded on a disk of %llu bytes, %s has %llu", path,
			(unsigned long long)tw_trace_disk_bytes(reader), image,
			(unsigned long long)tw_disk_bytes(disk));
	struct clocks start = now();
	TW_TRY(tw_disk_crawl(disk, true));
	struct clocks crawled = now();
	struct tw_error *err = feed_trace(disk, reader, path, &tally);
	struct tw_error *said = NULL;
	if (summary_fd >= 0)
		said = print_summary(
			summary_fd, disk, &tally, between(start, crawled), between(crawled, now()));
	if (!err)
		return said;
	tw_error_destroy(said);
	return err;
}

/* Events without content are the same, so none is read for those that are only counted. */
static struct tw_error *want_content(
	const struct tw_infer *job, struct tw_disk *disk, struct tw_disk_content **out)
{
	struct tw_content_rules *rules;
	*out = NULL;
	if (!job->content || job->summary == TW_RUN_SUMMARY_ONLY)
		return NULL;
	TW_TRY(tw_content_rules_parse(job->content, job->id.vdev, &rules));
	TW_TRY(tw_disk_content_create(rules, out));
	tw_disk_set_content(disk, *out);
	return tw_disk_content_set_base(*out, tw_disk_bytes(disk));
}

struct tw_error *tw_run_infer(const struct tw_infer *job, int out)
{
	static const tw_disk_emit_fn emit[] = {print_event, print_event, no_event};
	int summary_fd[] = {-1, STDERR_FILENO, out};
	struct printer p;
	struct tw_trace_reader *reader;
	struct tw_disk_content *content = NULL;
	struct tw_disk *disk;
	TW_TRY(tw_disk_create(job->disk, job->id.vdev, emit[job->summary], &p, &disk));
	struct tw_error *err = printer_init(&p, out, &job->id);
	if (!err)
		err = want_content(job, disk, &content);
	int ret = err ? 0 : tw_trace_reader_open(job->trace, &reader);
	if (ret < 0)
		err = trace_error(ret, job->trace, 0);
	if (!err) {
		err = infer(disk, job->disk, reader, job->trace, summary_fd[job->summary]);
		tw_trace_reader_destroy(reader);
	}
	tw_disk_destroy(disk);
	tw_disk_content_destroy(content);
	return finish(&p, err);
}
