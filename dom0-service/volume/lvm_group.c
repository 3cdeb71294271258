/* SPDX-License-Identifier: BSD-3-Clause */
/* From a volume group's metadata to the segments of its logical volumes. */
#include "volume/lvm_inside.h"

#include "base/mem.h"
#include "base/scope.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512u
#define MAX_MEMBERS 1024u
#define MAX_STRIPES 128u
/* Of all logical volumes of a group. */
#define MAX_AREAS (4 * TW_SEGMENTS_MAX_AREAS)

/* A physical volume as the group knows it. */
struct member {
	struct tw_span name;
	const struct tw_lvm_pv *pv; /* NULL: not on this disk */
	uint64_t pe_start;          /* bytes */
	uint64_t pe_count;
};

/* What a snapshot takes part in. */
struct snapshot {
	struct tw_span origin, store;
	bool merging;
};

struct map {
	const struct tw_lvm_node *group, *volumes; /* volumes: the section of the logical ones */
	const struct tw_lvm_id *id;
	uint64_t extent, disk_bytes;
	struct member *members;
	size_t nmembers, capmembers;
	struct snapshot *snapshots;
	size_t nsnapshots, capsnapshots;
	size_t areas, first_place;
	struct tw_layout *layout;
};

/* A number of extents as bytes. False: no such number. */
static bool extents(const struct map *m, uint64_t n, uint64_t *bytes)
{
	return !__builtin_mul_overflow(n, m->extent, bytes) && *bytes <= INT64_MAX;
}

static struct tw_error *refused(const char *what)
{
	return tw_error_create(TW_UNSUPPORTED, "%s", what);
}

static struct tw_error *broken(const char *what)
{
	return tw_error_create(TW_BAD_DATA, "LVM metadata: %s", what);
}

static bool is_segment(const struct tw_lvm_node *node)
{
	return node->kind == TW_LVM_SECTION && node->key.len > 7 &&
	       !memcmp(node->key.data, "segment", 7);
}

static struct tw_span type_of(const struct tw_lvm_node *segment)
{
	const struct tw_lvm_node *type = tw_lvm_child(segment, "type", TW_LVM_STRING);
	return type ? type->text : tw_span(NULL, 0);
}

static struct tw_error *find_members(struct map *m, const struct tw_lvm_pv *pvs, size_t npvs)
{
	const struct tw_lvm_node *list = tw_lvm_child(m->group, "physical_volumes", TW_LVM_SECTION);
	for (list = list ? list->child : NULL; list; list = list->next) {
		struct member member = {.name = list->key};
		struct tw_lvm_id id;
		uint64_t start = tw_lvm_number(list, "pe_start");
		member.pe_count = tw_lvm_number(list, "pe_count");
		if (!tw_lvm_id_of(list, &id) || start > INT64_MAX / SECTOR ||
			m->nmembers == MAX_MEMBERS)
			continue;
		member.pe_start = start * SECTOR;
		for (size_t i = 0; i < npvs && !member.pv; i++)
			if (!strcmp(pvs[i].id.text, id.text))
				member.pv = &pvs[i];
		if (!TW_GROW(m->members, m->nmembers, m->capmembers))
			return tw_error_nomem();
		m->members[m->nmembers++] = member;
	}
	return NULL;
}

static struct tw_error *find_snapshots(struct map *m)
{
	for (const struct tw_lvm_node *lv = m->volumes->child; lv; lv = lv->next)
		for (const struct tw_lvm_node *s = lv->child; s; s = s->next) {
			if (!is_segment(s) || !tw_lvm_is(type_of(s), "snapshot"))
				continue;
			const struct tw_lvm_node *origin = tw_lvm_child(s, "origin", TW_LVM_STRING);
			const struct tw_lvm_node *store =
				tw_lvm_child(s, "cow_store", TW_LVM_STRING);
			bool merging = !store;
			if (merging)
				store = tw_lvm_child(s, "merging_store", TW_LVM_STRING);
			if (!origin || !store)
				continue;
			if (!TW_GROW(m->snapshots, m->nsnapshots, m->capsnapshots))
				return tw_error_nomem();
			m->snapshots[m->nsnapshots++] =
				(struct snapshot){origin->text, store->text, merging};
		}
	return NULL;
}

/* --- where extents are --- */

static struct tw_error *on_member(const struct map *m, const struct member *member, uint64_t pe,
	uint64_t count, uint64_t *start)
{
	const struct tw_lvm_pv *pv = member->pv;
	uint64_t at, bytes, end;
	if (!pv)
		return tw_error_create(TW_UNSUPPORTED,
			"a part of it is on another disk (the group's %.*s)",
			(int)(member->name.len < 64 ? member->name.len : 64),
			(const char *)member->name.data);
	if (!extents(m, pe, &at) || !extents(m, count, &bytes) || pe > member->pe_count ||
		count > member->pe_count - pe)
		return broken("extents beyond the end of a physical volume");
	at += member->pe_start;
	if (__builtin_add_overflow(at, bytes, &end) || end > pv->bytes)
		return broken("extents beyond the end of a physical volume");
	*start = pv->start + at;
	return NULL;
}

static const struct member *find_member(const struct map *m, struct tw_span name)
{
	for (size_t i = 0; i < m->nmembers; i++)
		if (tw_lvm_same(m->members[i].name, name))
			return &m->members[i];
	return NULL;
}

/* A pair of a list: a name, and the first extent there. False: there is none. */
static bool pair_of(
	const struct tw_lvm_node *list, uint64_t index, struct tw_span *name, uint64_t *extent)
{
	const struct tw_lvm_node *node = list ? list->child : NULL;
	while (node && index--)
		node = node->next ? node->next->next : NULL;
	if (!node || node->kind != TW_LVM_STRING || !node->next ||
		node->next->kind != TW_LVM_NUMBER)
		return false;
	*name = node->text;
	*extent = node->next->number;
	return true;
}

/* pvmove copies one part after the other: parts that are done are where they go to, the others
 * where they came from; what is written to the one under way goes to both. */
static struct tw_error *moved_part(const struct map *m, const struct tw_lvm_node *segment,
	uint64_t le, uint64_t count, uint64_t *start)
{
	uint64_t first = tw_lvm_number(segment, "start_extent"), pe;
	uint64_t moved = tw_lvm_number(segment, "extents_moved");
	bool mirror = tw_lvm_is(type_of(segment), "mirror");
	bool done = mirror && moved == tw_lvm_number(segment, "extent_count");
	const struct tw_lvm_node *list =
		tw_lvm_child(segment, mirror ? "mirrors" : "stripes", TW_LVM_LIST);
	struct tw_span name;
	if (!mirror && tw_lvm_number(segment, "stripe_count") != 1)
		return refused("pvmove is moving it in a way that is not followed");
	const struct member *member = pair_of(list, done, &name, &pe) ? find_member(m, name) : NULL;
	if (!member || __builtin_add_overflow(pe, le - first, &pe))
		return broken("a pvmove from nowhere");
	return on_member(m, member, pe, count, start);
}

static struct tw_error *on_moved(
	const struct map *m, struct tw_span name, uint64_t le, uint64_t count, uint64_t *start)
{
	const struct tw_lvm_node *lv = m->volumes->child;
	while (lv && !(lv->kind == TW_LVM_SECTION && tw_lvm_same(lv->key, name)))
		lv = lv->next;
	for (const struct tw_lvm_node *s = lv ? lv->child : NULL; s; s = s->next) {
		if (!is_segment(s))
			continue;
		uint64_t first = tw_lvm_number(s, "start_extent");
		uint64_t n = tw_lvm_number(s, "extent_count");
		if (le >= first && le - first < n && count <= n - (le - first))
			return moved_part(m, s, le, count, start);
	}
	return refused("pvmove is moving it in a way that is not followed");
}

/* Where count extents begin on the disk. */
static struct tw_error *locate(
	const struct map *m, struct tw_span name, uint64_t extent, uint64_t count, uint64_t *start)
{
	const struct member *member = find_member(m, name);
	if (member)
		return on_member(m, member, extent, count, start);
	if (name.len > 6 && !memcmp(name.data, "pvmove", 6))
		return on_moved(m, name, extent, count, start);
	return broken("a stripe on no physical volume");
}

/* --- logical volumes --- */

static struct tw_error *map_striped(
	struct map *m, const struct tw_lvm_node *segment, uint64_t count, struct tw_segments *out)
{
	uint64_t starts[MAX_STRIPES], n = tw_lvm_number(segment, "stripe_count"), bytes, extent;
	uint64_t size = n == 1 ? 1 : tw_lvm_number(segment, "stripe_size");
	const struct tw_lvm_node *list = tw_lvm_child(segment, "stripes", TW_LVM_LIST);
	if (!n || n > MAX_STRIPES || count % n || !size || size > INT64_MAX / SECTOR)
		return broken("stripes of an impossible number or size");
	if (!extents(m, count, &bytes))
		return broken("a segment without an end");
	m->areas += n;
	if (m->areas > MAX_AREAS)
		return refused("the group's volumes lie in too many parts");
	for (uint64_t i = 0; i < n; i++) {
		struct tw_span name;
		if (!pair_of(list, i, &name, &extent))
			return broken("a segment with too few stripes");
		TW_TRY(locate(m, name, extent, count / n, &starts[i]));
	}
	return tw_segments_add(out, bytes, (uint32_t)n, size * SECTOR, starts);
}

static struct tw_error *other_type(struct tw_span type)
{
	if (!tw_lvm_name_ok(type))
		return broken("a segment without a type");
	return tw_error_create(TW_UNSUPPORTED, "LVM segments of type %.*s are not followed",
		(int)type.len, (const char *)type.data);
}

static struct tw_error *map_segments(
	struct map *m, const struct tw_lvm_node *lv, struct tw_segments *out)
{
	uint64_t next = 0, n = 0;
	for (const struct tw_lvm_node *s = lv->child; s; s = s->next) {
		if (!is_segment(s))
			continue;
		uint64_t count = tw_lvm_number(s, "extent_count");
		struct tw_span type = type_of(s);
		if (!tw_lvm_is(type, "striped") && !tw_lvm_is(type, "linear"))
			return other_type(type);
		if (tw_lvm_number(s, "start_extent") != next || !count ||
			__builtin_add_overflow(next, count, &next))
			return broken("segments that do not follow each other");
		TW_TRY(map_striped(m, s, count, out));
		n++;
	}
	if (!n || n != tw_lvm_number(lv, "segment_count"))
		return broken("a segment is missing");
	return tw_segments_finish(out, m->disk_bytes);
}

static struct tw_error *check_overlap(const struct map *m, const struct tw_segments *segments)
{
	for (size_t i = m->first_place; i + 1 < m->layout->n; i++)
		if (tw_segments_overlap(&m->layout->places[i].segments, segments))
			return broken("an extent that has two volumes");
	return NULL;
}

/* What is written to an origin goes to its own extents; only a snapshot's content is spread. */
static bool is_snapshot(const struct map *m, const struct tw_lvm_node *lv)
{
	for (size_t i = 0; i < m->nsnapshots; i++)
		if (tw_lvm_same(m->snapshots[i].store, lv->key))
			return true;
	return false;
}

static bool is_merged_into(const struct map *m, const struct tw_lvm_node *lv)
{
	for (size_t i = 0; i < m->nsnapshots; i++)
		if (m->snapshots[i].merging && tw_lvm_same(m->snapshots[i].origin, lv->key))
			return true;
	return false;
}

static struct tw_error *map_volume(
	struct map *m, const struct tw_lvm_node *lv, struct tw_volume_place *place)
{
	if (is_snapshot(m, lv))
		return refused("LVM volumes of type snapshot are not followed");
	if (is_merged_into(m, lv))
		return refused("an LVM snapshot is being merged into it");
	TW_TRY(map_segments(m, lv, &place->segments));
	return check_overlap(m, &place->segments);
}

static struct tw_error *add_volume(struct map *m, const struct tw_lvm_node *lv)
{
	struct tw_volume_place *place;
	struct tw_lvm_id id;
	if (!tw_lvm_name_ok(lv->key) || !tw_lvm_id_of(lv, &id))
		return NULL;
	TW_TRY(tw_layout_add(m->layout, &place));
	if (!place)
		return NULL;
	snprintf(place->name, sizeof(place->name), "%.*s/%.*s", (int)m->group->key.len,
		(const char *)m->group->key.data, (int)lv->key.len, (const char *)lv->key.data);
	snprintf(place->id, sizeof(place->id), "%s/%s", m->id->text, id.text);
	struct tw_error *err = map_volume(m, lv, place);
	if (!err)
		return NULL;
	tw_segments_deinit(&place->segments);
	if (tw_error_code(err) == TW_NOMEM || tw_error_code(err) == TW_IO)
		return err;
	tw_volume_place_refuse(place, "%s", tw_error_message(err));
	tw_error_destroy(err);
	return NULL;
}

static struct tw_error *map_all(struct map *m, const struct tw_lvm_pv *pvs, size_t npvs)
{
	TW_TRY(find_members(m, pvs, npvs));
	TW_TRY(find_snapshots(m));
	for (const struct tw_lvm_node *lv = m->volumes->child; lv; lv = lv->next)
		if (lv->kind == TW_LVM_SECTION &&
			(tw_lvm_has(lv, "status", "VISIBLE") || is_snapshot(m, lv)))
			TW_TRY(add_volume(m, lv));
	return NULL;
}

struct tw_error *tw_lvm_group_map(const struct tw_lvm_node *group, const struct tw_lvm_id *id,
	const struct tw_lvm_pv *pvs, size_t npvs, uint64_t disk_bytes, struct tw_layout *layout)
{
	struct map m = {.group = group, .id = id, .disk_bytes = disk_bytes, .layout = layout};
	uint64_t sectors = tw_lvm_number(group, "extent_size");
	m.volumes = tw_lvm_child(group, "logical_volumes", TW_LVM_SECTION);
	if (!m.volumes || !sectors || sectors > INT64_MAX / SECTOR)
		return NULL;
	m.extent = sectors * SECTOR;
	m.first_place = layout->n;
	struct tw_error *err = map_all(&m, pvs, npvs);
	free(m.members);
	free(m.snapshots);
	return err;
}
