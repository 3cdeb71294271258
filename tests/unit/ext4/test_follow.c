/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What debugfs does to an image, one operation a transaction: data as plain writes, everything else
 * through a journal. After each the view is what a crawl of the image finds.
 */
#include "image.h"
#include "journal.h"
#include "view_dump.h"

#include "ext4/module.h"
#include "record.h"

struct follow {
	char dir[32];
	uint8_t *was;
	struct image now;
	struct ext4 *fs;
	struct tw_buf events;
	uint32_t place[512]; /* of the log blocks */
	uint32_t at, sequence;
};

static struct tw_error *keep_event(struct tw_event *event, void *arg)
{
	struct follow *f = arg;
	tw_buf_printf(&f->events, "%s %.*s", tw_event_type_name(event->type) + 17,
		(int)event->path.len, (const char *)event->path.data);
	for (size_t i = 0; i < event->nxattrs_set + event->nxattrs_removed; i++)
		tw_buf_printf(&f->events, " %c%.*s", i < event->nxattrs_set ? '+' : '-',
			(int)event->xattrs[i].len, (const char *)event->xattrs[i].data);
	tw_buf_puts(&f->events, "\n");
	return NULL;
}

static struct tw_error *drop_event(struct tw_event *event, void *arg)
{
	(void)event, (void)arg;
	return NULL;
}

static struct ext4 *open_with(struct follow *f, tw_emit_fn emit)
{
	struct tw_fs_env env = { f->now.source, emit, f, "test", NULL };
	struct ext4 *fs;
	ok(tw_fs_ext4.open(&env, (void **)&fs));
	return fs;
}

static void read_image(struct follow *f)
{
	char path[64];
	snprintf(path, sizeof(path), "%s/img", f->dir);
	FILE *file = fopen(path, "rb");
	assert_non_null(file);
	assert_int_equal(fread(f->now.bytes, 1, IMAGE_BYTES, file), IMAGE_BYTES);
	fclose(file);
}

static void put(struct follow *f, uint64_t block, const uint8_t *data)
{
	struct tw_write write = { block * 1024, 1024, data, TW_RECORD_PAYLOAD, { 7, 0 }, false };
	ok(ext4_write(f->fs, &write));
}

static void begin_journal(struct follow *f)
{
	uint8_t sb[1024];
	const struct tw_inode *journal = tw_view_inode(f->fs->view, EXT4_JOURNAL_INO);
	struct tw_extent one;
	uint32_t n;
	const struct tw_extent *e = tw_inode_extents(journal, &one, &n);
	for (; n--; e++)
		for (uint32_t k = 0; k < e->count; k++)
			if (e->lblk + k < 512)
				f->place[e->lblk + k] = (uint32_t)e->block + k;
	memcpy(sb, f->now.bytes + (size_t)f->place[0] * 1024, sizeof(sb));
	f->at = 1;
	f->sequence = tw_be32(tw_span(sb, sizeof(sb)), 24);
	be32(sb + 28, 1);
	put(f, f->place[0], sb);
}

static int setup_with(void **state, const char *mkfs)
{
	struct follow *f = calloc(1, sizeof(*f));
	char script[2048];
	strcpy(f->dir, "/tmp/tapwire-follow-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(script, sizeof(script), "%s mkfs.ext4 -q -F -b 1024 -d t -O ^metadata_csum,^64bit %s"
		" img %u >/dev/null 2>&1", IMAGE_TREE, mkfs, IMAGE_BYTES / 1024);
	shell(f->dir, script);
	f->was = malloc(IMAGE_BYTES);
	f->now.bytes = malloc(IMAGE_BYTES);
	f->now.source = (struct tw_source){
		.read = image_read, .arg = &f->now, .bytes = IMAGE_BYTES, .parallel = true };
	read_image(f);
	f->fs = open_with(f, keep_event);
	begin_journal(f);
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, "");
}

static int setup_ext3(void **state)
{
	return setup_with(state, "-O ^extent");
}

static int setup_inline(void **state)
{
	return setup_with(state, "-O inline_data -I 256");
}

static int teardown(void **state)
{
	struct follow *f = *state;
	ext4_destroy(f->fs);
	char script[64];
	snprintf(script, sizeof(script), "rm -rf %s", f->dir);
	shell("/tmp", script);
	free(f->was);
	free(f->now.bytes);
	tw_buf_deinit(&f->events);
	free(f);
	return 0;
}

static struct tw_owner owner_of(const struct ext4 *fs, uint64_t block)
{
	struct tw_owner o = { 0 };
	return tw_owners_find(tw_view_owners(fs->view), block, 1, &o) ? o : (struct tw_owner){ 0 };
}

static bool is_data(const struct ext4 *newer, uint64_t block)
{
	enum tw_owner_kind kind = owner_of(newer, block).kind;
	return kind == TW_OWNER_DATA || kind == TW_OWNER_UNWRITTEN;
}

/* A block that became metadata is written also when it held the same before. */
static bool is_written(const struct follow *f, const struct ext4 *newer, uint64_t block)
{
	struct tw_owner was = owner_of(f->fs, block), is = owner_of(newer, block);
	if (memcmp(f->was + block * 1024, f->now.bytes + block * 1024, 1024))
		return true;
	return is.kind && !is_data(newer, block) && (was.kind != is.kind || was.ino != is.ino);
}

static void put_log(struct follow *f, const uint8_t *data)
{
	assert_true(f->at < 512);
	put(f, f->place[f->at++], data);
}

/* Everything that changed but data, as one transaction; data before it. */
static void transaction(struct follow *f, struct ext4 *newer, const char *what)
{
	uint64_t blocks[120];
	uint8_t block[1024];
	size_t n = 0, off = 12;
	for (uint64_t at = 0; at < IMAGE_BYTES / 1024; at++) {
		if (!is_written(f, newer, at))
			continue;
		if (is_data(newer, at))
			put(f, at, f->now.bytes + at * 1024);
		else
			blocks[n++] = at;
		assert_true(n < 120);
	}
	if (!n)
		fail_msg("%s changed nothing", what);
	log_header(block, T_DESCRIPTOR, f->sequence);
	for (size_t i = 0; i < n; i++, off += i == 1 ? 24 : 8) {
		be32(block + off, (uint32_t)blocks[i]);
		block[off + 7] = (uint8_t)((i ? 2 : 0) | (i + 1 == n ? 8 : 0));
	}
	put_log(f, block);
	for (size_t i = 0; i < n; i++)
		put_log(f, f->now.bytes + blocks[i] * 1024);
	log_header(block, T_COMMIT, f->sequence++);
	put_log(f, block);
	/* A cache below the guest may write what was there before once more; then the checkpoint. Neither
	 * says anything. */
	size_t told = f->events.len;
	for (size_t i = 0; i < n; i++)
		if (blocks[i] != EXT4_SUPERBLOCK_AT / 1024)
			put(f, blocks[i], f->was + blocks[i] * 1024);
	ok(ext4_settle(f->fs, (struct tw_time){ 8, 0 }, true));
	for (size_t i = 0; i < n; i++)
		put(f, blocks[i], f->now.bytes + blocks[i] * 1024);
	ok(ext4_settle(f->fs, (struct tw_time){ 8, 0 }, true));
	assert_int_equal(f->events.len, told);
}

static void same_view(struct follow *f, struct ext4 *newer, const char *what)
{
	struct tw_buf got = TW_BUF_INIT, expected = TW_BUF_INIT;
	dump_inodes(f->fs, false, &got);
	dump_owners(f->fs, &got);
	dump_inodes(newer, false, &expected);
	dump_owners(newer, &expected);
	for (size_t i = 0, line = 0; i < got.len && i < expected.len; i++) {
		line = got.data[i] == '\n' ? i + 1 : line;
		if (got.data[i] != expected.data[i])
			fail_msg("after %s: the view has %.100s; the image %.100s", what, got.data + line,
				expected.data + line);
	}
	assert_int_equal(got.len, expected.len);
	tw_buf_deinit(&got);
	tw_buf_deinit(&expected);
}

/* The image has changed: follows it. events: what must be told, or NULL. */
static void follow_image(struct follow *f, const char *what, const char *events)
{
	struct ext4 *newer = open_with(f, drop_event);
	tw_buf_reset(&f->events);
	transaction(f, newer, what);
	tw_buf_append(&f->events, "", 1);
	if (events)
		assert_string_equal(f->events.data, events);
	same_view(f, newer, what);
	ext4_destroy(newer);
}

static void step(struct follow *f, const char *command, const char *events)
{
	char script[512];
	memcpy(f->was, f->now.bytes, IMAGE_BYTES);
	/* A semicolon separates commands of one transaction. */
	snprintf(script, sizeof(script), "echo '%s' | tr ';' '\\n' | debugfs -w -f - img >/dev/null 2>&1",
		command);
	shell(f->dir, script);
	read_image(f);
	follow_image(f, command, events);
}

static void what_debugfs_does_is_followed(void **state)
{
	struct follow *f = *state;
	step(f, "mkdir new", NULL);
	step(f, "write t/etc/hostname new/file", NULL);
	step(f, "write t/sparse new/sparse", NULL);
	step(f, "symlink new/short target", NULL);
	step(f, "symlink new/long /a/long/target/a/long/target/a/long/target/a/long/target/a/long/target", NULL);
	step(f, "mknod device b 259 300", NULL);
	step(f, "mknod pipe p", NULL);
	step(f, "ln new/file deep/linked", NULL);
	step(f, "unlink third", "unlinked /third\n");
	step(f, "set_inode_field sparse mode 0100640", "attributes /sparse\n");
	step(f, "set_inode_field sparse uid 70000", "attributes /sparse\n");
	step(f, "ea_set new/file user.colour blue", "attributes /new/file +user.colour\n");
	step(f, "ea_set new/file user.colour red", "attributes /new/file +user.colour\n");
	step(f, "ea_set new/file user.size small", "attributes /new/file +user.size\n");
	step(f, "ea_rm new/file user.colour", "attributes /new/file -user.colour\n");
	step(f, "punch sparse 30 60", NULL);
	step(f, "rm new/sparse", NULL);
	step(f, "rm new/long", NULL);
	step(f, "rm device", NULL);
	step(f, "rm big/a-file-with-a-long-name-77", NULL);
	step(f, "rm sparse", NULL);
	step(f, "mkdir new/sub", NULL);
	step(f, "rmdir new/sub", NULL);
	step(f, "write t/sparse again", NULL);
}

/* The inode's number goes to a file, which has inline data as the directory had. */
static void a_directory_that_becomes_a_file_loses_its_names(void **state)
{
	struct follow *f = *state;
	step(f, "mkdir dir", NULL);
	step(f, "symlink dir/name target", NULL);
	step(f, "rm dir/name;rmdir dir;write t/etc/hostname file", "deleted /dir/name\ndeleted /dir\n"
		"created /file\nmodified /\n");
}

/* Whether attributes stand in the inode or in a block, they are the same. */
static uint64_t digest_of_attributes(const char *mkfs, bool in_inode)
{
	void *state;
	setup_with(&state, mkfs);
	struct follow *f = state;
	step(f, "ea_set third user.a 1;ea_set third user.b 2", "attributes /third +user.a +user.b\n");
	uint64_t digest = 0;
	const struct tw_inode *inode = tw_view_inode_next(f->fs->view, 1);
	for (; inode; inode = tw_view_inode_next(f->fs->view, inode->ino + 1))
		digest += tw_view_attr(f->fs->view, inode).xattrs;
	assert_int_equal(HASH_COUNT(f->fs->xattrs), in_inode ? 0 : 1);
	teardown(&state);
	return digest;
}

static void attributes_are_the_same_in_inode_and_block(void **state)
{
	(void)state;
	uint64_t in_block = digest_of_attributes("-I 128", false);
	assert_true(in_block && in_block == digest_of_attributes("-I 256", true));
}

/* What the new attributes are is known by the crawl alone. */
static void a_resync_names_attributes(void **state)
{
	struct follow *f = *state;
	const struct tw_missed nothing = { 0 };
	step(f, "ea_set third user.old 1", NULL);
	tw_buf_reset(&f->events);
	shell(f->dir, "printf '%s\\n' 'ea_rm third user.old' 'ea_set third user.new 1' |"
		" debugfs -w -f - img >/dev/null 2>&1");
	read_image(f);
	struct ext4 *newer = open_with(f, drop_event);
	ok(ext4_resync(f->fs, newer, &nothing, (struct tw_time){ 9, 0 }));
	ext4_destroy(newer);
	tw_buf_append(&f->events, "", 1);
	assert_string_equal(f->events.data, "attributes /third +user.new -user.old\n");
}

/* Data that nobody saw reach the disk leave no trace in the metadata, which was told of before them. */
static void a_resync_in_use_tells_of_recent_files(void **state)
{
	struct follow *f = *state;
	const struct tw_missed unwatched = { .unwatched = true };
	const struct tw_missed in_use = { .unwatched = true, .in_use = true };
	step(f, "set_inode_field third ctime 20300101000000", NULL);
	step(f, "set_inode_field sparse ctime 20291231235930", NULL);
	for (int i = 0; i < 2; i++) {
		tw_buf_reset(&f->events);
		struct ext4 *newer = open_with(f, drop_event);
		ok(ext4_resync(f->fs, newer, i ? &in_use : &unwatched, (struct tw_time){ 9, 0 }));
		ext4_destroy(newer);
		tw_buf_append(&f->events, "", 1);
		assert_string_equal(f->events.data, i ? "modified /third\nmodified /sparse\n" : "");
	}
}

/* A directory that grows by a block, and whose entries fill it. */
static void a_growing_directory_is_followed(void **state)
{
	struct follow *f = *state;
	for (unsigned i = 0; i < 12; i++) {
		char command[320], name[201];
		memset(name, 'n', 200);
		name[200] = 0;
		snprintf(command, sizeof(command), "symlink deep/%s%u x", name, i);
		if (i % 4 == 3)
			step(f, "expand_dir deep", NULL);
		step(f, command, NULL);
	}
}

/* Linux never takes a block from a directory; tools do. */
static void a_directory_that_loses_a_block_loses_the_names_in_it(void **state)
{
	struct follow *f = *state;
	step(f, "punch big 2 3", NULL);
	assert_non_null(strstr(f->events.data, "deleted /big/a-file-with-a-long-name-"));
}

/* False also when debugfs gave up half way. */
static bool changes_anything(struct follow *f, const char *command)
{
	char script[512];
	snprintf(script, sizeof(script), "cp img try; debugfs -w -R '%s' try >/dev/null 2>&1 || true;"
		"if cmp -s img try || ! e2fsck -fn try >/dev/null 2>&1; then rm try;"
		" else mv try img; touch changed; fi",
		command);
	memcpy(f->was, f->now.bytes, IMAGE_BYTES);
	shell(f->dir, script);
	snprintf(script, sizeof(script), "%s/changed", f->dir);
	return unlink(script) == 0;
}

static void random_commands_are_followed(void **state)
{
	struct follow *f = *state;
	struct dice dice = { 11 };
	for (unsigned i = 0; i < 200 && f->at < 400; i++) {
		char command[160];
		random_command(&dice, command, sizeof(command));
		if (!changes_anything(f, command))
			continue;
		read_image(f);
		follow_image(f, command, NULL);
	}
	assert_true(f->at > 100);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TEST_INLINE(f) { #f " (inline data)", f, setup_inline, teardown, NULL }
#define TEST3(f) { #f " (block maps)", f, setup_ext3, teardown, NULL }
	const struct CMUnitTest tests[] = {
		TEST(what_debugfs_does_is_followed),
		TEST3(what_debugfs_does_is_followed),
		TEST(random_commands_are_followed),
		TEST3(random_commands_are_followed),
		TEST(a_directory_that_loses_a_block_loses_the_names_in_it),
		TEST3(a_directory_that_loses_a_block_loses_the_names_in_it),
		TEST(a_growing_directory_is_followed),
		TEST3(a_growing_directory_is_followed),
		TEST_INLINE(what_debugfs_does_is_followed),
		TEST_INLINE(random_commands_are_followed),
		TEST_INLINE(a_growing_directory_is_followed),
		TEST_INLINE(a_directory_that_becomes_a_file_loses_its_names),
		cmocka_unit_test(attributes_are_the_same_in_inode_and_block),
		TEST(a_resync_names_attributes),
		TEST(a_resync_in_use_tells_of_recent_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
