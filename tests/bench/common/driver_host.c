/* SPDX-License-Identifier: BSD-3-Clause */
#include "driver_host.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

extern struct tap_disk tapdisk_tapwire;

static char *image, *buffer;
static td_request_t below[HOST_MAX_DEPTH]; /* that have come down, in order */
static unsigned nbelow, sectors;
static uint64_t blocks; /* of the disk, a request each */
static bool with_driver;

static td_vbd_t vbd;
static td_vbd_request_t vreq = {&vbd};
static td_image_t top, bottom;
static td_driver_t driver, under;

static struct {
	event_cb_t cb;
	void *arg;
	uint64_t every_ns, due_ns; /* 0: never */
} timer;

uint64_t host_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- what the driver calls --- */

static void comes_down(td_request_t treq)
{
	host_below((unsigned)treq.sidx);
	below[nbelow++] = treq;
}

static void comes_up(td_request_t treq, int res)
{
	(void)res;
	host_above((unsigned)treq.sidx);
}

void td_forward_request(td_request_t treq)
{
	comes_down(treq);
}

void td_complete_request(td_request_t treq, int res)
{
	treq.cb(treq, res);
}

event_id_t tapdisk_server_register_event(
	char mode, int fd, struct timeval interval, event_cb_t cb, void *arg)
{
	(void)mode;
	(void)fd;
	timer.cb = cb;
	timer.arg = arg;
	(void)tapdisk_server_event_set_timeout(1, interval);
	return 1;
}

int tapdisk_server_event_set_timeout(event_id_t id, struct timeval interval)
{
	(void)id;
	timer.every_ns = 0;
	if (interval.tv_sec >= 0)
		timer.every_ns = (uint64_t)interval.tv_sec * 1000000000u +
				 (uint64_t)interval.tv_usec * 1000u;
	timer.due_ns = timer.every_ns ? host_now_ns() + timer.every_ns : 0;
	return 0;
}

void tapdisk_server_unregister_event(event_id_t id)
{
	(void)id;
	timer.due_ns = 0;
}

void tlog_syslog(int level, const char *fmt, ...)
{
	(void)level;
	(void)fmt;
}

void tapdisk_stats_field(td_stats_t *stats, const char *key, const char *conversion, ...)
{
	(void)stats;
	(void)key;
	(void)conversion;
}

/* --- what the program calls --- */

void host_open(const char *spec, uint64_t disk, unsigned depth, unsigned secs)
{
	blocks = disk / secs;
	sectors = secs;
	with_driver = spec != NULL;
	image = malloc((size_t)HOST_IMAGE_SECTORS * 512);
	memset(image, 1, (size_t)HOST_IMAGE_SECTORS * 512);
	buffer = malloc((size_t)depth * secs * 512);
	memset(buffer, 'x', (size_t)depth * secs * 512);
	vbd.images.next = &top.next;
	top.driver = &driver;
	top.next.next = &bottom.next;
	bottom.driver = &under;
	bottom.next.next = &vbd.images;
	under.info = (td_disk_info_t){.size = disk, .sector_size = 512};
	driver.data = calloc(1, (size_t)tapdisk_tapwire.private_data_size);
	if (!with_driver)
		return;
	tapdisk_tapwire.td_open(&driver, spec, NULL, 0);
	tapdisk_tapwire.td_validate_parent(&driver, &under, 0);
}

void host_close(void)
{
	if (with_driver)
		tapdisk_tapwire.td_close(&driver);
	free(driver.data);
	free(buffer);
	free(image);
}

td_request_t host_request(unsigned long number, unsigned slot)
{
	return (td_request_t){
		.op = TD_OP_WRITE,
		.buf = buffer + (size_t)slot * sectors * 512,
		.sec = (td_sector_t)(number * 2654435761u % blocks) * sectors,
		.secs = (int)sectors,
		.image = &top,
		.cb = comes_up,
		.sidx = (int)slot,
		.vreq = &vreq,
	};
}

void host_issue(td_request_t treq)
{
	if (with_driver)
		tapdisk_tapwire.td_queue_write(&driver, treq);
	else
		comes_down(treq);
}

td_request_t host_written(void)
{
	const td_request_t treq = below[0];
	memmove(below, below + 1, --nbelow * sizeof(*below));
	memcpy(image + treq.sec % HOST_IMAGE_SECTORS * 512, treq.buf, (size_t)treq.secs * 512);
	return treq;
}

bool host_poll(uint64_t now_ns)
{
	if (!timer.due_ns || now_ns < timer.due_ns)
		return false;
	timer.due_ns = now_ns + timer.every_ns;
	timer.cb(1, SCHEDULER_POLL_TIMEOUT, timer.arg);
	return true;
}
