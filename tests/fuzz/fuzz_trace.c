/* SPDX-License-Identifier: BSD-3-Clause */
/* Input: a trace. */
#include "input.h"
#include "trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void read_all(struct tw_trace_reader *reader, size_t size)
{
	struct tw_record record;
	uint64_t offset = 0;
	volatile uint64_t sum = 0;
	while (tw_trace_next(reader, &record) > 0) {
		const uint8_t *payload = record.payload;
		size_t bytes = (size_t)record.nsectors << TW_SECTOR_SHIFT;
		for (size_t i = 0; payload && i < bytes; i++)
			sum += payload[i];
		if (!payload != !(record.flags & TW_RECORD_PAYLOAD))
			abort();
		if (tw_trace_offset(reader) <= offset || tw_trace_offset(reader) > size)
			abort();
		offset = tw_trace_offset(reader);
	}
	(void)sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tw_trace_reader *reader;
	char path[64];
	int fd = memfd_create("trace", MFD_CLOEXEC);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (tw_trace_reader_open(path, &reader) >= 0) {
		read_all(reader, size);
		tw_trace_reader_destroy(reader);
	}
	close(fd);
	return 0;
}
