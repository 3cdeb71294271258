/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The disks of guests that xenstore tells of: which of them are watched, by the configuration and by what they are,
 * and what xenstore and `tapwire status` say of each.
 *
 * A disk is a guest's UUID and the device's name; so a guest that reboots, is saved and restored, migrates within the
 * host or is renamed keeps its disks, whatever its number is.
 */
#ifndef TW_SUPERVISE_GUESTS_H
#define TW_SUPERVISE_GUESTS_H

#include "config/config.h"
#include "event/json.h"
#include "supervise/fleet.h"
#include <uv.h>

struct tw_guests;

/* config, host and courier_socket outlive it; so do later configurations. */
struct tw_error *tw_guests_create(uv_loop_t *loop, struct tw_fleet *fleet, const struct tw_config *config,
	const char *host, const char *courier_socket, struct tw_guests **out) TW_MUST_CHECK;
void tw_guests_start(struct tw_guests *guests);
/* The service is about to end. */
void tw_guests_ending(struct tw_guests *guests);
/* Takes back what was said in xenstore, then calls stopped(arg). The disks are the fleet's. */
void tw_guests_stop(struct tw_guests *guests, void (*stopped)(void *arg), void *arg);
/* The memory goes when the loop has run its close callbacks. NULL is fine. */
void tw_guests_destroy(struct tw_guests *guests);

/* Decides anew about every disk. */
void tw_guests_reload(struct tw_guests *guests, const struct tw_config *config);
/* `tapwire detach`: takes the mirror from a disk that tapwired has put one to, and puts none there until the disk is
 * plugged anew or a reload. who: a guest's name, UUID or number, vdev its device; or an image, and "". */
struct tw_guest_detached {
	bool ours; /* it was mirrored by tapwired, or is to be */
	bool gone; /* the mirror is; else the change is under way */
};
void tw_guests_detach(
	struct tw_guests *guests, const char *who, const char *vdev, struct tw_guest_detached *out);
/* To be called from the fleet's callbacks of these names, for every disk; those of others are left alone. */
void tw_guests_disk_changed(
	struct tw_guests *guests, const struct tw_disk_spec *spec, const struct tw_report *report);
void tw_guests_disk_gone(struct tw_guests *guests, const char *state_dir);
/* The courier has come or gone. */
void tw_guests_courier(struct tw_guests *guests, bool live);

/* Writes the objects "xenstore" and "guests". */
void tw_guests_status(const struct tw_guests *guests, struct tw_json *json);

#endif
