/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The capture point for hosts without blktap: an nbdkit plugin that serves a raw image and puts
 * every completed write into the ring, a trace, or both. With sink= there is no image: it is the
 * secondary of a tapdisk's mirror (sink.h). See nbdkit-tapwire-plugin(1).
 *
 * nbdkit gives a plugin no context before its first connection, so the server's state is one static
 * struct; nothing else in tapwire does this.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "capture.h"
#include "ring.h"
#include "sink.h"
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static struct {
	/* configuration */
	char *file;
	char *ring_path;
	char *sink_path; /* a sink's ring: then there is no image */
	char *trace_path;
	int64_t ring_bytes;
	int64_t sink_bytes; /* the size that a sink shows */
	bool trace_append;

	int fd;
	bool readonly; /* the image cannot be written */
	bool is_block;
	uint64_t size;
	struct capture *capture;
	struct sink *sink;
} tw = {.ring_bytes = TW_RING_DEFAULT_BYTES, .fd = -1};

/* --- image --- */

static int read_image(char *buf, uint64_t count, uint64_t offset)
{
	while (count > 0) {
		ssize_t n = pread(tw.fd, buf, count, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = EIO; /* somebody cut the image off */
		if (n <= 0)
			return -1;
		buf += n;
		offset += (uint64_t)n;
		count -= (uint64_t)n;
	}
	return 0;
}

static int write_image(const char *buf, uint64_t count, uint64_t offset)
{
	while (count > 0) {
		ssize_t n = pwrite(tw.fd, buf, count, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = ENOSPC;
		if (n <= 0)
			return -1;
		buf += n;
		offset += (uint64_t)n;
		count -= (uint64_t)n;
	}
	return 0;
}

static int write_zeroes(uint64_t count, uint64_t offset)
{
	static const char zeroes[64 << 10];
	while (count > 0) {
		const uint64_t n = count < sizeof(zeroes) ? count : sizeof(zeroes);
		if (write_image(zeroes, n, offset) < 0)
			return -1;
		offset += n;
		count -= n;
	}
	return 0;
}

static bool unsupported(int error)
{
	return error == EOPNOTSUPP || error == ENOTSUP || error == ENODEV || error == ENOSYS;
}

static int punch_hole(uint64_t count, uint64_t offset)
{
	return fallocate(
		tw.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)count);
}

static int zero_image(uint64_t count, uint64_t offset, uint32_t flags)
{
	const bool fast = flags & NBDKIT_FLAG_FAST_ZERO;
	/* A device may take as long for it as for writing. */
	if (fast && tw.is_block) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if ((flags & NBDKIT_FLAG_MAY_TRIM) && punch_hole(count, offset) == 0)
		return 0;
	if (fallocate(tw.fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		    (off_t)count) == 0)
		return 0;
	if (!unsupported(errno) || fast)
		return -1;
	return write_zeroes(count, offset);
}

static int sync_if(bool wanted)
{
	return wanted ? fdatasync(tw.fd) : 0;
}

/* --- capture of what is not whole sectors --- */

/* Captures whole sectors with what the image holds now; their hold is ours. Should the image not be
 * readable, the consumer is told of a gap there, and re-reads it. */
static void capture_image(uint64_t first, uint64_t nsectors, bool sync)
{
	const uint64_t offset = first * TW_SECTOR_SIZE;
	const uint64_t bytes = nsectors * TW_SECTOR_SIZE;
	if (!capture_wanted(tw.capture))
		return;
	/* calloc: the last sector may reach beyond the end of the disk. */
	char *buf = calloc(1, bytes);
	const uint64_t there = bytes < tw.size - offset ? bytes : tw.size - offset;
	if (buf && read_image(buf, there, offset) < 0) {
		free(buf);
		buf = NULL;
	}
	capture_publish(tw.capture, 0, first, nsectors, buf, sync);
	free(buf);
}

/* Captures sectors that became zeroes, and the sectors of which only a part did. */
static void capture_zeroes(uint64_t count, uint64_t offset, bool sync)
{
	const uint64_t end = offset + count;
	const uint64_t first = (offset + TW_SECTOR_SIZE - 1) / TW_SECTOR_SIZE;
	const uint64_t last = end / TW_SECTOR_SIZE;
	if (first > last) { /* within one sector */
		capture_image(last, 1, sync);
		return;
	}
	if (offset % TW_SECTOR_SIZE)
		capture_image(first - 1, 1, sync);
	if (first < last)
		capture_publish(tw.capture, TW_RECORD_ZEROES, first, last - first, NULL, sync);
	if (end % TW_SECTOR_SIZE)
		capture_image(last, 1, sync);
}

/* --- requests --- */

static int answer(int error)
{
	if (error)
		nbdkit_set_error(error);
	return error ? -1 : 0;
}

static int tapwire_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle;
	(void)flags;
	if (tw.sink)
		return answer(sink_read(tw.sink));
	if (read_image(buf, count, offset) < 0) {
		nbdkit_error("%s: read: %m", tw.file);
		return -1;
	}
	return 0;
}

static int tapwire_pwrite(
	void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	const bool fua = flags & NBDKIT_FLAG_FUA;
	if (tw.sink)
		return answer(sink_write(tw.sink, 0, offset, count, buf));
	const struct capture_hold hold = capture_begin(tw.capture, offset, count);
	(void)handle;
	int ret = write_image(buf, count, offset);
	if (ret == 0)
		ret = sync_if(fua);
	if (ret < 0)
		nbdkit_error("%s: write: %m", tw.file);
	else if ((offset | count) % TW_SECTOR_SIZE)
		capture_image(hold.sector, hold.nsectors, fua);
	else
		capture_publish(tw.capture, 0, hold.sector, hold.nsectors, buf, fua);
	capture_end(tw.capture, &hold);
	return ret;
}

static int tapwire_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	const bool fua = flags & NBDKIT_FLAG_FUA;
	if (tw.sink)
		return answer(sink_write(tw.sink, TW_RECORD_ZEROES, offset, count, NULL));
	const struct capture_hold hold = capture_begin(tw.capture, offset, count);
	(void)handle;
	int ret = zero_image(count, offset, flags);
	if (ret == 0)
		ret = sync_if(fua);
	if (ret == 0)
		capture_zeroes(count, offset, fua);
	else if (!unsupported(errno)) /* else it is the answer to a wish for speed */
		nbdkit_error("%s: write zeroes: %m", tw.file);
	capture_end(tw.capture, &hold);
	return ret;
}

/* Only whole sectors are discarded. Where the image cannot have holes nothing happens, and nothing
 * is captured. */
static int tapwire_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	const uint64_t first = (offset + TW_SECTOR_SIZE - 1) / TW_SECTOR_SIZE;
	const uint64_t last = (offset + count) / TW_SECTOR_SIZE;
	const uint64_t start = first * TW_SECTOR_SIZE;
	const uint64_t bytes = (last - first) * TW_SECTOR_SIZE;
	const bool fua = flags & NBDKIT_FLAG_FUA;
	(void)handle;
	if (tw.sink)
		return answer(sink_write(tw.sink, TW_RECORD_DISCARD, offset, count, NULL));
	if (first >= last)
		return 0;
	const struct capture_hold hold = capture_begin(tw.capture, start, bytes);
	int ret = punch_hole(bytes, start);
	const bool no_holes = ret < 0 && unsupported(errno);
	if (ret == 0)
		ret = sync_if(fua);
	if (no_holes)
		ret = 0;
	else if (ret < 0)
		nbdkit_error("%s: trim: %m", tw.file);
	else
		capture_publish(tw.capture, TW_RECORD_DISCARD | TW_RECORD_ZEROES, first,
			last - first, NULL, fua);
	capture_end(tw.capture, &hold);
	return ret;
}

static int tapwire_flush(void *handle, uint32_t flags)
{
	(void)handle;
	(void)flags;
	if (tw.sink)
		return answer(sink_flush(tw.sink));
	if (fdatasync(tw.fd) < 0) {
		nbdkit_error("%s: flush: %m", tw.file);
		return -1;
	}
	capture_publish(tw.capture, TW_RECORD_FLUSH, 0, 0, NULL, true);
	return 0;
}

/* --- start and end --- */

static int set_path(char **to, const char *value)
{
	/* nbdkit goes to / when it goes into the background. */
	free(*to);
	*to = nbdkit_absolute_path(value);
	return *to ? 0 : -1;
}

static int set_size(int64_t *to, const char *value)
{
	*to = nbdkit_parse_size(value);
	return *to < 0 ? -1 : 0;
}

static int tapwire_config(const char *key, const char *value)
{
	if (strcmp(key, "file") == 0)
		return set_path(&tw.file, value);
	if (strcmp(key, "ring") == 0)
		return set_path(&tw.ring_path, value);
	if (strcmp(key, "sink") == 0)
		return set_path(&tw.sink_path, value);
	if (strcmp(key, "record") == 0)
		return set_path(&tw.trace_path, value);
	if (strcmp(key, "ring-size") == 0)
		return set_size(&tw.ring_bytes, value);
	if (strcmp(key, "size") == 0)
		return set_size(&tw.sink_bytes, value);
	if (strcmp(key, "record-append") == 0) {
		int on = nbdkit_parse_bool(value);
		tw.trace_append = on == 1;
		return on < 0 ? -1 : 0;
	}
	nbdkit_error("unknown parameter '%s' (known: file, ring, ring-size, record, record-append, "
		     "sink, size)",
		key);
	return -1;
}

static int check_sink(void)
{
	if (tw.file || tw.ring_path || tw.trace_path)
		nbdkit_error("sink= goes with size= and ring-size= only");
	else if (tw.sink_bytes <= 0 || tw.sink_bytes % TW_SECTOR_SIZE)
		nbdkit_error("size=SIZE is missing, or no whole number of sectors: how large is "
			     "the image?");
	else
		return 0;
	return -1;
}

static int tapwire_config_complete(void)
{
	if (tw.sink_path)
		return check_sink();
	if (tw.sink_bytes)
		nbdkit_error("size= goes with sink= only");
	else if (!tw.file)
		nbdkit_error("file=IMAGE is missing: which raw image shall be served?");
	else
		return 0;
	return -1;
}

/* A mirror's requests come over one connection, and there is nothing to wait for in any of them: a
 * second thread would only change their order. */
static int tapwire_thread_model(void)
{
	return tw.sink_path ? NBDKIT_THREAD_MODEL_SERIALIZE_REQUESTS : THREAD_MODEL;
}

static int open_image(void)
{
	struct stat st;
	tw.fd = open(tw.file, O_RDWR | O_CLOEXEC);
	if (tw.fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM)) {
		tw.readonly = true;
		tw.fd = open(tw.file, O_RDONLY | O_CLOEXEC);
	}
	if (tw.fd < 0 || fstat(tw.fd, &st) < 0) {
		nbdkit_error("file=%s: %m", tw.file);
		return -1;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		nbdkit_error("file=%s: neither a regular file nor a block device", tw.file);
		return -1;
	}
	off_t end = lseek(tw.fd, 0, SEEK_END);
	if (end < 0) {
		nbdkit_error("file=%s: cannot tell its size: %m", tw.file);
		return -1;
	}
	tw.is_block = S_ISBLK(st.st_mode);
	tw.size = (uint64_t)end;
	return 0;
}

/* Still in the foreground: what fails here keeps the server from starting. */
static int tapwire_get_ready(void)
{
	tw.size = (uint64_t)tw.sink_bytes;
	if (tw.sink_path)
		return sink_create(tw.sink_path, (uint64_t)tw.ring_bytes, tw.size, nbdkit_error,
			&tw.sink);
	if (open_image() < 0)
		return -1;
	return capture_create(tw.ring_path, (uint64_t)tw.ring_bytes, tw.trace_path, tw.trace_append,
		tw.size, nbdkit_error, &tw.capture);
}

/* No thread survives the fork into the background. */
static int tapwire_after_fork(void)
{
	return tw.sink ? sink_start(tw.sink) : capture_start(tw.capture);
}

static void tapwire_cleanup(void)
{
	if (tw.sink)
		sink_stop(tw.sink);
	if (tw.capture)
		capture_stop(tw.capture);
}

static void tapwire_unload(void)
{
	sink_destroy(tw.sink);
	capture_destroy(tw.capture);
	if (tw.fd >= 0)
		close(tw.fd);
	free(tw.file);
	free(tw.ring_path);
	free(tw.sink_path);
	free(tw.trace_path);
}

/* --- what nbdkit asks --- */

/* Connections share the image and have no state of their own. A sink has one at a time. */
static void *tapwire_open(int readonly)
{
	(void)readonly; /* nbdkit itself refuses writes then */
	if (tw.sink && sink_open(tw.sink) < 0)
		return NULL;
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static void tapwire_close(void *handle)
{
	(void)handle;
	if (tw.sink)
		sink_close(tw.sink);
}

static int64_t tapwire_get_size(void *handle)
{
	(void)handle;
	return (int64_t)tw.size;
}

static int tapwire_can_write(void *handle)
{
	(void)handle;
	return !tw.readonly;
}

static int tapwire_yes(void *handle)
{
	(void)handle;
	return 1;
}

static int tapwire_can_multi_conn(void *handle)
{
	(void)handle;
	return !tw.sink;
}

static int tapwire_can_fua(void *handle)
{
	(void)handle;
	return NBDKIT_FUA_NATIVE;
}

/* What a sink would have to read first it does not have. */
static int tapwire_can_cache(void *handle)
{
	(void)handle;
	return tw.sink ? NBDKIT_CACHE_NONE : NBDKIT_CACHE_EMULATE;
}

static int tapwire_block_size(
	void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	(void)handle;
	*minimum = tw.sink ? TW_SECTOR_SIZE : 1;
	*preferred = 4096;
	*maximum = 0xffffffff;
	return 0;
}

static void tapwire_dump_plugin(void)
{
	printf("tapwire_trace=%s\n", TW_TRACE_MAGIC);
	printf("tapwire_ring_default_bytes=%u\n", TW_RING_DEFAULT_BYTES);
	printf("tapwire_ring_min_bytes=%u\n", TW_RING_MIN_BYTES);
	printf("tapwire_ring_block_bytes=%u\n", 1u << TW_RING_DIRTY_SHIFT);
}

static struct nbdkit_plugin plugin = {
	.name = "tapwire",
	.longname = "tapwire capture point",
	.version = TW_VERSION,
	.description = "serves a raw image and captures every completed write",
	.unload = tapwire_unload,
	.config = tapwire_config,
	.config_complete = tapwire_config_complete,
	.config_help = "file=IMAGE           (required) Raw image or block device to serve.\n"
		       "ring=PATH            Ring for the inspector; made if it is not there.\n"
		       "ring-size=SIZE       Bytes of data that the ring holds (default 64M).\n"
		       "record=FILE          Also write the stream of writes to FILE, a trace.\n"
		       "record-append=BOOL   Go on with the trace that FILE holds (default false).\n"
		       "sink=PATH            In place of file and ring: the secondary of a tapdisk's\n"
		       "                     mirror, which keeps nothing but a ring (nbdkit -o).\n"
		       "size=SIZE            The size that a sink shows: that of the image.",
	.magic_config_key = "file",
	.dump_plugin = tapwire_dump_plugin,
	.thread_model = tapwire_thread_model,
	.get_ready = tapwire_get_ready,
	.after_fork = tapwire_after_fork,
	.cleanup = tapwire_cleanup,
	.open = tapwire_open,
	.close = tapwire_close,
	.get_size = tapwire_get_size,
	.block_size = tapwire_block_size,
	.can_write = tapwire_can_write,
	.can_flush = tapwire_yes,
	.can_trim = tapwire_yes,
	.can_zero = tapwire_yes,
	.can_fast_zero = tapwire_yes,
	.can_fua = tapwire_can_fua,
	.can_multi_conn = tapwire_can_multi_conn,
	.can_cache = tapwire_can_cache,
	.pread = tapwire_pread,
	.pwrite = tapwire_pwrite,
	.zero = tapwire_zero,
	.trim = tapwire_trim,
	.flush = tapwire_flush,
	.errno_is_preserved = 1,
};

struct nbdkit_plugin *plugin_init(void); /* nbdkit's macro declares none */
NBDKIT_REGISTER_PLUGIN(plugin)
