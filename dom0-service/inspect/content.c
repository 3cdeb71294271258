/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/content.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "content/recent.h"
#include "inspect/volume.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What was written is kept until a transaction says whose it is: of a guest that writes a lot, the last
 * seconds. */
#define RECENT_BYTES (64u << 20)
/* Where the image is of before, nothing else has it: of a trace that is read, a good part. */
#define BASE_RECENT_BYTES (1u << 30)
/* Of a log that is followed again: units of so many bytes are remembered, ... */
#define UNIT_SHIFT 12
/* ... and a write of more than so many of them, or one that comes when there are so many, counts for the
 * whole disk: how much a guest writes, or discards, is its choice. */
#define MAX_UNITS 65536u
#define MAX_EXPECTED (1u << 18)

#define UNIT_SECTORS (1u << (UNIT_SHIFT - TW_SECTOR_SHIFT))

/* The last records of a log that wrote to the sectors of a unit, counted from the log's first; 0: none. */
struct last {
	uint64_t unit;
	uint32_t record[UNIT_SECTORS];
	UT_hash_handle hh;
};

/* A piece under way: where its bytes are in the buffer, which may move. */
struct part {
	uint64_t offset, length; /* in the file */
	size_t at;
	bool zeroes;
};

struct tw_disk_content {
	struct tw_content_rules *rules;
	bool attaches; /* some events get content */
	bool keeps;
	struct tw_recent *recent;
	struct tw_ring_reader *ring;
	uint64_t told; /* number of an event */
	uint64_t at;   /* number of the record that is followed */
	struct last *expected;
	uint64_t expected_from; /* the number before the log's first record */
	uint64_t all_before; /* a record before which nothing in the image counts */

	uint8_t *written; /* a bit for each sector that the image has as it was; NULL: it goes on */
	bool broken; /* the image could not be read */

	/* of the event at hand */
	struct tw_buf bytes, stale;
	struct part *parts;
	size_t nparts, capparts;
	struct tw_content_piece *pieces;
	size_t cappieces;
	struct tw_range *missing, *left_out;
	size_t nmissing, capmissing, nleft_out, capleft_out;
	struct tw_content content;
};

struct tw_error *tw_disk_content_create(
	struct tw_content_rules *rules, struct tw_disk_content **out)
{
	struct tw_disk_content *c = calloc(1, sizeof(*c));
	if (!c) {
		tw_content_rules_destroy(rules);
		return tw_error_nomem();
	}
	c->rules = rules;
	c->attaches = c->keeps = tw_content_rules_has_content(rules);
	struct tw_error *err = tw_recent_create(RECENT_BYTES, &c->recent);
	if (err)
		tw_disk_content_destroy(c);
	else
		*out = c;
	return err;
}

void tw_disk_content_destroy(struct tw_disk_content *c)
{
	if (!c)
		return;
	tw_disk_content_caught_up(c);
	tw_content_rules_destroy(c->rules);
	tw_recent_destroy(c->recent);
	free(c->written);
	tw_buf_deinit(&c->bytes);
	tw_buf_deinit(&c->stale);
	free(c->parts);
	free(c->pieces);
	free(c->missing);
	free(c->left_out);
	free(c);
}

void tw_disk_content_keep_all(struct tw_disk_content *c)
{
	c->keeps = true;
}

bool tw_disk_content_keeps(const struct tw_disk_content *c)
{
	return c->keeps;
}

struct tw_content_rules *tw_disk_content_rules(struct tw_disk_content *c)
{
	return c->rules;
}

void tw_disk_content_set_ring(struct tw_disk_content *c, struct tw_ring_reader *ring)
{
	c->ring = ring;
}

struct tw_error *tw_disk_content_set_base(struct tw_disk_content *c, uint64_t disk_bytes)
{
	struct tw_recent *recent;
	TW_TRY(tw_recent_create(BASE_RECENT_BYTES, &recent));
	tw_recent_destroy(c->recent);
	c->recent = recent;
	c->written = calloc((disk_bytes >> UNIT_SHIFT) + 1, 1);
	return c->written ? NULL : tw_error_nomem();
}

void tw_disk_content_set_told(struct tw_disk_content *c, uint64_t sequence)
{
	c->told = sequence;
}

void tw_disk_content_at(struct tw_disk_content *c, uint64_t record)
{
	c->at = record;
}

void tw_disk_content_forget(struct tw_disk_content *c)
{
	tw_recent_clear(c->recent);
}

void tw_disk_set_content(struct tw_disk *disk, struct tw_disk_content *content)
{
	disk->content = content;
}

/* --- a log that is followed again --- */

static struct tw_error *find_last(struct tw_disk_content *c, uint64_t unit, struct last **out)
{
	HASH_FIND(hh, c->expected, &unit, sizeof(unit), *out);
	if (*out)
		return NULL;
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return tw_error_nomem();
	(*out)->unit = unit;
	HASH_ADD(hh, c->expected, unit, sizeof((*out)->unit), *out);
	return NULL;
}

struct tw_error *tw_disk_content_expect(struct tw_disk_content *c, const struct tw_record *record)
{
	struct last *last = NULL;
	if (!record->nsectors || record->flags & TW_RECORD_FLUSH)
		return NULL;
	if (!c->expected)
		c->expected_from = record->sequence - 1;
	uint64_t since = record->sequence - c->expected_from;
	if (record->nsectors / UNIT_SECTORS > MAX_UNITS || HASH_COUNT(c->expected) > MAX_EXPECTED ||
		since > UINT32_MAX) {
		c->all_before = record->sequence;
		return NULL;
	}
	for (uint64_t s = record->sector; s < record->sector + record->nsectors; s++) {
		if (!last || last->unit != s / UNIT_SECTORS)
			TW_TRY(find_last(c, s / UNIT_SECTORS, &last));
		last->record[s % UNIT_SECTORS] = (uint32_t)since;
	}
	return NULL;
}

void tw_disk_content_caught_up(struct tw_disk_content *c)
{
	struct last *last, *next;
	HASH_ITER (hh, c->expected, last, next) {
		HASH_DEL(c->expected, last);
		free(last);
	}
	c->all_before = 0;
}

/* Marks the sectors that a record of the log, or one that was held back, writes later than at. */
static void mark_expected(
	const struct tw_disk_content *c, uint64_t at, uint64_t sector, uint32_t n, uint8_t *stale)
{
	const struct last *last = NULL;
	if (c->all_before > at)
		memset(stale, 1, n);
	for (uint32_t i = 0; c->expected && i < n; i++) {
		const uint64_t unit = (sector + i) / UNIT_SECTORS;
		if (!last || last->unit != unit)
			HASH_FIND(hh, c->expected, &unit, sizeof(unit), last);
		const uint32_t record = last ? last->record[(sector + i) % UNIT_SECTORS] : 0;
		if (record && record + c->expected_from > at)
			stale[i] = 1;
	}
}

/* --- what the stream brings --- */

/* Of a sector among those of its unit. */
static uint8_t bit_of(uint64_t offset)
{
	return (uint8_t)(1u << (offset >> TW_SECTOR_SHIFT) % UNIT_SECTORS);
}

struct tw_error *tw_content_written(
	struct tw_disk *disk, const struct tw_volume *volume, const struct tw_piece *piece, const void *payload)
{
	const uint32_t bits = tw_view_blockbits(volume->ops->view(volume->fs));
	struct tw_disk_content *c = disk->content;
	struct tw_owner owner;
	if (!c->keeps)
		return NULL;
	for (uint64_t at = piece->disk; c->written && at < piece->disk + piece->bytes; at += TW_SECTOR_SIZE)
		c->written[at >> UNIT_SHIFT] |= bit_of(at);
	/* Most of what is written to metadata is written to the log. One write may go on behind it, in a file. */
	bool log = tw_owners_find(tw_view_owners(volume->ops->view(volume->fs)), piece->offset >> bits, 1,
			   &owner) &&
		   owner.kind == TW_OWNER_JOURNAL;
	if (!payload || log) {
		tw_recent_drop(c->recent, piece->disk, piece->bytes);
		return NULL;
	}
	return tw_recent_put(c->recent, piece->disk, payload, piece->bytes);
}

/* --- reading --- */

/* Marks the sectors that a write has touched which is followed later. */
static void mark_touched(
	const struct tw_disk *disk, uint64_t sector, uint32_t n, uint8_t *stale)
{
	const struct tw_disk_content *c = disk->content;
	const uint64_t at = c->at > disk->told ? c->at : disk->told;
	for (uint32_t i = 0; c->written && i < n; i++) {
		const uint64_t offset = (sector + i) << TW_SECTOR_SHIFT;
		stale[i] |= (c->written[offset >> UNIT_SHIFT] & bit_of(offset)) != 0;
	}
	if (c->written)
		return;
	mark_expected(c, at, sector, n, stale);
	/* Where nobody can tell, all may be. */
	if (!c->ring || tw_ring_touched(c->ring, at, sector, n, stale) < 0)
		memset(stale, 1, n);
}

/* Whether the image has at a block's place what the log has of it: it was put there unseen. */
static bool is_put_home(const struct tw_volume *volume, uint64_t block, uint32_t bits)
{
	uint8_t data[65536]; /* no block is larger */
	struct tw_error *err = tw_segments_read(&volume->place.segments, &volume->disk->file, block << bits, data,
		(size_t)1 << bits);
	const bool same = !err && volume->ops->is_logged(volume->fs, block, data);
	tw_error_destroy(err);
	return same;
}

/* Marks what a log has newer than the place that was read. */
static void mark_out_of_place(
	const struct tw_volume *volume, uint64_t offset, uint64_t len, uint8_t *stale)
{
	const uint32_t bits = tw_view_blockbits(volume->ops->view(volume->fs));
	for (uint64_t at = offset, next; at < offset + len; at = next) {
		const uint64_t block = at >> bits;
		next = (block + 1) << bits < offset + len ? (block + 1) << bits : offset + len;
		if (!volume->ops->in_place(volume->fs, block) && !is_put_home(volume, block, bits))
			memset(stale + ((at - offset) >> TW_SECTOR_SHIFT), 1, (next - at) >> TW_SECTOR_SHIFT);
	}
}

struct reading {
	struct tw_volume *volume;
	uint8_t *to;
	uint8_t *stale;  /* for each sector: 1 when what was read is not what it was */
	uint64_t offset; /* in the volume, of to */
};

/* A part of the disk that the stream has not brought, or not lately. A bad sector under a file's content is
 * no reason to follow the disk no more. */
static void read_image(const struct reading *r, uint64_t disk_offset, size_t len)
{
	struct tw_disk *disk = r->volume->disk;
	struct tw_error *err = disk->file.read(disk->file.arg, disk_offset, r->to, len);
	if (err) {
		tw_log(TW_LOG_WARN, r->volume->subject, "what a file holds is not known: %s",
			tw_error_message(err));
		tw_error_destroy(err);
		disk->content->broken = true;
		memset(r->stale, 1, len >> TW_SECTOR_SHIFT);
		return;
	}
	/* Last comes what can be said of all that was read. */
	mark_out_of_place(r->volume, r->offset, len, r->stale);
	mark_touched(disk, disk_offset >> TW_SECTOR_SHIFT, (uint32_t)(len >> TW_SECTOR_SHIFT), r->stale);
}

static void read_piece(uint64_t disk_offset, uint64_t bytes, void *arg)
{
	struct reading *r = arg;
	struct tw_recent *recent = r->volume->disk->content->recent;
	while (bytes) {
		size_t missing, n = tw_recent_get(recent, disk_offset, r->to, bytes, &missing);
		if (!n) {
			n = missing;
			read_image(r, disk_offset, n);
		}
		r->to += n;
		r->stale += n >> TW_SECTOR_SHIFT;
		r->offset += n;
		disk_offset += n;
		bytes -= n;
	}
}

/* Reads sectors of a volume as they are at this place of the stream. */
static void read_sectors(
	struct tw_volume *volume, uint64_t offset, void *to, size_t len, uint8_t *stale)
{
	struct reading r = {.volume = volume, .to = to, .stale = stale, .offset = offset};
	memset(stale, 0, len >> TW_SECTOR_SHIFT);
	tw_segments_each(&volume->place.segments, offset, len, read_piece, &r);
	if (r.to != (uint8_t *)to + len)
		memset(stale, 1, len >> TW_SECTOR_SHIFT); /* the mapping leads beyond the volume */
}

/* --- the pieces of an event --- */

static struct tw_error *add_range(
	struct tw_range **ranges, size_t *n, size_t *cap, uint64_t offset, uint64_t length)
{
	struct tw_range *last = *n ? &(*ranges)[*n - 1] : NULL;
	if (last && last->offset + last->length == offset) {
		last->length += length;
		return NULL;
	}
	if (!TW_GROW(*ranges, *n, *cap))
		return tw_error_nomem();
	(*ranges)[(*n)++] = (struct tw_range){offset, length};
	return NULL;
}

static struct tw_error *add_missing(struct tw_disk_content *c, uint64_t offset, uint64_t length)
{
	return add_range(&c->missing, &c->nmissing, &c->capmissing, offset, length);
}

static struct tw_error *add_left_out(struct tw_disk_content *c, uint64_t offset, uint64_t length)
{
	return add_range(&c->left_out, &c->nleft_out, &c->capleft_out, offset, length);
}

static struct tw_error *add_part(struct tw_disk_content *c, const struct part *part)
{
	struct part *last = c->nparts ? &c->parts[c->nparts - 1] : NULL;
	if (last && last->zeroes == part->zeroes && last->offset + last->length == part->offset &&
		(part->zeroes || last->at + last->length == part->at)) {
		last->length += part->length;
		return NULL;
	}
	if (!TW_GROW(c->parts, c->nparts, c->capparts))
		return tw_error_nomem();
	c->parts[c->nparts++] = *part;
	return NULL;
}

/* Bytes of a file that lie in a row in the volume. What was written again comes with a later event, and that
 * event tells of these sectors alone: so the others have to be told now. */
static struct tw_error *take_mapped(
	struct tw_disk_content *c, struct tw_volume *volume, uint64_t offset, uint64_t length, uint64_t from)
{
	const uint64_t first = from & ~(uint64_t)(TW_SECTOR_SIZE - 1);
	const uint64_t end = (from + length + TW_SECTOR_SIZE - 1) & ~(uint64_t)(TW_SECTOR_SIZE - 1);
	uint8_t *to = tw_buf_reserve(&c->bytes, end - first);
	uint8_t *stale = tw_buf_reserve(&c->stale, (end - first) >> TW_SECTOR_SHIFT);
	if (!to || !stale)
		return tw_error_nomem();
	read_sectors(volume, first, to, end - first, stale);
	for (uint64_t at = from, stop; at < from + length; at = stop) {
		const uint8_t is = stale[(at - first) >> TW_SECTOR_SHIFT];
		for (stop = (at | (TW_SECTOR_SIZE - 1)) + 1; stop < end; stop += TW_SECTOR_SIZE)
			if (stale[(stop - first) >> TW_SECTOR_SHIFT] != is)
				break;
		stop = stop < from + length ? stop : from + length;
		const struct part part = {offset + (at - from), stop - at, c->bytes.len + (at - first), false};
		TW_TRY(is ? add_missing(c, part.offset, part.length) : add_part(c, &part));
	}
	/* What follows in the file may follow here, too. */
	c->bytes.len += from - first + length;
	return NULL;
}

/* The first extent that ends behind a block of the file, or the place behind the last. */
static const struct tw_extent *extent_behind(const struct tw_extent *e, uint32_t n, uint64_t lblk)
{
	uint32_t low = 0;
	while (low < n) {
		uint32_t mid = low + (n - low) / 2;
		if ((uint64_t)e[mid].lblk + e[mid].count <= lblk)
			low = mid + 1;
		else
			n = mid;
	}
	return &e[low];
}

static struct tw_error *take_range(struct tw_disk_content *c, struct tw_volume *volume,
	const struct tw_inode *inode, uint64_t offset, uint64_t length)
{
	const uint32_t bits = tw_view_blockbits(volume->ops->view(volume->fs));
	const uint64_t end = offset + length;
	struct tw_extent one;
	uint32_t n;
	const struct tw_extent *all = tw_inode_extents(inode, &one, &n);
	const struct tw_extent *e = extent_behind(all, n, offset >> bits);
	while (offset < end) {
		bool hole = e == all + n || (uint64_t)e->lblk << bits > offset;
		uint64_t stop = e == all + n ? end
				: hole	     ? (uint64_t)e->lblk << bits
					     : ((uint64_t)e->lblk + e->count) << bits;
		stop = stop < end ? stop : end;
		const struct part zeroes = {offset, stop - offset, 0, true};
		if (hole || e->unwritten)
			TW_TRY(add_part(c, &zeroes));
		else
			TW_TRY(take_mapped(c, volume, offset, stop - offset,
				(e->block << bits) + (offset - ((uint64_t)e->lblk << bits))));
		e += !hole;
		offset = stop;
	}
	return NULL;
}

static struct tw_error *take_inline(struct tw_disk_content *c, struct tw_volume *volume,
	const struct tw_event *event)
{
	if (!volume->ops->inline_data(volume->fs, (uint32_t)event->inode, &c->bytes) ||
		c->bytes.len < event->size)
		return add_missing(c, 0, event->size);
	const struct part part = {0, event->size, 0, false};
	return event->size ? add_part(c, &part) : NULL;
}

/* Ranges up to the limit. */
static struct tw_error *take_ranges(struct tw_disk_content *c, struct tw_volume *volume,
	const struct tw_inode *inode, const struct tw_range *ranges, size_t n, uint64_t left)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t offset = ranges[i].offset, length = ranges[i].length;
		uint64_t part = length < left ? length : left;
		if (part)
			TW_TRY(take_range(c, volume, inode, offset, part));
		if (part < length)
			TW_TRY(add_left_out(c, offset + part, length - part));
		left -= part;
	}
	return NULL;
}

static struct tw_error *take_event(struct tw_disk_content *c, struct tw_volume *volume,
	const struct tw_event *event, bool whole, uint64_t max)
{
	struct tw_view *view = volume->ops->view(volume->fs);
	const struct tw_inode *inode = tw_view_inode(view, (uint32_t)event->inode);
	const struct tw_range all = {0, event->size};
	if (!inode)
		return NULL;
	const bool in_inode = tw_view_flags(view, inode) & TW_FLAG_INLINE;
	if ((whole || in_inode) && event->size > max)
		return add_left_out(c, 0, event->size);
	if (in_inode)
		return take_inline(c, volume, event);
	return whole ? take_ranges(c, volume, inode, &all, event->size != 0, max)
		     : take_ranges(c, volume, inode, event->ranges, event->nranges, max);
}

static struct tw_error *finish(struct tw_disk_content *c, bool whole, uint64_t size)
{
	/* Never a mixture of then and now. */
	if (whole && c->nmissing) {
		c->nparts = c->nmissing = 0;
		TW_TRY(add_missing(c, 0, size));
	}
	if (c->cappieces < c->nparts) {
		struct tw_content_piece *more = reallocarray(c->pieces, c->nparts, sizeof(*more));
		if (!more)
			return tw_error_nomem();
		c->pieces = more;
		c->cappieces = c->nparts;
	}
	for (size_t i = 0; i < c->nparts; i++) {
		const struct part *part = &c->parts[i];
		const uint8_t *data = part->zeroes ? NULL : (const uint8_t *)c->bytes.data + part->at;
		c->pieces[i] = (struct tw_content_piece){part->offset, part->length, data};
	}
	c->content = (struct tw_content){c->pieces, c->nparts, c->missing, c->nmissing, c->left_out,
		c->nleft_out, whole};
	return NULL;
}

static struct tw_content_wish wish_for(
	struct tw_disk_content *c, const struct tw_event *event, bool *whole)
{
	const struct tw_content_wish none = {TW_CONTENT_NONE, 0};
	if (event->kind != TW_KIND_FILE || event->encrypted)
		return none;
	struct tw_content_wish wish = tw_content_rules_match(c->rules, event->type, event->volume, event->path);
	/* What comes in from elsewhere is new to whoever follows the place, whatever it holds. */
	bool arrives = event->type == TW_EVENT_FILE_LINKED ||
		       (event->type == TW_EVENT_FILE_RENAMED &&
			       !tw_content_rules_match(c->rules, event->type, event->volume, event->old_path).mode);
	*whole = arrives || wish.mode == TW_CONTENT_FULL;
	switch (event->type) {
	case TW_EVENT_FILE_CREATED:
	case TW_EVENT_FILE_MODIFIED:
		return wish;
	case TW_EVENT_FILE_TRUNCATED:
		return wish.mode == TW_CONTENT_FULL ? wish : none;
	default:
		return arrives ? wish : none;
	}
}

struct tw_error *tw_content_attach(struct tw_volume *volume, struct tw_event *event)
{
	struct tw_disk_content *c = volume->disk->content;
	bool whole;
	if (!c->attaches || event->sequence <= c->told)
		return NULL;
	struct tw_content_wish wish = wish_for(c, event, &whole);
	if (wish.mode == TW_CONTENT_NONE)
		return NULL;
	tw_buf_reset(&c->bytes);
	c->nparts = c->nmissing = c->nleft_out = 0;
	TW_TRY(take_event(c, volume, event, whole, wish.max_bytes));
	TW_TRY(finish(c, whole, event->size));
	event->content = &c->content;
	return NULL;
}

struct logged {
	struct tw_recent *recent;
	const uint8_t *data;
	struct tw_error *err;
};

static void keep_piece(uint64_t disk_offset, uint64_t bytes, void *arg)
{
	struct logged *l = arg;
	if (!l->err)
		l->err = tw_recent_put(l->recent, disk_offset, l->data, bytes);
	l->data += bytes;
}

struct tw_error *tw_content_logged(
	struct tw_volume *volume, uint64_t offset, const void *data, size_t len)
{
	if (!volume->disk->content || !volume->disk->content->keeps)
		return NULL;
	struct logged l = {volume->disk->content->recent, data, NULL};
	tw_segments_each(&volume->place.segments, offset, len, keep_piece, &l);
	return l.err;
}

struct tw_error *tw_content_read(struct tw_volume *volume, const struct tw_inode *inode, uint64_t offset,
	uint64_t length, const struct tw_content_sink *sink, enum tw_content_found *found)
{
	struct tw_disk_content *c = volume->disk->content;
	tw_buf_reset(&c->bytes);
	c->nparts = c->nmissing = c->nleft_out = 0;
	c->broken = false;
	TW_TRY(take_range(c, volume, inode, offset, length));
	*found = !c->nmissing ? TW_CONTENT_EXACT : c->broken || !c->ring ? TW_CONTENT_NEVER : TW_CONTENT_LATER;
	for (size_t i = 0; !c->nmissing && i < c->nparts; i++) {
		const struct part *part = &c->parts[i];
		const uint8_t *data = part->zeroes ? NULL : (const uint8_t *)c->bytes.data + part->at;
		TW_TRY(sink->take(data, part->length, sink->arg));
	}
	return NULL;
}
