/* SPDX-License-Identifier: BSD-3-Clause */
/* The image below: a file by libaio, which fails, splits and reorders on request. */
#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A request, or a part of one, at the file. */
struct io {
	struct iocb iocb; /* first */
	struct io *next;
	struct disk *disk;
	td_request_t treq;
	int error; /* to be returned whatever the file said */
};

static struct link *link_of(td_driver_t *driver)
{
	return (struct link *)((char *)driver - offsetof(struct link, driver));
}

#if TW_TAPDISK_API >= 316
static int file_open(
	td_driver_t *driver, const char *name, struct td_vbd_encryption *encryption, td_flag_t flags)
{
	(void)encryption;
#else
static int file_open(td_driver_t *driver, const char *name, td_flag_t flags)
{
#endif
	struct disk *disk = link_of(driver)->disk;
	disk->fd = open(name, (flags & TD_OPEN_RDONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (disk->fd < 0)
		return -errno;
	const off_t end = lseek(disk->fd, 0, SEEK_END);
	driver->info.size = (td_sector_t)end >> 9;
	driver->info.sector_size = DEFAULT_SECTOR_SIZE;
	return 0;
}

static int file_close(td_driver_t *driver)
{
	close(link_of(driver)->disk->fd);
	return 0;
}

/* --- requests --- */

static void push(struct io **list, unsigned *count, struct io *io)
{
	while (*list)
		list = &(*list)->next;
	io->next = NULL;
	*list = io;
	++*count;
}

/* Any of them, or the first. */
static struct io *pop(struct disk *disk, struct io **list, unsigned *count)
{
	unsigned at = disk->faults.shuffle ? host_random(disk->host, *count) : 0;
	while (at--)
		list = &(*list)->next;
	struct io *io = *list;
	*list = io->next;
	--*count;
	return io;
}

static bool nth(uint64_t number, unsigned every)
{
	return every && number % every == 0;
}

static bool within(const struct faults *f, const td_request_t *treq)
{
	return !f->to || (treq->sec >= f->from && treq->sec + (td_sector_t)treq->secs <= f->to);
}

static void queue_part(struct disk *disk, td_request_t treq, int error, int torn)
{
	struct io *io = calloc(1, sizeof(*io));
	if (!io)
		abort();
	const size_t bytes = (size_t)(torn ? (treq.secs + 1) / 2 : treq.secs) << 9;
	const long long offset = (long long)(treq.sec << 9);
	io->disk = disk;
	io->treq = treq;
	io->error = error;
	if (treq.op == TD_OP_WRITE)
		io_prep_pwrite(&io->iocb, disk->fd, treq.buf, bytes, offset);
	else
		io_prep_pread(&io->iocb, disk->fd, treq.buf, bytes, offset);
	io->iocb.data = disk;
	io_set_eventfd(&io->iocb, disk->host->aio_fd);
	disk->under_way++;
	if (error && !torn)
		push(&disk->came, &disk->ncame, io);
	else
		push(&disk->held, &disk->nheld, io);
}

static void queue(td_driver_t *driver, td_request_t treq)
{
	struct disk *disk = link_of(driver)->disk;
	const struct faults *f = &disk->faults;
	const uint64_t number = treq.op == TD_OP_WRITE ? ++disk->writes : 0;
	int error = 0;
	bool torn = false;
	if (number && nth(number, f->busy_every)) {
		td_complete_request(treq, -EBUSY);
		return;
	}
	if (number && within(f, &treq) && nth(++disk->in_range, f->error_every))
		error = -EIO;
	else if (number && nth(number, f->again_every))
		error = -EAGAIN;
	else if (number && nth(number, f->torn_every)) {
		error = -EIO;
		torn = true;
	}
	while (treq.secs > 0) {
		td_request_t part = treq;
		if (f->split && treq.secs > (int)f->split)
			part.secs = (int)f->split;
		queue_part(disk, part, error, torn);
		treq.sec += (td_sector_t)part.secs;
		treq.secs -= part.secs;
		treq.buf = (char *)treq.buf + ((size_t)part.secs << 9);
	}
}

void image_finished(struct disk *disk, struct iocb *iocb, long result)
{
	struct io *io = (struct io *)iocb;
	if (!io->error && result != (long)iocb->u.c.nbytes)
		io->error = result < 0 ? (int)result : -EIO;
	push(&disk->came, &disk->ncame, io);
}

bool image_step(struct disk *disk)
{
	/* While more may come to be shuffled with, wait a step for them. */
	const unsigned keep = disk->faults.shuffle > 1 && host_random(disk->host, 4) ?
		disk->faults.shuffle / 2 : 0;
	bool worked = !disk->faults.hold && (disk->nheld || disk->ncame);
	if (!worked)
		return false;
	while (disk->nheld > keep) {
		struct io *io = pop(disk, &disk->held, &disk->nheld);
		struct iocb *iocb = &io->iocb;
		const int ret = io_submit(disk->host->aio, 1, &iocb);
		if (ret == 1)
			continue;
		io->error = ret < 0 ? ret : -EIO;
		push(&disk->came, &disk->ncame, io);
	}
	while (disk->ncame > keep) {
		struct io *io = pop(disk, &disk->came, &disk->ncame);
		const td_request_t treq = io->treq;
		const int error = io->error;
		free(io);
		disk->under_way--;
		td_complete_request(treq, error);
	}
	return worked;
}

#if TW_TAPDISK_API >= 348
static void file_block_status(td_driver_t *driver, td_request_t treq)
{
	(void)driver;
	treq.status = 2;
	td_complete_request(treq, 0);
}
#endif

const struct tap_disk image_file = {
	.disk_type = "file",
	.td_open = file_open,
	.td_close = file_close,
	.td_queue_read = queue,
	.td_queue_write = queue,
#if TW_TAPDISK_API >= 348
	.td_queue_block_status = file_block_status,
#endif
};
