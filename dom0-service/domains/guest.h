/* SPDX-License-Identifier: BSD-3-Clause */
/* A guest and its disks as xenstore has them. Blocking; see xenstore/store.h for who calls. */
#ifndef TW_DOMAINS_GUEST_H
#define TW_DOMAINS_GUEST_H

#include "xenstore/schema.h"
#include "xenstore/store.h"
#include <stdint.h>

struct tw_guest_disk {
	char kind[TW_XS_KIND_MAX];
	unsigned devid;
	char *vdev;   /* "" when that is the problem */
	char *params; /* as it stands there, printable; "" when there is none */
	char *script; /* the name of the hotplug script without its directory, "" when there is none */
	char *served; /* the keys physical-device-path, or tapdisk, and */
	char *numbers; /* physical-device: what the backend serves; "" when missing, or no such thing */
	bool by_tapdisk; /* served is the key tapdisk: a mirror is to be put there */
	char *image;  /* an absolute path, NULL: see problem */
	bool read_only;
	bool cdrom;
	char *problem; /* why it cannot be watched, NULL: it can */
	bool found;    /* the image is there; then: which file or device it is */
	uint64_t device, inode;
};

struct tw_guest {
	unsigned domid;
	bool named;                /* name and uuid could be read */
	char uuid[TW_XS_UUID_MAX]; /* "" when not */
	char *name;
	struct tw_guest_disk *disks;
	size_t ndisks;
};

/* Reads a guest and the disks that domain self serves to it. *out is NULL when it has none, or does not exist. */
struct tw_error *tw_guest_read(
	struct tw_store *store, unsigned self, unsigned domid, struct tw_guest **out) TW_MUST_CHECK;
void tw_guest_free(struct tw_guest *guest);

/* The numbers of all guests that self serves disks to; the caller frees *out. */
struct tw_error *tw_guest_list(struct tw_store *store, unsigned self, unsigned **out, size_t *n) TW_MUST_CHECK;

/* The image behind a disk's target (TYPE:PATH or PATH); NULL, with *problem set, when there is none that can be
 * followed. The caller frees both. */
struct tw_error *tw_guest_image(const char *params, char **image, char **problem) TW_MUST_CHECK;

#endif
