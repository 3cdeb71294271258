/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An nbdkit plugin that does what a kernel's device mapper does with linear and striped targets, for machines
 * without one: a volume whose bytes lie in parts of a file.
 *
 *   nbdkit mapped-plugin.so file=FILE part=BYTES:STRIPE:START[,START...] ...
 *
 * The parts follow each other in the volume; STRIPE bytes go to each START in turn.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS
#define MAX_PARTS 64
#define MAX_STRIPES 16

struct part {
	uint64_t bytes, stripe;
	unsigned n;
	uint64_t starts[MAX_STRIPES];
};

static struct part parts[MAX_PARTS];
static unsigned nparts;
static int fd = -1;

static int add_part(const char *text)
{
	struct part *part = &parts[nparts++];
	char *end;
	part->bytes = strtoull(text, &end, 10);
	part->stripe = *end == ':' ? strtoull(end + 1, &end, 10) : 0;
	while ((*end == ':' || *end == ',') && part->n < MAX_STRIPES)
		part->starts[part->n++] = strtoull(end + 1, &end, 10);
	if (*end || !part->n || !part->stripe) {
		nbdkit_error("no part: %s", text);
		return -1;
	}
	return 0;
}

static int config(const char *key, const char *value)
{
	if (!strcmp(key, "part"))
		return nparts < MAX_PARTS ? add_part(value) : -1;
	if (strcmp(key, "file"))
		return -1;
	fd = open(value, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		nbdkit_error("%s: %m", value);
	return fd < 0 ? -1 : 0;
}

static void *open_volume(int readonly)
{
	(void)readonly;
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t get_size(void *handle)
{
	uint64_t size = 0;
	(void)handle;
	for (unsigned i = 0; i < nparts; i++)
		size += parts[i].bytes;
	return (int64_t)size;
}

/* Where a byte lies, and how many behind it lie there, too. */
static uint64_t locate(uint64_t offset, uint64_t *run)
{
	const struct part *part = parts;
	while (offset >= part->bytes)
		offset -= part++->bytes;
	uint64_t number = offset / part->stripe, in = offset % part->stripe;
	*run = part->stripe - in;
	return part->starts[number % part->n] + number / part->n * part->stripe + in;
}

static int transfer(void *buf, const void *data, uint32_t count, uint64_t offset)
{
	while (count) {
		uint64_t run, at = locate(offset, &run);
		size_t n = run < count ? run : count;
		ssize_t done = data ? pwrite(fd, data, n, (off_t)at) : pread(fd, buf, n, (off_t)at);
		if (done <= 0) {
			nbdkit_set_error(done ? errno : EIO);
			return -1;
		}
		data = data ? (const char *)data + done : NULL;
		buf = buf ? (char *)buf + done : NULL;
		offset += (uint64_t)done;
		count -= (uint32_t)done;
	}
	return 0;
}

static int pread_volume(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle, (void)flags;
	return transfer(buf, NULL, count, offset);
}

static int pwrite_volume(
	void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle, (void)flags;
	return transfer(NULL, buf, count, offset);
}

static int flush_volume(void *handle, uint32_t flags)
{
	(void)handle, (void)flags;
	if (fsync(fd) == 0)
		return 0;
	nbdkit_set_error(errno);
	return -1;
}

static struct nbdkit_plugin plugin = {
	.name = "mapped",
	.config = config,
	.open = open_volume,
	.get_size = get_size,
	.pread = pread_volume,
	.pwrite = pwrite_volume,
	.flush = flush_volume,
};

NBDKIT_REGISTER_PLUGIN(plugin)
