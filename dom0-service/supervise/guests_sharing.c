/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who has which image: two disks may share one only when neither may be written. A question costs the same with one
 * guest and with thousands: the disks of an image stand in a list of its own, one that may be written or any number
 * that may not; so the first other one tells of all.
 */
#include "supervise/guests_inside.h"

#include <stdlib.h>
#include <utlist.h>

struct tw_shared_image {
	struct {
		uint64_t device, inode;
	} key;
	struct tw_guest_entry *holders; /* that are watched */
	struct tw_guest_entry *waiters; /* that were refused because of one of them */
	bool freed;                     /* since the waiters were looked at, a holder has gone, or writes no more */
	UT_hash_handle hh;
};

/* As its tapdisk says, if there is one, else xenstore. */
static bool is_found(const struct tw_guest_entry *entry)
{
	const struct tw_instance *current = tw_guest_current(entry);
	return entry->tap.target ? entry->tap.found : current && current->found;
}

static struct tw_shared_image *find(const struct tw_guests *guests, const struct tw_guest_entry *entry)
{
	const struct tw_instance *current = tw_guest_current(entry);
	struct tw_shared_image *image, wanted = { 0 };
	if (!is_found(entry))
		return NULL;
	wanted.key.device = entry->tap.target ? entry->tap.device : current->device;
	wanted.key.inode = entry->tap.target ? entry->tap.inode : current->inode;
	HASH_FIND(hh, guests->images, &wanted.key, sizeof(wanted.key), image);
	return image;
}

static struct tw_shared_image *get(struct tw_guests *guests, const struct tw_guest_entry *entry)
{
	const struct tw_instance *current = tw_guest_current(entry);
	struct tw_shared_image *image = find(guests, entry);
	if (image || !is_found(entry))
		return image;
	image = calloc(1, sizeof(*image));
	if (!image)
		return NULL;
	image->key.device = entry->tap.target ? entry->tap.device : current->device;
	image->key.inode = entry->tap.target ? entry->tap.inode : current->inode;
	HASH_ADD(hh, guests->images, key, sizeof(image->key), image);
	return image;
}

static void drop_unused(struct tw_guests *guests, struct tw_shared_image *image)
{
	if (image->holders || image->waiters || image->freed)
		return;
	HASH_DEL(guests->images, image);
	free(image);
}

const struct tw_guest_entry *tw_guest_rival(const struct tw_guests *guests, const struct tw_guest_entry *entry)
{
	const struct tw_shared_image *image = find(guests, entry);
	const struct tw_guest_entry *other = image ? image->holders : NULL;
	if (other == entry)
		other = other->next_holder;
	if (!other || (other->holds_to_read && tw_guest_current(entry)->read_only))
		return NULL;
	return other;
}

static void let_go(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	struct tw_shared_image *image = entry->holds;
	if (!image)
		return;
	DL_DELETE2(image->holders, entry, prev_holder, next_holder);
	entry->holds = NULL;
	image->freed |= image->waiters != NULL;
	guests->freed |= image->freed;
	drop_unused(guests, image);
}

void tw_guest_hold(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	const struct tw_instance *current = tw_guest_current(entry);
	struct tw_shared_image *image = entry->put && current ? get(guests, entry) : NULL;
	if (entry->holds == image && (!image || entry->holds_to_read == current->read_only))
		return;
	let_go(guests, entry);
	image = entry->put && current ? get(guests, entry) : NULL; /* the last one may have been the only one */
	if (!image)
		return;
	entry->holds = image;
	entry->holds_to_read = current->read_only;
	DL_APPEND2(image->holders, entry, prev_holder, next_holder);
}

void tw_guest_stop_waiting(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	struct tw_shared_image *image = entry->awaits;
	if (!image)
		return;
	DL_DELETE2(image->waiters, entry, prev_waiter, next_waiter);
	entry->awaits = NULL;
	drop_unused(guests, image);
}

void tw_guest_await(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	tw_guest_stop_waiting(guests, entry);
	entry->awaits = get(guests, entry);
	if (entry->awaits)
		DL_APPEND2(entry->awaits->waiters, entry, prev_waiter, next_waiter);
}

void tw_guest_forget_image(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	tw_guest_stop_waiting(guests, entry);
	let_go(guests, entry);
}

/* Those that are refused again wait behind the last of those that wait now. */
static void serve(struct tw_guests *guests, struct tw_shared_image *image)
{
	const struct tw_guest_entry *last = image->waiters ? image->waiters->prev_waiter : NULL;
	for (bool done = !last; !done;) {
		struct tw_guest_entry *entry = image->waiters;
		done = entry == last;
		tw_guest_reconsider(guests, entry);
	}
	image->freed = false; /* not before: it must stay */
	drop_unused(guests, image);
}

void tw_guest_serve_waiters(struct tw_guests *guests)
{
	struct tw_shared_image *image, *next;
	if (!guests->freed)
		return;
	guests->freed = false;
	HASH_ITER (hh, guests->images, image, next)
		if (image->freed)
			serve(guests, image);
}

void tw_guest_images_destroy(struct tw_guests *guests)
{
	struct tw_shared_image *image, *next;
	HASH_ITER (hh, guests->images, image, next) {
		HASH_DEL(guests->images, image);
		free(image);
	}
}
