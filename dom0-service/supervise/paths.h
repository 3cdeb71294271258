/* SPDX-License-Identifier: BSD-3-Clause */
/* Where programs, sockets and state are. Paths are returned as allocated strings that the caller
 * frees. */
#ifndef TW_SUPERVISE_PATHS_H
#define TW_SUPERVISE_PATHS_H

#include "base/error.h"
#include <stdbool.h>

/* dir "/" name, or NULL without memory. */
char *tw_path_join(const char *dir, const char *name);

/* The path of one of tapwire's own programs: beside this program (a build tree), in
 * ../libexec/tapwire from it (an installation), or in PATH. */
struct tw_error *tw_path_program(const char *name, char **out) TW_MUST_CHECK;
/* What to name nbdkit's plugin: its path beside this program, or "tapwire" for nbdkit's own
 * directory. */
struct tw_error *tw_path_plugin(char **out) TW_MUST_CHECK;

/* The default directory of `tapwire serve`: /var/lib/tapwire/serve for root, else tapwire in
 * $XDG_STATE_HOME or ~/.local/state. */
struct tw_error *tw_path_serve_state(char **out) TW_MUST_CHECK;

/* Makes the directory, and those above it, for this user only. */
struct tw_error *tw_path_make_dir(const char *path) TW_MUST_CHECK;

/* A directory on /dev/shm for the rings of the service whose state is in state_dir (which exists):
 * the same one at every call, of this user only. state_dir itself where there is no /dev/shm. */
struct tw_error *tw_path_ring_dir(const char *state_dir, char **out) TW_MUST_CHECK;

/* Locks the directory for this process; -1 in *fd before, the lock's descriptor afterwards (closing
 * it unlocks). TW_UNAVAILABLE when another process has it. */
struct tw_error *tw_path_lock(const char *dir, int *fd) TW_MUST_CHECK;

/* An error when path is too long for the address of a Unix socket. */
struct tw_error *tw_path_check_socket(const char *path) TW_MUST_CHECK;

/* A name for the state of a disk: the image's last path component and a hash of its real path. */
struct tw_error *tw_path_disk_key(const char *image, char **out) TW_MUST_CHECK;

#endif
