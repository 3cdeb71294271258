/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/tapctl.h"
#include "base/scope.h"
#include "supervise/allocated.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A disk that does not go on is tried again so often as long as its tapdisk lives. */
#define RETRY_FIRST_MS 20
#define RETRY_MAX_MS 1000
#define WAKE_MS 32
/* A tap-ctl that has not come back by then is ended: the guest waits for what comes after a pause. */
#define BOUND_MS 5000
/* An earlier failure of the mirror leaves nothing behind that could make the next one fail, so two
 * tries in a row say that it cannot be had. */
#define MIRROR_TRIES 2

static const char step_name[] = "tapwire: mirror";

/* --- lines --- */

static char *value_of(char *line, const char *key)
{
	char *at = strstr(line, key);
	return at && (at == line || at[-1] == ' ') ? at + strlen(key) : NULL;
}

static bool number(const char *text, int base, unsigned long max, unsigned long *out)
{
	char *end;
	if (!text || *text < '0' || *text > '9')
		return false;
	errno = 0;
	*out = strtoul(text, &end, base);
	return errno == 0 && *out <= max && (*end == ' ' || *end == '\n' || !*end || *end == ':');
}

bool tw_vbd_parse(char *line, struct tw_vbd *out)
{
	unsigned long pid, minor, state;
	line[strcspn(line, "\n")] = '\0';
	/* Last on the line, and the only one that may hold spaces. */
	char *args = strstr(line, " args=");
	if (!args)
		return false;
	*args = '\0';
	args += strlen(" args=");
	char *colon = strchr(args, ':');
	if (!colon || !number(value_of(line, "pid="), 10, INT_MAX, &pid) ||
		!number(value_of(line, "minor="), 10, INT_MAX, &minor) ||
		!number(value_of(line, "state="), 0, UINT_MAX, &state))
		return false;
	*colon = '\0';
	*out = (struct tw_vbd){ (int)pid, (int)minor, (unsigned)state, args, colon + 1 };
	return pid > 0;
}

bool tw_vbd_parse_target(const char *text, int *pid, int *minor)
{
	unsigned long p, m;
	*pid = *minor = -1;
	if (strcmp(text, "auto") == 0)
		return true;
	const char *colon = strchr(text, ':');
	if (!colon || strchr(colon + 1, ':') || strpbrk(text, " \n"))
		return false;
	if (!number(text, 10, INT_MAX, &p) || p == 0 || !number(colon + 1, 10, INT_MAX, &m))
		return false;
	*pid = (int)p;
	*minor = (int)m;
	return true;
}

bool tw_vbd_parse_socket(const char *path, int *pid, int *minor)
{
	static const char name[] = "/run/blktap-control/nbd";
	unsigned long p, m;
	const char *var = strncmp(path, "/var/", 5) == 0 ? path + 4 : path;
	if (strncmp(var, name, strlen(name)) != 0)
		return false;
	char text[32];
	snprintf(text, sizeof(text), "%s", var + strlen(name));
	char *dot = strchr(text, '.');
	if (!dot)
		return false;
	*dot = '\0';
	if (!number(text, 10, INT_MAX, &p) || p == 0 || !number(dot + 1, 10, INT_MAX, &m) ||
		strpbrk(text, ": \n") || strpbrk(dot + 1, ": \n"))
		return false;
	*pid = (int)p;
	*minor = (int)m;
	return true;
}

/* "fe:1f" */
static int minor_of(const char *numbers)
{
	const char *colon = strchr(numbers, ':');
	char *end;
	if (!colon)
		return -1;
	unsigned long minor = strtoul(colon + 1, &end, 16);
	return end == colon + 1 || *end || minor > 0xfffff ? -1 : (int)minor;
}

bool tw_vbd_of_backend(const char *kind, const char *device, const char *numbers, int *pid, int *minor)
{
	if (tw_vbd_parse_socket(device, pid, minor))
		return true;
	*pid = -1;
	*minor = strcmp(kind, "vbd3") == 0 ? minor_of(numbers) : -1;
	return *minor >= 0;
}

/* --- running it --- */

static pid_t start(const char *const *argv, int out)
{
	pid_t child = fork();
	if (child == 0) {
		int null = open("/dev/null", O_RDWR);
		dup2(null, STDIN_FILENO);
		dup2(out >= 0 ? out : null, STDOUT_FILENO);
		execv(argv[0], (char *const *)argv);
		_exit(127);
	}
	return child;
}

/* 0 when it runs (with WNOHANG), else 1 with its exit status, or -1 there. */
static int reap(pid_t child, int how, int *exit_status)
{
	int status;
	pid_t ended;
	do
		ended = waitpid(child, &status, how);
	while (ended < 0 && errno == EINTR);
	if (ended == 0)
		return 0;
	*exit_status = ended == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	return 1;
}

static void sleep_ms(unsigned ms)
{
	nanosleep(&(struct timespec){ ms / 1000, (long)(ms % 1000) * 1000000L }, NULL);
}

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static int run(const char *const *argv, int out);

/* -1 or its exit status. While it takes its time, question, if any, is run now and then. */
static int await(pid_t child, const char *const *question)
{
	int status = -1;
	const int64_t end = now_ms() + BOUND_MS;
	for (unsigned ms = 1; !reap(child, WNOHANG, &status); ms = ms < WAKE_MS ? ms * 2 : ms) {
		if (now_ms() >= end) {
			kill(child, SIGKILL);
			(void)reap(child, 0, &status);
			return -1;
		}
		sleep_ms(ms);
		if (question && ms >= WAKE_MS)
			(void)run(question, -1);
	}
	return status;
}

/* -1 or its exit status; its standard output goes to out, if that is not -1. */
static int run(const char *const *argv, int out)
{
	pid_t child = start(argv, out);
	return child > 0 ? await(child, NULL) : -1;
}

bool tw_tapctl_is_file(const char *path, const struct stat *file)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return false;
	if (S_ISBLK(st.st_mode) && S_ISBLK(file->st_mode))
		return st.st_rdev == file->st_rdev;
	return st.st_dev == file->st_dev && st.st_ino == file->st_ino;
}

struct search {
	int pid, minor; /* -1: any of this minor; both: any that serves the image */
	struct stat image;
	struct tw_vbd found;
	char type[32];
	char path[PATH_MAX];
	bool is_image;
};

static bool consider(struct search *search, char *line)
{
	struct tw_vbd vbd;
	if (!tw_vbd_parse(line, &vbd))
		return false;
	const bool is_image = tw_tapctl_is_file(vbd.path, &search->image);
	const bool is_named = search->minor >= 0;
	if (is_named ? (search->pid >= 0 && vbd.pid != search->pid) || vbd.minor != search->minor : !is_image)
		return false;
	snprintf(search->type, sizeof(search->type), "%s", vbd.type);
	snprintf(search->path, sizeof(search->path), "%s", vbd.path);
	search->is_image = is_image;
	search->found = vbd;
	search->found.type = search->type;
	search->found.path = search->path;
	return true;
}

/* In memory: under systemd, as the unit has it, there is no /tmp to write to. */
static FILE *make_answer(void)
{
	int fd = memfd_create("tap-ctl", MFD_CLOEXEC);
	FILE *out = fd >= 0 ? fdopen(fd, "w+") : NULL;
	if (!out && fd >= 0)
		close(fd);
	return out;
}

/* 0: found; else a status. */
static int find(const char *tap_ctl, struct search *search)
{
	const char *const argv[] = { tap_ctl, "list", NULL };
	FILE *out = make_answer();
	char line[PATH_MAX + 256];
	if (!out)
		return TW_SWITCH_FAILED;
	int status = run(argv, fileno(out)) == 0 ? TW_SWITCH_ABSENT : TW_SWITCH_FAILED;
	rewind(out);
	while (status == TW_SWITCH_ABSENT && fgets(line, sizeof(line), out))
		if (consider(search, line))
			status = 0;
	fclose(out);
	return status;
}

static struct tw_error *copy_found(const struct search *search, char **target, char **path)
{
	if (strcmp(search->found.type, "aio") != 0)
		return tw_error_create(TW_UNSUPPORTED, "tapdisk %d:%d serves %s:%s, and only raw images are followed",
			search->found.pid, search->found.minor, search->found.type, search->found.path);
	*path = strdup(search->found.path);
	if (asprintf(target, "%d:%d", search->found.pid, search->found.minor) < 0)
		*target = NULL;
	if (*path && *target)
		return NULL;
	free(TW_STEAL(*path));
	free(TW_STEAL(*target));
	return tw_error_nomem();
}

struct tw_error *tw_tapctl_find(
	const char *tap_ctl, int pid, int minor, const char *image, char **target, char **path)
{
	struct search search = { .pid = pid, .minor = minor };
	*target = *path = NULL;
	if (minor < 0 && (!image || stat(image, &search.image) < 0))
		return tw_error_errno(image ? errno : ENOENT, "%s", image ? image : "its image");
	int status = find(tap_ctl, &search);
	if (status == TW_SWITCH_ABSENT && minor < 0)
		return tw_error_create(TW_UNAVAILABLE, "no tapdisk serves %s (%s list)", image, tap_ctl);
	if (status == TW_SWITCH_ABSENT)
		return tw_error_create(TW_UNAVAILABLE, "there is no such tapdisk any more (%s list)", tap_ctl);
	if (status)
		return tw_error_create(TW_UNAVAILABLE, "%s list: failed%s", tap_ctl,
			geteuid() ? "; it is for root only" : "");
	return copy_found(&search, target, path);
}

/* A tapdisk that is to pause looks every 10 ms at most whether its last request has come back, and not
 * again before something wakes it, which may take ten minutes (seen with 4.0.8). So it is asked
 * something while it has not answered. */
static int run_waking(const struct tw_mirror_switch *change, const char *const *argv)
{
	const char *const question[] = { change->tap_ctl, "stats", "-p", argv[3], "-m", argv[5], NULL };
	pid_t child = start(argv, -1);
	return child > 0 ? await(child, question) : -1;
}

static int tell(const struct tw_mirror_switch *change, const char *verb, const struct tw_vbd *vbd,
	const char *secondary)
{
	char pid[16], minor[16];
	snprintf(pid, sizeof(pid), "%d", vbd->pid);
	snprintf(minor, sizeof(minor), "%d", vbd->minor);
	const char *const argv[] = { change->tap_ctl, verb, "-p", pid, "-m", minor,
		secondary ? "-2" : NULL, secondary, NULL };
	return strcmp(verb, "pause") == 0 ? run_waking(change, argv) : run(argv, -1);
}

/* --- the change --- */

static void set_mark(const char *mark, const struct tw_vbd *vbd)
{
	FILE *file = mark ? fopen(mark, "we") : NULL;
	if (!file)
		return; /* only a helper that is killed now leaves a disk that nobody goes on with */
	fprintf(file, "%d:%d\n", vbd->pid, vbd->minor);
	fclose(file);
}

static bool is_marked(const char *mark, const struct tw_vbd *vbd)
{
	char text[64] = "";
	if (!mark)
		return true;
	FILE *file = fopen(mark, "re");
	int pid, minor;
	if (!file)
		return false;
	const bool read = fgets(text, sizeof(text), file);
	fclose(file);
	text[strcspn(text, "\n")] = '\0';
	return read && tw_vbd_parse_target(text, &pid, &minor) && pid == vbd->pid &&
	       minor == vbd->minor;
}

static bool lives(int pid)
{
	return kill(pid, 0) == 0 || errno != ESRCH;
}

/* Somebody else has let it. */
static bool goes_on(const struct tw_mirror_switch *change, const struct tw_vbd *vbd)
{
	struct search search = { .pid = vbd->pid, .minor = vbd->minor };
	return find(change->tap_ctl, &search) == 0 && search.found.state == 0;
}

/* Until it goes on, or its tapdisk is gone. True: with what it was to have. */
static bool go_on(const struct tw_mirror_switch *change, const struct tw_vbd *vbd,
	const char *secondary)
{
	unsigned pause_ms = RETRY_FIRST_MS;
	for (unsigned i = 0; lives(vbd->pid); i++) {
		const char *what = i < MIRROR_TRIES ? secondary : "null";
		if (tell(change, "unpause", vbd, what) == 0)
			return strcmp(what, secondary) == 0;
		if (i >= MIRROR_TRIES && goes_on(change, vbd))
			return false;
		sleep_ms(pause_ms);
		pause_ms = pause_ms * 2 < RETRY_MAX_MS ? pause_ms * 2 : RETRY_MAX_MS;
	}
	return false;
}

static int check(const struct tw_mirror_switch *change, const struct search *search, char *said,
	int size)
{
	const struct tw_vbd *vbd = &search->found;
	if (!search->is_image || strcmp(vbd->type, "aio") != 0) {
		snprintf(said, (size_t)size, "tapdisk %d:%d serves %s:%s, not the raw image %s",
			vbd->pid, vbd->minor, vbd->type, vbd->path, change->image);
		return TW_SWITCH_REFUSED;
	}
	if (vbd->state && !is_marked(change->mark, vbd)) {
		snprintf(said, (size_t)size, "tapdisk %d:%d is paused by somebody else", vbd->pid,
			vbd->minor);
		return TW_SWITCH_BUSY;
	}
	struct tw_error *err = change->socket ? tw_image_check_allocated(change->image) : NULL;
	if (err)
		snprintf(said, (size_t)size, "%s", tw_error_message(err));
	const int status = err ? TW_SWITCH_REFUSED : 0;
	tw_error_destroy(err);
	return status;
}

/* Whether it is paused, or may come to be: then it must go on again. A tapdisk pauses a disk also when
 * the one who asked for it did not live to hear so. */
static bool pause_it(const struct tw_mirror_switch *change, const struct tw_vbd *vbd)
{
	struct search again = { .pid = vbd->pid, .minor = vbd->minor };
	if (vbd->state & TW_VBD_PAUSED || tell(change, "pause", vbd, NULL) == 0)
		return true;
	const int status = find(change->tap_ctl, &again);
	return status == TW_SWITCH_FAILED ||
	       (status == 0 && again.found.state & (TW_VBD_PAUSED | TW_VBD_PAUSE_REQUESTED));
}

static int pause_and_go_on(const struct tw_mirror_switch *change, const struct tw_vbd *vbd,
	const char *secondary, char *said, int size)
{
	set_mark(change->mark, vbd);
	const bool paused = pause_it(change, vbd);
	const bool done = paused && go_on(change, vbd, secondary);
	if (change->mark)
		unlink(change->mark);
	if (done) {
		snprintf(said, (size_t)size, "%d:%d", vbd->pid, vbd->minor);
		return 0;
	}
	snprintf(said, (size_t)size, "tapdisk %d:%d %s", vbd->pid, vbd->minor,
		!lives(vbd->pid) ? "has ended"
		: paused         ? "does not take the mirror"
				 : "cannot be paused");
	return paused ? TW_SWITCH_ALONE : TW_SWITCH_FAILED;
}

int tw_tapctl_switch(const struct tw_mirror_switch *change, char *said, int size)
{
	struct search search = { 0 };
	TW_AUTO_FREE char *secondary = NULL;
	snprintf(said, (size_t)size, "out of memory");
	if (asprintf(&secondary, "%s%s", change->socket ? "nbd:" : "null",
		    change->socket ? change->socket : "") < 0) {
		secondary = NULL;
		return TW_SWITCH_FAILED;
	}
	if (!tw_vbd_parse_target(change->target, &search.pid, &search.minor) ||
		stat(change->image, &search.image) < 0) {
		snprintf(said, (size_t)size, "%s, %s: %s", change->target, change->image,
			strerror(errno));
		return TW_SWITCH_REFUSED;
	}
	int status = find(change->tap_ctl, &search);
	if (status == TW_SWITCH_ABSENT)
		snprintf(said, (size_t)size, "no tapdisk serves %s", change->image);
	else if (status)
		snprintf(said, (size_t)size, "%s list: failed", change->tap_ctl);
	else
		status = check(change, &search, said, size);
	return status ? status
		      : pause_and_go_on(change, &search.found, secondary, said, size);
}

/* --- the process --- */

void tw_tapctl_args(const struct tw_mirror_switch *change, const char **argv)
{
	const char *const args[TW_SWITCH_ARGS] = { step_name, change->tap_ctl, change->target,
		change->image, change->socket ? change->socket : "", change->mark, NULL };
	memcpy(argv, args, sizeof(args));
}

void tw_tapctl_main(int argc, char **argv)
{
	char said[PATH_MAX + 256];
	if (argc != TW_SWITCH_ARGS - 1 || strcmp(argv[0], step_name) != 0)
		return;
	static const int deaf_to[] = { SIGTERM, SIGINT, SIGHUP, SIGPIPE };
	for (size_t i = 0; i < sizeof(deaf_to) / sizeof(deaf_to[0]); i++)
		signal(deaf_to[i], SIG_IGN);
	const struct tw_mirror_switch change = { argv[1], argv[2], argv[3],
		*argv[4] ? argv[4] : NULL, argv[5] };
	const int status = tw_tapctl_switch(&change, said, sizeof(said));
	printf("%s\n", said);
	fflush(stdout);
	_exit(status);
}
