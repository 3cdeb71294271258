/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A guest with a disk, and a follower that sees its writes or misses them. What debugfs does to a
 * copy of the disk becomes data, a transaction in a log that goes round, and a checkpoint.
 */
#ifndef EXT4_GUEST_H
#define EXT4_GUEST_H

#include "image.h"
#include "journal.h"
#include "view_dump.h"

#include "ext4/module.h"
#include "record.h"

enum { BLOCK = 1024, BLOCKS = IMAGE_BYTES / BLOCK, LOG_END = 120 };

/* A write that was made and that the follower has not seen yet. */
struct late {
	uint64_t block;
	uint8_t data[BLOCK];
};

struct guest {
	char dir[40];
	struct image disk; /* what is on it */
	uint8_t *next;     /* what debugfs made of it */
	struct ext4 *made; /* an instance of that */
	uint32_t *place;   /* block of each block of the log; NULL: no journal */
	uint32_t at, tail; /* log blocks */
	uint32_t end;      /* behind the last of them */
	uint32_t sequence, tail_sequence;
	uint64_t unsettled[256]; /* blocks that are committed and not checkpointed */
	size_t nunsettled;
	struct ext4 *fs;
	bool careful; /* commands may fail */
	bool missing; /* writes are missed */
	struct tw_missed missed;
	bool ahead; /* writes are on the disk, and will be seen later */
	struct late *late;
	size_t nlate;
	struct tw_buf events;
	unsigned nresync;   /* of the events */
	uint64_t read;      /* blocks, in all */
	void (*meanwhile)(struct guest *g); /* called once when something is read */
	void (*logged)(struct guest *g);    /* called after each block of the log that is written */
};

static inline struct tw_error *guest_read(void *arg, uint64_t offset, void *buf, size_t len)
{
	struct guest *g = arg;
	void (*meanwhile)(struct guest *) = g->meanwhile;
	g->read += len / BLOCK;
	if (meanwhile && g->read > 1) {
		g->meanwhile = NULL;
		meanwhile(g);
	}
	memcpy(buf, g->disk.bytes + offset, len);
	return NULL;
}

static inline struct tw_error *guest_event(struct tw_event *event, void *arg)
{
	struct guest *g = arg;
	g->nresync += event->resync;
	tw_buf_printf(&g->events, "%s %.*s\n", tw_event_type_name(event->type) + 17,
		(int)event->path.len, (const char *)event->path.data);
	return NULL;
}

static inline struct tw_error *no_event(struct tw_event *event, void *arg)
{
	(void)event, (void)arg;
	return NULL;
}

static inline void see(struct guest *g, uint64_t block, const uint8_t *data, bool told)
{
	struct tw_write write = { block * BLOCK, BLOCK, data, TW_RECORD_PAYLOAD, { 7, 0 }, told };
	ok(ext4_write(g->fs, &write));
}

static inline void guest_write(struct guest *g, uint64_t block, const uint8_t *data)
{
	memmove(g->disk.bytes + block * BLOCK, data, BLOCK);
	if (g->ahead) {
		g->late = realloc(g->late, (g->nlate + 1) * sizeof(*g->late));
		g->late[g->nlate].block = block;
		memcpy(g->late[g->nlate++].data, data, BLOCK);
	} else if (g->missing) {
		ok(tw_missed_add_range(&g->missed, block * BLOCK, BLOCK));
	} else {
		see(g, block, data, false);
	}
}

/* An instance of the disk as it is. */
static inline struct ext4 *crawl_of(struct guest *g, tw_emit_fn emit)
{
	struct tw_fs_env env = { g->disk.source, emit, g, "test", NULL };
	struct ext4 *fs;
	ok(tw_fs_ext4.open(&env, (void **)&fs));
	return fs;
}

/* --- the log --- */

static inline void write_superblock(struct guest *g, uint32_t start, uint32_t sequence)
{
	uint8_t sb[BLOCK];
	memcpy(sb, g->disk.bytes + (size_t)g->place[0] * BLOCK, BLOCK);
	be32(sb + 24, sequence);
	be32(sb + 28, start);
	g->tail = start;
	g->tail_sequence = sequence;
	guest_write(g, g->place[0], sb);
}

/* Makes it one of LOG_END blocks, so that it goes round soon. */
static inline void find_log(struct guest *g)
{
	const struct tw_inode *journal = tw_view_inode(g->made->view, EXT4_JOURNAL_INO);
	struct tw_extent one;
	uint32_t n;
	const struct tw_extent *e = tw_inode_extents(journal, &one, &n);
	g->place = calloc(BLOCKS, sizeof(*g->place));
	for (; n--; e++)
		for (uint32_t k = 0; k < e->count; k++)
			g->place[e->lblk + k] = (uint32_t)e->block + k;
	be32(g->disk.bytes + (size_t)g->place[0] * BLOCK + 16, LOG_END);
	g->end = LOG_END;
}

static inline void mount_disk(struct guest *g)
{
	uint8_t sb[BLOCK];
	memcpy(sb, g->disk.bytes + (size_t)g->place[0] * BLOCK, BLOCK);
	g->sequence = tw_be32(tw_span(sb, BLOCK), 24);
	g->at = 1;
	write_superblock(g, 1, g->sequence);
}

static inline void log_put(struct guest *g, const uint8_t *data)
{
	guest_write(g, g->place[g->at], data);
	if (++g->at == g->end)
		g->at = 1;
	if (g->logged)
		g->logged(g);
}

/* Writes to their homes what was committed, and gives its room in the log back. */
static inline void checkpoint(struct guest *g, bool end)
{
	for (size_t i = 0; i < g->nunsettled; i++)
		guest_write(g, g->unsettled[i], g->next + g->unsettled[i] * BLOCK);
	g->nunsettled = 0;
	write_superblock(g, end ? 0 : g->at, g->sequence);
}

static inline uint32_t log_room(const struct guest *g)
{
	uint32_t used = (g->at + (g->end - 1) - g->tail) % (g->end - 1);
	return g->end - 2 - used;
}

static inline void log_commit_block(struct guest *g)
{
	uint8_t block[BLOCK];
	log_header(block, T_COMMIT, g->sequence++);
	log_put(g, block);
}

/* A transaction that revokes a block. */
static inline void log_revocation(struct guest *g, uint64_t revoked)
{
	uint8_t block[BLOCK];
	log_header(block, T_REVOKE, g->sequence);
	be32(block + 12, 20);
	be32(block + 16, (uint32_t)revoked);
	log_put(g, block);
	log_commit_block(g);
}

static inline void log_transaction(struct guest *g, const uint64_t *blocks, size_t n)
{
	uint8_t block[BLOCK];
	size_t off = 12;
	log_header(block, T_DESCRIPTOR, g->sequence);
	for (size_t i = 0; i < n; i++, off += i == 1 ? 24 : 8) {
		be32(block + off, (uint32_t)blocks[i]);
		block[off + 7] = (uint8_t)((i ? 2 : 0) | (i + 1 == n ? 8 : 0));
	}
	log_put(g, block);
	for (size_t i = 0; i < n; i++)
		log_put(g, g->next + blocks[i] * BLOCK);
	log_commit_block(g);
}

/* Other content of a file's block, by the log. */
static inline void log_data(struct guest *g, uint64_t block)
{
	memset(g->next + block * BLOCK, 'n', BLOCK);
	log_transaction(g, &block, 1);
}

/* --- changes --- */

static inline struct tw_owner owner_of(const struct ext4 *fs, uint64_t block)
{
	struct tw_owner o;
	return tw_owners_find(tw_view_owners(fs->view), block, 1, &o) ? o : (struct tw_owner){ 0 };
}

/* A block of this kind that belongs to the inode with this name. */
static inline uint64_t block_of(const struct ext4 *fs, const char *wanted, enum tw_owner_kind kind)
{
	for (uint64_t block = 0; block < BLOCKS; block++) {
		struct tw_owner owner = owner_of(fs, block);
		const struct tw_inode *inode = tw_view_inode(fs->view, owner.ino);
		const struct tw_name *name = inode ? tw_view_link(fs->view, inode, 0) : NULL;
		if (owner.kind == kind && name && name->len == strlen(wanted) &&
			!memcmp(name->bytes, wanted, name->len))
			return block;
	}
	fail_msg("%s has no such block", wanted);
	return 0;
}

static inline bool is_content(const struct ext4 *fs, uint64_t block)
{
	enum tw_owner_kind kind = owner_of(fs, block).kind;
	return kind == TW_OWNER_DATA || kind == TW_OWNER_UNWRITTEN;
}

/* A block that became metadata is written also when it held the same before. */
static inline bool is_written(const struct guest *g, const struct ext4 *newer, uint64_t block,
	const uint8_t *before)
{
	struct tw_owner was = owner_of(g->made, block), is = owner_of(newer, block);
	if (is.kind == TW_OWNER_JOURNAL)
		return false;
	if (memcmp(before + block * BLOCK, g->next + block * BLOCK, BLOCK))
		return true;
	return is.kind && !is_content(newer, block) && (was.kind != is.kind || was.ino != is.ino);
}

/* As debugfs leaves it. Where a command may fail half way, only if that is sound. */
static inline void run_debugfs(struct guest *g, const char *command)
{
	char script[600], path[64];
	snprintf(script, sizeof(script), "cp img try; echo '%s' | tr ';' '\\n' |"
		" debugfs -w -f - try >/dev/null 2>&1 || true;"
		" if %s; then mv try img; fi", command,
		g->careful ? "e2fsck -fn try >/dev/null 2>&1" : "true");
	shell(g->dir, script);
	snprintf(path, sizeof(path), "%s/img", g->dir);
	FILE *file = fopen(path, "rb");
	assert_int_equal(fread(g->next, 1, IMAGE_BYTES, file), IMAGE_BYTES);
	fclose(file);
}

/* What an instance of the copy says of its blocks. */
static inline struct ext4 *crawl_of_next(struct guest *g)
{
	struct image next = { .bytes = g->next };
	next.source = (struct tw_source){ .read = image_read, .arg = &next, .bytes = IMAGE_BYTES };
	struct tw_fs_env env = { next.source, no_event, g, "next", NULL };
	struct ext4 *fs;
	ok(tw_fs_ext4.open(&env, (void **)&fs));
	return fs;
}

static inline bool was_unsettled(const struct guest *g, uint64_t block)
{
	for (size_t i = 0; i < g->nunsettled; i++)
		if (g->unsettled[i] == block)
			return true;
	return false;
}

/* Data to its place; the rest as a transaction, or to its place where there is no log. */
static inline void change(struct guest *g, const char *command)
{
	uint8_t *before = malloc(IMAGE_BYTES);
	uint64_t blocks[100];
	size_t n = 0;
	memcpy(before, g->next, IMAGE_BYTES);
	run_debugfs(g, command);
	struct ext4 *newer = crawl_of_next(g);
	for (uint64_t at = 0; at < BLOCKS; at++) {
		if (!is_written(g, newer, at, before))
			continue;
		if (!g->place || is_content(newer, at))
			guest_write(g, at, g->next + at * BLOCK);
		else
			blocks[n++] = at;
		assert_true(n < 100);
	}
	ext4_destroy(g->made);
	g->made = newer;
	free(before);
	if (!n)
		return;
	if (log_room(g) < n + 2)
		checkpoint(g, false);
	assert_true(log_room(g) >= n + 2);
	log_transaction(g, blocks, n);
	for (size_t i = 0; i < n; i++)
		if (!was_unsettled(g, blocks[i]))
			g->unsettled[g->nunsettled++] = blocks[i];
}

/* The same as a tool does it beside the kernel, or when the volume is not mounted. */
static inline void change_in_place(struct guest *g, const char *command)
{
	uint32_t *place = g->place;
	g->place = NULL;
	change(g, command);
	g->place = place;
}

/* --- its life --- */

static inline void guest_setup(struct guest *g, const char *mkfs)
{
	char script[2048];
	memset(g, 0, sizeof(*g));
	strcpy(g->dir, "/tmp/tapwire-guest-XXXXXX");
	assert_non_null(mkdtemp(g->dir));
	snprintf(script, sizeof(script), "%s mkfs.ext4 -q -F -b 1024 -d t -O ^metadata_csum,^64bit %s"
		" img %u >/dev/null 2>&1", IMAGE_TREE, mkfs, IMAGE_BYTES / BLOCK);
	shell(g->dir, script);
	g->next = malloc(IMAGE_BYTES);
	g->disk.bytes = malloc(IMAGE_BYTES);
	run_debugfs(g, "");
	memcpy(g->disk.bytes, g->next, IMAGE_BYTES);
	g->disk.source = (struct tw_source){ .read = guest_read, .arg = g, .bytes = IMAGE_BYTES };
	g->made = crawl_of_next(g);
	if (g->made->journal)
		find_log(g);
	g->fs = crawl_of(g, guest_event);
	if (g->place)
		mount_disk(g);
}

static inline void guest_teardown(struct guest *g)
{
	char script[64];
	snprintf(script, sizeof(script), "rm -rf %s", g->dir);
	shell("/tmp", script);
	ext4_destroy(g->fs);
	ext4_destroy(g->made);
	tw_missed_clear(&g->missed);
	tw_buf_deinit(&g->events);
	free(g->place);
	free(g->late);
	free(g->next);
	free(g->disk.bytes);
}

/* For cmocka: *state is a guest with such a disk. */
static inline int guest_begin(void **state, const char *mkfs)
{
	struct guest *g = malloc(sizeof(*g));
	guest_setup(g, mkfs);
	*state = g;
	return 0;
}

static inline int guest_begin_unjournaled(void **state)
{
	return guest_begin(state, "-O ^has_journal");
}

static inline int guest_end(void **state)
{
	guest_teardown(*state);
	free(*state);
	return 0;
}

/* These events, since the last time. */
static inline void told(struct guest *g, const char *events)
{
	tw_buf_append(&g->events, "", 1);
	assert_string_equal(g->events.data, events);
	tw_buf_reset(&g->events);
}

/* The view is what a crawl of the disk finds. */
static inline void same_as_disk(struct guest *g, const char *when)
{
	struct tw_buf got = TW_BUF_INIT, expected = TW_BUF_INIT;
	struct ext4 *newer = crawl_of(g, no_event);
	dump_inodes(g->fs, false, &got);
	dump_owners(g->fs, &got);
	dump_inodes(newer, false, &expected);
	dump_owners(newer, &expected);
	for (size_t i = 0, line = 0; i < got.len && i < expected.len; i++) {
		line = got.data[i] == '\n' ? i + 1 : line;
		if (got.data[i] != expected.data[i])
			fail_msg("%s: the view has %.100s; the disk %.100s", when, got.data + line,
				expected.data + line);
	}
	assert_int_equal(got.len, expected.len);
	ext4_destroy(newer);
	tw_buf_deinit(&got);
	tw_buf_deinit(&expected);
}

#endif
