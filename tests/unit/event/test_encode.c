/* SPDX-License-Identifier: BSD-3-Clause */
/* The event's JSON, byte for byte: docs/architecture.md, "Events". */
#include "../check.h"

#include "event/encode.h"
#include "event/json.h"
#include "event/time.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_tree.h>

#define BYTES(text) ((struct tw_bytes){ text, sizeof(text) - 1 })

static const struct tw_disk_id disk = {
	.host = "dom0.example",
	.domain_uuid = "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
	.domain_name = "web",
	.domid = 7,
	.vdev = "xvda",
	.epoch = "ab12",
};

static struct tw_event file_event(void)
{
	return (struct tw_event){
		.type = TW_EVENT_FILE_CREATED,
		.sequence = 42,
		.volume = "0b0e",
		.time = { 1700000000, 5 },
		.observed = { 1700000001, 123456789 },
		.path = BYTES("/etc/motd"),
		.kind = TW_KIND_FILE,
		.inode = 12,
		.generation = 4000000000u,
		.size = 100,
		.mode = 0644,
		.uid = 1000,
		.gid = 1001,
		.nlink = 1,
		.mtime = { 1700000000, 1 },
		.ctime = { 1700000000, 2 },
		.transaction = 9,
	};
}

static char *encode(const struct tw_event *event)
{
	struct tw_buf out = TW_BUF_INIT;
	struct tw_encoder *encoder;
	ok(tw_encoder_create(&disk, &encoder));
	ok(tw_encode_event(encoder, event, &out));
	tw_encoder_destroy(encoder);
	tw_buf_append(&out, "", 1);
	assert_false(out.failed);
	return out.data;
}

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("no %s in %s", part, text);
}

static void assert_lacks(const char *text, const char *part)
{
	if (strstr(text, part))
		fail_msg("%s in %s", part, text);
}

/* Parses the text and returns the string at a path of keys. */
static void assert_string(const char *text, const char **path, const char *want)
{
	char why[256];
	yajl_val tree = yajl_tree_parse(text, why, sizeof(why));
	if (!tree)
		fail_msg("%s: %s", why, text);
	yajl_val at = yajl_tree_get(tree, path, yajl_t_string);
	if (!at)
		fail_msg("no such key in %s", text);
	assert_string_equal(YAJL_GET_STRING(at), want);
	yajl_tree_free(tree);
}

static void a_file_event_is_this_text(void **state)
{
	(void)state;
	struct tw_event event = file_event();
	char *text = encode(&event);
	assert_string_equal(text,
		"{\"specversion\":\"1.0\",\"id\":\"ab12-42\","
		"\"source\":\"/xen/dom0.example/6f9619ff-8b86-d011-b42d-00cf4fc964ff/xvda/0b0e\","
		"\"type\":\"org.tapwire.file.created\",\"subject\":\"/etc/motd\","
		"\"time\":\"2023-11-14T22:13:20.000000005Z\","
		"\"observedtime\":\"2023-11-14T22:13:21.123456789Z\",\"sequence\":\"42\","
		"\"datacontenttype\":\"application/json\","
		"\"data\":{\"inode\":12,\"generation\":4000000000,\"kind\":\"file\",\"size\":100,"
		"\"mode\":\"0644\",\"uid\":1000,\"gid\":1001,\"nlink\":1,"
		"\"mtime\":\"2023-11-14T22:13:20.000000001Z\","
		"\"ctime\":\"2023-11-14T22:13:20.000000002Z\",\"transaction\":9,"
		"\"domain\":{\"id\":7,\"name\":\"web\","
		"\"uuid\":\"6f9619ff-8b86-d011-b42d-00cf4fc964ff\"}}}");
	free(text);
}

static void what_a_type_needs_is_in_its_data(void **state)
{
	(void)state;
	const struct tw_range ranges[] = { { 0, 4096 }, { UINT64_MAX - 1, 1 } };
	struct tw_event event = file_event();
	event.type = TW_EVENT_FILE_RENAMED;
	event.kind = TW_KIND_SYMLINK;
	event.old_path = BYTES("/old");
	event.target = BYTES("../there");
	event.ranges = ranges;
	event.nranges = 2;
	event.mode = 07777;
	event.resync = true;
	event.exchange = true;
	event.transaction = 0;
	char *text = encode(&event);
	assert_has(text, "\"old_path\":\"/old\"");
	assert_has(text, "\"target\":\"../there\"");
	assert_has(text, "\"ranges\":[[0,4096],[18446744073709551614,1]]");
	assert_has(text, "\"mode\":\"7777\"");
	assert_has(text, "\"resync\":true,\"exchange\":true");
	assert_lacks(text, "\"transaction\"");
	assert_lacks(text, "_b64");
	free(text);
}

static void what_is_absent_is_left_out(void **state)
{
	(void)state;
	struct tw_event event = file_event();
	char *text = encode(&event);
	const char *const absent[] = { "old_path", "target", "ranges", "resync", "exchange",
		"reason", "rdev", "b64" };
	for (size_t i = 0; i < sizeof(absent) / sizeof(*absent); i++)
		assert_lacks(text, absent[i]);
	free(text);
}

static void a_device_has_its_number(void **state)
{
	(void)state;
	struct tw_event event = file_event();
	event.kind = TW_KIND_BLOCK;
	event.rdev_major = 8;
	event.rdev_minor = 1;
	char *text = encode(&event);
	assert_has(text, "\"kind\":\"block\"");
	assert_has(text, "\"rdev_major\":8,\"rdev_minor\":1");
	free(text);
}

static void a_disk_event_has_no_subject_and_no_volume(void **state)
{
	(void)state;
	struct tw_event event = {
		.type = TW_EVENT_DISK_RESYNCED,
		.sequence = 1,
		.volume = "",
		.reason = "gap",
	};
	char *text = encode(&event);
	assert_has(text,
		"\"source\":\"/xen/dom0.example/6f9619ff-8b86-d011-b42d-00cf4fc964ff/xvda\",");
	assert_lacks(text, "subject");
	assert_lacks(text, "inode");
	assert_has(text, "\"data\":{\"reason\":\"gap\",\"domain\":");
	free(text);
}

static void a_resync_says_what_it_sums_up(void **state)
{
	(void)state;
	struct tw_summary summary = {
		.from = { 1700000000, 5 }, .to = { 1700003600, 0 }, .bytes = 8192, .bytes_known = true };
	struct tw_event event = { .type = TW_EVENT_DISK_RESYNCED,
		.sequence = 1,
		.volume = "",
		.resync = true,
		.reason = "gap",
		.summary = &summary };
	char *text = encode(&event);
	assert_has(text,
		"\"data\":{\"resync\":true,\"from\":\"2023-11-14T22:13:20.000000005Z\","
		"\"to\":\"2023-11-14T23:13:20.000000000Z\",\"bytes\":8192,\"reason\":\"gap\",");
	free(text);
	/* Nothing was followed before, and nobody noted what was written. */
	summary = (struct tw_summary){ .to = { 1700003600, 0 } };
	text = encode(&event);
	assert_lacks(text, "\"from\"");
	assert_lacks(text, "\"bytes\"");
	assert_has(text, "\"to\":");
	free(text);
}

static void the_source_is_a_uri_reference(void **state)
{
	(void)state;
	struct tw_event event = file_event();
	event.volume = "a/b c%\"\xff";
	char *text = encode(&event);
	assert_has(text, "/xvda/a%2Fb%20c%25%22%FF\"");
	free(text);
}

static void bytes_that_are_not_utf8_come_twice(void **state)
{
	(void)state;
	const char *subject[] = { "subject", NULL };
	const char *path[] = { "data", "path_b64", NULL };
	const char *old[] = { "data", "old_path_b64", NULL };
	const char *target[] = { "data", "target_b64", NULL };
	struct tw_event event = file_event();
	event.path = BYTES("/a\xff" "b");
	event.old_path = BYTES("/\xc3");
	event.target = BYTES("\xed\xa0\x80");
	char *text = encode(&event);
	assert_string(text, subject, "/a\xef\xbf\xbd" "b");
	assert_string(text, path, "L2H/Yg==");
	assert_has(text, "\"old_path\":\"/\xef\xbf\xbd\"");
	assert_string(text, old, "L8M=");
	assert_string(text, target, "7aCA");
	free(text);
}

static void attributes_are_named(void **state)
{
	(void)state;
	const struct tw_bytes names[] = { BYTES("user.a"), BYTES("security.\"x"), BYTES("user.gone") };
	struct tw_event event = file_event();
	event.xattrs = names;
	event.nxattrs_set = 2;
	event.nxattrs_removed = 1;
	char *text = encode(&event);
	assert_has(text, ",\"xattrs\":{\"set\":[\"user.a\",\"security.\\\"x\"],"
		"\"removed\":[\"user.gone\"]},");
	free(text);
	event.nxattrs_set = 0;
	text = encode(&event);
	assert_has(text, ",\"xattrs\":{\"removed\":[\"user.a\"]},");
	free(text);
	event.nxattrs_removed = 0;
	text = encode(&event);
	assert_lacks(text, "xattrs");
	assert_lacks(text, "encrypted");
	free(text);
	event.encrypted = true;
	text = encode(&event);
	assert_has(text, ",\"encrypted\":true,");
	free(text);
}

/* One name that is not UTF-8: the bytes of all of them, in the same order. */
static void attributes_that_are_not_utf8_come_twice(void **state)
{
	(void)state;
	const struct tw_bytes names[] = { BYTES("user.a"), BYTES("u.\xff") };
	struct tw_event event = file_event();
	event.xattrs = names;
	event.nxattrs_set = 2;
	char *text = encode(&event);
	assert_has(text, ",\"xattrs\":{\"set\":[\"user.a\",\"u.\xef\xbf\xbd\"],"
		"\"set_b64\":[\"dXNlci5h\",\"dS7/\"]},");
	free(text);
	event.nxattrs_set = 1;
	event.nxattrs_removed = 1;
	text = encode(&event);
	assert_has(text, ",\"xattrs\":{\"set\":[\"user.a\"],\"removed\":[\"u.\xef\xbf\xbd\"],"
		"\"removed_b64\":[\"dS7/\"]},");
	free(text);
}

static void control_characters_and_quotes_are_escaped(void **state)
{
	(void)state;
	const char *subject[] = { "subject", NULL };
	char raw[160] = "/";
	for (int c = 1; c < 128; c++)
		raw[c] = (char)c;
	struct tw_event event = file_event();
	event.path = (struct tw_bytes){ raw, 128 };
	char *text = encode(&event);
	for (const char *c = text; *c; c++)
		assert_true((unsigned char)*c >= ' ');
	assert_has(text, "\\n");
	assert_has(text, "\\\"");
	assert_string(text, subject, raw);
	free(text);
}

/* The data of an event with this content, from its last fixed member on. */
static void assert_content(const struct tw_content *content, const char *want)
{
	struct tw_event event = file_event();
	event.content = content;
	char *text = encode(&event);
	const char *at = strstr(text, "\"domain\":");
	at = at ? strstr(at, "\"}") : NULL;
	assert_non_null(at);
	assert_string_equal(at + 2, want);
	free(text);
}

/* The data of a file.settled, from its last fixed member on. */
static void assert_digest(const uint8_t *sha256, const char *left_out, const char *want)
{
	struct tw_event event = file_event();
	event.type = TW_EVENT_FILE_SETTLED;
	event.sha256 = sha256;
	event.sha256_left_out = left_out;
	char *text = encode(&event);
	const char *at = strstr(text, "\"domain\":");
	assert_non_null(strstr(text, "\"type\":\"org.tapwire.file.settled\""));
	assert_non_null(strstr(text, "\"inode\":12,"));
	at = at ? strstr(at, "\"}") : NULL;
	assert_non_null(at);
	assert_string_equal(at + 2, want);
	free(text);
}

static void a_digest_is_hexadecimal_or_left_out(void **state)
{
	(void)state;
	const uint8_t sha256[TW_SHA256_BYTES] = { 0x01, 0xff, 0xa0, [31] = 0x9e };
	assert_digest(sha256, NULL,
		",\"sha256\":\"01ffa0000000000000000000000000000000000000000000000000000000009e\"}}");
	assert_digest(NULL, "too_large", ",\"sha256_left_out\":\"too_large\"}}");
}

static void content_is_text_or_base64_or_zeroes(void **state)
{
	(void)state;
	const struct tw_content_piece pieces[] = {
		{ 0, 5, (const uint8_t *)"a\n\xc3\xa4\"" },
		{ 5, 4096, NULL },
		{ 8000, 3, (const uint8_t *)"a\xff\0" },
		{ 9000, 3, (const uint8_t *)"a\0b" }, /* escapes take more than base64 */
		{ 9100, 0, (const uint8_t *)"" },
	};
	const struct tw_content content = { .pieces = pieces, .npieces = 5 };
	assert_content(&content,
		",\"content\":[{\"offset\":0,\"base64\":\"YQrDpCI=\"},{\"offset\":5,\"zeroes\":4096},"
		"{\"offset\":8000,\"base64\":\"Yf8A\"},{\"offset\":9000,\"base64\":\"YQBi\"},"
		"{\"offset\":9100,\"text\":\"\"}]}}");
	const struct tw_content_piece line = { 7, 25, (const uint8_t *)"gr\xc3\xbc\xc3\x9f" "e \"quoted\", a line\n" };
	const struct tw_content one = { .pieces = &line, .npieces = 1 };
	assert_content(&one, ",\"content\":[{\"offset\":7,\"text\":\"gr\xc3\xbc\xc3\x9f"
			     "e \\\"quoted\\\", a line\\n\"}]}}");
}

static void what_content_lacks_is_said(void **state)
{
	(void)state;
	const struct tw_range missing[] = { { 0, 512 }, { 4096, 1 } }, left_out = { 8192, 100 };
	const struct tw_content none = { .whole = true };
	const struct tw_content content = {
		.missing = missing, .nmissing = 2, .left_out = &left_out, .nleft_out = 1
	};
	assert_content(NULL, "}}");
	assert_content(&none, ",\"content\":[],\"content_whole\":true}}");
	assert_content(&content, ",\"content\":[],\"content_missing\":[[0,512],[4096,1]],"
				 "\"content_left_out\":[[8192,100]]}}");
}

static void an_entry_is_path_and_inode(void **state)
{
	(void)state;
	struct tw_event event = file_event();
	event.kind = TW_KIND_DIR;
	event.path = BYTES("/d\xff");
	struct tw_buf out = TW_BUF_INIT;
	struct tw_encoder *encoder;
	ok(tw_encoder_create(NULL, &encoder));
	ok(tw_encode_entry(encoder, &event, &out));
	tw_encoder_destroy(encoder);
	tw_buf_append(&out, "", 1);
	assert_string_equal(out.data,
		"{\"path\":\"/d\xef\xbf\xbd\",\"path_b64\":\"L2T/\",\"volume\":\"0b0e\","
		"\"inode\":12,\"generation\":4000000000,\"kind\":\"dir\",\"size\":100,"
		"\"mode\":\"0644\",\"uid\":1000,\"gid\":1001,\"nlink\":1,"
		"\"mtime\":\"2023-11-14T22:13:20.000000001Z\","
		"\"ctime\":\"2023-11-14T22:13:20.000000002Z\"}");
	tw_buf_deinit(&out);
}

static void an_encoder_remembers_nothing_of_the_event_before(void **state)
{
	(void)state;
	const struct tw_time times[] = { { 0, 0 }, { 0, 1 }, { 1, 1 }, { INT64_MIN, 3 },
		{ INT64_MIN, 4 }, { INT64_MAX, 0 }, { INT64_MAX, 1 }, { 5, UINT32_MAX }, { 5, 0 } };
	const char *const volumes[] = { "one", "two", "", NULL };
	struct tw_encoder *encoder;
	struct tw_buf out = TW_BUF_INIT;
	ok(tw_encoder_create(&disk, &encoder));
	for (unsigned i = 0; i < 2000; i++) {
		struct tw_event event = file_event();
		event.volume = volumes[i * 7 / 3 % 4];
		event.time = times[i * i / 5 % 9];
		event.observed = times[i / 3 % 9];
		event.mtime = times[i / 7 % 9];
		event.ctime = times[i * 5 / 11 % 9];
		event.type = (enum tw_event_type)(i / 13 % TW_EVENT_TYPE_END);
		event.kind = (enum tw_kind)(i / 17 % 8);
		char *alone = encode(&event);
		tw_buf_reset(&out);
		ok(tw_encode_event(encoder, &event, &out));
		tw_buf_append(&out, "", 1);
		assert_string_equal(out.data, alone);
		free(alone);
	}
	tw_encoder_destroy(encoder);
	tw_buf_deinit(&out);
}

static void what_needs_escaping_is_found_at_every_place(void **state)
{
	(void)state;
	static const struct {
		const char *in, *out;
	} odd[] = { { "\"", "\\\"" }, { "\\", "\\\\" }, { "\x1f", "\\u001F" }, { "\n", "\\n" },
		{ "\x7f", "\x7f" }, { "\xc3\xa9", "\xc3\xa9" }, { "\xff", "\xef\xbf\xbd" } };
	char text[64], want[80];
	for (size_t len = 1; len < 50; len++) {
		for (size_t at = 0; at < len; at++) {
			for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
				struct tw_buf out = TW_BUF_INIT;
				struct tw_put put;
				int n = snprintf(text, sizeof(text), "%.*s%s%.*s", (int)at,
					"abcdefghijklmnopqrstuvwxyz/ABCDEFGHIJKLMNOPQRSTUVWXYZ",
					odd[i].in, (int)(len - at - 1),
					"0123456789 ~!#[]0123456789 ~!#[]0123456789 ~!#[]!");
				int m = snprintf(want, sizeof(want), "\"%.*s%s%.*s\"", (int)at, text,
					odd[i].out, (int)(len - at - 1),
					text + at + strlen(odd[i].in));
				tw_put_begin(&put, &out);
				assert_int_equal(tw_put_string(&put, text, (size_t)n), odd[i].in[0] != '\xff');
				tw_put_end(&put);
				assert_int_equal(out.len, m);
				assert_memory_equal(out.data, want, out.len);
				tw_buf_deinit(&out);
			}
		}
	}
}

static void numbers_are_decimal(void **state)
{
	(void)state;
	uint64_t edge = 1;
	for (unsigned digits = 1; digits <= 20; digits++, edge *= 10) {
		const uint64_t values[] = { edge - 1, edge, edge + 1, edge + edge / 7, UINT64_MAX / edge };
		for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
			char text[TW_DECIMAL_BYTES + 1], want[TW_DECIMAL_BYTES + 1];
			*tw_decimal(text, values[i]) = '\0';
			snprintf(want, sizeof(want), "%llu", (unsigned long long)values[i]);
			assert_string_equal(text, want);
		}
	}
}

static void encoding_appends(void **state)
{
	(void)state;
	struct tw_buf out = TW_BUF_INIT;
	struct tw_event event = file_event();
	struct tw_encoder *encoder;
	ok(tw_encoder_create(&disk, &encoder));
	tw_buf_puts(&out, "[");
	ok(tw_encode_event(encoder, &event, &out));
	assert_memory_equal(out.data, "[{\"specversion\"", 15);
	tw_encoder_destroy(encoder);
	tw_buf_deinit(&out);
}

static void a_failed_buffer_is_out_of_memory(void **state)
{
	(void)state;
	struct tw_buf out = TW_BUF_INIT;
	struct tw_event event = file_event();
	struct tw_encoder *encoder;
	ok(tw_encoder_create(&disk, &encoder));
	tw_buf_puts(&out, "x");
	out.failed = true;
	fails(tw_encode_event(encoder, &event, &out), TW_NOMEM);
	assert_int_equal(out.len, 1);
	tw_encoder_destroy(encoder);
	tw_buf_deinit(&out);
}

static void times_are_rfc_3339_whatever_an_inode_says(void **state)
{
	(void)state;
	static const struct {
		struct tw_time time;
		const char *text;
	} cases[] = {
		{ { 0, 0 }, "1970-01-01T00:00:00.000000000Z" },
		{ { -1, 999999999 }, "1969-12-31T23:59:59.999999999Z" },
		{ { 951782400, 0 }, "2000-02-29T00:00:00.000000000Z" },
		{ { 4107542399, 0 }, "2100-02-28T23:59:59.000000000Z" },
		{ { 4107542400, 0 }, "2100-03-01T00:00:00.000000000Z" },
		{ { INT32_MIN, 0 }, "1901-12-13T20:45:52.000000000Z" },
		{ { 15032385535, 1 }, "2446-05-10T22:38:55.000000001Z" },
		{ { 253402300799, 0 }, "9999-12-31T23:59:59.000000000Z" },
		{ { 253402300800, 0 }, "9999-12-31T23:59:59.999999999Z" },
		{ { INT64_MAX, 0 }, "9999-12-31T23:59:59.999999999Z" },
		{ { -62167219200, 0 }, "0000-01-01T00:00:00.000000000Z" },
		{ { INT64_MIN, 7 }, "0000-01-01T00:00:00.000000000Z" },
		{ { 1, UINT32_MAX }, "1970-01-01T00:00:01.999999999Z" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char text[TW_TIME_TEXT_BYTES];
		tw_time_format(cases[i].time, text);
		assert_string_equal(text, cases[i].text);
	}
}

static void foreign_json_is_checked_and_put_on_one_line(void **state)
{
	(void)state;
	static const char *const bad[] = { "", "{", "{} {}", "nonsense", "{\"a\":\"\xff\"}" };
	struct tw_buf out = TW_BUF_INIT;
	struct tw_json json;
	tw_json_begin(&json, &out);
	tw_json_open(&json, NULL);
	tw_json_raw(&json, "good", "{\"a\":\n[1, 2]}\n", 14);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		tw_json_raw(&json, "bad", bad[i], strlen(bad[i]));
	tw_json_close(&json);
	assert_null(tw_json_end(&json));
	tw_buf_append(&out, "", 1);
	assert_string_equal(out.data,
		"{\"good\":{\"a\": [1, 2]} ,\"bad\":null,\"bad\":null,\"bad\":null,"
		"\"bad\":null,\"bad\":null}");
	tw_buf_deinit(&out);
}

static void every_type_has_a_name_and_back(void **state)
{
	(void)state;
	for (int t = 1; t < TW_EVENT_TYPE_END; t++) {
		const char *name = tw_event_type_name((enum tw_event_type)t);
		assert_memory_equal(name, "org.tapwire.", 12);
		assert_int_equal(tw_event_type_from_name(name), t);
	}
	assert_string_equal(tw_event_type_name((enum tw_event_type)0), "?");
	assert_string_equal(tw_event_type_name(TW_EVENT_TYPE_END), "?");
	assert_int_equal(tw_event_type_from_name("org.tapwire.file.eaten"), 0);
	assert_string_equal(tw_kind_name(TW_KIND_SOCKET), "socket");
	assert_string_equal(tw_kind_name(TW_KIND_NONE), "?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_event_is_this_text),
		cmocka_unit_test(what_a_type_needs_is_in_its_data),
		cmocka_unit_test(what_is_absent_is_left_out),
		cmocka_unit_test(a_device_has_its_number),
		cmocka_unit_test(a_disk_event_has_no_subject_and_no_volume),
		cmocka_unit_test(a_resync_says_what_it_sums_up),
		cmocka_unit_test(the_source_is_a_uri_reference),
		cmocka_unit_test(bytes_that_are_not_utf8_come_twice),
		cmocka_unit_test(attributes_are_named),
		cmocka_unit_test(attributes_that_are_not_utf8_come_twice),
		cmocka_unit_test(control_characters_and_quotes_are_escaped),
		cmocka_unit_test(a_digest_is_hexadecimal_or_left_out),
		cmocka_unit_test(content_is_text_or_base64_or_zeroes),
		cmocka_unit_test(what_content_lacks_is_said),
		cmocka_unit_test(an_entry_is_path_and_inode),
		cmocka_unit_test(an_encoder_remembers_nothing_of_the_event_before),
		cmocka_unit_test(what_needs_escaping_is_found_at_every_place),
		cmocka_unit_test(numbers_are_decimal),
		cmocka_unit_test(encoding_appends),
		cmocka_unit_test(a_failed_buffer_is_out_of_memory),
		cmocka_unit_test(times_are_rfc_3339_whatever_an_inode_says),
		cmocka_unit_test(foreign_json_is_checked_and_put_on_one_line),
		cmocka_unit_test(every_type_has_a_name_and_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
