/* SPDX-License-Identifier: BSD-3-Clause */
/* Between the files of the test host. */
#ifndef TW_HOST_INSIDE_H
#define TW_HOST_INSIDE_H

#include "host.h"

#include <libaio.h>

#define MAX_TIMERS 64

struct timer {
	event_cb_t cb; /* NULL: free */
	void *arg;
	int64_t interval_ns; /* negative: never */
	int64_t due_ns;
};

struct host {
	io_context_t aio;
	int aio_fd, wake_fd;
	uint64_t random;
	struct disk *disks;
	struct timer timers[MAX_TIMERS];
	char said[512];
	unsigned said_count;
};

/* An image of a chain, and its driver. */
struct link {
	td_image_t image;
	td_driver_t driver;
	const struct tap_disk *ops;
	struct disk *disk;
	td_flag_t flags;
};

struct request;

enum list { NEW, PENDING, FAILED };

struct disk {
	td_vbd_t vbd;
	struct host *host;
	struct disk *next;
	char spec[HOST_SPEC_MAX];
	char *path;
	bool filtered, open, pausing, paused, closing;
	td_flag_t flags;
	struct link top, file, mirror;
	bool mirrored;
	uint64_t mirrored_secs;
	uint64_t sectors; /* when it was last opened */
	struct request *lists[3]; /* in the order in which they came */
	unsigned waiting;
	td_vbd_request_t raw; /* of disk_queue_raw */

	/* The file's. */
	int fd;
	struct faults faults;
	uint64_t writes; /* that reached it */
	uint64_t in_range; /* of those: where errors may be */
	struct io *held; /* to be submitted */
	struct io *came; /* to be completed */
	unsigned nheld, ncame, under_way;
};

/* A guest's request. */
struct request {
	td_vbd_request_t vreq; /* first */
	struct disk *disk;
	struct request *next;
	int op;
	td_sector_t sec;
	struct segment segments[HOST_MAX_SEGMENTS];
	unsigned n;
	int64_t pending; /* sectors */
	int submitting;
	int error;
	int64_t tried_ns;
	done_fn *done;
	void *arg;
};

int64_t host_now_ns(void);

/* The file as an image driver: image.c. */
extern const struct tap_disk image_file;
/* Submits what is held, completes what came; true when it did anything. */
bool image_step(struct disk *disk);
void image_finished(struct disk *disk, struct iocb *iocb, long result);

/* vbd.c: true when it did anything. */
bool disk_step(struct disk *disk);

#endif
