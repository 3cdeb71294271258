/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Follows a trace as an inspector that is killed again and again: before about one of EVERY records its
 * state is saved and loaded into a new instance. That one sees LATER, the disk after the trace's last
 * write, and of the payload only what tw_disk_wants() keeps in the log. The events go to standard output.
 *
 *   replay BASE LATER TRACE EVERY SEED      EVERY 0: never killed, BASE all the time, all payload
 */
#include "event/encode.h"
#include "inspect/disk.h"
#include "trace.h"

#include <stdio.h>
#include <stdlib.h>

static const struct tw_disk_id id = { .host = "test", .vdev = "disk", .epoch = "e",
	.domain_name = "-", .domain_uuid = "00000000-0000-0000-0000-000000000000" };

static void ok(struct tw_error *err)
{
	if (!err)
		return;
	fprintf(stderr, "replay: %s\n", tw_error_message(err));
	exit(1);
}

static struct tw_error *print(const struct tw_event *event, void *arg)
{
	struct tw_buf json = TW_BUF_INIT;
	TW_TRY(tw_encode_event(arg, event, &json));
	fwrite(json.data, 1, json.len, stdout);
	putchar('\n');
	tw_buf_deinit(&json);
	return NULL;
}

static struct tw_disk *restart(struct tw_disk *old, const char *image, struct tw_encoder *encoder)
{
	struct tw_buf state = TW_BUF_INIT;
	struct tw_disk *disk;
	ok(tw_disk_save(old, &state));
	tw_disk_destroy(old);
	ok(tw_disk_create(image, "disk", print, encoder, &disk));
	ok(tw_disk_load(disk, tw_span(state.data, state.len)));
	tw_buf_deinit(&state);
	return disk;
}

int main(int argc, char **argv)
{
	struct tw_disk *disk;
	struct tw_encoder *encoder;
	struct tw_trace_reader *trace;
	struct tw_record record;
	unsigned restarts = 0;
	if (argc != 6 || tw_trace_reader_open(argv[3], &trace) < 0)
		return 2;
	int ret, every = atoi(argv[4]);
	srandom((unsigned)atoi(argv[5]));
	ok(tw_encoder_create(&id, &encoder));
	ok(tw_disk_create(argv[1], "disk", print, encoder, &disk));
	ok(tw_disk_crawl(disk, true));
	while ((ret = tw_trace_next(trace, &record)) > 0) {
		if (every && random() % every == 0) {
			disk = restart(disk, argv[2], encoder);
			restarts++;
		}
		if (every && record.payload && !tw_disk_wants(disk, &record)) {
			record.payload = NULL;
			record.flags &= ~(uint32_t)TW_RECORD_PAYLOAD;
		}
		ok(tw_disk_feed(disk, &record));
	}
	fprintf(stderr, "%u restarts\n", restarts);
	tw_trace_reader_destroy(trace);
	tw_disk_destroy(disk);
	tw_encoder_destroy(encoder);
	return ret < 0 ? 2 : 0;
}
