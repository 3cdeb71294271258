/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A field is one line. What is the same for all events of a disk, a volume, a type or a kind is
 * text that is made once; the rest is put behind keys that are text already, each with the comma
 * before it. An object's first comma becomes its brace.
 */
#include "event/encode.h"
#include "event/put.h"
#include "event/time.h"
#include "event/utf8.h"

#include <stdio.h>
#include <stdlib.h>

#define LABEL_BYTES 48

/* Text of a few bytes that is copied whole. */
struct label {
	char text[LABEL_BYTES];
	size_t len;
};

struct tw_encoder {
	struct tw_buf begin;       /* of every event, up to its number */
	struct tw_buf disk_source; /* as a member, without the quote behind it */
	struct tw_buf source;      /* the same for the volume below */
	struct tw_buf volume;      /* the last one, NUL-terminated */
	struct tw_buf end;         /* the domain */
	struct label types[TW_EVENT_TYPE_END];
	struct label kinds[TW_KIND_BLOCK + 1];
	struct tw_stamp time, observed, mtime, ctime;
};

/* --- what is made once --- */

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

static void make_label(struct label *label, const char *key, const char *value)
{
	label->len =
		(size_t)snprintf(label->text, sizeof(label->text), ",\"%s\":\"%s\"", key, value);
}

static void make_labels(struct tw_encoder *encoder)
{
	for (int i = 0; i < TW_EVENT_TYPE_END; i++)
		make_label(&encoder->types[i], "type", tw_event_type_name((enum tw_event_type)i));
	for (int i = 0; i <= TW_KIND_BLOCK; i++)
		make_label(&encoder->kinds[i], "kind", tw_kind_name((enum tw_kind)i));
}

static void make_begin(struct tw_buf *out, const char *epoch)
{
	struct tw_put put;
	tw_put_begin(&put, out);
	tw_put_literal(&put, "{\"specversion\":\"1.0\",\"id\":");
	tw_put_string(&put, epoch, strnlen(epoch, 128));
	if (!out->failed)
		put.at[-1] = '-'; /* in place of the quote */
	tw_put_end(&put);
}

static void make_end(struct tw_buf *out, const struct tw_disk_id *disk)
{
	struct tw_put put;
	tw_put_begin(&put, out);
	tw_put_literal(&put, ",\"domain\":{\"id\":");
	tw_put_u64(&put, disk->domid);
	tw_put_literal(&put, ",\"name\":");
	tw_put_string(&put, disk->domain_name, strlen(disk->domain_name));
	tw_put_literal(&put, ",\"uuid\":");
	tw_put_string(&put, disk->domain_uuid, strlen(disk->domain_uuid));
	tw_put_literal(&put, "}");
	tw_put_end(&put);
}

static bool make_volume(struct tw_encoder *encoder, const char *volume)
{
	tw_buf_reset(&encoder->volume);
	tw_buf_reset(&encoder->source);
	tw_buf_append(&encoder->source, encoder->disk_source.data, encoder->disk_source.len);
	if (*volume)
		source_segment(&encoder->source, volume);
	tw_buf_append(&encoder->volume, volume, strlen(volume) + 1);
	if (!encoder->source.failed && !encoder->volume.failed)
		return true;
	tw_buf_deinit(&encoder->volume); /* the next event tries again */
	return false;
}

static struct tw_error *make_disk(struct tw_encoder *encoder, const struct tw_disk_id *disk)
{
	make_begin(&encoder->begin, disk->epoch);
	tw_buf_puts(&encoder->disk_source, ",\"source\":\"");
	tw_disk_source(disk, &encoder->disk_source);
	make_end(&encoder->end, disk);
	bool failed = encoder->begin.failed || encoder->disk_source.failed || encoder->end.failed;
	return failed || !make_volume(encoder, "") ? tw_error_nomem() : NULL;
}

struct tw_error *tw_encoder_create(const struct tw_disk_id *disk, struct tw_encoder **out)
{
	struct tw_encoder *encoder = calloc(1, sizeof(*encoder));
	if (!encoder)
		return tw_error_nomem();
	make_labels(encoder);
	tw_stamp_init(&encoder->time);
	tw_stamp_init(&encoder->observed);
	tw_stamp_init(&encoder->mtime);
	tw_stamp_init(&encoder->ctime);
	struct tw_error *err = disk ? make_disk(encoder, disk) : NULL;
	if (err)
		tw_encoder_destroy(encoder);
	else
		*out = encoder;
	return err;
}

void tw_encoder_destroy(struct tw_encoder *encoder)
{
	if (!encoder)
		return;
	tw_buf_deinit(&encoder->begin);
	tw_buf_deinit(&encoder->disk_source);
	tw_buf_deinit(&encoder->source);
	tw_buf_deinit(&encoder->volume);
	tw_buf_deinit(&encoder->end);
	free(encoder);
}

/* --- kinds of members; each begins with a comma --- */

#define MEMBER __attribute__((always_inline)) static inline void

MEMBER number(struct tw_put *put, const char *key, uint64_t value)
{
	size_t len = strlen(key);
	if (!tw_put_room(put, len + TW_DECIMAL_BYTES))
		return;
	memcpy(put->at, key, len);
	put->at = tw_decimal(put->at + len, value);
}

MEMBER number_if(struct tw_put *put, const char *key, uint64_t value)
{
	if (value)
		number(put, key, value);
}

MEMBER mark_if(struct tw_put *put, const char *member, bool value)
{
	if (value)
		tw_put_literal(put, member);
}

/* The key ends with the value's quote. */
MEMBER stamp(struct tw_put *put, const char *key, struct tw_stamp *last, struct tw_time value)
{
	size_t len = strlen(key);
	tw_stamp_set(last, value);
	if (!tw_put_room(put, len + sizeof(last->text)))
		return;
	memcpy(put->at, key, len);
	memcpy(put->at + len, last->text, sizeof(last->text));
	put->at += len + TW_TIME_TEXT_LEN + 1;
	put->at[-1] = '"';
}

/* Four octal digits; the key ends with their quote. */
MEMBER octal(struct tw_put *put, const char *key, uint32_t mode)
{
	size_t len = strlen(key);
	if (!tw_put_room(put, len + 5))
		return;
	memcpy(put->at, key, len);
	put->at += len;
	for (int shift = 9; shift >= 0; shift -= 3)
		*put->at++ = (char)('0' + (mode >> shift & 7));
	*put->at++ = '"';
}

static inline void put_label(struct tw_put *put, const struct label *label)
{
	if (!tw_put_room(put, sizeof(label->text)))
		return;
	memcpy(put->at, label->text, sizeof(label->text));
	put->at += label->len;
}

/* What is readable of the bytes. True when that is all of it. */
__attribute__((always_inline)) static inline bool readable(
	struct tw_put *put, const char *key, struct tw_bytes value)
{
	tw_put_literal(put, key);
	return tw_put_string(put, value.data, value.len);
}

/* The bytes themselves; the key ends with the value's quote. */
static void base64(struct tw_put *put, const char *key, struct tw_bytes value)
{
	tw_put_literal(put, key);
	tw_put_base64(put, value.data, value.len);
	tw_put_literal(put, "\"");
}

#define BYTES_IF(put, name, value)                                                                 \
	do {                                                                                       \
		if ((value).data && !readable(put, ",\"" name "\":", value))                       \
			base64(put, ",\"" name "_b64\":\"", value);                                \
	} while (0)

/* --- the parts of an event --- */

static bool about_a_file(const struct tw_event *event)
{
	return (event->type >= TW_EVENT_FILE_CREATED && event->type <= TW_EVENT_FILE_ATTRIBUTES) ||
	       event->type == TW_EVENT_FILE_SETTLED;
}

/* The names; where one of them is not UTF-8, the bytes of all as well. */
static void put_names(struct tw_put *put, bool removed, const struct tw_bytes *names, size_t n)
{
	bool whole = true;
	if (removed)
		tw_put_literal(put, "\"removed\":[");
	else
		tw_put_literal(put, "\"set\":[");
	for (size_t i = 0; i < n; i++)
		whole &= readable(put, i ? "," : "", names[i]);
	tw_put_literal(put, "],");
	if (whole)
		return;
	if (removed)
		tw_put_literal(put, "\"removed_b64\":[");
	else
		tw_put_literal(put, "\"set_b64\":[");
	for (size_t i = 0; i < n; i++)
		base64(put, i ? ",\"" : "\"", names[i]);
	tw_put_literal(put, "],");
}

static void put_xattrs(struct tw_put *put, const struct tw_event *event)
{
	if (!event->nxattrs_set && !event->nxattrs_removed)
		return;
	tw_put_literal(put, ",\"xattrs\":{");
	if (event->nxattrs_set)
		put_names(put, false, event->xattrs, event->nxattrs_set);
	if (event->nxattrs_removed)
		put_names(put, true, event->xattrs + event->nxattrs_set, event->nxattrs_removed);
	if (!put->buf->failed)
		put->at[-1] = '}'; /* in place of the last comma */
}

static void put_inode(struct tw_encoder *encoder, struct tw_put *put, const struct tw_event *event)
{
	bool device = event->kind == TW_KIND_CHAR || event->kind == TW_KIND_BLOCK;
	number(put, ",\"inode\":", event->inode);
	number(put, ",\"generation\":", event->generation);
	put_label(put, &encoder->kinds[event->kind <= TW_KIND_BLOCK ? event->kind : TW_KIND_NONE]);
	number(put, ",\"size\":", event->size);
	octal(put, ",\"mode\":\"", event->mode);
	number(put, ",\"uid\":", event->uid);
	number(put, ",\"gid\":", event->gid);
	number(put, ",\"nlink\":", event->nlink);
	stamp(put, ",\"mtime\":\"", &encoder->mtime, event->mtime);
	stamp(put, ",\"ctime\":\"", &encoder->ctime, event->ctime);
	if (device) {
		number(put, ",\"rdev_major\":", event->rdev_major);
		number(put, ",\"rdev_minor\":", event->rdev_minor);
	}
	BYTES_IF(put, "target", event->target);
	put_xattrs(put, event);
	mark_if(put, ",\"encrypted\":true", event->encrypted);
}

static void put_pairs(
	struct tw_put *put, const char *key, const struct tw_range *ranges, size_t n)
{
	if (!n)
		return;
	tw_put_text(put, key, strlen(key));
	for (size_t i = 0; i < n; i++) {
		if (!tw_put_room(put, 2 * TW_DECIMAL_BYTES + 4))
			return;
		*put->at++ = '[';
		put->at = tw_decimal(put->at, ranges[i].offset);
		*put->at++ = ',';
		put->at = tw_decimal(put->at, ranges[i].length);
		*put->at++ = ']';
		*put->at++ = ',';
	}
	put->at[-1] = ']';
}

/* How many bytes more a character of JSON text takes than it has. */
static size_t escape_cost(uint8_t c)
{
	if (c == '"' || c == '\\' || c == '\n' || c == '\t' || c == '\r')
		return 1;
	return c < ' ' ? 5 : 0;
}

/* Text, unless base64 is shorter: of what is no UTF-8, or has too much that JSON escapes. */
static bool is_text(const uint8_t *data, size_t len)
{
	size_t cost = 0;
	for (size_t at = 0; at < len;) {
		cost += escape_cost(data[at]);
		if (data[at] < 0x80) {
			at++;
			continue;
		}
		struct tw_utf8_step step = tw_utf8_next(data + at, len - at);
		if (!step.valid)
			return false;
		at += step.len;
	}
	return cost <= len / 3;
}

static void put_piece(struct tw_put *put, const struct tw_content_piece *piece)
{
	number(put, "{\"offset\":", piece->offset);
	if (!piece->data) {
		number(put, ",\"zeroes\":", piece->length);
	} else if (is_text(piece->data, piece->length)) {
		tw_put_literal(put, ",\"text\":");
		tw_put_string(put, piece->data, piece->length);
	} else {
		base64(put, ",\"base64\":\"", (struct tw_bytes){piece->data, piece->length});
	}
	tw_put_literal(put, "}");
}

/* The last members of the data, and all keys begin in the same way: so the courier cuts them off for a
 * target that has not asked for them (courier/chunk.c). */
static void put_content(struct tw_put *put, const struct tw_content *content)
{
	if (!content)
		return;
	tw_put_literal(put, ",\"content\":[");
	for (size_t i = 0; i < content->npieces; i++) {
		if (i)
			tw_put_literal(put, ",");
		put_piece(put, &content->pieces[i]);
	}
	tw_put_literal(put, "]");
	mark_if(put, ",\"content_whole\":true", content->whole);
	put_pairs(put, ",\"content_missing\":[", content->missing, content->nmissing);
	put_pairs(put, ",\"content_left_out\":[", content->left_out, content->nleft_out);
}

/* In the same place, for the same reason; no event has both. */
static void put_sha256(struct tw_put *put, const struct tw_event *event)
{
	char hex[2 * TW_SHA256_BYTES];
	if (event->sha256_left_out) {
		tw_put_literal(put, ",\"sha256_left_out\":");
		tw_put_string(put, event->sha256_left_out, strlen(event->sha256_left_out));
	}
	if (!event->sha256)
		return;
	for (size_t i = 0; i < sizeof(hex); i++)
		hex[i] = "0123456789abcdef"[event->sha256[i / 2] >> (i & 1 ? 0 : 4) & 15];
	tw_put_literal(put, ",\"sha256\":\"");
	tw_put_text(put, hex, sizeof(hex));
	tw_put_literal(put, "\"");
}

/* Only the end of a path that is longer than Linux can name. */
static bool truncated(struct tw_bytes path)
{
	return path.data && path.len && *(const char *)path.data != '/';
}

/* path_whole: the subject is the path's bytes. Else they go here: an attribute's name has letters
 * and digits only. */
static void text_if(struct tw_put *put, const char *key, const char *text)
{
	if (!text)
		return;
	tw_put_text(put, key, strlen(key));
	tw_put_string(put, text, strlen(text));
}

static void put_summary(
	struct tw_encoder *encoder, struct tw_put *put, const struct tw_summary *summary)
{
	if (!summary)
		return;
	if (summary->from.sec || summary->from.nsec)
		stamp(put, ",\"from\":\"", &encoder->mtime, summary->from);
	stamp(put, ",\"to\":\"", &encoder->ctime, summary->to);
	if (summary->bytes_known)
		number(put, ",\"bytes\":", summary->bytes);
}

static void put_data(struct tw_encoder *encoder, struct tw_put *put, const struct tw_event *event,
	bool path_whole)
{
	if (about_a_file(event))
		put_inode(encoder, put, event);
	if (!path_whole)
		base64(put, ",\"path_b64\":\"", event->path);
	BYTES_IF(put, "old_path", event->old_path);
	mark_if(put, ",\"path_truncated\":true", truncated(event->path));
	mark_if(put, ",\"old_path_truncated\":true", truncated(event->old_path));
	put_pairs(put, ",\"ranges\":[", event->ranges, event->nranges);
	number_if(put, ",\"transaction\":", event->transaction);
	mark_if(put, ",\"resync\":true", event->resync);
	mark_if(put, ",\"exchange\":true", event->exchange);
	put_summary(encoder, put, event->summary);
	text_if(put, ",\"place\":", event->place);
	text_if(put, ",\"fstype\":", event->fstype);
	text_if(put, ",\"reason\":", event->reason);
	tw_put_text(put, encoder->end.data, encoder->end.len);
	put_content(put, event->content);
	put_sha256(put, event);
	tw_put_literal(put, "}}");
}

static const struct label *type_label(const struct tw_encoder *encoder, enum tw_event_type type)
{
	return &encoder->types[(unsigned)type < TW_EVENT_TYPE_END ? type : 0];
}

static void put_event(struct tw_encoder *encoder, struct tw_put *put, const struct tw_event *event)
{
	char sequence[TW_DECIMAL_BYTES];
	size_t digits = (size_t)(tw_decimal(sequence, event->sequence) - sequence);
	bool path_whole = true;
	tw_put_text(put, encoder->begin.data, encoder->begin.len);
	tw_put_text(put, sequence, digits);
	tw_put_literal(put, "\"");
	tw_put_text(put, encoder->source.data, encoder->source.len);
	tw_put_literal(put, "\"");
	put_label(put, type_label(encoder, event->type));
	/* CloudEvents wants no empty subject: an event without a path has none. */
	if (event->path.data && event->path.len)
		path_whole = readable(put, ",\"subject\":", event->path);
	stamp(put, ",\"time\":\"", &encoder->time, event->time);
	stamp(put, ",\"observedtime\":\"", &encoder->observed, event->observed);
	tw_put_literal(put, ",\"sequence\":\"");
	tw_put_text(put, sequence, digits);
	tw_put_literal(put, "\",\"datacontenttype\":\"application/json\",\"data\":");
	size_t data = (size_t)(put->at - put->buf->data);
	put_data(encoder, put, event, path_whole);
	if (!put->buf->failed)
		put->buf->data[data] = '{';
}

static struct tw_error *finish(struct tw_put *put, size_t start)
{
	tw_put_end(put);
	if (!put->buf->failed)
		return NULL;
	put->buf->len = start;
	return tw_error_nomem();
}

struct tw_error *tw_encode_event(
	struct tw_encoder *encoder, const struct tw_event *event, struct tw_buf *out)
{
	const char *volume = event->volume ? event->volume : "";
	size_t start = out->len;
	struct tw_put put;
	if (!encoder->volume.data || strcmp(volume, encoder->volume.data) != 0)
		if (!make_volume(encoder, volume))
			return tw_error_nomem();
	tw_put_begin(&put, out);
	put_event(encoder, &put, event);
	return finish(&put, start);
}

struct tw_error *tw_encode_entry(
	struct tw_encoder *encoder, const struct tw_event *entry, struct tw_buf *out)
{
	size_t start = out->len;
	struct tw_put put;
	tw_put_begin(&put, out);
	if (!readable(&put, "{\"path\":", entry->path))
		base64(&put, ",\"path_b64\":\"", entry->path);
	mark_if(&put, ",\"path_truncated\":true", truncated(entry->path));
	/* A disk may have several volumes; a path says nothing without its own. */
	if (entry->volume && *entry->volume) {
		tw_put_literal(&put, ",\"volume\":");
		tw_put_string(&put, entry->volume, strlen(entry->volume));
	}
	put_inode(encoder, &put, entry);
	tw_put_literal(&put, "}");
	return finish(&put, start);
}
