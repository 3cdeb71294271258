/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Input: an event's fields, then the bytes of its path, of the path before, of its target, of its
 * reason and its volume, each behind its length (2 bytes). The event and the entry that come of it
 * are JSON, in UTF-8 and on one line, and the same from an encoder that has seen others.
 */
#include "event/encode.h"
#include "input.h"

#include <stdlib.h>
#include <yajl/yajl_parse.h>

static uint64_t wide(struct input *in)
{
	uint64_t low = take(in, 4);
	return low | (uint64_t)take(in, 4) << 32;
}

static struct tw_time time_of(struct input *in)
{
	uint64_t sec = wide(in);
	return (struct tw_time){(int64_t)sec, take(in, 4)};
}

/* Bytes of their own, so that the first one too far is seen; the caller frees. */
static struct tw_bytes bytes_of(struct input *in, bool text)
{
	size_t len = take(in, 2);
	if (len == 0xffff)
		return (struct tw_bytes){NULL, 0};
	char *data = malloc(len + text + !len);
	if (!data)
		abort();
	len = take_bytes(in, data, len);
	if (text)
		data[len] = '\0';
	return (struct tw_bytes){data, len};
}

static void check(const struct tw_buf *json)
{
	yajl_handle parser = yajl_alloc(NULL, NULL, NULL);
	if (!parser || memchr(json->data, '\n', json->len) ||
		yajl_parse(parser, (const uint8_t *)json->data, json->len) != yajl_status_ok ||
		yajl_complete_parse(parser) != yajl_status_ok)
		abort();
	yajl_free(parser);
}

static void encode(struct tw_encoder *encoder, const struct tw_event *event, struct tw_buf *out)
{
	size_t start = out->len;
	if (tw_encode_event(encoder, event, out))
		abort();
	check(&(struct tw_buf){.data = out->data + start, .len = out->len - start});
	start = out->len;
	if (event->path.data && tw_encode_entry(encoder, event, out))
		abort();
	if (event->path.data)
		check(&(struct tw_buf){.data = out->data + start, .len = out->len - start});
}

/* With the encoder of all inputs, and with a new one. */
static void encode_twice(const struct tw_event *event)
{
	static struct tw_encoder *seasoned;
	const struct tw_disk_id id = {"h\xc3", event->volume, event->volume, event->uid, "v", event->volume};
	struct tw_buf one = TW_BUF_INIT, two = TW_BUF_INIT;
	struct tw_encoder *fresh;
	if (tw_encoder_create(&id, &fresh))
		abort();
	encode(fresh, event, &one);
	tw_encoder_destroy(fresh);
	const struct tw_disk_id other = {"host", "uuid", "name", 1, "vdev", "epoch"};
	if ((!seasoned && tw_encoder_create(&other, &seasoned)) || tw_encoder_create(&other, &fresh))
		abort();
	tw_buf_reset(&one);
	encode(fresh, event, &one);
	encode(seasoned, event, &two);
	if (one.len != two.len || memcmp(one.data, two.data, one.len) != 0)
		abort();
	tw_encoder_destroy(fresh);
	tw_buf_deinit(&one);
	tw_buf_deinit(&two);
}

static void take_scalars(struct input *in, struct tw_event *event)
{
	event->type = (enum tw_event_type)take(in, 1);
	event->kind = (enum tw_kind)take(in, 1);
	uint32_t flags = take(in, 1);
	event->resync = flags & 1;
	event->exchange = flags & 2;
	event->nranges = flags >> 2 & 7;
	event->sequence = wide(in);
	event->time = time_of(in);
	event->observed = time_of(in);
	event->mtime = time_of(in);
	event->ctime = time_of(in);
	event->inode = event->size = wide(in);
	event->generation = event->uid = event->gid = event->nlink = take(in, 4);
	event->mode = event->rdev_major = event->rdev_minor = event->transaction = take(in, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct tw_event event = {0};
	struct tw_range ranges[8];
	take_scalars(&in, &event);
	for (size_t i = 0; i < event.nranges; i++)
		ranges[i] = (struct tw_range){wide(&in), wide(&in)};
	event.ranges = ranges;
	event.path = bytes_of(&in, false);
	event.old_path = bytes_of(&in, false);
	event.target = bytes_of(&in, false);
	struct tw_bytes reason = bytes_of(&in, true), volume = bytes_of(&in, true);
	event.reason = reason.data;
	event.volume = volume.data ? volume.data : "";
	encode_twice(&event);
	free((void *)event.path.data);
	free((void *)event.old_path.data);
	free((void *)event.target.data);
	free((void *)reason.data);
	free((void *)volume.data);
	return 0;
}
