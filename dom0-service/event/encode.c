/* SPDX-License-Identifier: BSD-3-Clause */
#include "event/event.h"
#include "event/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool about_a_file(const struct tw_event *event)
{
	return event->type >= TW_EVENT_FILE_CREATED && event->type <= TW_EVENT_FILE_ATTRIBUTES;
}

#define UNRESERVED "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"

/* A segment of the source, which is a URI reference: all but RFC 3986's unreserved is escaped. */
static void source_segment(struct tw_buf *out, const char *text)
{
	tw_buf_puts(out, "/");
	while (*text) {
		size_t run = strspn(text, UNRESERVED);
		tw_buf_append(out, text, run);
		text += run;
		if (*text)
			tw_buf_printf(out, "%%%02X", (unsigned char)*text++);
	}
}

void tw_disk_source(const struct tw_disk_id *disk, struct tw_buf *out)
{
	tw_buf_puts(out, "/xen");
	source_segment(out, disk->host);
	source_segment(out, disk->domain_uuid);
	source_segment(out, disk->vdev);
}

static void put_source(struct tw_json *json, const struct tw_disk_id *disk, const char *volume)
{
	struct tw_buf text = TW_BUF_INIT;
	tw_disk_source(disk, &text);
	if (volume && *volume)
		source_segment(&text, volume);
	tw_buf_append(&text, "", 1);
	if (text.failed)
		json->failed = true;
	else
		tw_json_text(json, "source", text.data);
	tw_buf_deinit(&text);
}

static void put_id(struct tw_json *json, const char *epoch, uint64_t sequence)
{
	char text[160];
	snprintf(text, sizeof(text), "%.128s-%" PRIu64, epoch, sequence);
	tw_json_text(json, "id", text);
}

static void put_sequence(struct tw_json *json, uint64_t sequence)
{
	char text[24];
	snprintf(text, sizeof(text), "%" PRIu64, sequence);
	tw_json_text(json, "sequence", text);
}

static void put_inode(struct tw_json *json, const struct tw_event *event)
{
	char mode[8];
	snprintf(mode, sizeof(mode), "%04o", event->mode & 07777);
	tw_json_u64(json, "inode", event->inode);
	tw_json_u64(json, "generation", event->generation);
	tw_json_text(json, "kind", tw_kind_name(event->kind));
	tw_json_u64(json, "size", event->size);
	tw_json_text(json, "mode", mode);
	tw_json_u64(json, "uid", event->uid);
	tw_json_u64(json, "gid", event->gid);
	tw_json_u64(json, "nlink", event->nlink);
	tw_json_time(json, "mtime", event->mtime);
	tw_json_time(json, "ctime", event->ctime);
	if (event->kind == TW_KIND_CHAR || event->kind == TW_KIND_BLOCK) {
		tw_json_u64(json, "rdev_major", event->rdev_major);
		tw_json_u64(json, "rdev_minor", event->rdev_minor);
	}
	if (event->target.data)
		tw_json_bytes(json, "target", event->target);
}

static void put_ranges(struct tw_json *json, const struct tw_event *event)
{
	if (!event->nranges)
		return;
	tw_json_open_array(json, "ranges");
	for (size_t i = 0; i < event->nranges; i++) {
		tw_json_open_array(json, NULL);
		tw_json_u64(json, NULL, event->ranges[i].offset);
		tw_json_u64(json, NULL, event->ranges[i].length);
		tw_json_close_array(json);
	}
	tw_json_close_array(json);
}

/* Only the end of a path that is longer than Linux can name. */
static void put_truncated(struct tw_json *json, const char *key, struct tw_bytes path)
{
	if (path.data && path.len && *(const char *)path.data != '/')
		tw_json_bool(json, key, true);
}

static void put_domain(struct tw_json *json, const struct tw_disk_id *disk)
{
	tw_json_open(json, "domain");
	tw_json_u64(json, "id", disk->domid);
	tw_json_text(json, "name", disk->domain_name);
	tw_json_text(json, "uuid", disk->domain_uuid);
	tw_json_close(json);
}

static void put_data(
	struct tw_json *json, const struct tw_event *event, const struct tw_disk_id *disk)
{
	tw_json_open(json, "data");
	if (about_a_file(event))
		put_inode(json, event);
	if (event->path.data)
		tw_json_raw_bytes(json, "path", event->path);
	if (event->old_path.data)
		tw_json_bytes(json, "old_path", event->old_path);
	put_truncated(json, "path_truncated", event->path);
	put_truncated(json, "old_path_truncated", event->old_path);
	put_ranges(json, event);
	if (event->transaction)
		tw_json_u64(json, "transaction", event->transaction);
	if (event->resync)
		tw_json_bool(json, "resync", true);
	if (event->exchange)
		tw_json_bool(json, "exchange", true);
	if (event->reason)
		tw_json_text(json, "reason", event->reason);
	put_domain(json, disk);
	tw_json_close(json);
}

/* CloudEvents wants no empty subject: an event without a path has none. */
static void put_subject(struct tw_json *json, struct tw_bytes path)
{
	if (!path.data || !path.len)
		return;
	/* The raw bytes go into data: an attribute's name has letters and digits only. */
	tw_json_readable(json, "subject", path);
}

struct tw_error *tw_event_encode(
	const struct tw_event *event, const struct tw_disk_id *disk, struct tw_buf *out)
{
	struct tw_json json;
	tw_json_begin(&json, out);
	tw_json_open(&json, NULL);
	tw_json_text(&json, "specversion", "1.0");
	put_id(&json, disk->epoch, event->sequence);
	put_source(&json, disk, event->volume);
	tw_json_text(&json, "type", tw_event_type_name(event->type));
	put_subject(&json, event->path);
	tw_json_time(&json, "time", event->time);
	tw_json_time(&json, "observedtime", event->observed);
	put_sequence(&json, event->sequence);
	tw_json_text(&json, "datacontenttype", "application/json");
	put_data(&json, event, disk);
	tw_json_close(&json);
	return tw_json_end(&json);
}

struct tw_error *tw_event_encode_entry(const struct tw_event *entry, struct tw_buf *out)
{
	struct tw_json json;
	tw_json_begin(&json, out);
	tw_json_open(&json, NULL);
	tw_json_bytes(&json, "path", entry->path);
	put_truncated(&json, "path_truncated", entry->path);
	/* A disk may have several volumes; a path says nothing without its own. */
	if (entry->volume && *entry->volume)
		tw_json_text(&json, "volume", entry->volume);
	put_inode(&json, entry);
	tw_json_close(&json);
	return tw_json_end(&json);
}
