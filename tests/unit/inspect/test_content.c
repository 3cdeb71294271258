/* SPDX-License-Identifier: BSD-3-Clause */
/* What an event says that a file holds, whatever the image holds by then. */
#include "disks.h"

#include "inspect/volume.h"

#include <errno.h>
#include <string.h>

enum { BLOCK = 1024, SECTOR = 512, SIZE = 3000, RECORD = 10 };

struct scene {
	const struct disks *d;
	struct tw_disk *disk;
	struct tw_ring *ring;
	struct tw_ring_reader *reader;
	struct tw_disk_content *content;
	uint64_t at; /* of the file, on the disk, in bytes */
	char told[256];
};

static void put(struct scene *s, const char *text)
{
	strncat(s->told, text, sizeof(s->told) - strlen(s->told) - 1);
}

static void put_ranges(struct scene *s, const char *name, const struct tw_range *ranges, size_t n)
{
	char text[64];
	for (size_t i = 0; i < n; i++) {
		snprintf(text, sizeof(text), " %s %llu+%llu", name, (unsigned long long)ranges[i].offset,
			(unsigned long long)ranges[i].length);
		put(s, text);
	}
}

/* A piece is its place and its bytes, which are runs of the same letter. */
static void put_piece(struct scene *s, const struct tw_content_piece *piece)
{
	char text[64];
	for (uint64_t i = 0, n; i < piece->length; i += n) {
		for (n = 1; i + n < piece->length && piece->data[i + n] == piece->data[i]; n++)
			;
		snprintf(text, sizeof(text), " %llu+%llu %c", (unsigned long long)(piece->offset + i),
			(unsigned long long)n, piece->data[i]);
		put(s, text);
	}
}

static struct tw_error *take_event(const struct tw_event *event, void *arg)
{
	struct scene *s = arg;
	if (event->type != TW_EVENT_FILE_MODIFIED || event->path.len != 4 || memcmp(event->path.data, "/big", 4))
		return NULL;
	put(s, event->content ? "content" : "nothing");
	for (size_t i = 0; event->content && i < event->content->npieces; i++)
		put_piece(s, &event->content->pieces[i]);
	if (!event->content)
		return NULL;
	put_ranges(s, "missing", event->content->missing, event->content->nmissing);
	put_ranges(s, "left out", event->content->left_out, event->content->nleft_out);
	return NULL;
}

static uint64_t place_of_file(const struct tw_disk *disk)
{
	struct tw_view *view = disk->volumes[0]->ops->view(disk->volumes[0]->fs);
	struct tw_extent one;
	uint32_t n;
	for (struct tw_inode *inode = tw_view_inode_next(view, 1); inode;
		inode = tw_view_inode_next(view, inode->ino + 1)) {
		const struct tw_extent *e = tw_inode_extents(inode, &one, &n);
		if (tw_view_attr(view, inode).size == SIZE && n == 1)
			return e->block * BLOCK;
	}
	fail_msg("no file of %d bytes", SIZE);
	return 0;
}

/* A disk with a file of 3,000 bytes "o". */
static void begin(struct scene *s, const struct disks *d, const char *rules)
{
	struct tw_content_rules *parsed;
	memset(s, 0, sizeof(*s));
	s->d = d;
	shell(d->dir,
		"head -c 3000 /dev/zero | tr '\\0' o >t/big; debugfs -w -R 'write t/big big' img >/dev/null 2>&1");
	ok(tw_disk_create(d->image, "test", take_event, s, &s->disk));
	ok(tw_disk_crawl(s->disk, true));
	s->at = place_of_file(s->disk);
	assert_int_equal(tw_ring_create(d->ring, DISK_BYTES, TW_RING_MIN_BYTES, &s->ring), 0);
	assert_int_equal(tw_ring_reader_open(d->ring, &s->reader), 0);
	ok(tw_content_rules_parse(rules, "xvda", &parsed));
	ok(tw_disk_content_create(parsed, &s->content));
	tw_disk_content_set_ring(s->content, s->reader);
	tw_disk_set_content(s->disk, s->content);
}

static void end(struct scene *s)
{
	tw_disk_destroy(s->disk);
	tw_disk_content_destroy(s->content);
	tw_ring_reader_destroy(s->reader);
	tw_ring_destroy(s->ring);
}

/* The guest writes sectors of the file; fill 0: what it writes does not come by the stream. */
static void written(struct scene *s, unsigned sector, unsigned n, char fill)
{
	char data[8 * SECTOR];
	memset(data, fill, sizeof(data));
	const struct tw_record record = { .sequence = RECORD,
		.sector = (s->at >> TW_SECTOR_SHIFT) + sector,
		.nsectors = n,
		.flags = fill ? TW_RECORD_PAYLOAD : 0,
		.payload = fill ? data : NULL };
	ok(tw_disk_feed(s->disk, &record));
}

static void image_has(struct scene *s, unsigned sector, unsigned n, char fill)
{
	char data[8 * SECTOR];
	memset(data, fill, sizeof(data));
	image_write(s->d, s->at + sector * SECTOR, data, n * SECTOR);
}

static void comes_later(struct scene *s, unsigned sector, unsigned n)
{
	tw_ring_publish(s->ring, TW_RECORD_ZEROES, (s->at >> TW_SECTOR_SHIFT) + sector, n, NULL);
}

static void told(struct scene *s, const char *want)
{
	ok(tw_disk_settle(s->disk, (struct tw_time){ 9, 0 }, true));
	assert_string_equal(s->told, want);
	*s->told = '\0';
}

#define ALL "rule changed 1000000 ffff"
#define WHOLE "rule full 1000000 ffff"

static void what_was_written_is_told_not_what_the_image_has(void **state)
{
	struct scene s;
	begin(&s, *state, ALL);
	image_has(&s, 0, 6, 'z');
	written(&s, 0, 4, 'a');
	written(&s, 2, 2, 'b');
	comes_later(&s, 0, 6);
	told(&s, "content 0+1024 a 1024+1024 b");
	end(&s);
}

static void what_did_not_come_is_read_from_the_image(void **state)
{
	struct scene s;
	begin(&s, *state, ALL);
	written(&s, 0, 4, 'a');
	image_has(&s, 0, 2, 'n');
	written(&s, 0, 2, 0);
	told(&s, "content 0+1024 n 1024+1024 a");
	/* So is what came before writes were passed over. */
	written(&s, 2, 2, 'b');
	image_has(&s, 2, 2, 'p');
	tw_disk_content_forget(s.content);
	told(&s, "content 1024+1024 p");
	end(&s);
}

static void what_was_written_again_is_missing_and_nothing_else(void **state)
{
	struct scene s;
	begin(&s, *state, ALL);
	image_has(&s, 0, 6, 'n');
	written(&s, 0, 6, 0);
	comes_later(&s, 3, 1);
	comes_later(&s, 40, 8);
	told(&s, "content 0+1536 n 2048+952 n missing 1536+512");
	end(&s);
}

static void records_that_were_held_back_count_until_they_are_followed(void **state)
{
	struct scene s;
	begin(&s, *state, ALL);
	tw_disk_content_at(s.content, RECORD);
	const uint64_t sector = s.at >> TW_SECTOR_SHIFT;
	const struct tw_record before = { .sequence = RECORD, .sector = sector, .nsectors = 6 };
	const struct tw_record after = { .sequence = RECORD + 2, .sector = sector + 1, .nsectors = 1 };
	ok(tw_disk_content_expect(s.content, &before));
	ok(tw_disk_content_expect(s.content, &after));
	image_has(&s, 0, 6, 'n');
	written(&s, 0, 6, 0);
	told(&s, "content 0+512 n 1024+1976 n missing 512+512");
	tw_disk_content_at(s.content, RECORD + 2);
	written(&s, 0, 2, 0);
	told(&s, "content 0+1024 n");
	tw_disk_content_at(s.content, RECORD);
	written(&s, 0, 2, 0);
	told(&s, "content 0+512 n missing 512+512");
	tw_disk_content_caught_up(s.content);
	written(&s, 0, 2, 0);
	told(&s, "content 0+1024 n");
	/* A resync has told of the records up to this one. */
	ok(tw_disk_content_expect(s.content, &after));
	s.disk->told = RECORD + 2;
	struct tw_record new = { .sequence = RECORD + 3, .sector = sector, .nsectors = 2 };
	ok(tw_disk_feed(s.disk, &new));
	told(&s, "content 0+1024 n");
	end(&s);
}

static void a_write_of_more_than_is_remembered_counts_for_all(void **state)
{
	struct scene s;
	begin(&s, *state, ALL);
	const struct tw_record huge = { .sequence = RECORD + 1, .sector = 0, .nsectors = 1u << 30 };
	ok(tw_disk_content_expect(s.content, &huge));
	written(&s, 0, 1, 0);
	told(&s, "content missing 0+512");
	tw_disk_content_caught_up(s.content);
	written(&s, 0, 1, 0);
	told(&s, "content 0+512 o");
	end(&s);
}

/* What a guest writes while an inspector is away is bounded by its disk, and not what is remembered of it. */
static void writes_to_very_many_places_count_for_all(void **state)
{
	struct scene s;
	begin(&s, *state, ALL);
	tw_disk_content_at(s.content, RECORD);
	for (unsigned i = 1; i <= 6; i++) {
		const struct tw_record large = { .sequence = RECORD + i,
			.sector = (uint64_t)i << 30,
			.nsectors = 60000 * 8 };
		ok(tw_disk_content_expect(s.content, &large));
	}
	written(&s, 0, 1, 0);
	told(&s, "content missing 0+512");
	tw_disk_content_at(s.content, RECORD + 6);
	written(&s, 0, 1, 0);
	told(&s, "content 0+512 o");
	end(&s);
}

static struct tw_error *bad_sector(void *arg, uint64_t offset, void *buf, size_t len)
{
	(void)arg, (void)offset, (void)buf, (void)len;
	return tw_error_errno(EIO, "image");
}

static void what_cannot_be_read_is_missing(void **state)
{
	struct scene s;
	begin(&s, *state, ALL);
	s.disk->file.read = bad_sector;
	written(&s, 0, 2, 'a');
	written(&s, 2, 2, 0);
	told(&s, "content 0+1024 a missing 1024+1024");
	end(&s);
}

static void a_whole_file_is_never_a_mixture(void **state)
{
	struct scene s;
	begin(&s, *state, WHOLE);
	written(&s, 0, 2, 'a');
	told(&s, "content 0+1024 a 1024+1976 o");
	written(&s, 0, 2, 'b');
	comes_later(&s, 5, 1);
	told(&s, "content missing 0+3000");
	end(&s);
}

static void where_nobody_can_tell_the_image_is_not_read(void **state)
{
	struct scene s;
	begin(&s, *state, ALL);
	tw_disk_content_set_ring(s.content, NULL);
	written(&s, 0, 2, 'a');
	written(&s, 2, 2, 0);
	told(&s, "content 0+1024 a missing 1024+1024");
	end(&s);
}

/* As a trace is read: nobody else writes, and the image is of before. */
static void of_an_image_from_before_what_was_not_written_counts(void **state)
{
	struct scene s;
	begin(&s, *state, WHOLE);
	tw_disk_content_set_ring(s.content, NULL);
	ok(tw_disk_content_set_base(s.content, DISK_BYTES));
	written(&s, 0, 1, 'a');
	told(&s, "content 0+512 a 512+2488 o");
	written(&s, 3, 1, 0);
	told(&s, "content missing 0+3000");
	written(&s, 3, 1, 'c');
	told(&s, "content 0+512 a 512+1024 o 1536+512 c 2048+952 o");
	end(&s);
}

static bool nothing_is(void *fs, uint64_t block)
{
	(void)fs, (void)block;
	return false;
}

/* With data=journal: the log has it, and its place not yet. */
static void what_is_not_in_its_place_yet_is_not_read_there(void **state)
{
	struct scene s;
	begin(&s, *state, ALL);
	struct tw_volume *volume = s.disk->volumes[0];
	struct tw_fs_ops ops = *volume->ops;
	ops.in_place = nothing_is;
	volume->ops = &ops;
	char data[BLOCK];
	memset(data, 'l', sizeof(data));
	ok(tw_content_logged(volume, s.at, data, sizeof(data)));
	written(&s, 2, 2, 0);
	told(&s, "content missing 1024+1024");
	tw_disk_content_forget(s.content);
	ok(tw_content_logged(volume, s.at + BLOCK, data, sizeof(data)));
	written(&s, 2, 2, 'w');
	told(&s, "content 1024+1024 w");
	end(&s);
}

static bool is_a_run_of_n(void *fs, uint64_t block, const void *data)
{
	(void)fs, (void)block;
	return *(const char *)data == 'n';
}

static void what_was_put_in_its_place_unseen_is_read_there(void **state)
{
	struct scene s;
	begin(&s, *state, ALL);
	struct tw_volume *volume = s.disk->volumes[0];
	struct tw_fs_ops ops = *volume->ops;
	ops.in_place = nothing_is;
	ops.is_logged = is_a_run_of_n;
	volume->ops = &ops;
	image_has(&s, 0, 2, 'n');
	written(&s, 0, 4, 0);
	told(&s, "content 0+1024 n missing 1024+1024");
	end(&s);
}

/* Neighbours are written in one request, whatever they are. */
static void a_write_that_begins_in_the_log_may_end_in_a_file(void **state)
{
	struct scene s;
	char data[2 * BLOCK];
	begin(&s, *state, ALL);
	const struct tw_volume *volume = s.disk->volumes[0];
	const struct tw_owner log = { .block = s.at / BLOCK - 1, .count = 1, .ino = 8, .kind = TW_OWNER_JOURNAL };
	const struct tw_piece piece = { s.at - BLOCK, s.at - BLOCK, sizeof(data) };
	written(&s, 0, 2, 'a');
	ok(tw_owners_set(tw_view_owners(volume->ops->view(volume->fs)), &log));
	memset(data, 'b', sizeof(data));
	ok(tw_content_written(s.disk, volume, &piece, data));
	image_has(&s, 0, 2, 'b');
	told(&s, "content 0+1024 b");
	end(&s);
}

static void there_is_a_limit(void **state)
{
	struct scene s;
	begin(&s, *state, "rule changed 1500 ffff");
	written(&s, 0, 6, 'a');
	told(&s, "content 0+1500 a left out 1500+1500");
	end(&s);
}

static void who_is_not_asked_about_says_nothing(void **state)
{
	struct scene s;
	begin(&s, *state, "rule changed 1500 ffff\npath /etc/**");
	written(&s, 0, 6, 'a');
	told(&s, "nothing");
	end(&s);
	shell(s.d->dir, "rm -f ring*");
	begin(&s, *state, ALL);
	tw_disk_content_set_told(s.content, tw_disk_sequence(s.disk) + 1);
	written(&s, 0, 6, 'a');
	told(&s, "nothing");
	written(&s, 0, 1, 'a');
	told(&s, "content 0+512 a");
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK_TEST(what_was_written_is_told_not_what_the_image_has),
		DISK_TEST(what_did_not_come_is_read_from_the_image),
		DISK_TEST(what_was_written_again_is_missing_and_nothing_else),
		DISK_TEST(records_that_were_held_back_count_until_they_are_followed),
		DISK_TEST(a_write_of_more_than_is_remembered_counts_for_all),
		DISK_TEST(writes_to_very_many_places_count_for_all),
		DISK_TEST(what_cannot_be_read_is_missing),
		DISK_TEST(a_whole_file_is_never_a_mixture),
		DISK_TEST(where_nobody_can_tell_the_image_is_not_read),
		DISK_TEST(of_an_image_from_before_what_was_not_written_counts),
		DISK_TEST(what_is_not_in_its_place_yet_is_not_read_there),
		DISK_TEST(what_was_put_in_its_place_unseen_is_read_there),
		DISK_TEST(a_write_that_begins_in_the_log_may_end_in_a_file),
		DISK_TEST(there_is_a_limit),
		DISK_TEST(who_is_not_asked_about_says_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
