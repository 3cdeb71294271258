/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A volume without a journal: no commit says which writes belong together, and a guest flushes in
 * the middle of them. What is written in place is held back and applied as far as it hangs
 * together: an inode that has not as many links as names waits, with its names, for what is still
 * to come.
 */
#include "ext4/trial.h"

#include <sys/stat.h>

/* An inode that waits so long contradicts itself, and is told as it is. */
#define MAX_WAIT_S 60
/* Rounds until nothing more has to wait; then all waits that could. */
#define MAX_ROUNDS 32

/* --- what was written, and what it says --- */

bool ext4_trial_holds(const struct ext4_trial *t, uint32_t ino)
{
	return ext4_block_find(t->held, ino) != NULL;
}

static struct tw_attr attr_of(const struct ext4 *fs, uint32_t ino)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, ino);
	return inode ? tw_view_attr(fs->view, inode) : (struct tw_attr){0};
}

/* A block that is not there is no error here: it has to be waited for. */
static struct tw_error *or_missing(struct tw_error *err, bool *missing)
{
	if (!err || (tw_error_code(err) != TW_GAP && tw_error_code(err) != TW_BAD_DATA))
		return err;
	tw_error_destroy(err);
	*missing = true;
	return NULL;
}

static struct tw_error *read_node(void *arg, uint64_t block, const uint8_t **out)
{
	return ext4_reader_block(arg, block, out);
}

/* A name of ino came to dir (1), or went (-1). */
static struct tw_error *count_name(struct ext4_trial *t, uint32_t ino, uint32_t dir, int by)
{
	struct ext4_suspect *s, *d;
	TW_TRY(ext4_trial_suspect(t, ino, &s));
	TW_TRY(ext4_trial_suspect(t, dir, &d));
	s->names += by;
	d->entries += ext4_trial_holds(t, ino) ? 0 : by;
	if (t->by)
		s->by = t->by;
	return NULL;
}

static struct tw_error *name_went(void *arg, struct tw_name *name)
{
	struct ext4_trial *t = arg;
	struct ext4_place *p;
	uint32_t dir = tw_view_name_dir(t->fs->view, name);
	TW_TRY(ext4_trial_place(t, dir, name->bytes, name->len, &p));
	p->went = name->ino;
	return count_name(t, name->ino, dir, -1);
}

static struct tw_error *name_came(
	void *arg, uint32_t dir, uint64_t block, const struct ext4_dirent *entry)
{
	struct ext4_trial *t = arg;
	struct ext4_place *p;
	(void)block;
	TW_TRY(ext4_trial_place(t, dir, entry->bytes, entry->len, &p));
	p->came = entry->ino;
	return count_name(t, entry->ino, dir, 1);
}

static struct tw_error *compare(struct ext4_trial *t, uint32_t dir, uint64_t block,
	const struct tw_span *parts, unsigned nparts, uint32_t by)
{
	const struct ext4_dirs_visit visit = {name_went, name_came, t};
	t->by = by;
	return ext4_dirs_compare(t->fs, dir, block, parts, nparts, &visit);
}

static bool maps(const struct ext4_map *map, uint64_t block)
{
	for (uint32_t i = 0; i < map->n; i++)
		if (block >= map->extents[i].block &&
			block - map->extents[i].block < map->extents[i].count)
			return true;
	return false;
}

/* A block that a directory takes: its names come. It is applied again while one of them waits. */
static struct tw_error *take_block(
	struct ext4_trial *t, struct ext4_suspect *dir, uint64_t block, bool first)
{
	struct ext4 *fs = t->fs;
	const uint8_t *data;
	TW_TRY(or_missing(ext4_reader_block(&t->reader, block, &data), &dir->missing));
	if (dir->missing)
		return NULL;
	struct tw_span span = tw_span(data, fs->geo.blocksize);
	/* What the block was for another one, before: the first entry is the directory itself. */
	dir->missing =
		!ext4_entries_hold(&fs->geo, span) || (first && tw_le32(span, 0) != dir->ino);
	if (dir->missing)
		return NULL;
	if (!ext4_blockset_find(t->blocks, block)) {
		TW_TRY(ext4_block_store(&fs->direct, block, 0, data, fs->geo.blocksize));
		span.data = ext4_block_find(fs->direct, block)->data;
		TW_TRY(ext4_blockset_add(t->blocks, block, span.data));
		ext4_block_drop(&fs->early, block);
	}
	return compare(t, dir->ino, block, &span, 1, 0);
}

/* A directory whose mapping, or inline data, may be another one. */
static struct tw_error *move_dir(struct ext4_trial *t, struct ext4_suspect *dir,
	const struct ext4_inode *now, const struct ext4_map *map)
{
	struct ext4 *fs = t->fs;
	const struct tw_inode *inode = tw_view_inode(fs->view, dir->ino);
	bool inlined = dir->tracked && S_ISDIR(now->attr.mode) && now->flags & EXT4_INLINE_DATA_FL;
	struct tw_span parts[EXT4_INLINE_PARTS];
	for (uint32_t i = 0; i < map->n && !dir->missing; i++)
		for (uint32_t k = 0; k < map->extents[i].count && !dir->missing; k++)
			if (!ext4_dirs_owns(fs, dir->ino, map->extents[i].block + k))
				TW_TRY(take_block(t, dir, map->extents[i].block + k,
					map->extents[i].lblk + k == 0));
	for (uint32_t i = 0; inode && !dir->missing && i < tw_inode_nblocks(inode); i++) {
		uint64_t block = tw_view_dirblock_at(fs->view, inode, i)->block;
		if (!maps(map, block) && !(inlined && block == EXT4_INLINE_BLOCK))
			TW_TRY(compare(t, dir->ino, block, NULL, 0, dir->ino));
	}
	for (unsigned i = 0; i < EXT4_INLINE_PARTS; i++)
		parts[i] = ext4_inline_part(now, i);
	if (!inlined)
		return NULL;
	return compare(t, dir->ino, EXT4_INLINE_BLOCK, parts, EXT4_INLINE_PARTS, dir->ino);
}

/* The block of a long symlink holds a text of its length. */
static bool target_holds(const struct ext4 *fs, const struct ext4_inode *now, const uint8_t *data)
{
	uint64_t size = now->attr.size;
	return size < fs->geo.blocksize && !data[size] && !memchr(data, '\0', size);
}

static struct tw_error *walk(
	struct ext4_trial *t, struct ext4_suspect *s, uint32_t flags, const uint8_t *root)
{
	s->walked = true;
	return or_missing(
		ext4_map_walk(&t->fs->geo, s->ino, flags, root, read_node, &t->reader, &s->map),
		&s->missing);
}

static struct tw_error *try_target(
	struct ext4_trial *t, struct ext4_suspect *s, const struct ext4_inode *now)
{
	const uint8_t *data;
	TW_TRY(or_missing(
		ext4_reader_block(&t->reader, s->map.extents[0].block, &data), &s->missing));
	if (!s->missing)
		s->missing = !target_holds(t->fs, now, data);
	return NULL;
}

/* The blocks that an inode's content takes have to be there. */
static struct tw_error *try_content(
	struct ext4_trial *t, struct ext4_suspect *s, const struct ext4_inode *now)
{
	static const struct ext4_map none;
	bool was_dir = S_ISDIR(attr_of(t->fs, s->ino).mode), is_dir = S_ISDIR(now->attr.mode);
	bool link = S_ISLNK(now->attr.mode) && !ext4_inode_fast_symlink(now);
	s->walked = true;
	if (s->tracked && (is_dir || link || S_ISREG(now->attr.mode)) &&
		!(now->flags & EXT4_INLINE_DATA_FL))
		TW_TRY(walk(t, s, now->flags, now->map));
	if (s->missing)
		return NULL;
	s->uneven = ext4_claims_uneven(t->fs, &s->map, now->flags, now->sectors, now->file_acl);
	if (link && s->map.n)
		TW_TRY(try_target(t, s, now));
	if (s->missing || (!is_dir && !was_dir))
		return NULL;
	return move_dir(t, s, now, is_dir ? &s->map : &none);
}

static struct tw_error *try_slot(struct ext4_trial *t, uint32_t ino, struct tw_span raw)
{
	const struct tw_inode *inode = tw_view_inode(t->fs->view, ino);
	struct tw_attr was = attr_of(t->fs, ino);
	struct ext4_inode now;
	struct ext4_suspect *s;
	bool missing = false;
	const uint8_t *data;
	ext4_inode_decode(raw, &now);
	bool tracked = ext4_inode_tracked(&t->fs->geo, &now);
	if (ext4_trial_holds(t, ino) || (!tracked && !was.mode))
		return NULL;
	if (tracked && now.file_acl)
		t->outside = true;
	if (tracked && now.file_acl && now.file_acl < t->fs->geo.nblocks &&
		!ext4_block_find(t->fs->xattrs, now.file_acl))
		TW_TRY(or_missing(ext4_reader_block(&t->reader, now.file_acl, &data), &missing));
	/* Whoever changes extended attributes changes the time, too. */
	now.attr.xattrs = was.xattrs;
	bool same = tracked && was.mode && was.generation == now.attr.generation &&
		    (was.mode & S_IFMT) == (now.attr.mode & S_IFMT) &&
		    ext4_same_mapping(t->fs, inode, &now);
	if (!missing && same && ext4_same_attr(&was, &now.attr))
		return NULL;
	TW_TRY(ext4_trial_suspect(t, ino, &s));
	s->slot = true;
	s->tracked = tracked;
	s->now = now.attr;
	s->attributes = now.file_acl;
	s->missing = s->missing || missing;
	return s->missing || same ? NULL : try_content(t, s, &now);
}

static struct tw_error *try_table(struct ext4_trial *t, uint64_t block, const uint8_t *data)
{
	const struct ext4_geometry *geo = &t->fs->geo;
	uint32_t ino, n = ext4_geometry_itable(geo, block, &ino);
	struct ext4_block *table = ext4_block_find(t->fs->direct, block);
	t->outside = false;
	for (uint32_t i = 0; i < n; i++, ino++)
		if ((ino >= geo->first_ino || ino == EXT4_ROOT_INO) && ino <= geo->ninodes)
			TW_TRY(try_slot(t, ino,
				tw_span(data + (size_t)i * geo->inode_size, geo->inode_size)));
	if (table && !table->digest && t->outside)
		table->digest = (uint64_t)t->now.sec;
	return NULL;
}

/* A node that changed while its inode's slot did not. */
static struct tw_error *try_node(struct ext4_trial *t, uint32_t ino)
{
	const struct ext4_root *root = ext4_root_find(t->fs, ino);
	struct ext4_suspect *s;
	uint64_t block;
	if (!root || ext4_trial_holds(t, ino))
		return NULL;
	TW_TRY(ext4_trial_suspect(t, ino, &s));
	if (s->walked)
		return NULL;
	TW_TRY(walk(t, s, root->flags, root->map));
	if (s->missing)
		return NULL;
	bool attributes = s->slot ? s->attributes : tw_numtab_get(&t->fs->xattr_block, ino, &block);
	s->uneven = ext4_claims_uneven(t->fs, &s->map, root->flags, root->sectors, attributes);
	struct ext4_inode now = {.attr = attr_of(t->fs, ino), .flags = root->flags};
	return S_ISDIR(now.attr.mode) ? move_dir(t, s, &now, &s->map) : NULL;
}

/* A block of a directory that is to stay one. What is no directory's content is the next owner's.
 */
static struct tw_error *try_dir_block(
	struct ext4_trial *t, uint32_t dir, uint64_t block, const uint8_t *data)
{
	const struct tw_inode *inode = tw_view_inode(t->fs->view, dir);
	struct tw_span span = tw_span(data, t->fs->geo.blocksize);
	struct ext4_suspect *s;
	if (ext4_trial_holds(t, dir))
		return NULL;
	TW_TRY(ext4_trial_suspect(t, dir, &s));
	if (s->slot && (!s->tracked || !S_ISDIR(s->now.mode)))
		return NULL;
	if (s->walked && !maps(&s->map, block))
		return NULL;
	if (!inode || !ext4_is_block_of(&t->fs->geo, span, dir)) {
		/* It has let go of the block, or will, when its slot comes. */
		s->missing = s->missing || !s->walked;
		return NULL;
	}
	return compare(t, dir, block, &span, 1, 0);
}

static struct tw_error *collect(struct ext4_trial *t)
{
	struct tw_owners *owners = tw_view_owners(t->fs->view);
	const struct ext4_blockset_entry *b = NULL;
	struct tw_owner owner;
	while ((b = ext4_blockset_next(t->blocks, b)))
		if (tw_owners_find(owners, b->block, 1, &owner) && owner.kind == TW_OWNER_TABLE)
			TW_TRY(try_table(t, b->block, b->data));
	while ((b = ext4_blockset_next(t->blocks, b))) {
		if (!tw_owners_find(owners, b->block, 1, &owner))
			continue;
		if (owner.kind == TW_OWNER_NODE)
			TW_TRY(try_node(t, owner.ino));
		else if (owner.kind == TW_OWNER_DIR)
			TW_TRY(try_dir_block(t, owner.ino, b->block, b->data));
	}
	return NULL;
}

/* --- who waits --- */

static uint32_t count_names(const struct ext4 *fs, uint32_t ino)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, ino);
	uint32_t n = 0;
	while (inode && tw_view_link(fs->view, inode, n))
		n++;
	return n;
}

bool ext4_trial_waited(const struct ext4_trial *t, uint32_t ino)
{
	const struct ext4_block *before = ext4_block_find(t->fs->held, ino);
	return t->last || (before && t->now.sec - (int64_t)before->digest > MAX_WAIT_S);
}

/* A directory cannot go before the names in it. */
static bool is_empty(const struct ext4_trial *t, const struct ext4_suspect *dir)
{
	const struct tw_view *view = t->fs->view;
	const struct tw_inode *inode = tw_view_inode(view, dir->ino);
	int64_t left = dir->entries;
	for (uint32_t i = 0; inode && i < tw_inode_nblocks(inode); i++) {
		const struct tw_name *name =
			tw_view_block_names(view, tw_view_dirblock_at(view, inode, i));
		for (; name; name = tw_view_block_next(view, name))
			left++;
	}
	return left <= 0;
}

static bool hangs_together(const struct ext4_trial *t, const struct ext4_suspect *s)
{
	struct tw_attr now = s->slot ? s->now : attr_of(t->fs, s->ino);
	bool used = s->slot ? s->tracked : now.mode != 0;
	int64_t names = count_names(t->fs, s->ino) + s->names;
	if (s->missing || (names > 0 && !used))
		return false;
	if (ext4_trial_waited(t, s->ino))
		return true;
	if (s->uneven)
		return false;
	if (s->ino == EXT4_ROOT_INO)
		return true;
	if (!names && !is_empty(t, s))
		return false;
	if (!used)
		return !names;
	return names == (S_ISDIR(now.mode) && now.nlink ? 1 : (int64_t)now.nlink);
}

struct tw_error *ext4_trial_hold(struct ext4_trial *t, uint32_t ino)
{
	const struct ext4_block *before = ext4_block_find(t->fs->held, ino);
	if (before && t->now.sec - (int64_t)before->digest > 2 * MAX_WAIT_S)
		return tw_error_create(TW_GAP, "what inode %u needs has not been written", ino);
	struct ext4_block *entry;
	TW_TRY(ext4_block_get(&t->held, ino, &entry));
	entry->digest = before ? before->digest : (uint64_t)t->now.sec;
	return NULL;
}

/* Adds those that have to wait; *more: there were some. */
static struct tw_error *hold_back(struct ext4_trial *t, bool all, bool *more)
{
	*more = false;
	for (const struct ext4_suspect *s = t->suspects; s; s = s->hh.next) {
		bool held = ext4_trial_holds(t, s->ino);
		if (!held && ((!s->slot && !s->names && !s->missing && !s->uneven) ||
				     (!all && hangs_together(t, s))))
			continue;
		if (!held || (s->by && !ext4_trial_holds(t, s->by)))
			*more = true;
		TW_TRY(ext4_trial_hold(t, s->ino));
		if (s->by)
			TW_TRY(ext4_trial_hold(t, s->by));
	}
	return NULL;
}

/* Names that are in the way of one that came, in blocks that nobody wrote. */
static void find_standing(struct ext4_trial *t, uint32_t dir)
{
	struct tw_view *view = t->fs->view;
	const struct tw_inode *inode = tw_view_inode(view, dir);
	for (uint32_t i = 0; inode && i < tw_inode_nblocks(inode); i++) {
		const struct tw_name *name =
			tw_view_block_names(view, tw_view_dirblock_at(view, inode, i));
		for (; name; name = tw_view_block_next(view, name)) {
			struct ext4_place *p =
				ext4_trial_place_find(t, dir, name->bytes, name->len);
			if (p && p->came && !p->went) {
				p->went = name->ino;
				p->stays = true;
			}
		}
	}
}

static struct tw_error *find_all_standing(struct ext4_trial *t)
{
	struct ext4_block *seen = NULL, *mark;
	struct tw_error *err = NULL;
	for (const struct ext4_place *p = t->places; p && !err; p = p->hh.next) {
		uint32_t dir;
		memcpy(&dir, p->key, 4);
		if (!p->came || p->went || ext4_block_find(seen, dir))
			continue;
		err = ext4_block_get(&seen, dir, &mark);
		find_standing(t, dir);
	}
	ext4_block_clear(&seen);
	return err;
}

/* A name cannot come while another one has its place. */
static struct tw_error *hold_crowded(struct ext4_trial *t, bool *more)
{
	for (const struct ext4_place *p = t->places; p; p = p->hh.next) {
		if (!p->came || !p->went || p->came == p->went || ext4_trial_holds(t, p->came) ||
			!(p->stays || ext4_trial_holds(t, p->went)))
			continue;
		*more = true;
		TW_TRY(ext4_trial_hold(t, p->came));
	}
	return NULL;
}

static struct tw_error *decide(struct ext4_trial *t)
{
	bool more = true;
	for (unsigned round = 0; more; round++) {
		ext4_trial_forget(t);
		TW_TRY(collect(t));
		more = false;
		TW_TRY(ext4_claims_hold(t, &more));
		/* What two directories have in one block came to one of them only. */
		if (more)
			continue;
		TW_TRY(find_all_standing(t));
		TW_TRY(hold_back(t, round >= MAX_ROUNDS, &more));
		TW_TRY(hold_crowded(t, &more));
	}
	return NULL;
}

/* --- afterwards --- */

static bool names_wait(const struct ext4 *fs, uint32_t dir, uint64_t block, const uint8_t *data)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, dir);
	const struct tw_dirblock *holder = inode ? tw_view_dirblock(fs->view, inode, block) : NULL;
	const struct tw_name *name = holder ? tw_view_block_names(fs->view, holder) : NULL;
	for (; name; name = tw_view_block_next(fs->view, name))
		if (ext4_block_find(fs->held, name->ino))
			return true;
	struct ext4_dirent entry;
	size_t off = 0;
	while (ext4_dirent_next(&fs->geo, tw_span(data, fs->geo.blocksize), true, &off, &entry))
		if (ext4_block_find(fs->held, entry.ino))
			return true;
	return ext4_block_find(fs->held, dir) != NULL;
}

static bool slots_wait(const struct ext4 *fs, uint64_t block)
{
	uint32_t ino, n = ext4_geometry_itable(&fs->geo, block, &ino);
	for (; n--; ino++)
		if (ext4_block_find(fs->held, ino))
			return true;
	return false;
}

/* A symlink never changes its target: anything else is for the one that takes the block. */
static bool is_target(const struct ext4 *fs, uint32_t ino, const uint8_t *data)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, ino);
	uint32_t len;
	const char *target = inode ? tw_inode_target(inode, &len) : NULL;
	return target && len < fs->geo.blocksize && !memcmp(target, data, len);
}

/* A block of extended attributes may be written after the inode that has it: the table is looked at
 * again for a while. Its digest says since when. */
static bool still_waits(const struct ext4 *fs, const struct ext4_block *b, struct tw_time now)
{
	struct tw_owner owner;
	if (!tw_owners_find(tw_view_owners(fs->view), b->block, 1, &owner))
		return false;
	if (owner.kind == TW_OWNER_TABLE)
		return slots_wait(fs, b->block) ||
		       (b->digest && now.sec - (int64_t)b->digest <= MAX_WAIT_S);
	if (owner.kind == TW_OWNER_DIR)
		return names_wait(fs, owner.ino, b->block, b->data);
	if (owner.kind == TW_OWNER_SYMLINK)
		return ext4_block_find(fs->held, owner.ino) || !is_target(fs, owner.ino, b->data);
	return owner.kind == TW_OWNER_NODE && ext4_block_find(fs->held, owner.ino);
}

static bool is_owned(const struct ext4 *fs, uint64_t block)
{
	struct tw_owner owner;
	return tw_owners_find(tw_view_owners(fs->view), block, 1, &owner) &&
	       owner.kind != TW_OWNER_DATA && owner.kind != TW_OWNER_UNWRITTEN;
}

/* Lets go of what has been applied. What is nobody's may be somebody's next, as it is on the disk;
 * what was taken will not be the next one's. */
static struct tw_error *let_go(struct ext4 *fs, struct tw_time now)
{
	struct ext4_block *b, *next;
	HASH_ITER (hh, fs->direct, b, next) {
		if (!is_owned(fs, b->block))
			TW_TRY(ext4_unjournaled_keep(fs, b->block, b->data));
		if (!still_waits(fs, b, now))
			ext4_block_drop(&fs->direct, b->block);
	}
	HASH_ITER (hh, fs->early, b, next)
		if (is_owned(fs, b->block))
			ext4_block_drop(&fs->early, b->block);
	return NULL;
}

static struct tw_error *run(struct ext4_trial *t)
{
	struct ext4 *fs = t->fs;
	struct tw_commit commit = {t->now, t->now, 0, fs->mending};
	for (const struct ext4_block *b = fs->direct; b; b = b->hh.next)
		TW_TRY(ext4_blockset_add(t->blocks, b->block, b->data));
	TW_TRY(decide(t));
	ext4_block_clear(&fs->held);
	fs->held = t->held;
	t->held = NULL;
	TW_TRY(ext4_apply(fs, t->blocks, &commit));
	return let_go(fs, t->now);
}

struct tw_error *ext4_unjournaled_settle(struct ext4 *fs, struct tw_time now, bool last)
{
	struct ext4_trial t = {
		.fs = fs, .now = now, .last = last, .blocks = ext4_blockset_create()};
	t.reader = (struct ext4_reader){
		.geo = &fs->geo, .txn = t.blocks, .early = &fs->early, .nodes = &fs->nodes};
	struct tw_error *err = t.blocks ? run(&t) : tw_error_nomem();
	ext4_trial_forget(&t);
	ext4_block_clear(&t.held);
	ext4_reader_deinit(&t.reader);
	ext4_blockset_destroy(t.blocks);
	return err;
}
