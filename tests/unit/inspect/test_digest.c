/* SPDX-License-Identifier: BSD-3-Clause */
/* Digests of files that have been quiet, whatever is written meanwhile. */
#include "disks.h"

#include "base/pack.h"
#include "inspect/digest.h"
#include "inspect/volume.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* Three slices and some bytes. */
enum { BLOCK = 1024, SECTOR = 512, SIZE = 3 * (256 << 10) + 1000, SLICE = 256 << 10, RECORD = 10 };

struct scene {
	const struct disks *d;
	struct tw_disk *disk;
	struct tw_ring *ring;
	struct tw_ring_reader *reader;
	struct tw_disk_content *content;
	struct tw_buf note;
	uint32_t ino;
	uint64_t at; /* of the file, on the disk, in bytes */
	char told[512];
};

/* The path, and the digest's first bytes, or why there is none. */
static struct tw_error *take_event(const struct tw_event *event, void *arg)
{
	struct scene *s = arg;
	char text[128];
	if (event->type != TW_EVENT_FILE_SETTLED)
		return NULL;
	assert_int_equal(event->sequence, tw_disk_sequence(s->disk));
	assert_int_equal(event->size, SIZE);
	if (event->sha256)
		snprintf(text, sizeof(text), "%.*s %02x%02x%02x%02x;", (int)event->path.len,
			(const char *)event->path.data, event->sha256[0], event->sha256[1], event->sha256[2],
			event->sha256[3]);
	else
		snprintf(text, sizeof(text), "%.*s %s;", (int)event->path.len, (const char *)event->path.data,
			event->sha256_left_out);
	strncat(s->told, text, sizeof(s->told) - strlen(s->told) - 1);
	return NULL;
}

static struct tw_view *view_of(const struct scene *s)
{
	return s->disk->volumes[0]->ops->view(s->disk->volumes[0]->fs);
}

static void find_file(struct scene *s)
{
	struct tw_extent one;
	uint32_t n;
	for (struct tw_inode *inode = tw_view_inode_next(view_of(s), 1); inode;
		inode = tw_view_inode_next(view_of(s), inode->ino + 1)) {
		if (tw_view_attr(view_of(s), inode).size != SIZE)
			continue;
		s->ino = inode->ino;
		s->at = tw_inode_extents(inode, &one, &n)->block * BLOCK;
		return;
	}
	fail_msg("no file of %d bytes", SIZE);
}

static void attach(struct scene *s, const char *rules)
{
	struct tw_content_rules *parsed;
	ok(tw_content_rules_parse(rules, "xvda", &parsed));
	ok(tw_disk_content_create(parsed, &s->content));
	tw_disk_content_set_ring(s->content, s->reader);
	tw_disk_set_content(s->disk, s->content);
}

/* A disk with a file of bytes "o", which has two names. */
static void begin(struct scene *s, const struct disks *d, const char *rules)
{
	char script[512];
	memset(s, 0, sizeof(*s));
	s->d = d;
	snprintf(script, sizeof(script),
		"head -c %d /dev/zero | tr '\\0' o >t/big; (echo 'write t/big big'; echo 'ln big etc/same'; "
		"echo 'sif big links_count 2') | debugfs -w -f - img >/dev/null 2>&1",
		SIZE);
	shell(d->dir, script);
	ok(tw_disk_create(d->image, "test", take_event, s, &s->disk));
	ok(tw_disk_crawl(s->disk, true));
	find_file(s);
	assert_int_equal(tw_ring_create(d->ring, DISK_BYTES, TW_RING_MIN_BYTES, &s->ring), 0);
	assert_int_equal(tw_ring_reader_open(d->ring, &s->reader), 0);
	attach(s, rules);
}

static void end(struct scene *s)
{
	tw_disk_destroy(s->disk);
	tw_disk_content_destroy(s->content);
	tw_ring_reader_destroy(s->reader);
	tw_ring_destroy(s->ring);
	tw_buf_deinit(&s->note);
}

/* The guest writes a sector of the file, which the image has. */
static void written(struct scene *s, unsigned sector, char fill)
{
	char data[SECTOR];
	memset(data, fill, sizeof(data));
	image_write(s->d, s->at + sector * SECTOR, data, sizeof(data));
	const struct tw_record record = {
		.sequence = RECORD, .sector = (s->at >> TW_SECTOR_SHIFT) + sector, .nsectors = 1};
	ok(tw_disk_feed(s->disk, &record));
}

static void settle(struct scene *s)
{
	ok(tw_disk_settle(s->disk, (struct tw_time){ 9, 0 }, true));
}

static int64_t later(unsigned seconds)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (ts.tv_sec + seconds) * 1000;
}

/* Works through a budget; whether something came of it. */
static bool turn_by(struct scene *s, struct tw_digest_turn turn)
{
	tw_buf_reset(&s->note);
	ok(tw_disk_digest(s->disk, &turn, &s->note));
	return s->note.len;
}

static bool turn(struct scene *s, size_t budget)
{
	return turn_by(s, (struct tw_digest_turn){ .now_ms = later(100), .budget = budget });
}

static void told(struct scene *s, const char *want)
{
	ok(tw_disk_settled(s->disk, tw_span(s->note.data, s->note.len), (struct tw_time){ 9, 0 }));
	assert_string_equal(s->told, want);
	*s->told = '\0';
}

#define ALL "sha256 2000 1000000"
#define PATHS "\npath /etc/**\npath /big"
#define MUCH (64u << 20)
/* Of the file with its first sector "a". */
#define WITH_A "6a0d9106"
#define WITH_B "c819e754"
#define BOTH(word) "/big " word ";/etc/same " word ";"

static void a_file_is_told_when_it_has_been_quiet(void **state)
{
	struct scene s;
	begin(&s, *state, ALL PATHS);
	assert_true(tw_disk_digest_next(s.disk) == INT64_MAX);
	assert_false(turn(&s, MUCH));
	written(&s, 0, 'a');
	settle(&s);
	assert_int_equal(tw_disk_digests_waiting(s.disk, NULL), 1);
	assert_in_range(tw_disk_digest_next(s.disk), later(0), later(3));
	assert_false(turn_by(&s, (struct tw_digest_turn){ .now_ms = later(0), .budget = MUCH }));
	assert_true(turn(&s, MUCH));
	told(&s, BOTH(WITH_A));
	assert_false(turn(&s, MUCH));
	assert_int_equal(tw_disk_digests_waiting(s.disk, NULL), 0);
	end(&s);
}

static void a_turn_reads_no_more_than_it_may(void **state)
{
	struct scene s;
	begin(&s, *state, ALL "\npath /big");
	written(&s, 0, 'a');
	settle(&s);
	for (unsigned i = 0; i < 3; i++) {
		assert_false(turn(&s, SLICE));
		assert_int_equal(tw_disk_digest_next(s.disk), 0);
	}
	assert_true(turn(&s, SLICE));
	told(&s, "/big " WITH_A ";");
	end(&s);
}

static void one_that_changes_meanwhile_is_read_anew(void **state)
{
	struct scene s;
	begin(&s, *state, ALL "\npath /big");
	written(&s, 0, 'a');
	settle(&s);
	assert_false(turn(&s, SLICE));
	assert_false(turn(&s, SLICE));
	written(&s, 0, 'b');
	/* No event has told of it, so neither does a digest. */
	assert_false(turn(&s, MUCH));
	settle(&s);
	assert_in_range(tw_disk_digest_next(s.disk), later(0), later(3));
	assert_true(turn(&s, MUCH));
	told(&s, "/big " WITH_B ";");
	end(&s);
}

static void what_was_passed_over_makes_it_begin_anew(void **state)
{
	struct scene s;
	begin(&s, *state, ALL "\npath /big");
	written(&s, 0, 'a');
	settle(&s);
	assert_false(turn(&s, SLICE));
	char data[SECTOR];
	memset(data, 'b', sizeof(data));
	image_write(s.d, s.at, data, sizeof(data));
	tw_disk_digest_restart(s.disk);
	assert_true(turn(&s, MUCH));
	told(&s, "/big " WITH_B ";");
	end(&s);
}

static void what_is_written_later_is_waited_for(void **state)
{
	struct scene s;
	begin(&s, *state, ALL "\npath /big");
	written(&s, 0, 'a');
	settle(&s);
	tw_ring_publish(s.ring, TW_RECORD_ZEROES, (s.at + SIZE / 2) >> TW_SECTOR_SHIFT, 1, NULL);
	assert_false(turn(&s, SLICE));
	assert_false(turn(&s, SLICE));
	assert_int_equal(tw_disk_digests_waiting(s.disk, NULL), 1);
	assert_in_range(tw_disk_digest_next(s.disk), later(0), later(3));
	/* It never comes. */
	for (unsigned i = 0; i < 99; i++) {
		assert_false(turn(&s, SLICE));
		assert_false(turn(&s, SLICE));
	}
	assert_false(turn(&s, SLICE));
	assert_true(turn(&s, SLICE));
	told(&s, "/big unreadable;");
	/* The guest is gone. */
	written(&s, 0, 'b');
	settle(&s);
	assert_true(turn_by(&s, (struct tw_digest_turn){ .budget = MUCH, .last = true }));
	told(&s, "/big unreadable;");
	end(&s);
}

static void a_change_that_is_told_by_another_name_counts(void **state)
{
	struct scene s;
	char data[SECTOR];
	begin(&s, *state, ALL "\npath /big");
	written(&s, 0, 'a');
	settle(&s);
	assert_false(turn(&s, SLICE));
	memset(data, 'b', sizeof(data));
	image_write(s.d, s.at, data, sizeof(data));
	const struct tw_event event = { .type = TW_EVENT_FILE_TRUNCATED,
		.kind = TW_KIND_FILE,
		.path = { "/elsewhere", 10 },
		.inode = s.ino,
		.nlink = 1 };
	ok(tw_digest_event(s.disk->volumes[0], &event));
	assert_true(turn(&s, MUCH));
	told(&s, "/big " WITH_B ";");
	end(&s);
}

static struct tw_error *bad_sector(void *arg, uint64_t offset, void *buf, size_t len)
{
	(void)arg, (void)offset, (void)buf, (void)len;
	return tw_error_errno(EIO, "image");
}

static void what_can_never_be_read_is_told(void **state)
{
	struct scene s;
	begin(&s, *state, ALL "\npath /big");
	written(&s, 0, 'a');
	settle(&s);
	s.disk->file.read = bad_sector;
	assert_true(turn(&s, SLICE));
	told(&s, "/big unreadable;");
	end(&s);
	shell(s.d->dir, "rm -f ring*");
	begin(&s, *state, ALL "\npath /etc/same");
	tw_disk_content_set_ring(s.content, NULL);
	written(&s, 0, 'b');
	settle(&s);
	assert_true(turn(&s, SLICE));
	told(&s, "/etc/same unreadable;");
	end(&s);
}

static void a_file_may_be_too_large_or_encrypted(void **state)
{
	struct scene s;
	struct tw_attr attr;
	begin(&s, *state, "sha256 2000 1000\npath /big\nsha256 2000 9999999\npath /etc/**");
	written(&s, 0, 'a');
	settle(&s);
	assert_true(turn(&s, MUCH));
	told(&s, BOTH(WITH_A)); /* as whoever wants the most has it */
	end(&s);
	shell(s.d->dir, "rm -f ring*");
	begin(&s, *state, "sha256 2000 1000\npath /big");
	written(&s, 0, 'a');
	settle(&s);
	assert_true(turn(&s, MUCH));
	told(&s, "/big too_large;");
	struct tw_inode *inode = tw_view_inode(view_of(&s), s.ino);
	written(&s, 0, 'b');
	settle(&s);
	attr = tw_view_attr(view_of(&s), inode);
	attr.flags |= TW_FLAG_ENCRYPTED;
	ok(tw_view_set_attr(view_of(&s), inode, &attr));
	assert_true(turn(&s, MUCH));
	told(&s, "/big encrypted;");
	end(&s);
}

static void who_is_gone_is_told_at_once(void **state)
{
	struct scene s;
	begin(&s, *state, ALL "\npath /big");
	written(&s, 0, 'a');
	settle(&s);
	assert_true(turn_by(&s, (struct tw_digest_turn){ .budget = MUCH, .last = true }));
	told(&s, "/big " WITH_A ";");
	written(&s, 0, 'b');
	settle(&s);
	assert_true(turn_by(&s, (struct tw_digest_turn){ .budget = MUCH, .last = true, .give_up = true }));
	told(&s, "/big detached;");
	end(&s);
}

static void who_is_not_asked_about_is_not_waited_for(void **state)
{
	struct scene s;
	begin(&s, *state, ALL "\npath /srv/**");
	written(&s, 0, 'a');
	settle(&s);
	assert_int_equal(tw_disk_digests_waiting(s.disk, NULL), 0);
	end(&s);
	shell(s.d->dir, "rm -f ring*");
	begin(&s, *state, "rule full 1000 ffff");
	written(&s, 0, 'b');
	settle(&s);
	assert_int_equal(tw_disk_digests_waiting(s.disk, NULL), 0);
	end(&s);
}

static void a_saved_disk_goes_on_waiting(void **state)
{
	struct scene s;
	struct tw_buf saved = TW_BUF_INIT;
	begin(&s, *state, ALL "\npath /big");
	written(&s, 0, 'a');
	settle(&s);
	ok(tw_disk_save(s.disk, &saved));
	tw_disk_destroy(s.disk);
	tw_disk_content_destroy(s.content);
	for (unsigned i = 0; i < 2; i++) {
		ok(tw_disk_create(s.d->image, "test", take_event, &s, &s.disk));
		attach(&s, i ? ALL "\npath /big" : ALL "\npath /srv/**");
		ok(tw_disk_load(s.disk, tw_span(saved.data, saved.len)));
		assert_int_equal(tw_disk_digests_waiting(s.disk, NULL), i);
		if (i)
			break;
		tw_disk_destroy(s.disk);
		tw_disk_content_destroy(s.content);
	}
	assert_true(turn(&s, MUCH));
	told(&s, "/big " WITH_A ";");
	tw_buf_deinit(&saved);
	end(&s);
}

static void a_note_that_is_none_is_refused(void **state)
{
	struct scene s;
	begin(&s, *state, ALL "\npath /big");
	written(&s, 0, 'a');
	settle(&s);
	assert_true(turn(&s, MUCH));
	for (size_t len = 0; len < s.note.len; len++) {
		struct tw_error *err = tw_disk_settled(
			s.disk, tw_span(s.note.data, len), (struct tw_time){ 9, 0 });
		assert_int_equal(tw_error_code(err), TW_BAD_DATA);
		tw_error_destroy(err);
	}
	for (size_t word = 0; word < 5; word++) {
		struct tw_buf bad = TW_BUF_INIT;
		tw_buf_append(&bad, s.note.data, s.note.len);
		if (word != 2) /* the transaction may be any */
			memset(bad.data + (word < 4 ? word * 4 : bad.len - 4), 0x77, 4);
		else
			memset(bad.data, 0x77, 4);
		struct tw_error *err =
			tw_disk_settled(s.disk, tw_span(bad.data, bad.len), (struct tw_time){ 9, 0 });
		assert_int_equal(tw_error_code(err), TW_BAD_DATA);
		tw_error_destroy(err);
		tw_buf_deinit(&bad);
	}
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK_TEST(a_file_is_told_when_it_has_been_quiet),
		DISK_TEST(a_turn_reads_no_more_than_it_may),
		DISK_TEST(one_that_changes_meanwhile_is_read_anew),
		DISK_TEST(what_was_passed_over_makes_it_begin_anew),
		DISK_TEST(what_is_written_later_is_waited_for),
		DISK_TEST(a_change_that_is_told_by_another_name_counts),
		DISK_TEST(what_can_never_be_read_is_told),
		DISK_TEST(a_file_may_be_too_large_or_encrypted),
		DISK_TEST(who_is_gone_is_told_at_once),
		DISK_TEST(who_is_not_asked_about_is_not_waited_for),
		DISK_TEST(a_saved_disk_goes_on_waiting),
		DISK_TEST(a_note_that_is_none_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
