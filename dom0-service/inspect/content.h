/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What files hold, for the events of a disk: as the stream of writes says it at the event's place in it.
 * Mostly it was in the stream a moment ago; else it is read from the image, which may have gone on: then
 * it counts only when no later write has touched it. What one has touched a later event brings. One
 * thread.
 */
#ifndef TW_INSPECT_CONTENT_H
#define TW_INSPECT_CONTENT_H

#include "content/rules.h"
#include "inspect/disk.h"
#include "ring.h"

struct tw_disk_content;

/* rules is taken. */
struct tw_error *tw_disk_content_create(
	struct tw_content_rules *rules, struct tw_disk_content **out) TW_MUST_CHECK;
void tw_disk_content_destroy(struct tw_disk_content *content); /* NULL is fine */

/* Whatever the rules say: what is written is kept. Of a mirror there is nothing else to read. */
void tw_disk_content_keep_all(struct tw_disk_content *content);
/* Whether it keeps what is written: else the inspector needs the content of no file's writes. */
bool tw_disk_content_keeps(const struct tw_disk_content *content);
/* Borrowed. */
struct tw_content_rules *tw_disk_content_rules(struct tw_disk_content *content);

/* The ring whose records come next, borrowed; NULL: nobody can tell what was written since, so nothing
 * is read from the image. */
void tw_disk_content_set_ring(struct tw_disk_content *content, struct tw_ring_reader *ring);
/* There is no ring, and the image stays the disk as it was before the first record: what no record has
 * written to is read from it. */
struct tw_error *tw_disk_content_set_base(
	struct tw_disk_content *content, uint64_t disk_bytes) TW_MUST_CHECK;
/* Events up to this number need no content: they have been told. */
void tw_disk_content_set_told(struct tw_disk_content *content, uint64_t sequence);

/* A record that will be followed again: of a log, all of them, before its first. */
struct tw_error *tw_disk_content_expect(
	struct tw_disk_content *content, const struct tw_record *record) TW_MUST_CHECK;
/* The record of this number is followed from now on. */
void tw_disk_content_at(struct tw_disk_content *content, uint64_t record);
/* The log has come to its end. */
void tw_disk_content_caught_up(struct tw_disk_content *content);
/* Writes were passed over: what came by the stream does not count any more. */
void tw_disk_content_forget(struct tw_disk_content *content);

/* NULL: events carry no content. Borrowed. */
void tw_disk_set_content(struct tw_disk *disk, struct tw_disk_content *content);

#endif
