/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/digest.h"

#include "base/pack.h"
#include "content/quiet.h"
#include "inspect/volume.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Of a volume: about 10 MB. What finds no place waits longer. */
#define MAX_FILES 65536u
/* A piece of a file that is read at once. */
#define SLICE (256u << 10)
/* What a file counts for, beside its bytes. */
#define FILE_COST 4096u
/* Files that get a place in one turn when there is room again. */
#define MAX_LATE 256u
/* A file's names that are looked at, and that are told. */
#define MAX_LOOKED 256u
#define MAX_TOLD 16u

/* What cannot be read so often, in a file that does not change, is told to be unreadable. */
#define MAX_TRIES 100u

#define END_OF_FILES UINT32_MAX

enum outcome { HASHED, TOO_LARGE, ENCRYPTED, UNREADABLE, DETACHED, OUTCOMES };

static const char *const left_out[OUTCOMES] = {
	[TOO_LARGE] = "too_large",
	[ENCRYPTED] = "encrypted",
	[UNREADABLE] = "unreadable",
	[DETACHED] = "detached",
};

struct tw_digests {
	struct tw_quiet *quiet;
	struct tw_quiet_file file; /* that is read; ino 0: none */
	uint64_t size, done;
	EVP_MD_CTX *sha256;
};

/* The names of a file that are wanted, by their place among its names. */
struct names {
	struct tw_digest_wish wish; /* of them all */
	uint32_t links[MAX_TOLD];
	uint32_t n;
};

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

bool tw_disk_wants_digests(const struct tw_disk *disk)
{
	return disk->content && tw_content_rules_has_digests(tw_disk_content_rules(disk->content));
}

void tw_digests_destroy(struct tw_digests *d)
{
	if (!d)
		return;
	tw_quiet_destroy(d->quiet);
	EVP_MD_CTX_free(d->sha256);
	free(d);
}

static struct tw_error *get_digests(struct tw_volume *volume, struct tw_digests **out)
{
	*out = volume->digests;
	if (*out)
		return NULL;
	struct tw_digests *d = calloc(1, sizeof(*d));
	if (!d)
		return tw_error_nomem();
	d->sha256 = EVP_MD_CTX_new();
	struct tw_error *err = d->sha256 ? tw_quiet_create(MAX_FILES, &d->quiet) : tw_error_nomem();
	if (err)
		tw_digests_destroy(d);
	else
		*out = volume->digests = d;
	return err;
}

static struct tw_view *view_of(const struct tw_volume *volume)
{
	return volume->ops->view(volume->fs);
}

static struct tw_digest_wish wish_for(const struct tw_volume *volume, struct tw_bytes path)
{
	return tw_content_rules_digest(
		tw_disk_content_rules(volume->disk->content), volume->place.uuid, path);
}

static struct tw_error *find_names(
	const struct tw_volume *volume, const struct tw_inode *inode, struct names *out)
{
	struct tw_buf path = TW_BUF_INIT;
	const struct tw_name *name;
	*out = (struct names){.n = 0};
	for (uint32_t i = 0; i < MAX_LOOKED && out->n < MAX_TOLD &&
			     (name = tw_view_link(view_of(volume), inode, i)); i++) {
		tw_buf_reset(&path);
		if (!tw_view_path(view_of(volume), name, &path))
			continue;
		struct tw_digest_wish wish = wish_for(volume, (struct tw_bytes){path.data, path.len});
		if (!wish.quiet_ms)
			continue;
		out->links[out->n++] = i;
		if (!out->wish.quiet_ms || wish.quiet_ms < out->wish.quiet_ms)
			out->wish.quiet_ms = wish.quiet_ms;
		if (wish.max_bytes > out->wish.max_bytes)
			out->wish.max_bytes = wish.max_bytes;
	}
	struct tw_error *err = path.failed ? tw_error_nomem() : NULL;
	tw_buf_deinit(&path);
	return err;
}

/* --- what is waited for --- */

/* It has changed, or has to be read again: what was read of it does not count. */
static void restart(struct tw_digests *d, uint32_t ino)
{
	if (d->file.ino == ino)
		d->file.ino = 0;
}

static void again(struct tw_digests *d, uint32_t ino)
{
	restart(d, ino);
	tw_quiet_again(d->quiet, ino, now_ms());
}

/* What lies in the inode can be had while its event is told, and not later. */
static struct tw_error *hash_inline(struct tw_volume *volume, struct tw_quiet_file *file)
{
	const struct tw_inode *inode = tw_view_inode(view_of(volume), file->ino);
	if (!inode || !(tw_view_flags(view_of(volume), inode) & TW_FLAG_INLINE))
		return NULL;
	const uint64_t size = tw_view_attr(view_of(volume), inode).size;
	struct tw_buf bytes = TW_BUF_INIT;
	file->known = volume->ops->inline_data(volume->fs, file->ino, &bytes) && bytes.len >= size;
	bool failed = file->known && !EVP_Digest(bytes.data ? bytes.data : "", size, file->sha256, NULL,
					     EVP_sha256(), NULL);
	tw_buf_deinit(&bytes);
	return failed ? tw_error_nomem() : NULL;
}

static struct tw_error *wait_for(
	struct tw_volume *volume, uint32_t ino, uint32_t transaction, uint64_t quiet_ms)
{
	struct tw_quiet_file file = {.ino = ino, .transaction = transaction, .quiet_ms = quiet_ms};
	struct tw_digests *d;
	TW_TRY(get_digests(volume, &d));
	restart(d, ino);
	TW_TRY(hash_inline(volume, &file));
	return tw_quiet_put(d->quiet, &file, now_ms());
}

/* Where nobody wants it; it may come back before its time is over. */
static struct tw_error *changed_elsewhere(struct tw_volume *volume, const struct tw_event *event)
{
	const struct tw_quiet_file *file =
		volume->digests ? tw_quiet_get(volume->digests->quiet, (uint32_t)event->inode) : NULL;
	return file ? wait_for(volume, file->ino, event->transaction, file->quiet_ms) : NULL;
}

/* An event is told by one name, and another one may be wanted. */
static struct tw_error *changed(struct tw_volume *volume, const struct tw_event *event)
{
	const uint32_t ino = (uint32_t)event->inode;
	struct tw_digest_wish wish = wish_for(volume, event->path);
	const struct tw_inode *inode = tw_view_inode(view_of(volume), ino);
	struct names names;
	if (!wish.quiet_ms && event->nlink > 1 && inode) {
		TW_TRY(find_names(volume, inode, &names));
		wish = names.wish;
	}
	return wish.quiet_ms ? wait_for(volume, ino, event->transaction, wish.quiet_ms)
			     : changed_elsewhere(volume, event);
}

/* What comes in from elsewhere is new to whoever watches the place. What only gets another name there is not. */
static struct tw_error *arrived(struct tw_volume *volume, const struct tw_event *event, uint32_t ino,
	struct tw_bytes from, struct tw_bytes to)
{
	const struct tw_inode *inode = tw_view_inode(view_of(volume), ino);
	const uint64_t quiet_ms = wish_for(volume, to).quiet_ms;
	if (!inode || tw_mode_kind(tw_view_attr(view_of(volume), inode).mode) != TW_KIND_FILE || !quiet_ms ||
		(from.data && wish_for(volume, from).quiet_ms) ||
		(volume->digests && tw_quiet_has(volume->digests->quiet, ino)))
		return NULL;
	return wait_for(volume, ino, event->transaction, quiet_ms);
}

static struct tw_error *renamed(struct tw_volume *volume, const struct tw_event *event)
{
	TW_TRY(arrived(volume, event, (uint32_t)event->inode, event->old_path, event->path));
	return event->exchange ? arrived(volume, event, event->exchanged, event->path, event->old_path) : NULL;
}

struct tw_error *tw_digest_event(struct tw_volume *volume, const struct tw_event *event)
{
	const bool renames = event->type == TW_EVENT_FILE_RENAMED; /* perhaps two, and the other one is a file */
	if ((event->kind != TW_KIND_FILE && !renames) || !tw_disk_wants_digests(volume->disk))
		return NULL;
	switch (event->type) {
	case TW_EVENT_FILE_CREATED:
	case TW_EVENT_FILE_MODIFIED:
	case TW_EVENT_FILE_TRUNCATED:
		return changed(volume, event);
	case TW_EVENT_FILE_RENAMED:
	case TW_EVENT_FILE_LINKED:
		return renamed(volume, event);
	case TW_EVENT_FILE_DELETED:
		if (volume->digests) {
			restart(volume->digests, (uint32_t)event->inode);
			tw_quiet_drop(volume->digests->quiet, (uint32_t)event->inode);
		}
		return NULL;
	default:
		return NULL;
	}
}

void tw_disk_digest_restart(struct tw_disk *disk)
{
	for (size_t i = 0; i < disk->nvolumes; i++)
		if (disk->volumes[i]->digests)
			disk->volumes[i]->digests->file.ino = 0;
}

/* One of which only the number is known, or that was saved. */
static struct tw_error *admit(struct tw_volume *volume, struct tw_quiet_file *file)
{
	const struct tw_inode *inode = tw_view_inode(view_of(volume), file->ino);
	struct tw_digests *d;
	struct names names;
	if (!inode)
		return NULL;
	TW_TRY(find_names(volume, inode, &names));
	if (!names.n)
		return NULL;
	file->quiet_ms = names.wish.quiet_ms;
	TW_TRY(get_digests(volume, &d));
	return tw_quiet_put(d->quiet, file, now_ms());
}

static struct tw_error *admit_late(struct tw_volume *volume)
{
	struct tw_quiet_file file = {0};
	for (unsigned i = 0; i < MAX_LATE && (file.ino = tw_quiet_take_late(volume->digests->quiet)); i++)
		TW_TRY(admit(volume, &file));
	return NULL;
}

struct saving {
	uint32_t volume;
	struct tw_buf *out;
};

static void save_file(const struct tw_quiet_file *file, void *arg)
{
	const struct saving *s = arg;
	tw_pack32(s->out, s->volume);
	tw_pack32(s->out, file->ino);
	tw_pack32(s->out, file->transaction);
	tw_pack32(s->out, file->known);
	if (file->known)
		tw_buf_append(s->out, file->sha256, sizeof(file->sha256));
}

void tw_disk_save_digests(const struct tw_disk *disk, struct tw_buf *out)
{
	for (size_t i = 0; i < disk->nvolumes; i++) {
		struct saving s = {(uint32_t)i, out};
		if (disk->volumes[i]->digests)
			tw_quiet_each(disk->volumes[i]->digests->quiet, save_file, &s);
	}
	tw_pack32(out, END_OF_FILES);
}

struct tw_error *tw_disk_load_digests(struct tw_disk *disk, struct tw_unpack *in)
{
	const bool wanted = tw_disk_wants_digests(disk);
	uint32_t i;
	/* A state of an earlier version ends before. */
	while (in->off < in->span.len && (i = tw_unpack32(in)) != END_OF_FILES && !in->failed) {
		struct tw_quiet_file file = {.ino = tw_unpack32(in), .transaction = tw_unpack32(in)};
		file.known = tw_unpack32(in);
		const uint8_t *sha256 = file.known ? tw_unpack_raw(in, sizeof(file.sha256)) : NULL;
		if (sha256)
			memcpy(file.sha256, sha256, sizeof(file.sha256));
		if (i >= disk->nvolumes || in->failed)
			return tw_error_create(TW_BAD_DATA, "the saved state is damaged");
		if (wanted && disk->volumes[i]->ops)
			TW_TRY(admit(disk->volumes[i], &file));
	}
	return NULL;
}

/* --- reading --- */

static void spend(struct tw_digest_turn *turn, uint64_t bytes)
{
	turn->budget -= bytes < turn->budget ? (size_t)bytes : turn->budget;
}

static struct tw_error *take_bytes(const uint8_t *data, uint64_t length, void *arg)
{
	static const uint8_t zeroes[4096];
	for (uint64_t n; length; length -= n) {
		n = data || length < sizeof(zeroes) ? length : sizeof(zeroes);
		if (!EVP_DigestUpdate(arg, data ? data : zeroes, n))
			return tw_error_nomem();
	}
	return NULL;
}

static struct tw_error *begin(struct tw_digests *d, const struct tw_quiet_file *file, uint64_t size)
{
	if (!EVP_DigestInit_ex(d->sha256, EVP_sha256(), NULL))
		return tw_error_nomem();
	d->file = *file;
	d->size = size;
	d->done = 0;
	return NULL;
}

/* *found: NEVER or LATER when that was so of any piece. */
static struct tw_error *read_on(struct tw_volume *volume, const struct tw_inode *inode,
	struct tw_digest_turn *turn, enum tw_content_found *found)
{
	struct tw_digests *d = volume->digests;
	const struct tw_content_sink sink = {take_bytes, d->sha256};
	*found = TW_CONTENT_EXACT;
	while (d->done < d->size && turn->budget && *found == TW_CONTENT_EXACT) {
		const uint64_t left = d->size - d->done, n = left < SLICE ? left : SLICE;
		TW_TRY(tw_content_read(volume, inode, d->done, n, &sink, found));
		d->done += n;
		spend(turn, n);
	}
	return NULL;
}

/* --- what comes of it --- */

/* What a note holds; the names in the order of their links. */
struct result {
	uint32_t volume;
	const struct tw_quiet_file *file;
	const struct names *names;
	struct tw_digest_turn *turn;
	struct tw_buf *note;
};

static struct tw_error *note_result(
	const struct result *r, struct tw_digests *d, enum outcome outcome, const uint8_t *sha256)
{
	static const uint8_t none[TW_SHA256_BYTES];
	restart(d, r->file->ino);
	tw_pack32(r->note, r->volume);
	tw_pack32(r->note, r->file->ino);
	tw_pack32(r->note, r->file->transaction);
	tw_pack32(r->note, outcome);
	tw_buf_append(r->note, sha256 ? sha256 : none, TW_SHA256_BYTES);
	tw_pack32(r->note, r->names->n);
	for (uint32_t i = 0; i < r->names->n; i++)
		tw_pack32(r->note, r->names->links[i]);
	return r->note->failed ? tw_error_nomem() : NULL;
}

/* The write that has touched it comes, or what a log has of it is put in its place. */
static struct tw_error *put_off(struct tw_digests *d, const struct tw_quiet_file *file)
{
	struct tw_quiet_file next = *file;
	next.tries++;
	restart(d, file->ino);
	return tw_quiet_put(d->quiet, &next, now_ms());
}

/* The content of a file that can be read. */
static struct tw_error *hash(struct tw_volume *volume, const struct tw_inode *inode, const struct result *r)
{
	struct tw_digests *d = volume->digests;
	const uint64_t size = tw_view_attr(view_of(volume), inode).size;
	enum tw_content_found found;
	uint8_t sha256[TW_SHA256_BYTES];
	if (!d->file.ino)
		TW_TRY(begin(d, r->file, size));
	TW_TRY(read_on(volume, inode, r->turn, &found));
	if (found == TW_CONTENT_NEVER || (found == TW_CONTENT_LATER && (r->turn->last || r->file->tries >= MAX_TRIES)))
		return note_result(r, d, UNREADABLE, NULL);
	if (found == TW_CONTENT_LATER)
		return put_off(d, r->file);
	if (d->done < d->size)
		return NULL;
	if (!EVP_DigestFinal_ex(d->sha256, sha256, NULL))
		return tw_error_nomem();
	return note_result(r, d, HASHED, sha256);
}

static struct tw_error *work_on(struct tw_volume *volume, const struct tw_inode *inode, const struct result *r)
{
	struct tw_digests *d = volume->digests;
	const struct tw_attr attr = tw_view_attr(view_of(volume), inode);
	if (attr.flags & TW_FLAG_ENCRYPTED)
		return note_result(r, d, ENCRYPTED, NULL);
	if (attr.size > r->names->wish.max_bytes)
		return note_result(r, d, TOO_LARGE, NULL);
	if (r->file->known)
		return note_result(r, d, HASHED, r->file->sha256);
	if (attr.flags & TW_FLAG_INLINE)
		return note_result(r, d, UNREADABLE, NULL);
	if (r->turn->give_up)
		return note_result(r, d, DETACHED, NULL);
	/* Else the digest would be of more than has been told. It also sees that a block was written over which has
	 * been read already: its event begins anew, too. */
	if (!r->turn->last && volume->ops->data_waits(volume->fs, r->file->ino)) {
		again(d, r->file->ino);
		return NULL;
	}
	return hash(volume, inode, r);
}

static bool next_file(const struct tw_digests *d, const struct tw_digest_turn *turn, struct tw_quiet_file *out)
{
	*out = d->file;
	return out->ino || tw_quiet_due(d->quiet, turn->last ? INT64_MAX : turn->now_ms, out);
}

static struct tw_error *work(
	struct tw_volume *volume, uint32_t index, struct tw_digest_turn *turn, struct tw_buf *note)
{
	struct tw_digests *d = volume->digests;
	struct tw_quiet_file file;
	struct names names;
	if (!d)
		return NULL;
	TW_TRY(admit_late(volume));
	while (turn->budget && !note->len && next_file(d, turn, &file)) {
		const struct tw_inode *inode = tw_view_inode(view_of(volume), file.ino);
		const struct result r = {index, &file, &names, turn, note};
		names.n = 0;
		if (inode)
			TW_TRY(find_names(volume, inode, &names));
		spend(turn, FILE_COST);
		if (names.n) {
			TW_TRY(work_on(volume, inode, &r));
			continue;
		}
		/* It went to where nobody wants it: an event has told that. */
		restart(d, file.ino);
		tw_quiet_drop(d->quiet, file.ino);
	}
	return NULL;
}

struct tw_error *tw_disk_digest(struct tw_disk *disk, struct tw_digest_turn *turn, struct tw_buf *note)
{
	for (size_t i = 0; i < disk->nvolumes && turn->budget && !note->len; i++)
		if (disk->volumes[i]->ops)
			TW_TRY(work(disk->volumes[i], (uint32_t)i, turn, note));
	return NULL;
}

int64_t tw_disk_digest_next(const struct tw_disk *disk)
{
	int64_t next = INT64_MAX;
	for (size_t i = 0; i < disk->nvolumes; i++) {
		const struct tw_digests *d = disk->volumes[i]->digests;
		int64_t its = d ? tw_quiet_next(d->quiet) : INT64_MAX;
		if (d && (d->file.ino || (tw_quiet_late(d->quiet) && tw_quiet_count(d->quiet) < MAX_FILES)))
			its = 0;
		next = its < next ? its : next;
	}
	return next;
}

uint64_t tw_disk_digests_waiting(const struct tw_disk *disk, uint64_t *late)
{
	uint64_t n = 0, nlate = 0;
	for (size_t i = 0; i < disk->nvolumes; i++) {
		const struct tw_digests *d = disk->volumes[i]->digests;
		n += d ? tw_quiet_count(d->quiet) : 0;
		nlate += d ? tw_quiet_late(d->quiet) : 0;
	}
	if (late)
		*late = nlate;
	return n + nlate;
}

/* --- telling --- */

static struct tw_error *tell_name(struct tw_volume *volume, const struct tw_inode *inode,
	const struct tw_name *name, struct tw_event *event)
{
	struct tw_disk *disk = volume->disk;
	const struct tw_attr attr = tw_view_attr(view_of(volume), inode);
	struct tw_buf path = TW_BUF_INIT;
	struct tw_error *err = NULL;
	if (tw_view_path(view_of(volume), name, &path)) {
		event->path = (struct tw_bytes){path.data, path.len};
		event->sequence = ++disk->sequence;
		tw_view_describe(inode, &attr, event);
		event->encrypted |= name->opaque;
		err = disk->emit(event, disk->arg);
	} else if (path.failed) {
		err = tw_error_nomem();
	}
	tw_buf_deinit(&path);
	return err;
}

static struct tw_error *damaged(void)
{
	return tw_error_create(TW_BAD_DATA, "what was noted of a file's digest is of another disk");
}

struct tw_error *tw_disk_settled(struct tw_disk *disk, struct tw_span note, struct tw_time now)
{
	struct tw_unpack in = {.span = note};
	uint32_t index = tw_unpack32(&in), ino = tw_unpack32(&in), transaction = tw_unpack32(&in);
	uint32_t outcome = tw_unpack32(&in);
	const uint8_t *sha256 = tw_unpack_raw(&in, TW_SHA256_BYTES);
	if (in.failed || index >= disk->nvolumes || !disk->volumes[index]->ops || outcome >= OUTCOMES)
		return damaged();
	struct tw_volume *volume = disk->volumes[index];
	const struct tw_inode *inode = tw_view_inode(view_of(volume), ino);
	if (!inode)
		return damaged();
	for (uint32_t n = tw_unpack32(&in); n && !in.failed; n--) {
		const struct tw_name *name = tw_view_link(view_of(volume), inode, tw_unpack32(&in));
		struct tw_event event = {.type = TW_EVENT_FILE_SETTLED,
			.volume = volume->place.uuid,
			.time = now,
			.observed = now,
			.transaction = transaction,
			.sha256 = outcome == HASHED ? sha256 : NULL,
			.sha256_left_out = left_out[outcome]};
		if (!name)
			return damaged();
		TW_TRY(tell_name(volume, inode, name, &event));
	}
	if (volume->digests)
		tw_quiet_drop(volume->digests->quiet, ino);
	return in.failed ? damaged() : NULL;
}
