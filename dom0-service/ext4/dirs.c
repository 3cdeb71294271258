/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include <stdlib.h>
#include <sys/stat.h>

/* The entries of a block, and a hash table over them. Kept by the instance: it is as large as the
 * largest block needs, and only the places are cleared each time. */
struct ext4_newcomers {
	struct ext4_dirent *entries;
	uint16_t *places; /* index + 1; at least twice as many as entries */
	unsigned n, mask;
};

static struct tw_error *newcomers_get(struct ext4 *fs, struct ext4_newcomers **out)
{
	enum { ENTRY_BYTES = 12 };
	struct ext4_newcomers *new = fs->newcomers;
	unsigned most = fs->geo.blocksize / ENTRY_BYTES + 1, places = 2;
	while (places < 2 * most)
		places *= 2;
	if (!new) {
		new = fs->newcomers = calloc(1, sizeof(*new));
		if (!new)
			return tw_error_nomem();
		new->entries = calloc(most, sizeof(*new->entries));
		new->places = calloc(places, sizeof(*new->places));
		new->mask = places - 1;
	}
	if (!new->entries || !new->places)
		return tw_error_nomem();
	memset(new->places, 0, places * sizeof(*new->places));
	new->n = 0;
	*out = new;
	return NULL;
}

void ext4_newcomers_destroy(struct ext4_newcomers *new)
{
	if (!new)
		return;
	free(new->entries);
	free(new->places);
	free(new);
}

static unsigned place_of(
	const struct ext4_newcomers *new, uint32_t ino, const uint8_t *bytes, uint8_t len)
{
	return tw_hash_bytes(bytes, len, ino) & new->mask;
}

static void enter(struct ext4_newcomers *new, const struct ext4_dirent *entry)
{
	unsigned at = place_of(new, entry->ino, entry->bytes, entry->len);
	while (new->places[at])
		at = (at + 1) & new->mask;
	new->entries[new->n++] = *entry;
	new->places[at] = (uint16_t) new->n;
}

/* Takes the entry of this name out, by setting its inode to 0. */
static bool take(struct ext4_newcomers *new, const struct tw_name *name)
{
	unsigned at = place_of(new, name->ino, name->bytes, name->len);
	for (; new->places[at]; at = (at + 1) & new->mask) {
		struct ext4_dirent *entry = &new->entries[new->places[at] - 1];
		if (entry->ino != name->ino || entry->len != name->len ||
			memcmp(entry->bytes, name->bytes, name->len))
			continue;
		entry->ino = 0;
		return true;
	}
	return false;
}

static bool is_inline(const struct ext4 *fs, uint32_t dir)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, dir);
	if (!inode)
		return false;
	struct tw_attr attr = tw_view_attr(fs->view, inode);
	return S_ISDIR(attr.mode) && attr.flags & EXT4_INLINE_DATA_FL;
}

bool ext4_dirs_owns(const struct ext4 *fs, uint32_t dir, uint64_t block)
{
	struct tw_owner owner;
	if (block == EXT4_INLINE_BLOCK)
		return is_inline(fs, dir);
	if (block == EXT4_FAST_BLOCK)
		return true;
	return tw_owners_find(tw_view_owners(fs->view), block, 1, &owner) && owner.ino == dir &&
	       owner.kind == TW_OWNER_DIR;
}

static struct tw_error *lose_names(struct ext4 *fs, const struct tw_dirblock *holder)
{
	struct tw_name *name = tw_view_block_names(fs->view, holder);
	for (; name; name = tw_view_block_next(fs->view, name))
		if (!ext4_block_find(fs->held, name->ino))
			TW_TRY(tw_changeset_remove_name(fs->set, name));
	return NULL;
}

/* Of its names nothing is known but their bytes. */
static bool is_encrypted(const struct ext4 *fs, uint32_t dir)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, dir);
	return inode && tw_view_flags(fs->view, inode) & EXT4_ENCRYPT_FL;
}

struct tw_error *ext4_dirs_compare(struct ext4 *fs, uint32_t dir, uint64_t block,
	const struct tw_span *parts, unsigned nparts, const struct ext4_dirs_visit *visit)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, dir);
	const struct tw_dirblock *holder = inode ? tw_view_dirblock(fs->view, inode, block) : NULL;
	struct tw_name *name = holder ? tw_view_block_names(fs->view, holder) : NULL;
	bool encrypted = is_encrypted(fs, dir);
	struct ext4_newcomers *new;
	struct ext4_dirent entry;
	TW_TRY(newcomers_get(fs, &new));
	for (unsigned i = 0; i < nparts; i++)
		for (size_t off = 0; ext4_dirent_next(&fs->geo, parts[i], encrypted, &off, &entry);)
			enter(new, &entry);
	for (; name; name = tw_view_block_next(fs->view, name))
		if (!take(new, name))
			TW_TRY(visit->went(visit->arg, name));
	for (unsigned i = 0; i < new->n; i++)
		if (new->entries[i].ino)
			TW_TRY(visit->came(visit->arg, dir, block, &new->entries[i]));
	return NULL;
}

static struct tw_error *report_gone(void *arg, struct tw_name *name)
{
	struct ext4 *fs = arg;
	if (ext4_block_find(fs->held, name->ino))
		return NULL;
	return tw_changeset_remove_name(fs->set, name);
}

static struct tw_error *report_new(
	void *arg, uint32_t dir, uint64_t block, const struct ext4_dirent *entry)
{
	struct ext4 *fs = arg;
	if (ext4_block_find(fs->held, entry->ino))
		return NULL;
	return tw_changeset_add_name(fs->set, dir, block, entry->ino, entry->bytes, entry->len);
}

/* The names in block have become those of the parts. */
static struct tw_error *diff(
	struct ext4 *fs, uint32_t dir, uint64_t block, const struct tw_span *parts, unsigned nparts)
{
	const struct ext4_dirs_visit visit = {report_gone, report_new, fs};
	if (ext4_block_find(fs->held, dir))
		return NULL;
	return ext4_dirs_compare(fs, dir, block, parts, nparts, &visit);
}

struct tw_error *ext4_dirs_diff(struct ext4 *fs, uint32_t dir, uint64_t block, const uint8_t *data)
{
	const struct tw_span whole = tw_span(data, fs->geo.blocksize);
	return diff(fs, dir, block, &whole, 1);
}

struct tw_error *ext4_dirs_diff_inline(
	struct ext4 *fs, uint32_t dir, const struct ext4_inode *inode)
{
	struct tw_span parts[EXT4_INLINE_PARTS];
	for (unsigned i = 0; i < EXT4_INLINE_PARTS; i++)
		parts[i] = ext4_inline_part(inode, i);
	return diff(fs, dir, EXT4_INLINE_BLOCK, parts, EXT4_INLINE_PARTS);
}

struct tw_error *ext4_dirs_lost(struct ext4 *fs, uint32_t dir)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, dir);
	for (uint32_t i = 0; inode && i < tw_inode_nblocks(inode); i++) {
		const struct tw_dirblock *holder = tw_view_dirblock_at(fs->view, inode, i);
		if (!ext4_dirs_owns(fs, dir, holder->block))
			TW_TRY(lose_names(fs, holder));
	}
	return NULL;
}

struct tw_error *ext4_dirs_lose(struct ext4 *fs, uint32_t dir, uint64_t block)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, dir);
	const struct tw_dirblock *holder = inode ? tw_view_dirblock(fs->view, inode, block) : NULL;
	return holder ? lose_names(fs, holder) : NULL;
}

struct tw_error *ext4_dirs_load(struct ext4 *fs, struct tw_loader *loader, bool encrypted,
	uint64_t block, const uint8_t *data)
{
	struct tw_span span = tw_span(data, fs->geo.blocksize);
	struct ext4_dirent entry;
	size_t off = 0;
	tw_loader_dirblock(loader, block);
	while (ext4_dirent_next(&fs->geo, span, encrypted, &off, &entry))
		TW_TRY(tw_loader_name(loader, entry.ino, entry.bytes, entry.len));
	return tw_loader_dirblock_end(loader);
}

struct tw_error *ext4_dirs_load_inline(
	struct ext4 *fs, uint32_t dir, const struct ext4_inode *inode)
{
	bool encrypted = is_encrypted(fs, dir);
	for (unsigned i = 0; i < EXT4_INLINE_PARTS; i++) {
		struct tw_span part = ext4_inline_part(inode, i);
		struct ext4_dirent entry;
		size_t off = 0;
		while (ext4_dirent_next(&fs->geo, part, encrypted, &off, &entry))
			TW_TRY(tw_view_name_add(fs->view, dir, EXT4_INLINE_BLOCK, entry.ino,
				entry.bytes, entry.len, NULL));
	}
	return NULL;
}
