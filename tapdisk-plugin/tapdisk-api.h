/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the driver uses of tapdisk (blktap 3.4 to 4.0), declared for builds without its headers: the
 * names and the meaning are tapdisk's, the words are ours. Only the members that are needed are here,
 * so this is no binary interface: what goes into a real tapdisk is built with BLKTAP_SRC.
 *
 * A tapdisk is one thread that never waits. A vbd (a guest's disk) has a chain of images, the top one
 * first. The guest's request on a vbd is split into one td_request a segment, each of which is passed
 * by value down the chain: a driver completes it with td_complete_request, perhaps in parts, each with
 * its own sec, secs and buf, or hands it to the next image with td_forward_request. A completion calls
 * the request's cb; a driver that wants to see it puts its own there. A result other than 0 has
 * failed; the vbd issues a request again that failed with EBUSY, EAGAIN or EINTR.
 *
 * TW_TAPDISK_API says whose shape struct tap_disk has: 304 (from 3.4), 316 (from 3.16: td_open is given
 * the encryption key) or 348 (from 3.48, and all of 4.0: td_queue_block_status).
 */
#ifndef TW_TAPDISK_API_H
#define TW_TAPDISK_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>

#ifndef TW_TAPDISK_API
#define TW_TAPDISK_API 348
#endif

typedef uint32_t td_flag_t;
typedef uint64_t td_sector_t;
typedef struct td_driver_handle td_driver_t;
typedef struct td_image_handle td_image_t;
typedef struct td_vbd_handle td_vbd_t;
typedef struct td_vbd_request td_vbd_request_t;
typedef struct td_request td_request_t;
typedef struct td_disk_info td_disk_info_t;
typedef struct td_disk_id td_disk_id_t;
typedef struct tapdisk_stats_ctx td_stats_t;
typedef void (*td_callback_t)(td_request_t treq, int res);

struct td_vbd_encryption;

enum {
	TD_OP_READ,
	TD_OP_WRITE,
	TD_OP_BLOCK_STATUS, /* from 348 */
};

#define TD_OPEN_RDONLY 0x4
#define DEFAULT_SECTOR_SIZE 512
#if TW_TAPDISK_API >= 348
#define TD_BLOCK_STATE_NONE 0 /* defined where td_queue_block_status is there */
#endif

/* --- disks and requests --- */

struct list_head {
	struct list_head *prev, *next;
};

struct td_disk_info {
	td_sector_t size;
	long sector_size;
	uint32_t info;
};

/* An opened image's driver. data: the driver's own, private_data_size bytes of zeroes. It is freed
 * after td_close, or without one when a later image of an x-chain could not be opened. */
struct td_driver_handle {
	td_disk_info_t info;
	void *data;
};

/* An image in the chain of a vbd. */
struct td_image_handle {
	td_driver_t *driver;
	struct list_head next;
};

struct td_vbd_handle {
	struct list_head images;
};

struct td_vbd_request {
	td_vbd_t *vbd;
};

struct td_request {
	int op;
	void *buf;
	int status;
	td_sector_t sec;
	int secs;
	td_image_t *image; /* where it is: td_forward_request goes on to the one below */
	td_callback_t cb;
	void *cb_data;
	int sidx; /* which segment of vreq */
	td_vbd_request_t *vreq;
};

/* Hands a request to the image below treq.image; with EBUSY to its cb while the vbd is pausing. */
void td_forward_request(td_request_t treq);
/* Calls the request's cb. */
void td_complete_request(td_request_t treq, int res);

/* --- what a driver is --- */

struct tap_disk {
	const char *disk_type;
	td_flag_t flags;
	int private_data_size;
#if TW_TAPDISK_API >= 316
	int (*td_open)(td_driver_t *driver, const char *name, struct td_vbd_encryption *encryption,
		td_flag_t flags);
#else
	int (*td_open)(td_driver_t *driver, const char *name, td_flag_t flags);
#endif
	int (*td_close)(td_driver_t *driver);
	/* The image that this one is made of, when the chain does not say it. */
	int (*td_get_parent_id)(td_driver_t *driver, td_disk_id_t *id);
	/* Once the whole chain is open, from the bottom to the top: parent is the image below. */
	int (*td_validate_parent)(td_driver_t *driver, td_driver_t *parent, td_flag_t flags);
	void (*td_queue_read)(td_driver_t *driver, td_request_t treq);
#if TW_TAPDISK_API >= 348
	void (*td_queue_block_status)(td_driver_t *driver, td_request_t treq);
#endif
	void (*td_queue_write)(td_driver_t *driver, td_request_t treq);
	void (*td_debug)(td_driver_t *driver);
	void (*td_stats)(td_driver_t *driver, td_stats_t *stats);
};

/* --- tapdisk's loop, log and statistics --- */

typedef int32_t event_id_t;
typedef void (*event_cb_t)(event_id_t id, char mode, void *arg);

#define SCHEDULER_POLL_TIMEOUT 0x8

/* Calls cb each time that the interval has passed; negative seconds: never. The id, or a negative
 * errno. */
event_id_t tapdisk_server_register_event(
	char mode, int fd, struct timeval interval, event_cb_t cb, void *arg);
int tapdisk_server_event_set_timeout(event_id_t id, struct timeval interval);
void tapdisk_server_unregister_event(event_id_t id);

#define TLOG_WARN 0
#define TLOG_INFO 1
void tlog_syslog(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A field of the JSON that `tap-ctl stats` prints: printf's conversion without its %. */
void tapdisk_stats_field(td_stats_t *stats, const char *key, const char *conversion, ...);

#endif
