/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A test host: runs the tapdisk driver as a tapdisk would. One thread and one loop; disks with a chain of
 * the driver and a real file (libaio); requests that are split into segments, reissued and held back while
 * a disk is paused. Below the driver the file goes wrong on request.
 */
#ifndef TW_HOST_H
#define TW_HOST_H

#include "tapdisk-api.h"

#define HOST_MAX_SEGMENTS 11
#define HOST_SPEC_MAX 128

extern struct tap_disk tapdisk_tapwire;

struct host;
struct disk;

/* What goes wrong below the driver; zeroes: nothing. Counts are of the requests that reach the file. */
struct faults {
	unsigned error_every; /* each so-manieth write fails with EIO; the file is not touched */
	td_sector_t from, to; /* only where the error would be within these sectors; to 0: anywhere */
	unsigned busy_every;  /* each so-manieth write is refused with EBUSY at once */
	unsigned again_every; /* each so-manieth write fails with EAGAIN later */
	unsigned torn_every;  /* each so-manieth write fails after its first half was written */
	unsigned split;       /* a request is completed in parts of so many sectors */
	unsigned shuffle;     /* up to so many are held, to be written and completed in random order */
	bool hold;            /* nothing reaches the file, and nothing comes back */
};

struct host *host_create(unsigned seed);
void host_destroy(struct host *host);
/* Does what there is to do; waits for it when there is nothing, up to so many milliseconds. */
void host_step(struct host *host, int wait_ms);
/* For another thread: a host_step that waits returns. */
void host_wake(struct host *host);
/* A number below n. */
unsigned host_random(struct host *host, unsigned n);
/* The last line that was logged, and how many were. */
const char *host_said(const struct host *host, unsigned *count);

/* --- disks --- */

/* spec: what stands behind "tapwire:"; NULL: a chain of the file alone, to compare with. flags: of tapdisk's
 * open. NULL with errno. */
struct disk *disk_create(struct host *host, const char *spec, const char *image, td_flag_t flags);
/* Waits for what is in flight, closes. What is held back, or comes later, fails with ESHUTDOWN. */
void disk_destroy(struct disk *disk);
struct faults *disk_faults(struct disk *disk);
uint64_t disk_sectors(const struct disk *disk);

/* Pauses: what is in flight comes back first, then the chain is closed; requests are held back. */
void disk_pause(struct disk *disk);
/* Opens the chain again, another size and another spec (NULL: the same) included. 0 or negative errno. */
int disk_resume(struct disk *disk, const char *spec);
bool disk_paused(const struct disk *disk);
/* Puts an image between the driver and the file, as a mirror is put there. It takes writes for itself. */
void disk_insert_mirror(struct disk *disk);
uint64_t disk_mirrored(const struct disk *disk);
/* Closes the driver with requests in flight, as nobody should. */
void disk_close_hard(struct disk *disk);

/* What the driver tells: "key value" a line into out. */
void disk_stats(struct disk *disk, char *out, size_t size);
uint64_t disk_stat(struct disk *disk, const char *key);
/* Has it log what it does. */
void disk_debug(struct disk *disk);

/* --- requests --- */

struct segment {
	void *buf;
	unsigned secs;
};

/* error: 0 or a negative errno. */
typedef void done_fn(void *arg, int error);

/* A guest's request; buffers live until done() is called, from within host_step or from here. */
void disk_submit(struct disk *disk, int op, td_sector_t sec, const struct segment *segments, unsigned n,
	done_fn *done, void *arg);
/* A single td_request to the driver, with a callback of the caller's. */
void disk_queue_raw(struct disk *disk, td_sector_t sec, unsigned secs, void *buf, td_callback_t cb, void *arg);
/* Requests that are not done. */
unsigned disk_waiting(const struct disk *disk);
/* Until there are none. */
void disk_drain(struct disk *disk);

#endif
