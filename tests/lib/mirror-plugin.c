/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An nbdkit plugin that does to a mirror what a tapdisk does: each write goes to an NBD server (the
 * old-style handshake, a Unix socket) and to the image, and is done when both are; a mirror that fails is
 * dropped, and the guest does not hear of it; pause holds what comes and waits for what is under way.
 *
 *   nbdkit mirror-plugin.so image=FILE control=SOCKET [lag=MS]
 *
 * The mirror has a write before the image has it, and with lag= the image gets it so much later. The control
 * socket takes a line: list, pause, "unpause", "unpause -2 nbd:SOCKET", "unpause -2 null".
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static char *image, *control;
static long lag_ms;
static int fd = -1, listener = -1;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of the next three */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool paused;
static unsigned in_flight;
static char secondary[600]; /* kept over pauses, as tapdisk does */

static pthread_mutex_t mirror_mutex = PTHREAD_MUTEX_INITIALIZER; /* one request at a time */
static int mirror = -1;
static bool mirror_failed;

/* --- the mirror --- */

static bool send_all(int to, const void *data, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t k = send(to, (const char *)data + done, n - done, MSG_NOSIGNAL);
		if (k <= 0)
			return false;
		done += (size_t)k;
	}
	return true;
}

static bool receive_all(int from, void *data, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t k = recv(from, (char *)data + done, n - done, 0);
		if (k <= 0)
			return false;
		done += (size_t)k;
	}
	return true;
}

static uint64_t image_bytes(void)
{
	return (uint64_t)lseek(fd, 0, SEEK_END);
}

/* -1, or the connection. */
static int connect_mirror(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct {
		char magic[8];
		uint64_t version, size;
		char rest[128];
	} __attribute__((packed)) hello;
	int to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (strlen(path) < sizeof(address.sun_path))
		strcpy(address.sun_path, path);
	if (connect(to, (struct sockaddr *)&address, sizeof(address)) == 0 &&
		receive_all(to, &hello, sizeof(hello)) && !memcmp(hello.magic, "NBDMAGIC", 8) &&
		be64toh(hello.version) == 0x00420281861253ull && be64toh(hello.size) == image_bytes())
		return to;
	close(to);
	return -1;
}

static void drop_mirror(bool failed)
{
	if (mirror < 0)
		return;
	close(mirror);
	mirror = -1;
	mirror_failed |= failed;
}

struct request {
	uint32_t magic, type;
	uint64_t handle, offset;
	uint32_t length;
} __attribute__((packed));

static void mirror_write(const void *data, uint32_t count, uint64_t offset)
{
	struct request request = {htobe32(0x25609513), htobe32(1), 7, htobe64(offset), htobe32(count)};
	struct {
		uint32_t magic, error;
		uint64_t handle;
	} __attribute__((packed)) reply;
	pthread_mutex_lock(&mirror_mutex);
	if (mirror >= 0 &&
		(!send_all(mirror, &request, sizeof(request)) || !send_all(mirror, data, count) ||
			!receive_all(mirror, &reply, sizeof(reply)) || reply.error || reply.handle != 7))
		drop_mirror(true);
	pthread_mutex_unlock(&mirror_mutex);
}

/* --- what a guest asks --- */

static void begin(void)
{
	pthread_mutex_lock(&mutex);
	while (paused)
		pthread_cond_wait(&changed, &mutex);
	in_flight++;
	pthread_mutex_unlock(&mutex);
}

static void end(void)
{
	pthread_mutex_lock(&mutex);
	in_flight--;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&mutex);
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle, (void)flags;
	begin();
	ssize_t n = pread(fd, buf, count, (off_t)offset);
	end();
	return n == (ssize_t)count ? 0 : -1;
}

static int plugin_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle, (void)flags;
	begin();
	mirror_write(buf, count, offset);
	if (lag_ms)
		nanosleep(&(struct timespec){lag_ms / 1000, lag_ms % 1000 * 1000000L}, NULL);
	ssize_t n = pwrite(fd, buf, count, (off_t)offset);
	end();
	return n == (ssize_t)count ? 0 : -1;
}

static int plugin_flush(void *handle, uint32_t flags)
{
	(void)handle, (void)flags;
	return fdatasync(fd);
}

/* --- what tap-ctl asks --- */

static const char *do_pause(void)
{
	pthread_mutex_lock(&mutex);
	paused = true;
	while (in_flight)
		pthread_cond_wait(&changed, &mutex);
	pthread_mutex_unlock(&mutex);
	pthread_mutex_lock(&mirror_mutex);
	drop_mirror(false);
	pthread_mutex_unlock(&mirror_mutex);
	return "ok";
}

static const char *unpause(const char *args)
{
	if (!paused)
		return "error";
	if (strncmp(args, " -2 ", 4) == 0)
		snprintf(secondary, sizeof(secondary), "%s", args + 4);
	pthread_mutex_lock(&mirror_mutex);
	if (strncmp(secondary, "nbd:", 4) == 0) {
		mirror = connect_mirror(secondary + 4);
		mirror_failed |= mirror < 0; /* it goes on without */
	}
	pthread_mutex_unlock(&mirror_mutex);
	pthread_mutex_lock(&mutex);
	paused = false;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&mutex);
	return "ok";
}

static void answer(int client)
{
	char line[512] = "", said[PATH_MAX + 128];
	FILE *in = fdopen(client, "r+");
	if (!in || !fgets(line, sizeof(line), in)) {
		close(client);
		return;
	}
	line[strcspn(line, "\n")] = '\0';
	if (strcmp(line, "list") == 0)
		snprintf(said, sizeof(said), "pid=%d minor=0 state=%#x args=aio:%s", getpid(),
			paused ? 0x2au : 0u, image);
	else if (strcmp(line, "stats") == 0)
		snprintf(said, sizeof(said), "%d %d", mirror >= 0, mirror_failed);
	else
		snprintf(said, sizeof(said), "%s",
			strcmp(line, "pause") == 0             ? do_pause()
			: strncmp(line, "unpause", 7) == 0 ? unpause(line + 7)
							   : "error");
	dprintf(client, "%s\n", said);
	fclose(in);
}

static void *listen_for_control(void *arg)
{
	(void)arg;
	for (;;) {
		int client = accept(listener, NULL, NULL);
		if (client >= 0)
			answer(client);
	}
	return NULL;
}

/* --- start --- */

static int config(const char *key, const char *value)
{
	if (strcmp(key, "image") == 0)
		image = nbdkit_realpath(value);
	else if (strcmp(key, "control") == 0)
		control = nbdkit_absolute_path(value);
	else if (strcmp(key, "lag") == 0)
		lag_ms = atol(value);
	else
		return -1;
	return 0;
}

static int get_ready(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	fd = open(image, O_RDWR | O_CLOEXEC);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", control);
	if (fd < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 8) < 0) {
		nbdkit_error("%s, %s: %m", image, control);
		return -1;
	}
	return 0;
}

static int after_fork(void)
{
	pthread_t thread;
	return pthread_create(&thread, NULL, listen_for_control, NULL) ? -1 : 0;
}

static void *plugin_open(int readonly)
{
	(void)readonly;
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t get_size(void *handle)
{
	(void)handle;
	return (int64_t)image_bytes();
}

static struct nbdkit_plugin plugin = {
	.name = "mirror",
	.config = config,
	.get_ready = get_ready,
	.after_fork = after_fork,
	.open = plugin_open,
	.get_size = get_size,
	.pread = plugin_pread,
	.pwrite = plugin_pwrite,
	.flush = plugin_flush,
	.errno_is_preserved = 1,
};

NBDKIT_REGISTER_PLUGIN(plugin)
