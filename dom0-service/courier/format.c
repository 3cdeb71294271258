/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/format.h"

#include "base/scope.h"
#include "courier/fields.h"
#include "event/put.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct writer {
	const struct tw_config_target *config;
	struct tw_buf *out;
	struct tw_buf source; /* of the Loki stream that is open */
	struct tw_buf text;
	struct tw_buf cut; /* an event without its content */
	bool first;
};

typedef void (*event_fn)(struct writer *writer, const char *body, size_t len);

const char *tw_format_content_type(enum tw_format format)
{
	static const char *const types[] = {
		[TW_FORMAT_CLOUDEVENTS] = "application/cloudevents-batch+json",
		[TW_FORMAT_NDJSON] = "application/x-ndjson",
		[TW_FORMAT_ELASTICSEARCH] = "application/x-ndjson",
		[TW_FORMAT_CLICKHOUSE] = "application/x-ndjson",
		[TW_FORMAT_LOKI] = "application/json",
		[TW_FORMAT_SPLUNK_HEC] = "application/json",
	};
	return types[format];
}

static void put_value(struct tw_buf *out, const struct tw_value *value, const char *fallback)
{
	if (value->at)
		tw_buf_append(out, value->at, value->len);
	else
		tw_buf_puts(out, fallback);
}

/* Text as a JSON string. */
static void put_string(struct tw_buf *out, const char *text, size_t len)
{
	struct tw_put put;
	tw_put_begin(&put, out);
	tw_put_string(&put, text, len);
	tw_put_end(&put);
}

/* The n-th part of the source, from 0: /xen/<host>/<domain>/<vdev>/<volume>. */
static const char *source_part(const struct tw_value *source, int n, size_t *len)
{
	const char *at = source->at ? source->at + 1 : "";
	const char *end = source->at ? source->at + source->len - 1 : at;
	while (at < end && n--) {
		const char *next = memchr(at + 1, '/', (size_t)(end - at - 1));
		at = next ? next : end;
	}
	if (at < end)
		at++;
	const char *next = memchr(at, '/', (size_t)(end - at));
	*len = (size_t)((next ? next : end) - at);
	return at;
}

/* --- a line an event --- */

static void write_line(struct writer *writer, const char *body, size_t len)
{
	tw_buf_append(writer->out, body, len);
	tw_buf_append(writer->out, "\n", 1);
}

/* {date} in the index is the day on which the event was seen. */
static void put_index(struct writer *writer, const struct tw_fields *fields)
{
	const char *index = writer->config->index ? writer->config->index : "tapwire-{date}";
	const char *mark = strstr(index, "{date}");
	tw_buf_reset(&writer->text);
	tw_buf_append(&writer->text, index, mark ? (size_t)(mark - index) : strlen(index));
	if (mark && fields->observed.len >= 12) {
		tw_buf_append(&writer->text, fields->observed.at + 1, 10);
		for (char *c = writer->text.data + writer->text.len - 10; c < writer->text.data + writer->text.len; c++)
			if (*c == '-')
				*c = '.';
	}
	if (mark)
		tw_buf_puts(&writer->text, mark + strlen("{date}"));
	put_string(writer->out, writer->text.data, writer->text.len);
}

/* "create" with the event's id: what comes again is known by it, and no duplicate. */
static void write_elasticsearch(struct writer *writer, const char *body, size_t len)
{
	struct tw_fields fields;
	tw_fields_get(body, len, &fields);
	tw_buf_puts(writer->out, "{\"create\":{\"_index\":");
	put_index(writer, &fields);
	tw_buf_puts(writer->out, ",\"_id\":");
	put_value(writer->out, &fields.id, "null");
	tw_buf_puts(writer->out, "}}\n{\"@timestamp\":");
	put_value(writer->out, &fields.time, "null");
	tw_buf_puts(writer->out, ",");
	write_line(writer, body + 1, len - 1);
}

/* --- Loki --- */

/* Nanoseconds since the epoch, of a time that the project's own encoder wrote; what is none is 0. */
static int64_t nanoseconds(const struct tw_value *time, unsigned int *fraction)
{
	char text[40];
	struct tm utc = { 0 };
	*fraction = 0;
	if (!time->at || time->len < 3 || time->len - 2 >= sizeof(text))
		return 0;
	memcpy(text, time->at + 1, time->len - 2);
	text[time->len - 2] = '\0';
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &utc);
	if (!end)
		return 0;
	int64_t nanos = 0;
	int64_t unit = 100000000;
	for (end += *end == '.'; *end >= '0' && *end <= '9' && unit; end++, unit /= 10)
		nanos += (*end - '0') * unit;
	*fraction = (unsigned int)nanos;
	return timegm(&utc) * INT64_C(1000000000) + nanos;
}

static void put_label(struct tw_buf *out, const char *name, const char *text, size_t len)
{
	if (!len)
		return;
	tw_buf_printf(out, ",\"%s\":", name);
	put_string(out, text, len);
}

/* A stream a disk and volume; the events of one follow each other mostly. */
static void open_stream(struct writer *writer, const struct tw_fields *fields)
{
	static const char *const names[] = { NULL, "host", NULL, "disk", "volume" };
	if (!writer->first && fields->source.len == writer->source.len && writer->source.len &&
		memcmp(fields->source.at, writer->source.data, writer->source.len) == 0) {
		tw_buf_puts(writer->out, ",");
		return;
	}
	tw_buf_puts(writer->out, writer->first ? "{\"stream\":{" : "]},{\"stream\":{");
	tw_buf_puts(writer->out, "\"job\":\"tapwire\"");
	writer->first = false;
	tw_buf_reset(&writer->source);
	tw_buf_append(&writer->source, fields->source.at, fields->source.len);
	for (int i = 1; i < 5; i++) {
		size_t len;
		const char *part = source_part(&fields->source, i, &len);
		if (names[i])
			put_label(writer->out, names[i], part, len);
	}
	tw_buf_reset(&writer->text);
	tw_value_text(&fields->domain_name, &writer->text);
	if (!writer->text.len)
		tw_value_text(&fields->domain_uuid, &writer->text);
	put_label(writer->out, "domain", writer->text.data, writer->text.len);
	tw_buf_puts(writer->out, "},\"values\":[");
}

static void write_loki(struct writer *writer, const char *body, size_t len)
{
	struct tw_fields fields;
	unsigned int fraction;
	tw_fields_get(body, len, &fields);
	open_stream(writer, &fields);
	tw_buf_printf(writer->out, "[\"%" PRId64 "\",", nanoseconds(&fields.observed, &fraction));
	put_string(writer->out, body, len);
	tw_buf_puts(writer->out, "]");
}

/* --- Splunk's HTTP event collector --- */

static void write_splunk(struct writer *writer, const char *body, size_t len)
{
	struct tw_fields fields;
	unsigned int fraction;
	size_t part_len;
	tw_fields_get(body, len, &fields);
	int64_t time = nanoseconds(&fields.observed, &fraction);
	tw_buf_printf(writer->out, "{\"time\":%" PRId64 ".%09u,\"host\":", time / 1000000000, fraction);
	const char *host = source_part(&fields.source, 1, &part_len);
	put_string(writer->out, host, part_len);
	tw_buf_puts(writer->out, ",\"source\":");
	put_value(writer->out, &fields.source, "\"tapwire\"");
	tw_buf_puts(writer->out, ",\"sourcetype\":\"tapwire\"");
	if (writer->config->index)
		put_label(writer->out, "index", writer->config->index, strlen(writer->config->index));
	tw_buf_puts(writer->out, ",\"event\":");
	tw_buf_append(writer->out, body, len);
	tw_buf_puts(writer->out, "}\n");
}

/* --- the whole --- */

static const event_fn writers[] = {
	[TW_FORMAT_CLOUDEVENTS] = NULL,
	[TW_FORMAT_NDJSON] = write_line,
	[TW_FORMAT_ELASTICSEARCH] = write_elasticsearch,
	[TW_FORMAT_CLICKHOUSE] = write_line,
	[TW_FORMAT_LOKI] = write_loki,
	[TW_FORMAT_SPLUNK_HEC] = write_splunk,
};

static unsigned int extras_of(const struct tw_config_target *config)
{
	return (config->content != TW_CONTENT_NONE ? TW_CHUNK_CONTENT : 0) | (config->sha256 ? TW_CHUNK_SHA256 : 0);
}

static void take(void *arg, const struct tw_chunk *chunk, uint32_t i, uint32_t n)
{
	struct writer *writer = arg;
	for (uint32_t end = i + n; i < end; i++) {
		size_t len;
		const char *body = tw_chunk_text(chunk, i, 1, &len);
		size_t cut, rest;
		if (tw_chunk_strip(body, len, extras_of(writer->config), &cut, &rest)) {
			tw_buf_reset(&writer->cut);
			tw_buf_append(&writer->cut, body, cut);
			tw_buf_append(&writer->cut, body + len - rest, rest);
			body = writer->cut.data;
			len = writer->cut.len;
		}
		if (writer->cut.failed)
			return;
		writers[writer->config->format](writer, body, len);
	}
}

struct tw_error *tw_format_body(struct tw_spool *spool, const struct tw_config_target *config,
	const struct tw_picks *picks, struct tw_buf *out)
{
	if (config->format == TW_FORMAT_CLOUDEVENTS)
		return tw_spool_read_array(spool, picks, extras_of(config), out);
	struct writer writer = { .config = config, .out = out, .first = true };
	if (config->format == TW_FORMAT_LOKI)
		tw_buf_puts(out, "{\"streams\":[");
	struct tw_error *err = tw_spool_read(spool, picks, take, &writer);
	if (config->format == TW_FORMAT_LOKI)
		tw_buf_puts(out, "]}]}");
	if (!err && (out->failed || writer.cut.failed || writer.text.failed || writer.source.failed))
		err = tw_error_nomem();
	tw_buf_deinit(&writer.source);
	tw_buf_deinit(&writer.text);
	tw_buf_deinit(&writer.cut);
	return err;
}

struct tw_error *tw_format_url(const struct tw_config_target *config, const char *id, char **out)
{
	*out = NULL;
	if (config->format != TW_FORMAT_CLICKHOUSE)
		return NULL;
	TW_AUTO_FREE char *statement = NULL;
	if (asprintf(&statement, "INSERT INTO %s FORMAT JSONEachRow", config->table ? config->table : "tapwire") < 0) {
		statement = NULL;
		return tw_error_nomem();
	}
	char *query = curl_easy_escape(NULL, statement, 0);
	/* The token makes a block that comes again no duplicate, in tables that keep such tokens. */
	int len = query ? asprintf(out,
				  "%s%cquery=%s&date_time_input_format=best_effort&input_format_skip_unknown_fields=1"
				  "&input_format_json_read_objects_as_strings=1&insert_deduplication_token=%s",
				  config->url, strchr(config->url, '?') ? '&' : '?', query, id)
			: -1;
	curl_free(query);
	if (len >= 0)
		return NULL;
	*out = NULL;
	return tw_error_nomem();
}
