/* SPDX-License-Identifier: BSD-3-Clause */
/* Input: the saved state of a disk of 3 MiB. What it gives can be walked, settled and saved. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tw_buf again = TW_BUF_INIT;
	struct tw_disk *disk;
	char path[64];
	static int fd = -1;
	if (fd < 0) {
		fd = memfd_create("image", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, FUZZ_IMAGE_BYTES) < 0)
			abort();
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	struct tw_error *err = tw_disk_create(path, "fuzz", take_event, NULL, &disk);
	if (err)
		abort();
	err = tw_disk_load(disk, tw_span(data, size));
	if (!err)
		err = use(disk, &again);
	tw_error_destroy(err);
	tw_disk_destroy(disk);
	tw_buf_deinit(&again);
	return 0;
}
