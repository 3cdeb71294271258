/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tapdisk's part for the benchmarks of its driver, in one thread: a chain of nothing but the driver
 * and an image in memory, which completes requests in the order in which they came down, when the
 * program says so.
 */
#ifndef DRIVER_HOST_H
#define DRIVER_HOST_H

#include "tapdisk-api.h"

#include <stdbool.h>
#include <stdint.h>

#define HOST_IMAGE_SECTORS 32768u /* in memory */
#define HOST_MAX_DEPTH 512u
#define HOST_MAX_SECTORS 2048u

/* The program's: a request has come to the image, or back to tapdisk; it is known by its slot. */
void host_below(unsigned slot);
void host_above(unsigned slot);

uint64_t host_now_ns(void);

/* spec: what the chain's line says behind "tapwire:"; NULL: there is no driver, tapdisk calls the
 * image itself. The ring is in TAPWIRE_RING_DIR; without that directory the driver lets writes
 * pass. disk: sectors that the image has for the driver; more than HOST_IMAGE_SECTORS share their
 * memory. depth, secs: of the requests that will come, up to HOST_MAX_DEPTH and HOST_MAX_SECTORS.
 */
void host_open(const char *spec, uint64_t disk, unsigned depth, unsigned secs);
void host_close(void);

/* Write number so much, whose place follows from that: no order, and none comes twice before all
 * have come. A slot has one request at a time. */
td_request_t host_request(unsigned long number, unsigned slot);
void host_issue(td_request_t treq);
/* The request that has been below for longest, written; td_complete_request() is for the caller. */
td_request_t host_written(void);
/* Runs the driver's timer if it is due. Whether it ran. */
bool host_poll(uint64_t now_ns);

#endif
