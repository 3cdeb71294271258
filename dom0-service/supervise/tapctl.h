/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tapdisk's own tool, tap-ctl: which disks its tapdisks serve, and how a disk gets a mirror under a
 * running guest.
 *
 * A mirror can be changed only while the disk is paused (the guest's requests are held meanwhile), so
 * whoever has paused it has to come back, whatever happens. So the change is one call that does not
 * return before the disk goes on; it is made in a process of its own (tw_tapctl_main), which signals
 * and the end of its parent do not touch, and it leaves a mark from which a later one sees that a
 * pause is ours.
 */
#ifndef TW_SUPERVISE_TAPCTL_H
#define TW_SUPERVISE_TAPCTL_H

#include "base/error.h"
#include <stdbool.h>
#include <sys/stat.h>

/* A disk that a tapdisk serves, as a line of `tap-ctl list` tells it. */
struct tw_vbd {
	int pid;
	int minor;
	unsigned state;  /* 0: it runs */
	const char *type; /* "aio", "vhd", ...; these two point into the line that was parsed */
	const char *path;
};

#define TW_VBD_PAUSE_REQUESTED 0x10u
#define TW_VBD_PAUSED 0x20u

/* Cuts the line up (it is written to). False when it does not tell of a disk that is open. */
bool tw_vbd_parse(char *line, struct tw_vbd *out);

/* "PID:MINOR", or "auto" (then both are -1). */
bool tw_vbd_parse_target(const char *text, int *pid, int *minor);

/* The name of the socket over which a tapdisk serves a disk, "/run/blktap-control/nbdPID.MINOR". */
bool tw_vbd_parse_socket(const char *path, int *pid, int *minor);

/* Which disk of a tapdisk a backend serves, by what xenstore says of it: by the socket that tapback has been given
 * (device, the key physical-device-path), or, for an older one, the minor number (numbers, physical-device: "fe:1f";
 * pid is -1 then). A number of another kind of backend than vbd3 is another driver's. False: it does not say. */
bool tw_vbd_of_backend(const char *kind, const char *device, const char *numbers, int *pid, int *minor);

/* Looks among the disks of all tapdisks: for this one; with pid -1 for the only one of this minor; with both -1 for
 * one that serves the file image. *target is "PID:MINOR", *path the raw image that it serves; the caller frees both.
 * TW_UNAVAILABLE: there is none. TW_UNSUPPORTED: it serves no raw image. Blocking. */
struct tw_error *tw_tapctl_find(const char *tap_ctl, int pid, int minor, const char *image, char **target,
	char **path) TW_MUST_CHECK;

/* Whether path is this file, or this device under another name. */
bool tw_tapctl_is_file(const char *path, const struct stat *file);

struct tw_mirror_switch {
	const char *tap_ctl; /* the program's path */
	const char *target;  /* "PID:MINOR"; "auto": the tapdisk that serves the image */
	const char *image;   /* raw; the disk that is found must serve this file */
	const char *socket;  /* the mirror's, or NULL: none from now on */
	/* A path: the file is there while the disk is paused by us. NULL: it goes on whoever has paused
	 * it. */
	const char *mark;
};

/* The exit statuses of the process, beside 0. */
enum tw_switch_status {
	TW_SWITCH_ABSENT = 10, /* no tapdisk serves the image */
	TW_SWITCH_BUSY,        /* somebody else has paused it */
	TW_SWITCH_REFUSED,     /* the image or the tapdisk is none for a mirror */
	TW_SWITCH_FAILED,      /* tap-ctl failed; nothing has changed */
	TW_SWITCH_ALONE,       /* the disk goes on, without a mirror */
};

/* Makes the change and returns 0 or one of the above; in said (of size) one line: "PID:MINOR", or what
 * is wrong. Blocks: a pause takes until the requests under way have come back. */
int tw_tapctl_switch(const struct tw_mirror_switch *change, char *said, int size);

/* The arguments with which a program that calls tw_tapctl_main() makes the change and exits with its
 * status, having written the line to standard output. argv: of at least TW_SWITCH_ARGS pointers. */
#define TW_SWITCH_ARGS 7
void tw_tapctl_args(const struct tw_mirror_switch *change, const char **argv);
/* To be called first in main(), beside tw_child_main(). */
void tw_tapctl_main(int argc, char **argv);

#endif
