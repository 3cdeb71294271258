/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Input: a byte 0 and the saved state of a disk of 3 MiB, or another byte and patches to the state
 * of the small image (from 128 on: of the one whose inodes hold what they can): where, how many
 * bytes, and these; the last one says where it is cut off.
 * What comes of it can be walked, settled and saved.
 */
#include "base/log.h"
#include "inspect/disk.h"
#include "input.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* A state may ask for more memory than there is. */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

static struct tw_error *take_event(const struct tw_event *event, void *arg)
{
	(void)arg;
	if (event->kind != TW_KIND_NONE && (!event->path.len || *(const char *)event->path.data != '/'))
		abort();
	return NULL;
}

static struct tw_error *use(struct tw_disk *disk, struct tw_buf *again)
{
	static uint8_t sectors[4096];
	const struct tw_record record = { 1, 1, 2, 8, TW_RECORD_PAYLOAD, sectors };
	TW_TRY(tw_disk_walk(disk, take_event, NULL));
	tw_error_destroy(tw_disk_settle(disk, (struct tw_time){ 1, 0 }, true));
	tw_error_destroy(tw_disk_feed(disk, &record));
	return tw_disk_save(disk, again);
}

static struct tw_disk *open_disk(bool inodes)
{
	static int fds[2] = { -1, -1 };
	int fd = fds[inodes];
	struct tw_disk *disk;
	char path[64];
	if (fd < 0) {
		tw_log_init("fuzz", TW_LOG_ERROR);
		fd = memfd_create("image", MFD_CLOEXEC);
		const uint8_t *image = inodes ? fuzz_image_of_inodes() : fuzz_image();
		if (fd < 0 || write(fd, image, FUZZ_IMAGE_BYTES) != FUZZ_IMAGE_BYTES)
			abort();
		fds[inodes] = fd;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	struct tw_error *err = tw_disk_create(path, "fuzz", take_event, NULL, &disk);
	if (err)
		abort();
	return disk;
}

static struct tw_span pristine(bool inodes)
{
	static struct tw_buf states[2];
	struct tw_buf *state = &states[inodes];
	if (!state->len) {
		struct tw_disk *disk = open_disk(inodes);
		if (tw_disk_crawl(disk, true) || tw_disk_save(disk, state))
			abort();
		tw_disk_destroy(disk);
	}
	return tw_span(state->data, state->len);
}

/* The state that the input stands for; the caller frees it. */
static uint8_t *state_of(struct input *in, size_t *len)
{
	uint32_t first = take(in, 1);
	struct tw_span base = pristine(first >= 128);
	bool raw = first == 0;
	size_t size = raw ? in->size : base.len;
	uint8_t *state = malloc(size + 8);
	if (!state)
		abort();
	if (raw)
		take_bytes(in, state, size);
	else
		memcpy(state, base.data, size);
	while (in->size > 2) {
		uint32_t at = take(in, 2);
		if (in->size < 2)
			size = at < size ? at : size;
		else if (at < size)
			take_bytes(in, state + at, take(in, 1) % 9);
		else
			in->size = 0;
	}
	*len = size;
	return state;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct tw_buf again = TW_BUF_INIT;
	size_t len;
	uint8_t *state = state_of(&in, &len);
	uint8_t *exact = malloc(len ? len : 1); /* the first byte too far is seen */
	if (!exact)
		abort();
	memcpy(exact, state, len);
	free(state);
	struct tw_disk *disk = open_disk(size && data[0] >= 128);
	struct tw_error *err = tw_disk_load(disk, tw_span(exact, len));
	if (!err)
		err = use(disk, &again);
	tw_error_destroy(err);
	tw_disk_destroy(disk);
	tw_buf_deinit(&again);
	free(exact);
	return 0;
}
