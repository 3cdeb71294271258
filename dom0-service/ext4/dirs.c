/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include <stdlib.h>
#include <xxhash.h>

/* The entries of the largest block, and a hash table of twice as many places. */
#define MAX_ENTRIES (65536 / 12)
#define PLACES 16384u

struct newcomers {
	struct ext4_dirent entries[MAX_ENTRIES];
	unsigned n;
	uint16_t places[PLACES]; /* index + 1 */
};

static unsigned place_of(uint32_t ino, const uint8_t *bytes, uint8_t len)
{
	return XXH32(bytes, len, ino) & (PLACES - 1);
}

static void enter(struct newcomers *new, const struct ext4_dirent *entry)
{
	unsigned at = place_of(entry->ino, entry->bytes, entry->len);
	while (new->places[at])
		at = (at + 1) & (PLACES - 1);
	new->entries[new->n++] = *entry;
	new->places[at] = (uint16_t)new->n;
}

/* Takes the entry of this name out, by setting its inode to 0. */
static bool take(struct newcomers *new, const struct tw_name *name)
{
	unsigned at = place_of(name->ino, name->bytes, name->len);
	for (; new->places[at]; at = (at + 1) & (PLACES - 1)) {
		struct ext4_dirent *entry = &new->entries[new->places[at] - 1];
		if (entry->ino != name->ino || entry->len != name->len ||
			memcmp(entry->bytes, name->bytes, name->len))
			continue;
		entry->ino = 0;
		return true;
	}
	return false;
}

static struct tw_error *lose_names(struct ext4 *fs, const struct tw_dirblock *holder)
{
	for (struct tw_name *name = holder->names; name; name = name->next_in_block)
		TW_TRY(tw_changeset_remove_name(fs->set, name));
	return NULL;
}

struct tw_error *ext4_dirs_diff(struct ext4 *fs, uint32_t dir, uint64_t block, const uint8_t *data)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, dir);
	struct newcomers *new = calloc(1, sizeof(*new));
	if (!new)
		return tw_error_nomem();
	struct tw_span span = tw_span(data, fs->geo.blocksize);
	struct ext4_dirent entry;
	size_t off = 0;
	while (ext4_dirent_next(&fs->geo, span, &off, &entry))
		enter(new, &entry);
	const struct tw_dirblock *holder = inode ? tw_view_dirblock(inode, block) : NULL;
	struct tw_error *err = NULL;
	for (struct tw_name *name = holder ? holder->names : NULL; name && !err;
		name = name->next_in_block)
		if (!take(new, name))
			err = tw_changeset_remove_name(fs->set, name);
	for (unsigned i = 0; i < new->n && !err; i++)
		if (new->entries[i].ino)
			err = tw_changeset_add_name(fs->set, dir, block, new->entries[i].ino,
				new->entries[i].bytes, new->entries[i].len);
	free(new);
	return err;
}

struct tw_error *ext4_dirs_lost(struct ext4 *fs, uint32_t dir)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, dir);
	for (uint32_t i = 0; inode && i < inode->nblocks; i++) {
		struct tw_owner owner;
		const struct tw_dirblock *holder = &inode->blocks[i];
		bool owned = tw_owners_find(tw_view_owners(fs->view), holder->block, 1, &owner) &&
			owner.ino == dir && owner.kind == TW_OWNER_DIR;
		if (!owned)
			TW_TRY(lose_names(fs, holder));
	}
	return NULL;
}

struct tw_error *ext4_dirs_load(struct ext4 *fs, uint32_t dir, uint64_t block, const uint8_t *data)
{
	struct tw_span span = tw_span(data, fs->geo.blocksize);
	struct ext4_dirent entry;
	size_t off = 0;
	while (ext4_dirent_next(&fs->geo, span, &off, &entry))
		TW_TRY(tw_view_name_add(fs->view, dir, block, entry.ino, entry.bytes, entry.len,
			NULL));
	return NULL;
}
