/* SPDX-License-Identifier: BSD-3-Clause */
#include "volume/lvm_inside.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define MAX_PVS 64u
#define MAX_TEXT (16u << 20)
#define MAX_PARTS 1000000u

struct lvm {
	struct tw_lvm_pv *pvs;
	size_t n, cap;
};

static struct tw_error *read_pvs(
	struct lvm *lvm, const struct tw_source *disk, struct tw_layout *layout)
{
	struct tw_lvm_budget budget = {.bytes = MAX_TEXT, .parts = MAX_PARTS};
	for (size_t i = 0; i < layout->n; i++) {
		const struct tw_volume_place *place = &layout->places[i];
		if (strcmp(place->type, "LVM2_member") || lvm->n == MAX_PVS)
			continue;
		if (!TW_GROW(lvm->pvs, lvm->n, lvm->cap))
			return tw_error_nomem();
		struct tw_lvm_pv *pv = &lvm->pvs[lvm->n++];
		*pv = (struct tw_lvm_pv){.place = i,
			.start = tw_segments_start(&place->segments),
			.bytes = place->segments.bytes};
		TW_TRY(tw_lvm_pv_read(disk, layout, &budget, pv));
	}
	return NULL;
}

/* An identity that is there twice is nobody's: one is a copy, and the metadata does not tell which.
 */
static void drop_copies(struct lvm *lvm, struct tw_layout *layout)
{
	for (size_t i = 0; i < lvm->n; i++) {
		bool copy = false;
		for (size_t k = 0; k < lvm->n; k++)
			copy |= k != i && *lvm->pvs[i].id.text &&
				!strcmp(lvm->pvs[i].id.text, lvm->pvs[k].id.text);
		if (copy)
			tw_volume_place_refuse(&layout->places[lvm->pvs[i].place],
				"an LVM physical volume whose identity is on this disk twice");
	}
	for (size_t i = 0; i < lvm->n; i++)
		if (*layout->places[lvm->pvs[i].place].why) {
			*lvm->pvs[i].id.text = '\0';
			lvm->pvs[i].group = NULL;
		}
}

/* True when no other copy of the group's metadata is newer; of equal ones the first counts. */
static bool is_newest(const struct lvm *lvm, size_t index)
{
	const struct tw_lvm_pv *pv = &lvm->pvs[index];
	for (size_t i = 0; i < lvm->n; i++) {
		const struct tw_lvm_pv *other = &lvm->pvs[i];
		if (i == index || !other->group || strcmp(other->group_id.text, pv->group_id.text))
			continue;
		if (other->seqno > pv->seqno || (other->seqno == pv->seqno && i < index))
			return false;
	}
	return pv->group != NULL;
}

static bool has_member(const struct tw_lvm_node *group, const struct tw_lvm_id *id)
{
	const struct tw_lvm_node *pv = tw_lvm_child(group, "physical_volumes", TW_LVM_SECTION);
	struct tw_lvm_id other;
	for (pv = pv ? pv->child : NULL; pv; pv = pv->next)
		if (tw_lvm_id_of(pv, &other) && !strcmp(id->text, other.text))
			return true;
	return false;
}

/* The newest metadata that knows a physical volume, or NULL. */
static const struct tw_lvm_node *group_of(const struct lvm *lvm, const struct tw_lvm_pv *pv)
{
	for (size_t i = 0; i < lvm->n; i++)
		if (is_newest(lvm, i) && has_member(lvm->pvs[i].group, &pv->id))
			return lvm->pvs[i].group;
	return NULL;
}

static void say_why(
	const struct lvm *lvm, const struct tw_lvm_pv *pv, struct tw_volume_place *place)
{
	const struct tw_lvm_node *group = *pv->id.text ? group_of(lvm, pv) : NULL;
	if (*place->why)
		return;
	place->expected = group || !*pv->why;
	if (group)
		tw_volume_place_refuse(place, "a physical volume of the LVM group %.*s",
			(int)group->key.len, (const char *)group->key.data);
	else if (*pv->why)
		tw_volume_place_refuse(place, "an LVM physical volume: %s", pv->why);
	else
		tw_volume_place_refuse(place, "an LVM physical volume of no group, or of one whose "
					      "metadata is elsewhere");
}

static struct tw_error *find_volumes(
	const struct lvm *lvm, const struct tw_source *disk, struct tw_layout *layout)
{
	for (size_t i = 0; i < lvm->n; i++)
		say_why(lvm, &lvm->pvs[i], &layout->places[lvm->pvs[i].place]);
	for (size_t i = 0; i < lvm->n; i++)
		if (is_newest(lvm, i))
			TW_TRY(tw_lvm_group_map(lvm->pvs[i].group, &lvm->pvs[i].group_id, lvm->pvs,
				lvm->n, disk->bytes, layout));
	return NULL;
}

struct tw_error *tw_lvm_find(const struct tw_source *disk, struct tw_layout *layout)
{
	struct lvm lvm = {0};
	struct tw_error *err = read_pvs(&lvm, disk, layout);
	drop_copies(&lvm, layout);
	if (!err)
		err = find_volumes(&lvm, disk, layout);
	for (size_t i = 0; i < lvm.n; i++)
		tw_lvm_pv_deinit(&lvm.pvs[i]);
	free(lvm.pvs);
	return err;
}
