/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside of the guests' disks, shared by guests.c, guests_status.c and leftovers.c. */
#ifndef TW_SUPERVISE_GUESTS_INSIDE_H
#define TW_SUPERVISE_GUESTS_INSIDE_H

#include "base/hash.h"
#include "domains/domains.h"
#include "supervise/guests.h"

/* A guest's disk as it stands in xenstore. A disk has several of these while a guest migrates within the host. */
struct tw_instance {
	struct tw_xs_ids ids; /* kind, domid, devid */
	char *name;           /* the guest's */
	char *image;          /* see tw_guest_disk for these */
	char *params;
	char *script;
	char *problem;
	bool read_only, cdrom, found;
	uint64_t device, inode;
	bool seen;   /* in the reading at hand */
	bool orphan; /* xenstore has forgotten it, but its capture goes on */
	struct tw_instance *prev, *next; /* the oldest first */
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
	bool conflict;       /* refused because of another disk */
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
	uv_timer_t *orphans;
	uv_timer_t *leftovers;
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

/* --- leftovers.c --- */

/* Keeps in the disk's state directory what it takes to read its ring when the guest is gone. A failure is logged. */
void tw_leftovers_note(const struct tw_disk_spec *spec);
/* Reads the rings of guests' disks that are gone, because they ended while nobody watched, and removes them. */
void tw_leftovers_drain(struct tw_guests *guests);

#endif
