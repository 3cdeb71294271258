/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/xattr.h"

#include "base/hash.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

/* Sets end to end would be smaller; most inodes share theirs with many others. */
struct set {
	uint64_t digest;
	uint32_t bytes; /* of entries */
	bool marked;
	UT_hash_handle hh;
	uint8_t entries[]; /* by name: digest of the value, namespace, length, name */
};
enum { ENTRY_BYTES = 10, MAX_NAME = 255 };
#define LEAST_SETS 64

struct ext4_xattr_sets {
	struct set *sets;
	size_t left; /* at the last sweep */
};

/* An entry as it is kept; the name is borrowed. */
struct entry {
	uint64_t value;
	const uint8_t *name;
	uint8_t index, len;
};

static const struct set *find(const struct ext4_xattr_sets *sets, uint64_t digest)
{
	struct set *set = NULL;
	if (sets)
		HASH_FIND(hh, sets->sets, &digest, sizeof(digest), set);
	return set;
}

/* Reads the entry at *off; false at the end. */
static bool next(const struct set *set, size_t *off, struct entry *out)
{
	if (!set || *off >= set->bytes)
		return false;
	const uint8_t *at = set->entries + *off;
	out->value = tw_le64(tw_span(at, 8), 0);
	out->index = at[8];
	out->len = at[9];
	out->name = at + ENTRY_BYTES;
	*off += ENTRY_BYTES + (size_t)out->len;
	return true;
}

static int by_name(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int ret = (int)x->index - (int)y->index;
	if (!ret)
		ret = memcmp(x->name, y->name, x->len < y->len ? x->len : y->len);
	return ret ? ret : (int)x->len - (int)y->len;
}

void ext4_xattr_sets_destroy(struct ext4_xattr_sets *sets)
{
	struct set *set, *tmp;
	if (!sets)
		return;
	HASH_ITER (hh, sets->sets, set, tmp) {
		HASH_DEL(sets->sets, set);
		free(set);
	}
	free(sets);
}

static struct tw_error *add_set(
	struct ext4_xattr_sets *sets, uint64_t digest, const struct entry *entries, size_t n)
{
	size_t bytes = 0;
	for (size_t i = 0; i < n; i++)
		bytes += ENTRY_BYTES + (size_t)entries[i].len;
	struct set *set = malloc(sizeof(*set) + bytes);
	if (!set)
		return tw_error_nomem();
	set->digest = digest;
	set->bytes = (uint32_t)bytes;
	set->marked = false;
	uint8_t *at = set->entries;
	for (size_t i = 0; i < n; i++) {
		memcpy(at, &(uint64_t){htole64(entries[i].value)}, 8);
		at[8] = entries[i].index;
		at[9] = entries[i].len;
		memcpy(at + ENTRY_BYTES, entries[i].name, entries[i].len);
		at += ENTRY_BYTES + entries[i].len;
	}
	HASH_ADD(hh, sets->sets, digest, sizeof(set->digest), set);
	return NULL;
}

static struct tw_error *make_sets(struct ext4_xattr_sets **sets)
{
	if (!*sets)
		*sets = calloc(1, sizeof(**sets));
	return *sets ? NULL : tw_error_nomem();
}

struct tw_error *ext4_xattr_sets_keep(
	struct ext4_xattr_sets **sets, uint64_t digest, struct ext4_xattrs list, uint64_t more)
{
	if (!digest || find(*sets, digest))
		return NULL;
	TW_TRY(make_sets(sets));
	struct entry *entries = NULL, entry;
	struct ext4_xattr xattr;
	size_t n = 0, cap = 0, off = 0;
	bool fits = true;
	while (fits && ext4_xattr_next(&list, &xattr)) {
		fits = TW_GROW(entries, n, cap);
		if (fits)
			entries[n++] =
				(struct entry){xattr.value, xattr.name, xattr.index, xattr.len};
	}
	const struct set *other = find(*sets, more);
	while (fits && next(other, &off, &entry)) {
		fits = TW_GROW(entries, n, cap);
		if (fits)
			entries[n++] = entry;
	}
	if (fits && n)
		qsort(entries, n, sizeof(*entries), by_name);
	struct tw_error *err = fits ? add_set(*sets, digest, entries, n) : tw_error_nomem();
	free(entries);
	return err;
}

size_t ext4_xattr_sets_count(const struct ext4_xattr_sets *sets)
{
	return sets ? HASH_COUNT(sets->sets) : 0;
}

bool ext4_xattr_sets_due(const struct ext4_xattr_sets *sets, size_t cost)
{
	return sets && ext4_xattr_sets_count(sets) > 2 * sets->left + cost + LEAST_SETS;
}

void ext4_xattr_sets_mark(struct ext4_xattr_sets *sets, uint64_t digest)
{
	struct set *set = NULL;
	HASH_FIND(hh, sets->sets, &digest, sizeof(digest), set);
	if (set)
		set->marked = true;
}

void ext4_xattr_sets_sweep(struct ext4_xattr_sets *sets)
{
	struct set *set, *tmp;
	HASH_ITER (hh, sets->sets, set, tmp) {
		if (!set->marked) {
			HASH_DEL(sets->sets, set);
			free(set);
		} else {
			set->marked = false;
		}
	}
	sets->left = ext4_xattr_sets_count(sets);
}

/* --- what differs --- */

/* As listxattr(2) names them. What the kernel hides has names here too. */
static void put_name(struct tw_buf *out, const struct entry *entry)
{
	static const char *const prefixes[] = {[1] = "user.",
		[2] = "system.posix_acl_access",
		[3] = "system.posix_acl_default",
		[4] = "trusted.",
		[5] = "lustre.",
		[6] = "security.",
		[7] = "system.",
		[8] = "system.richacl",
		[9] = "encryption.",
		[10] = "gnu."};
	if (entry->index < sizeof(prefixes) / sizeof(*prefixes) && prefixes[entry->index])
		tw_buf_puts(out, prefixes[entry->index]);
	else if (entry->index)
		tw_buf_printf(out, "%u.", entry->index);
	tw_buf_append(out, entry->name, entry->len);
}

static struct tw_error *add_name(struct ext4_xattr_diff *out, const struct entry *entry)
{
	size_t n = out->nset + out->nremoved, at = out->text.len;
	if (!TW_GROW(out->names, n, out->cap))
		return tw_error_nomem();
	put_name(&out->text, entry);
	/* The text may yet move: its place stands in for the address. */
	out->names[n] = (struct tw_bytes){(const void *)(uintptr_t)at, out->text.len - at};
	return NULL;
}

/* The names that only `one` has, and with values also those that differ there; both are sorted. */
static struct tw_error *names_of_one(const struct set *one, const struct set *other, bool values,
	struct ext4_xattr_diff *out, size_t *n)
{
	struct entry a, b;
	size_t i = 0, k = 0;
	bool more = next(other, &k, &b);
	while (next(one, &i, &a)) {
		while (more && by_name(&b, &a) < 0)
			more = next(other, &k, &b);
		if (more && !by_name(&b, &a) && (!values || a.value == b.value))
			continue;
		TW_TRY(add_name(out, &a));
		++*n;
	}
	return NULL;
}

struct tw_error *ext4_xattr_sets_diff(const struct ext4_xattr_sets *sets,
	const struct ext4_xattr_sets *others, uint64_t old, uint64_t now,
	struct ext4_xattr_diff *out)
{
	const struct set *was = find(sets, old), *is = find(sets, now);
	tw_buf_reset(&out->text);
	out->nset = out->nremoved = 0;
	was = was ? was : find(others, old);
	is = is ? is : find(others, now);
	TW_TRY(names_of_one(is, was, true, out, &out->nset));
	TW_TRY(names_of_one(was, is, false, out, &out->nremoved));
	if (out->text.failed)
		return tw_error_nomem();
	for (size_t i = 0; i < out->nset + out->nremoved; i++)
		out->names[i].data = out->text.data + (uintptr_t)out->names[i].data;
	return NULL;
}

void ext4_xattr_diff_deinit(struct ext4_xattr_diff *diff)
{
	tw_buf_deinit(&diff->text);
	free(diff->names);
	*diff = (struct ext4_xattr_diff){0};
}

/* --- state --- */

void ext4_xattr_sets_save(const struct ext4_xattr_sets *sets, struct tw_buf *out)
{
	tw_pack64(out, ext4_xattr_sets_count(sets));
	for (const struct set *set = sets ? sets->sets : NULL; set; set = set->hh.next) {
		tw_pack64(out, set->digest);
		tw_pack_bytes(out, set->entries, set->bytes);
	}
}

static struct tw_error *load_set(
	struct ext4_xattr_sets *sets, uint64_t digest, struct tw_span saved)
{
	struct entry *entries = calloc(saved.len / ENTRY_BYTES + 1, sizeof(*entries));
	size_t n = 0, off = 0;
	if (!entries)
		return tw_error_nomem();
	for (; off + ENTRY_BYTES <= saved.len; n++) {
		uint8_t len = saved.data[off + 9];
		if (len > saved.len - off - ENTRY_BYTES)
			break;
		entries[n].value = tw_le64(saved, off);
		entries[n].index = saved.data[off + 8];
		entries[n].len = len;
		entries[n].name = saved.data + off + ENTRY_BYTES;
		off += ENTRY_BYTES + (size_t)len;
	}
	struct tw_error *err = NULL;
	if (off != saved.len || find(sets, digest))
		err = tw_error_create(TW_BAD_DATA, "a saved set of attributes is damaged");
	else
		err = add_set(sets, digest, entries, n);
	free(entries);
	return err;
}

struct tw_error *ext4_xattr_sets_load(struct ext4_xattr_sets **sets, struct tw_unpack *in)
{
	uint64_t n = tw_unpack64(in);
	if (n)
		TW_TRY(make_sets(sets));
	for (uint64_t i = 0; i < n && !in->failed; i++) {
		uint64_t digest = tw_unpack64(in);
		struct tw_span entries = tw_unpack_bytes(in);
		if (!in->failed)
			TW_TRY(load_set(*sets, digest, entries));
	}
	if (*sets)
		(*sets)->left = ext4_xattr_sets_count(*sets);
	return NULL;
}
