/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/paths.h"
#include "base/buf.h"
#include "base/scope.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <xxhash.h>

#define SHM_DIR "/dev/shm"

char *tw_path_join(const char *dir, const char *name)
{
	char *path;
	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static struct tw_error *own_dir(char **out)
{
	char *self = realpath("/proc/self/exe", NULL);
	if (!self)
		return tw_error_errno(errno, "/proc/self/exe");
	*strrchr(self, '/') = '\0';
	*out = self;
	return NULL;
}

/* The first of the candidates dir/name that may be executed; dirs ends with NULL. */
static char *first_executable(const char *const *dirs, const char *name)
{
	for (; *dirs; dirs++) {
		char *path = tw_path_join(*dirs, name);
		if (path && access(path, X_OK) == 0)
			return path;
		free(path);
	}
	return NULL;
}

static char *in_path(const char *name)
{
	const char *env = getenv("PATH");
	TW_AUTO_FREE char *list = strdup(env && *env ? env : "/usr/sbin:/usr/bin:/sbin:/bin");
	char *save;
	for (char *dir = list ? strtok_r(list, ":", &save) : NULL; dir;
		dir = strtok_r(NULL, ":", &save)) {
		const char *const dirs[] = { dir, NULL };
		char *path = first_executable(dirs, name);
		if (path)
			return path;
	}
	return NULL;
}

struct tw_error *tw_path_program(const char *name, char **out)
{
	TW_AUTO_FREE char *self = NULL;
	TW_TRY(own_dir(&self));
	TW_AUTO_FREE char *libexec = tw_path_join(self, "../libexec/tapwire");
	if (!libexec)
		return tw_error_nomem();
	const char *const dirs[] = { self, libexec, NULL };
	*out = first_executable(dirs, name);
	if (!*out)
		*out = in_path(name);
	if (!*out)
		return tw_error_create(TW_UNAVAILABLE,
			"%s: not found beside this program, in %s or in PATH", name, libexec);
	return NULL;
}

struct tw_error *tw_path_plugin(char **out)
{
	TW_AUTO_FREE char *self = NULL;
	TW_TRY(own_dir(&self));
	*out = tw_path_join(self, "nbdkit-tapwire-plugin.so");
	if (*out && access(*out, R_OK) < 0) {
		free(*out);
		*out = strdup("tapwire");
	}
	return *out ? NULL : tw_error_nomem();
}

struct tw_error *tw_path_serve_state(char **out)
{
	const char *xdg = getenv("XDG_STATE_HOME");
	const char *home = getenv("HOME");
	if (geteuid() == 0)
		*out = strdup("/var/lib/tapwire/serve");
	else if (xdg && *xdg == '/')
		*out = tw_path_join(xdg, "tapwire");
	else if (home && *home == '/')
		*out = tw_path_join(home, ".local/state/tapwire");
	else
		return tw_error_create(TW_USAGE, "neither HOME nor --state is set");
	return *out ? NULL : tw_error_nomem();
}

struct tw_error *tw_path_make_dir(const char *path)
{
	TW_AUTO_FREE char *copy = strdup(path);
	if (!copy || !*copy)
		return copy ? tw_error_create(TW_USAGE, "empty directory name") : tw_error_nomem();
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return tw_error_errno(errno, "%s", copy);
		*slash = '/';
	}
	struct stat st;
	if (mkdir(copy, 0700) == 0)
		return NULL;
	if (errno != EEXIST || stat(copy, &st) < 0)
		return tw_error_errno(errno, "%s", copy);
	return S_ISDIR(st.st_mode) ? NULL : tw_error_errno(ENOTDIR, "%s", copy);
}

/* /dev/shm is everybody's: the directory may have been put there by somebody else. */
static struct tw_error *private_dir(const char *path)
{
	struct stat st;
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return tw_error_errno(errno, "%s", path);
	if (lstat(path, &st) < 0)
		return tw_error_errno(errno, "%s", path);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		return tw_error_create(
			TW_UNAVAILABLE, "%s: not a directory of this user alone; remove it", path);
	return NULL;
}

struct tw_error *tw_path_ring_dir(const char *state_dir, char **out)
{
	struct stat st;
	if (stat(state_dir, &st) < 0)
		return tw_error_errno(errno, "%s", state_dir);
	if (access(SHM_DIR, W_OK) < 0) {
		*out = strdup(state_dir);
		return *out ? NULL : tw_error_nomem();
	}
	TW_AUTO_FREE char *mine = NULL;
	TW_AUTO_FREE char *dir = NULL;
	if (asprintf(&mine, SHM_DIR "/tapwire-%u", (unsigned)geteuid()) < 0 ||
		asprintf(&dir, "%s/%jx-%jx", mine, (uintmax_t)st.st_dev, (uintmax_t)st.st_ino) < 0)
		return tw_error_nomem();
	TW_TRY(private_dir(mine));
	TW_TRY(private_dir(dir));
	*out = TW_STEAL(dir);
	return NULL;
}

struct tw_error *tw_path_lock(const char *dir, int *fd)
{
	TW_AUTO_FREE char *path = tw_path_join(dir, "lock");
	if (!path)
		return tw_error_nomem();
	TW_AUTO_CLOSE int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0)
		return tw_error_errno(errno, "%s", path);
	if (flock(lock, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return tw_error_create(TW_UNAVAILABLE,
				"%s: in use by another tapwire; choose another --state", dir);
		return tw_error_errno(errno, "%s", path);
	}
	*fd = lock;
	lock = -1;
	return NULL;
}

struct tw_error *tw_path_check_socket(const char *path)
{
	struct sockaddr_un addr;
	if (strlen(path) >= sizeof(addr.sun_path))
		return tw_error_create(TW_USAGE,
			"%s: longer than the %zu bytes that a socket's name may have", path,
			sizeof(addr.sun_path) - 1);
	return NULL;
}

struct tw_error *tw_path_disk_key(const char *image, char **out)
{
	TW_AUTO_FREE char *real = realpath(image, NULL);
	if (!real)
		return tw_error_errno(errno, "%s", image);
	const char *base = strrchr(real, '/') + 1;
	uint64_t hash = XXH64(real, strlen(real), 0);
	if (asprintf(out, "%.64s-%08" PRIx64, base, hash >> 32) < 0)
		return tw_error_nomem();
	return NULL;
}
