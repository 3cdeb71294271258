/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of the ext4 module. On-disk format: Linux Documentation/filesystems/ext4 (super.rst,
 * inodes.rst, ifork.rst, directory.rst, attributes.rst); offsets are named where they are read.
 */
#ifndef TW_EXT4_EXT4_H
#define TW_EXT4_EXT4_H

#include "base/numtab.h"
#include "base/span.h"
#include "ext4/fastcommit.h"
#include "ext4/jbd2.h"
#include "ext4/xattr.h"
#include "view/change.h"
#include "view/load.h"
#include "volume/fs.h"
#include "volume/missed.h"
#include "base/hash.h"

/* super.rst: whatever the block size. */
#define EXT4_SUPERBLOCK_AT 1024
#define EXT4_SUPERBLOCK_BYTES 1024
#define EXT4_ROOT_INO 2
#define EXT4_JOURNAL_INO 8
#define EXT4_MAP_BYTES 60 /* i_block */
#define EXT4_EXTENTS_FL 0x80000u
#define EXT4_INLINE_DATA_FL TW_FLAG_INLINE
#define EXT4_ENCRYPT_FL 0x800u

/* A block kept by number. */
struct ext4_block {
	uint64_t block;
	uint32_t ino;    /* nodes: whose mapping it is */
	uint64_t digest; /* xattr blocks, recently committed blocks */
	uint8_t *data;   /* owned; NULL where only the digest counts */
	UT_hash_handle hh;
};

/* The mapping root of an inode whose tree has nodes outside of it. */
struct ext4_root {
	uint32_t ino;
	uint32_t flags;
	uint64_t sectors; /* i_blocks */
	uint8_t map[EXT4_MAP_BYTES];
	uint32_t nnodes;
	uint64_t *nodes;
	UT_hash_handle hh;
};

/* What does not change while the file system is mounted and not resized. */
struct ext4_geometry {
	uint32_t blocksize, blockbits;
	uint64_t nblocks;
	uint32_t inode_size, ninodes, inodes_per_group, itable_blocks, first_ino, ngroups;
	uint32_t journal_ino; /* 0: none */
	uint64_t *itable;     /* first inode table block of each group */
	uint32_t *used;       /* inodes of each group that its table may hold, at open */
	uint32_t *by_block;   /* groups in the order of their inode tables */
	uint64_t first_data_block;
	char uuid[37];
	uint8_t uuid_raw[16];
	uint32_t layout_features; /* incompatible ones that say where things are */
};

struct ext4 {
	struct tw_fs_env env;
	struct ext4_geometry geo;
	struct tw_view *view;
	struct tw_changeset
		*set; /* always open: file data that was written waits in it for its transaction */
	struct tw_jbd2 *journal;      /* NULL: the file system has none */
	struct ext4_fc *fast;         /* fast commits; NULL before the first one */
	struct ext4_block *fast_dirs; /* directories in which they changed names */
	struct ext4_block *fast_blocks; /* blocks that a recovery of them writes in place; of directories,
					   where names went */
	struct ext4_block *fast_mapped; /* inodes whose mapping they moved and not its nodes */
	bool fast_applied;            /* some were applied since the last commit */
	struct tw_missed fast_missed; /* what was written unseen while they count: a recovery may have */
	bool fast_ends;               /* what is applied now follows on them */
	bool flushed;                 /* since the data was written that waits */
	struct ext4_block *nodes;     /* extent and indirect blocks of the view's mappings */
	struct ext4_root *roots;
	struct ext4_block
		*xattrs; /* extended attribute blocks: digest; ino: how many inodes have it */
	struct tw_numtab xattr_block; /* by inode; none has number 0 */
	uint32_t stale_xattrs;        /* blocks that nobody has any more */
	struct ext4_xattr_sets *sets; /* what the digests of attributes stand for */
	const struct ext4_xattr_sets
		*newer_sets; /* while the changes to a newer instance are told */
	struct ext4_xattr_diff diff;
	struct tw_numtab inlines;  /* digests of inline data, by inode */
	struct ext4_block *inline_now; /* inline data of the inodes that are applied; digest: its length */
	struct ext4_block *recent; /* digests of committed blocks that are not checkpointed yet */
	struct ext4_block *direct; /* metadata written in place that is no checkpoint */
	struct ext4_block
		*early; /* nobody's blocks, written in place while the journal is empty: the
			 * metadata of tools that work offline may come before what owns it */
	struct ext4_block *held; /* without a journal: inodes that wait, by number */
	uint64_t direct_most; /* bytes of direct that are looked at without a flush; 0: the usual */
	uint8_t superblock[EXT4_SUPERBLOCK_BYTES];
	struct ext4_newcomers *newcomers; /* dirs.c's */
	bool data_waits;                  /* the changeset holds data writes */
	uint32_t log_behind; /* the stream brings the log from this block to the next transaction's
				once more; 0: it does not */
	bool mending;     /* what is applied now is part of a resync */
	bool data_logged; /* file data went through the log: it will be checkpointed, too */
};

/* Frees all that the instance holds, and the instance. */
void ext4_destroy(void *fs);

/* --- blocks.c: tables of blocks --- */

struct ext4_block *ext4_block_find(struct ext4_block *table, uint64_t block);
/* The entry for block, made when missing. */
struct tw_error *ext4_block_get(
	struct ext4_block **table, uint64_t block, struct ext4_block **out) TW_MUST_CHECK;
/* Stores a copy of the data under its number. */
struct tw_error *ext4_block_store(struct ext4_block **table, uint64_t block, uint32_t ino,
	const uint8_t *data, uint32_t blocksize) TW_MUST_CHECK;
void ext4_block_drop(struct ext4_block **table, uint64_t block);
void ext4_block_clear(struct ext4_block **table);
uint64_t ext4_digest(const void *data, size_t len);

/* --- geometry.c --- */

/* Opens the file system with libext2fs for its geometry; names features that cannot be followed. */
struct tw_error *ext4_geometry_read(
	const struct tw_source *source, struct ext4_geometry *out) TW_MUST_CHECK;
/* As bytes, and back: a restart must not look at an image that has gone on. */
void ext4_geometry_save(const struct ext4_geometry *geo, struct tw_buf *out);
struct tw_error *ext4_geometry_load(struct tw_unpack *in, struct ext4_geometry *out) TW_MUST_CHECK;
void ext4_geometry_deinit(struct ext4_geometry *geo);
/* NULL when the superblock (1,024 bytes) is still that of this geometry, with features that are
 * followed; else what has happened. */
const char *ext4_geometry_changed(const struct ext4_geometry *geo, struct tw_span superblock);
/* If block is in an inode table: how many inodes it holds, and the number of the first one; else 0.
 */
uint32_t ext4_geometry_itable(const struct ext4_geometry *geo, uint64_t block, uint32_t *first_ino);

/* The block of the inode table that holds an inode, which has to exist. */
uint64_t ext4_geometry_slot(const struct ext4_geometry *geo, uint32_t ino);

/* --- inode.c --- */

/* An inode as it is on disk. */
struct ext4_inode {
	struct tw_attr attr; /* xattrs: of those in the inode only */
	uint32_t flags;
	uint64_t file_acl; /* block of extended attributes, or 0 */
	uint64_t sectors;  /* i_blocks */
	uint32_t dtime; /* deletion time; of an open inode without links: the next orphan's number,
			   or 0 */
	uint8_t map[EXT4_MAP_BYTES];
	struct tw_span rest; /* behind the fields: where extended attributes stand */
};

/* The rest is borrowed from raw. */
void ext4_inode_decode(struct tw_span raw, struct ext4_inode *out);
/* The short way for what most inodes are: a file or directory with links and extents, and with no
 * extended attributes but in the inode. False: it is something else. */
bool ext4_inode_plain(struct tw_span raw, struct tw_attr *attr, const uint8_t **map);
bool ext4_same_attr(const struct tw_attr *a, const struct tw_attr *b);
/* True when a raw inode surely has these attributes, is mapped by extents and has nothing outside
 * of its slot but what they map; *map is then the root of its mapping. Decodes nothing: this is
 * what most inodes of a table are, when the table is written for one of them. */
bool ext4_inode_is(struct tw_span raw, const struct tw_attr *attr, struct tw_span *map);
/* True when the view should know the inode: it has links, or is open without any and holds blocks.
 * One that was deleted may have kept its mapping (debugfs does that), but the blocks are not its
 * own any more. */
bool ext4_inode_tracked(const struct ext4_geometry *geo, const struct ext4_inode *inode);
bool ext4_inode_fast_symlink(const struct ext4_inode *inode);
/* The parts of what an inode holds in place of a mapping: in i_block, then in the value of a hidden
 * attribute. A directory's begin with entries; its parent's number, before them, is left out. */
enum { EXT4_INLINE_PARTS = 2 };
struct tw_span ext4_inline_part(const struct ext4_inode *inode, unsigned part);
/* Of the content up to the file's end. */
/* Keeps what an inode holds inline until its events are out; then it is forgotten. */
struct tw_error *ext4_inline_keep(
	struct ext4 *fs, uint32_t ino, const struct ext4_inode *inode) TW_MUST_CHECK;
bool ext4_inline_data(void *fs, uint32_t ino, struct tw_buf *out);
uint64_t ext4_inline_digest(const struct ext4_inode *inode);
/* What the blocks of an inode are. */
enum tw_owner_kind ext4_data_kind(const struct ext4_geometry *geo, uint32_t ino, uint16_t mode);

/* --- map.c: from i_block to extents --- */

/* Reads a node of a mapping. The data lives until the walk ends. */
typedef struct tw_error *(*ext4_node_fn)(void *arg, uint64_t block, const uint8_t **out);

struct ext4_map {
	struct tw_extent *extents;
	uint32_t n, cap;
	uint64_t *nodes;
	uint32_t nnodes, capnodes;
};

/* TW_BAD_DATA for a tree that breaks its format; the map is then to be thrown away. */
struct tw_error *ext4_map_walk(const struct ext4_geometry *geo, uint32_t ino, uint32_t flags,
	const uint8_t root[EXT4_MAP_BYTES], ext4_node_fn read, void *arg,
	struct ext4_map *out) TW_MUST_CHECK;
void ext4_map_deinit(struct ext4_map *map);
/* True when the root of a mapping holds just these extents itself. */
bool ext4_root_is(struct tw_span root, const struct tw_extent *extents, uint32_t n);

/* --- dirent.c --- */

struct ext4_dirent {
	uint32_t ino;
	uint8_t len;
	const uint8_t *bytes;
};

/* Iterates over the names of a directory block, without . and .. and with nothing that Linux could
 * not have made; encrypted names may hold any byte. *off starts at 0. False at the end. */
bool ext4_dirent_next(const struct ext4_geometry *geo, struct tw_span block, bool encrypted,
	size_t *off, struct ext4_dirent *out);

/* --- blockset.c: the blocks of a transaction, each once --- */

struct ext4_blockset;
struct ext4_blockset *ext4_blockset_create(void);
/* Enters a block; a later one of the same number replaces it. The data is borrowed. */
struct tw_error *ext4_blockset_add(
	struct ext4_blockset *set, uint64_t block, const uint8_t *data) TW_MUST_CHECK;
const uint8_t *ext4_blockset_find(const struct ext4_blockset *set, uint64_t block);
/* Iterates in the order of entry: pass NULL first; NULL at the end. */
struct ext4_blockset_entry {
	uint64_t block;
	const uint8_t *data;
	UT_hash_handle hh;
};
const struct ext4_blockset_entry *ext4_blockset_next(
	const struct ext4_blockset *set, const struct ext4_blockset_entry *entry);
void ext4_blockset_destroy(struct ext4_blockset *set);

/* --- reader.c: where a metadata block is read from --- */

/* The blocks of the transaction first, then the nodes that the view holds, then the volume: but a
 * crawl only may look there. Following would see an image that is ahead, and a replay another one.
 */
struct ext4_reader {
	const struct ext4_geometry *geo;
	const struct ext4_blockset *txn; /* may be NULL */
	struct ext4_block *const *early; /* may be NULL */
	struct ext4_block *const *nodes; /* may be NULL */
	const struct tw_source *source;  /* NULL: a block that is nowhere else is a TW_GAP */
	struct ext4_block *loaded;       /* read from the source, kept while the reader lives */
};

/* The content of a block; it lives as long as the reader. */
struct tw_error *ext4_reader_block(
	struct ext4_reader *reader, uint64_t block, const uint8_t **out) TW_MUST_CHECK;
void ext4_reader_deinit(struct ext4_reader *reader);

/* --- mapping.c: moving an inode of the view to another mapping --- */

struct ext4_remap {
	uint32_t ino;
	uint32_t flags;      /* i_flags */
	uint64_t sectors;    /* i_blocks */
	uint16_t old_mode;   /* what the blocks held so far were */
	uint16_t mode;       /* 0: the inode has gone, and its mapping with it */
	bool fast_symlink;   /* the root holds the target, not a mapping */
	bool bad;            /* nonsense: nothing of it is followed */
	bool released;       /* blocks were let go of */
	bool extents_only;   /* the root and its nodes stay as they are known */
	uint64_t inlined;    /* digest of inline data */
	struct tw_span rest; /* of the inode, borrowed; counts with inline data only */
	uint8_t root[EXT4_MAP_BYTES];
	struct ext4_map map;
};

/* Reads the new mapping. Nonsense in it is logged and gives an empty one. */
struct tw_error *ext4_remap_walk(
	struct ext4 *fs, struct ext4_remap *remap, struct ext4_reader *reader) TW_MUST_CHECK;
/* Lets go of what the inode does not own any more, and takes what is new. Of a block that goes from
 * one inode to another, either may be moved first: only who has it lets go of it. */
struct tw_error *ext4_remap_move(
	struct ext4 *fs, struct ext4_remap *remap, struct ext4_reader *reader) TW_MUST_CHECK;
/* Takes a mapping over without the owner map: for a crawl, which fills that at the end. */
struct tw_error *ext4_remap_keep(
	struct ext4 *fs, struct ext4_remap *remap, struct ext4_reader *reader) TW_MUST_CHECK;
/* Enters the nodes of all mappings into the owner map. */
struct tw_error *ext4_claim_nodes(struct ext4 *fs) TW_MUST_CHECK;
/* Reports the bytes of a file that change when its mapping becomes these extents. */
struct tw_error *ext4_extents_ranges(const struct ext4 *fs, uint32_t ino,
	const struct tw_extent *extents, uint32_t n, struct tw_change *change) TW_MUST_CHECK;
/* True when an inode on disk has the mapping that the view knows; a root with nodes below it is
 * compared as it is, the nodes are another matter. */
bool ext4_same_mapping(
	const struct ext4 *fs, const struct tw_inode *inode, const struct ext4_inode *now);
bool ext4_same_extents(
	const struct tw_extent *a, uint32_t n, const struct tw_extent *b, uint32_t m);
/* Reports the bytes of a file that change when its content becomes, or was, inline data. */
struct tw_error *ext4_inline_ranges(const struct ext4 *fs, const struct ext4_remap *remap,
	uint64_t size, struct tw_change *change) TW_MUST_CHECK;
/* The mapping as it is kept between transactions, for inodes with nodes; else NULL. */
struct ext4_root *ext4_root_find(const struct ext4 *fs, uint32_t ino);
void ext4_roots_clear(struct ext4 *fs);

/* --- attrs.c: what of an inode lies outside its slot --- */

/* Completes attr.xattrs by the attribute block that the inode names, and keeps what it stands for.
 */
struct tw_error *ext4_attrs_xattrs(struct ext4 *fs, uint32_t ino, struct ext4_inode *inode,
	struct ext4_reader *reader) TW_MUST_CHECK;
/* The inode has this attribute block now; 0: none. */
struct tw_error *ext4_attrs_has_block(struct ext4 *fs, uint32_t ino, uint64_t block) TW_MUST_CHECK;
/* Forgets attributes that nobody has any more, when there may be many. Between transactions. */
void ext4_attrs_sweep(struct ext4 *fs);
/* The module's xattrs(). */
struct tw_error *ext4_attrs_names(
	void *fs, uint64_t old, uint64_t now, struct tw_event *event) TW_MUST_CHECK;
/* A changeset for the view, which emits as the module was told to. */
struct tw_error *ext4_changeset(struct ext4 *fs) TW_MUST_CHECK;
/* Sets the target of a symlink of the view; slow ones are read from their first extent. reader: NULL
 * when the target is known to lie in the inode. */
struct tw_error *ext4_attrs_target(struct ext4 *fs, const struct ext4_inode *inode, uint32_t ino,
	struct ext4_reader *reader) TW_MUST_CHECK;

/* --- replay.c: what a recovery of the journal would write --- */

struct ext4_replay {
	struct ext4_block *blocks;  /* the newest copies; digest: number of the transaction */
	struct ext4_block *revoked; /* digest: number of the latest transaction that revokes it */
};

/* Takes the next transaction; its data is copied. */
struct tw_error *ext4_replay_take(const struct ext4_geometry *geo,
	const struct tw_jbd2_transaction *txn, struct ext4_replay *r) TW_MUST_CHECK;
/* A block is not replayed from transactions up to the one that revokes it. */
void ext4_replay_drop_revoked(struct ext4_replay *r);
void ext4_replay_deinit(struct ext4_replay *r);

/* --- crawl.c --- */

/* Enters an inode of a fresh view. With claim set, what it owns, too. */
struct tw_error *ext4_load_inode(struct ext4 *fs, uint32_t ino, struct tw_span raw,
	struct ext4_reader *reader, bool claim) TW_MUST_CHECK;
/* Enters the inode tables into the owner map of a fresh view. */
struct tw_error *ext4_claim_tables(struct ext4 *fs) TW_MUST_CHECK;

/* Reads the file system into a fresh view, with the journal replayed in memory. */
struct tw_error *ext4_crawl(struct ext4 *fs) TW_MUST_CHECK;

/* --- dirs.c --- */

/* What stands for the block of names in an inode: no directory has it. */
#define EXT4_INLINE_BLOCK 0
/* ... and for that of names which a fast commit brought. */
#define EXT4_FAST_BLOCK UINT64_MAX

bool ext4_dirs_owns(const struct ext4 *fs, uint32_t dir, uint64_t block);
/* Compares the names that the view has in a block of a directory with those in the parts of its
 * new content. An entry is borrowed by the call. */
struct ext4_dirs_visit {
	struct tw_error *(*went)(void *arg, struct tw_name *name);
	struct tw_error *(*came)(
		void *arg, uint32_t dir, uint64_t block, const struct ext4_dirent *entry);
	void *arg;
};
struct tw_error *ext4_dirs_compare(struct ext4 *fs, uint32_t dir, uint64_t block,
	const struct tw_span *parts, unsigned nparts,
	const struct ext4_dirs_visit *visit) TW_MUST_CHECK;
/* Reports the names that came and went in one block of a directory. */
struct tw_error *ext4_dirs_diff(
	struct ext4 *fs, uint32_t dir, uint64_t block, const uint8_t *data) TW_MUST_CHECK;
/* The same for a directory that is inline data. */
struct tw_error *ext4_dirs_diff_inline(
	struct ext4 *fs, uint32_t dir, const struct ext4_inode *inode) TW_MUST_CHECK;
/* Reports the names in blocks that the directory does not own any more as gone. */
struct tw_error *ext4_dirs_lost(struct ext4 *fs, uint32_t dir) TW_MUST_CHECK;
/* Reports the names of one block of a directory as gone; those that come elsewhere in the directory
 * have moved. */
struct tw_error *ext4_dirs_lose(struct ext4 *fs, uint32_t dir, uint64_t block) TW_MUST_CHECK;
void ext4_newcomers_destroy(struct ext4_newcomers *new); /* NULL is fine */
/* Enters the names of a directory block into the view, for a crawl. */
struct tw_error *ext4_dirs_load(struct ext4 *fs, struct tw_loader *loader, bool encrypted,
	uint64_t block, const uint8_t *data) TW_MUST_CHECK;
struct tw_error *ext4_dirs_load_inline(
	struct ext4 *fs, uint32_t dir, const struct ext4_inode *inode) TW_MUST_CHECK;

/* --- tables.c --- */

/* Reads all inodes and directories into a fresh view. */
struct tw_error *ext4_load_tree(struct ext4 *fs, const struct tw_source *source) TW_MUST_CHECK;

/* --- apply.c --- */

/* Moves the view by a set of blocks that belong together, and emits the events. */
struct tw_error *ext4_apply(struct ext4 *fs, const struct ext4_blockset *blocks,
	const struct tw_commit *commit) TW_MUST_CHECK;

/* --- fast.c --- */

/* Moves the view by a fast commit, and emits the events. *taken false: it has what only the commit
 * after it can tell, and nothing has happened. */
struct tw_error *ext4_fast_apply(struct ext4 *fs, const struct ext4_fc_op *ops, size_t n,
	const struct tw_commit *commit, bool *taken) TW_MUST_CHECK;
/* The commit that follows is being applied, and has brought the directories' blocks: names that are
 * in none of them have gone. */
struct tw_error *ext4_fast_end(struct ext4 *fs) TW_MUST_CHECK;

/* --- early.c --- */

/* True for a block that is filled by directory entries. */
bool ext4_entries_hold(const struct ext4_geometry *geo, struct tw_span block);
/* True for what a directory may have written; its first block begins with the directory itself. */
bool ext4_is_block_of(const struct ext4_geometry *geo, struct tw_span block, uint32_t dir);
/* True for content that some kind of metadata could have, wherever it is. */
bool ext4_may_be_metadata(const struct ext4 *fs, const uint8_t *data);
/* Keeps what was written to a block that is nobody's, if it may turn out to be metadata. */
struct tw_error *ext4_unjournaled_keep(
	struct ext4 *fs, uint64_t block, const uint8_t *data) TW_MUST_CHECK;

/* --- unjournaled.c --- */

/* Applies what hangs together of what was written in place, and tells of the data that waits. With
 * last set, only that is left which cannot be told. */
struct tw_error *ext4_unjournaled_settle(
	struct ext4 *fs, struct tw_time now, bool last) TW_MUST_CHECK;

/* --- follow.c: the module's write and settle --- */

struct tw_error *ext4_write(void *fs, const struct tw_write *write) TW_MUST_CHECK;
bool ext4_wants(void *fs, uint64_t offset, uint64_t length);
bool ext4_wants_all(void *fs);
struct tw_error *ext4_settle(void *fs, struct tw_time now, bool last) TW_MUST_CHECK;
/* Applies what was written in place, and tells of the data that waits. */
struct tw_error *ext4_direct_apply(struct ext4 *fs, struct tw_time now) TW_MUST_CHECK;
/* TW_GAP: the superblock is not the one of the geometry that we follow. */
struct tw_error *ext4_superblock_check(const struct ext4 *fs) TW_MUST_CHECK;

/* --- journal.c --- */

/* Follows a write of one block of the journal. */
struct tw_error *ext4_journal_block(
	struct ext4 *fs, uint32_t log_block, const uint8_t *data, struct tw_time now) TW_MUST_CHECK;
/* True when file data that went through the log is expected at its home. */
bool ext4_data_expected(const struct ext4 *fs);
/* True when a recovery may take fast commits: what it writes in place is in no log. */
bool ext4_fast_counts(const struct ext4 *fs);
/* While they count: this was written unseen, or has been told before its commit. Bytes of the volume. */
struct tw_error *ext4_fast_missed(struct ext4 *fs, uint64_t offset, uint64_t length) TW_MUST_CHECK;
/* A commit is about to be applied, with which those before it end. */
void ext4_fast_committed(struct ext4 *fs);
/* Takes the fast commits that are whole. */
struct tw_error *ext4_fast_take(struct ext4 *fs, struct tw_time now) TW_MUST_CHECK;
/* Makes room for fast commits; the journal has an area for them. */
struct tw_error *ext4_fast_open(struct ext4 *fs) TW_MUST_CHECK;
/* Applies the fast commits that the journal of a fresh view holds. */
struct tw_error *ext4_fast_crawl(struct ext4 *fs) TW_MUST_CHECK;
/* Loads one block of the journal for jbd2. */
struct tw_error *ext4_journal_load(void *fs, uint32_t log_block, void *buf) TW_MUST_CHECK;

/* --- gather.c, mend.c: the module's survey, gather and mend --- */

struct tw_error *ext4_survey(void *fs, void **found, bool *stands) TW_MUST_CHECK;
struct tw_error *ext4_gather(void *found, const struct tw_missed *missed, struct tw_buf *out,
	bool *again) TW_MUST_CHECK;
void ext4_gathered_destroy(void *found);
struct tw_error *ext4_mend(void *fs, struct tw_span gathered, const struct tw_missed *data,
	struct tw_time now) TW_MUST_CHECK;

/* --- state.c --- */

struct tw_error *ext4_save(void *fs, struct tw_buf *out) TW_MUST_CHECK;
struct tw_error *ext4_load(
	const struct tw_fs_env *env, struct tw_span state, void **out) TW_MUST_CHECK;

/* --- resync.c --- */

/* Adds bytes that were missed to the changes of the files that own them in a view. */
struct tw_error *ext4_missed_data(struct ext4 *fs, const struct tw_owners *owners,
	const struct tw_range *missed) TW_MUST_CHECK;
struct tw_error *ext4_announce(void *fs, struct tw_time now) TW_MUST_CHECK;
struct tw_error *ext4_resync(
	void *fs, void *newer, const struct tw_missed *missed, struct tw_time now) TW_MUST_CHECK;

#endif
