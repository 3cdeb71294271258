/* SPDX-License-Identifier: BSD-3-Clause */
/* What outlives an inspector: snapshot and log, whole, torn and damaged. */
#include "disks.h"

#include "inspect/statefile.h"

struct taken {
	uint64_t sequences[64];
	uint8_t bytes[64]; /* the first one of each payload */
	unsigned n;
	bool fail;
};

static struct tw_error *take(const struct tw_record *record, void *arg)
{
	struct taken *t = arg;
	if (t->fail)
		return tw_error_create(TW_GAP, "enough");
	t->sequences[t->n] = record->sequence;
	t->bytes[t->n++] = record->payload ? *(const uint8_t *)record->payload : 0;
	return NULL;
}

static struct tw_disk *disk_new(const struct disks *d, bool crawl)
{
	struct tw_disk *disk;
	ok(tw_disk_create(d->image, "test", no_event, NULL, &disk));
	if (crawl)
		ok(tw_disk_crawl(disk, true));
	return disk;
}

static struct tw_outbox *box_with(uint64_t first, uint64_t last)
{
	struct tw_outbox *box;
	ok(tw_outbox_create(&box));
	for (uint64_t n = first; n <= last; n++) {
		struct tw_buf json = TW_BUF_INIT;
		tw_buf_puts(&json, "{}");
		ok(tw_outbox_add(box, n, TW_EVENT_FILE_CREATED, &json));
		tw_buf_deinit(&json);
	}
	return box;
}

static struct tw_state_position position_of(uint64_t record)
{
	struct tw_state_position position = { .record = record };
	memset(position.epoch, 'e', TW_EPOCH_BYTES - 1);
	memset(position.ring, 7, TW_RING_ID_BYTES);
	return position;
}

/* Takes a snapshot of the image with two waiting events, at record 10. */
static void snapshot(const struct disks *d, struct tw_statefile *state)
{
	struct tw_disk *disk = disk_new(d, true);
	struct tw_outbox *box = box_with(4, 5);
	struct tw_state_position position = position_of(10);
	ok(tw_statefile_snapshot(state, disk, box, &position));
	tw_outbox_destroy(box);
	tw_disk_destroy(disk);
}

static void append(struct tw_statefile *state, uint64_t first, uint64_t last)
{
	uint8_t payload[1024];
	for (uint64_t n = first; n <= last; n++) {
		memset(payload, (int)n, sizeof(payload));
		const struct tw_record record = { n, n * 1000, n * 2, 2, TW_RECORD_PAYLOAD, payload };
		ok(tw_statefile_log(state, &record));
	}
	ok(tw_statefile_flush(state));
}

static struct tw_statefile *open_state(const struct disks *d)
{
	struct tw_statefile *state;
	ok(tw_statefile_create(d->state, &state));
	return state;
}

struct loaded {
	struct tw_disk *disk;
	struct tw_outbox *box;
	struct tw_state_position position;
	struct taken taken;
	bool found;
};

static struct tw_error *load(const struct disks *d, struct tw_statefile *state, struct loaded *out)
{
	*out = (struct loaded){ .disk = disk_new(d, false), .box = box_with(1, 0) };
	return tw_statefile_load(state, out->disk, out->box, &out->position, &out->found);
}

static void unload(struct loaded *l)
{
	tw_disk_destroy(l->disk);
	tw_outbox_destroy(l->box);
}

static void replay(struct tw_statefile *state, struct loaded *l)
{
	ok(tw_statefile_replay(state, DISK_BYTES, &l->position, take, &l->taken));
}

/* The n files of the directory, in the order of their names. */
static void files_are(const struct disks *d, const char *expected)
{
	char command[128], got[512] = "";
	snprintf(command, sizeof(command), "ls %s | tr '\\n' ' '", d->state);
	FILE *pipe = popen(command, "r");
	if (!fgets(got, sizeof(got), pipe))
		got[0] = 0;
	pclose(pipe);
	assert_string_equal(got, expected);
}

static void an_empty_directory_has_no_state(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	struct loaded l;
	assert_false(tw_statefile_has_log(file));
	ok(load(d, file, &l));
	assert_false(l.found);
	unload(&l);
	tw_statefile_destroy(file);
}

static void a_snapshot_comes_back(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	struct loaded l;
	snapshot(d, file);
	assert_true(tw_statefile_has_log(file));
	tw_statefile_destroy(file);
	file = open_state(d);
	ok(load(d, file, &l));
	assert_true(l.found);
	assert_int_equal(l.position.record, 10);
	struct tw_state_position expected = position_of(10);
	assert_string_equal(l.position.epoch, expected.epoch);
	assert_memory_equal(l.position.ring, expected.ring, TW_RING_ID_BYTES);
	assert_true(tw_outbox_bytes(l.box) > 0);
	char *got = tree_of(l.disk), *tree = tree_of_image(d);
	assert_string_equal(got, tree);
	free(got);
	free(tree);
	replay(file, &l);
	assert_int_equal(l.taken.n, 0);
	unload(&l);
	tw_statefile_destroy(file);
}

static void the_log_is_replayed_and_goes_on(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	struct loaded l;
	snapshot(d, file);
	append(file, 11, 13);
	for (uint64_t last = 13; last < 16; last++) {
		/* Killed: nothing is closed in order, all was handed to the kernel. */
		struct tw_statefile *next = open_state(d);
		ok(load(d, next, &l));
		replay(next, &l);
		assert_int_equal(l.taken.n, last - 10);
		for (unsigned i = 0; i < l.taken.n; i++) {
			assert_int_equal(l.taken.sequences[i], 11 + i);
			assert_int_equal(l.taken.bytes[i], 11 + i);
		}
		assert_int_equal(l.position.record, last);
		unload(&l);
		append(next, last + 1, last + 1);
		tw_statefile_destroy(file);
		file = next;
	}
	tw_statefile_destroy(file);
}

struct noted {
	char text[64];
	unsigned others;
};

static struct tw_error *take_note(const struct tw_record *record, void *arg)
{
	struct noted *noted = arg;
	if (!tw_statefile_is_note(record)) {
		noted->others++;
		return NULL;
	}
	struct tw_span note = tw_statefile_note(record);
	snprintf(noted->text + strlen(noted->text), sizeof(noted->text) - strlen(noted->text), "%llu:%llu:%.*s ",
		(unsigned long long)record->sequence, (unsigned long long)record->time_ns, (int)note.len,
		(const char *)note.data);
	return NULL;
}

static void notes_come_back_and_no_write_is_one(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	struct noted noted = { "", 0 };
	struct loaded l;
	uint8_t payload[512] = { 1, 0, 'x' };
	const struct tw_record at = { .sequence = 11, .time_ns = 5 };
	const struct tw_record write = { .sequence = 12,
		.nsectors = 1,
		.flags = TW_RECORD_PAYLOAD | TW_RECORD_DISCARD | TW_RECORD_ZEROES,
		.payload = payload };
	snapshot(d, file);
	append(file, 11, 11);
	ok(tw_statefile_log_note(file, &at, tw_span("first", 5)));
	ok(tw_statefile_log_note(file, &at, tw_span("second", 6)));
	ok(tw_statefile_log(file, &write));
	ok(tw_statefile_flush(file));
	struct tw_statefile *next = open_state(d);
	ok(load(d, next, &l));
	ok(tw_statefile_replay(next, DISK_BYTES, &l.position, take_note, &noted));
	assert_string_equal(noted.text, "11:5:first 11:5:second ");
	assert_int_equal(noted.others, 2);
	assert_int_equal(l.position.record, 12);
	unload(&l);
	tw_statefile_destroy(next);
	tw_statefile_destroy(file);
}

static void a_new_snapshot_begins_a_new_log(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	struct loaded l;
	snapshot(d, file);
	append(file, 11, 13);
	snapshot(d, file);
	files_are(d, "view writes-2.trace ");
	tw_statefile_destroy(file);
	file = open_state(d);
	ok(load(d, file, &l));
	replay(file, &l);
	assert_int_equal(l.taken.n, 0);
	unload(&l);
	tw_statefile_destroy(file);
}

/* Where a crash tore the log at any byte, whole records are taken and the log can go on. */
static void a_torn_log_is_cut_off(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	char log[128], kept[256];
	snapshot(d, file);
	append(file, 11, 13);
	tw_statefile_destroy(file);
	snprintf(log, sizeof(log), "%s/writes-1.trace", d->state);
	snprintf(kept, sizeof(kept), "cp %s/writes-1.trace kept", d->state);
	shell(d->dir, kept);
	const size_t record = 32 + 1024;
	for (size_t len = 0; len < 24 + 3 * record; len += len < 24 || len % record < 60 ? 1 : 97) {
		struct loaded l;
		snprintf(kept, sizeof(kept), "cp kept %s", log);
		shell(d->dir, kept);
		assert_int_equal(truncate(log, (off_t)len), 0);
		file = open_state(d);
		ok(load(d, file, &l));
		replay(file, &l);
		size_t whole = len < 24 ? 0 : (len - 24) / record;
		assert_int_equal(l.taken.n, whole);
		append(file, 11 + whole, 11 + whole);
		unload(&l);
		tw_statefile_destroy(file);
		file = open_state(d);
		ok(load(d, file, &l));
		replay(file, &l);
		assert_int_equal(l.taken.n, whole + 1);
		unload(&l);
		tw_statefile_destroy(file);
	}
	shell(d->dir, "rm kept");
}

static void a_missing_log_is_an_empty_one(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	struct loaded l;
	snapshot(d, file);
	tw_statefile_destroy(file);
	shell(d->dir, "rm state/writes-1.trace");
	file = open_state(d);
	ok(load(d, file, &l));
	replay(file, &l);
	assert_int_equal(l.taken.n, 0);
	append(file, 11, 11);
	unload(&l);
	tw_statefile_destroy(file);
}

static void an_error_of_the_callback_ends_the_replay(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	struct loaded l;
	snapshot(d, file);
	append(file, 11, 12);
	tw_statefile_destroy(file);
	file = open_state(d);
	ok(load(d, file, &l));
	l.taken.fail = true;
	fails(tw_statefile_replay(file, DISK_BYTES, &l.position, take, &l.taken), TW_GAP);
	unload(&l);
	tw_statefile_destroy(file);
}

static void a_damaged_snapshot_is_refused(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	char view[128];
	struct stat st;
	snapshot(d, file);
	tw_statefile_destroy(file);
	snprintf(view, sizeof(view), "%s/view", d->state);
	assert_int_equal(stat(view, &st), 0);
	for (off_t at = 0; at < st.st_size; at += at < 40 ? 1 : 211) {
		struct loaded l;
		char byte;
		int fd = open(view, O_RDWR | O_CLOEXEC);
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 4;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		file = open_state(d);
		fails(load(d, file, &l), TW_BAD_DATA);
		unload(&l);
		tw_statefile_destroy(file);
		byte ^= 4;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		close(fd);
	}
}

static void a_snapshot_that_is_cut_off_is_refused(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	char view[128];
	struct stat st;
	snapshot(d, file);
	tw_statefile_destroy(file);
	snprintf(view, sizeof(view), "%s/view", d->state);
	assert_int_equal(stat(view, &st), 0);
	for (off_t len = st.st_size - 1; len >= 0; len -= len < 200 ? 1 : 499) {
		struct loaded l;
		assert_int_equal(truncate(view, len), 0);
		file = open_state(d);
		fails(load(d, file, &l), TW_BAD_DATA);
		unload(&l);
		tw_statefile_destroy(file);
	}
}

/* A crash between the new log and the new snapshot: the old pair still counts. */
static void a_snapshot_that_was_not_renamed_does_not_count(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	struct loaded l;
	snapshot(d, file);
	append(file, 11, 12);
	tw_statefile_destroy(file);
	shell(d->dir, "head -c 24 state/writes-1.trace >state/writes-2.trace; echo half >state/view.new");
	file = open_state(d);
	ok(load(d, file, &l));
	replay(file, &l);
	assert_int_equal(l.taken.n, 2);
	unload(&l);
	snapshot(d, file);
	tw_statefile_destroy(file);
	file = open_state(d);
	ok(load(d, file, &l));
	replay(file, &l);
	assert_int_equal(l.taken.n, 0);
	unload(&l);
	tw_statefile_destroy(file);
	files_are(d, "view writes-2.trace ");
}

static void a_state_of_another_disk_size_says_which(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	struct loaded l;
	snapshot(d, file);
	append(file, 11, 12);
	tw_statefile_destroy(file);
	assert_int_equal(truncate(d->image, DISK_BYTES + 4096), 0);
	file = open_state(d);
	ok(load(d, file, &l));
	assert_int_equal(tw_disk_loaded_bytes(l.disk), DISK_BYTES);
	assert_int_equal(tw_disk_bytes(l.disk), DISK_BYTES + 4096);
	/* The log is of the size of its snapshot. */
	replay(file, &l);
	assert_int_equal(l.taken.n, 2);
	unload(&l);
	tw_statefile_destroy(file);
}

static void a_short_log_needs_no_snapshot(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	snapshot(d, file);
	append(file, 11, 60);
	assert_false(tw_statefile_wants_snapshot(file));
	static uint8_t payload[1 << 20];
	for (unsigned i = 0; i < 64; i++) {
		const struct tw_record record = { 61 + i, 0, 0, 2048, TW_RECORD_PAYLOAD, payload };
		ok(tw_statefile_log(file, &record));
	}
	assert_true(tw_statefile_wants_snapshot(file));
	tw_statefile_destroy(file);
}

static void the_directory_must_be_there_to_be_made(void **state)
{
	struct disks *d = *state;
	char path[80];
	struct tw_statefile *file;
	snprintf(path, sizeof(path), "%s/no/such", d->dir);
	fails(tw_statefile_create(path, &file), TW_IO);
}

static void the_status_is_replaced(void **state)
{
	struct disks *d = *state;
	struct tw_statefile *file = open_state(d);
	char path[128], got[32] = "";
	ok(tw_statefile_status(file, "{\"a long\":\"one\"}"));
	ok(tw_statefile_status(file, "{}"));
	snprintf(path, sizeof(path), "%s/status.json", d->state);
	FILE *in = fopen(path, "r");
	assert_non_null(fgets(got, sizeof(got), in));
	fclose(in);
	assert_string_equal(got, "{}");
	files_are(d, "status.json ");
	tw_statefile_destroy(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK_TEST(an_empty_directory_has_no_state),
		DISK_TEST(a_snapshot_comes_back),
		DISK_TEST(the_log_is_replayed_and_goes_on),
		DISK_TEST(notes_come_back_and_no_write_is_one),
		DISK_TEST(a_new_snapshot_begins_a_new_log),
		DISK_TEST(a_torn_log_is_cut_off),
		DISK_TEST(a_missing_log_is_an_empty_one),
		DISK_TEST(an_error_of_the_callback_ends_the_replay),
		DISK_TEST(a_damaged_snapshot_is_refused),
		DISK_TEST(a_snapshot_that_is_cut_off_is_refused),
		DISK_TEST(a_snapshot_that_was_not_renamed_does_not_count),
		DISK_TEST(a_state_of_another_disk_size_says_which),
		DISK_TEST(a_short_log_needs_no_snapshot),
		DISK_TEST(the_directory_must_be_there_to_be_made),
		DISK_TEST(the_status_is_replaced),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
