/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside of the guests' disks, shared by guests.c and its like, and leftovers.c. */
#ifndef TW_SUPERVISE_GUESTS_INSIDE_H
#define TW_SUPERVISE_GUESTS_INSIDE_H

#include "base/hash.h"
#include "domains/domains.h"
#include "supervise/guests.h"
#include "supervise/taps.h"

/* A guest's disk as it stands in xenstore. A disk has several of these while a guest migrates within the host. */
struct tw_instance {
	struct tw_xs_ids ids; /* kind, domid, devid */
	char *name;           /* the guest's */
	char *image;          /* see tw_guest_disk for these */
	char *params;
	char *script;
	char *served;
	char *numbers;
	char *problem;
	bool by_tapdisk, read_only, cdrom, found;
	uint64_t device, inode;
	bool seen;   /* in the reading at hand */
	bool orphan; /* xenstore has forgotten it, but its capture goes on */
	struct tw_instance *prev, *next; /* the oldest first */
};

/* The unmodified tapdisk that serves a disk which is to be mirrored (guests_mirror.c). */
struct tw_guest_tap {
	char *asked;   /* what xenstore said of it when it was looked for; NULL: it is not */
	char *target;  /* "PID:MINOR"; NULL: it is not known (yet) */
	char *image;   /* that it serves */
	char *trouble; /* why it is not known, or was not the last time */
	bool found;    /* the image is there; then: which file or device it is */
	uint64_t device, inode;
	bool waits;       /* it is looked for, */
	uint64_t next_at; /* but not before; the loop's clock, ms */
	uint64_t pause_ms;
};

struct tw_guest_entry {
	char uuid[TW_XS_UUID_MAX];
	char *vdev;
	char *state_dir; /* its key */
	char *ring;
	char *content; /* as its spec has it */
	struct tw_instance *instances;
	bool put;            /* it is in the fleet */
	char *refused;       /* why it is not, NULL: it is, or is not wanted */
	bool detached;       /* `tapwire detach` has taken its mirror away, which stays so for now */
	bool failing;        /* see tw_guest_failure(); counted */
	struct tw_guest_tap tap;
	struct tw_shared_image *holds, *awaits; /* guests_sharing.c's, as what follows */
	bool holds_to_read;
	struct tw_guest_entry *prev_holder, *next_holder, *prev_waiter, *next_waiter;
	struct tw_report report;
	UT_hash_handle hh;
};

struct tw_guests {
	uv_loop_t *loop;
	struct tw_fleet *fleet;
	struct tw_domains *domains; /* NULL: xenstore is not asked */
	const struct tw_config *config;
	const char *host;
	const char *courier_socket;
	struct tw_guest_entry *entries;
	struct tw_shared_image *images;
	bool freed;     /* one of them, while others wait for it */
	size_t failing; /* entries */
	uv_timer_t *orphans;
	uv_timer_t *leftovers;
	uv_timer_t *search; /* for tapdisks */
	struct tw_taps *taps;
	uint64_t listed_from; /* since when what tap-ctl lists is as it is */
	bool complete; /* at least once */
	bool courier;
	bool ending;
	bool stopping;
};

/* The one that counts, NULL: there is none. */
const struct tw_instance *tw_guest_current(const struct tw_guest_entry *entry);
/* Makes the spec of a disk; its strings are the entry's and the guests'. */
void tw_guest_spec(const struct tw_guests *guests, const struct tw_guest_entry *entry, char name[128],
	struct tw_disk_spec *out);

/* Decides anew about a disk, and sees to it. */
void tw_guest_evaluate(struct tw_guests *guests, struct tw_guest_entry *entry);

/* The first step of that. */
void tw_guest_reconsider(struct tw_guests *guests, struct tw_guest_entry *entry);

/* --- guests_sharing.c --- */

/* A watched disk on the same image that may not be shared with; NULL: there is none. */
const struct tw_guest_entry *tw_guest_rival(const struct tw_guests *guests, const struct tw_guest_entry *entry);
/* Whether the disk is watched, its image, or whether it may be written, has changed. */
void tw_guest_hold(struct tw_guests *guests, struct tw_guest_entry *entry);
/* It was refused because of another disk on its image; or waits for that no more. */
void tw_guest_await(struct tw_guests *guests, struct tw_guest_entry *entry);
void tw_guest_stop_waiting(struct tw_guests *guests, struct tw_guest_entry *entry);
/* The disk is gone. */
void tw_guest_forget_image(struct tw_guests *guests, struct tw_guest_entry *entry);
/* Disks that had to stand back may be watched now that others have gone. */
void tw_guest_serve_waiters(struct tw_guests *guests);
void tw_guest_images_destroy(struct tw_guests *guests);

/* --- guests_mirror.c --- */

struct tw_error *tw_guest_mirrors_create(struct tw_guests *guests) TW_MUST_CHECK;
void tw_guest_mirrors_destroy(struct tw_guests *guests);
/* Whether a mirror is to be put under the disk's tapdisk. */
bool tw_guest_wants_mirror(const struct tw_guests *guests, const struct tw_guest_entry *entry);
/* False: a mirror is wanted, and it is not known yet, or not any more, which tapdisk it is for. When that has changed
 * the disk is evaluated. */
bool tw_guest_mirror_plan(struct tw_guests *guests, struct tw_guest_entry *entry);
/* What its mirror tells of a disk: a tapdisk that has become another one is looked for. */
void tw_guest_mirror_report(
	struct tw_guests *guests, struct tw_guest_entry *entry, const struct tw_report *report);
/* All that is known of its tapdisk is forgotten. */
void tw_guest_tap_deinit(struct tw_guest_tap *tap);

/* --- guests_status.c --- */

/* Somebody has asked for this disk to be watched. */
bool tw_guest_is_meant(const struct tw_guests *guests, const struct tw_guest_entry *entry);
/* Why it is not watched though it was meant to be; NULL: it is, or was not. */
const char *tw_guest_failure(const struct tw_guests *guests, const struct tw_guest_entry *entry);

/* --- leftovers.c --- */

/* Keeps in the disk's state directory what it takes to read its ring when the guest is gone. A failure is logged. */
void tw_leftovers_note(const struct tw_disk_spec *spec);
/* Reads the rings of guests' disks that are gone, because they ended while nobody watched, and removes them. */
void tw_leftovers_drain(struct tw_guests *guests);

#endif
