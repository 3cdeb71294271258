/* SPDX-License-Identifier: BSD-3-Clause */
#include "volume/lvm_inside.h"

#include "base/scope.h"

#include <isa-l/crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512u
/* The label is in one of the first sectors. */
#define LABEL_SECTORS 4u
#define MAX_METADATA_AREAS 4u
#define MDA_HEADER_BYTES 512u
#define CRC_SEED 0xf597a6cfu

/* Of the label's sector. */
enum {
	LABEL_SECTOR = 8,
	LABEL_CRC = 16,
	LABEL_CHECKED = 20,
	LABEL_OFFSET = 20,
	LABEL_TYPE = 24,
};

/* Of the header that the label points to. */
enum {
	PV_ID = 0,
	PV_BYTES = 32,
	PV_LISTS = 40,
	PV_LIST_ENTRY = 16,
};

/* Of a metadata area's header, and of the place of the text in it. */
enum {
	MDA_CRC = 0,
	MDA_CHECKED = 4,
	MDA_MAGIC = 4,
	MDA_VERSION = 20,
	MDA_START = 24,
	MDA_BYTES = 32,
	MDA_TEXT = 40,
	TEXT_OFFSET = MDA_TEXT,
	TEXT_BYTES = MDA_TEXT + 8,
	TEXT_CRC = MDA_TEXT + 16,
	TEXT_FLAGS = MDA_TEXT + 20,
	TEXT_IGNORED = 1,
};

static const char mda_magic[16] = {
	' ', 'L', 'V', 'M', '2', ' ', 'x', '[', '5', 'A', '%', 'r', '0', 'N', '*', '>'};

/* CRC-32 as LVM begins and ends it. */
static uint32_t checksum(struct tw_span data)
{
	return ~crc32_gzip_refl(~CRC_SEED, data.data, data.len);
}

bool tw_lvm_name_ok(struct tw_span name)
{
	if (!name.len || name.len > 127)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		char c = (char)name.data[i];
		bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			  (c >= '0' && c <= '9') || (c && strchr("_.+", c)) || (i && c == '-');
		if (!ok)
			return false;
	}
	return !tw_lvm_is(name, ".") && !tw_lvm_is(name, "..");
}

static bool id_from(struct tw_span text, struct tw_lvm_id *out)
{
	size_t n = 0;
	for (size_t i = 0; i < text.len; i++) {
		char c = (char)text.data[i];
		bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			  (c >= '0' && c <= '9') || c == '!' || c == '#';
		if (c == '-')
			continue;
		if (!ok || n == TW_LVM_ID)
			return false;
		out->text[n++] = c;
	}
	out->text[n] = '\0';
	return n == TW_LVM_ID;
}

bool tw_lvm_id_of(const struct tw_lvm_node *node, struct tw_lvm_id *out)
{
	const struct tw_lvm_node *id = tw_lvm_child(node, "id", TW_LVM_STRING);
	return id && id_from(id->text, out);
}

/* Where a metadata area is, in bytes from the physical volume's start. */
struct mda {
	uint64_t offset, bytes;
};

/* True for a text that has been read from this disk. */
static bool is_seen(struct tw_lvm_budget *budget, uint32_t crc)
{
	for (unsigned i = 0; i < budget->nseen; i++)
		if (budget->seen[i] == crc)
			return true;
	if (budget->nseen < sizeof(budget->seen) / sizeof(*budget->seen))
		budget->seen[budget->nseen++] = crc;
	return false;
}

/* Reads the text of an area. NULL without an error: it has none, or one that was read; pv->why may
 * say why. */
static struct tw_error *read_text(const struct tw_source *disk, struct tw_lvm_budget *budget,
	struct tw_lvm_pv *pv, const struct mda *mda, struct tw_span header, char **out, size_t *len)
{
	uint64_t offset = tw_le64(header, TEXT_OFFSET), bytes = tw_le64(header, TEXT_BYTES);
	*out = NULL;
	if (!offset || tw_le32(header, TEXT_FLAGS) & TEXT_IGNORED)
		return NULL;
	if (offset < MDA_HEADER_BYTES || offset >= mda->bytes || !bytes ||
		bytes > mda->bytes - MDA_HEADER_BYTES || bytes > budget->bytes) {
		snprintf(pv->why, sizeof(pv->why), "its metadata has no possible place or size");
		return NULL;
	}
	/* The area is a ring behind its header. */
	uint64_t first = bytes < mda->bytes - offset ? bytes : mda->bytes - offset;
	TW_AUTO_FREE char *text = malloc((size_t)bytes + 1);
	if (!text)
		return tw_error_nomem();
	uint64_t at = pv->start + mda->offset;
	TW_TRY(tw_source_read(disk, at + offset, text, (size_t)first));
	TW_TRY(tw_source_read(disk, at + MDA_HEADER_BYTES, text + first, (size_t)(bytes - first)));
	if (checksum(tw_span(text, (size_t)bytes)) != tw_le32(header, TEXT_CRC)) {
		snprintf(pv->why, sizeof(pv->why), "its metadata has a wrong checksum");
		return NULL;
	}
	if (is_seen(budget, tw_le32(header, TEXT_CRC)))
		return NULL;
	budget->bytes -= (size_t)bytes;
	*out = TW_STEAL(text);
	*len = (size_t)bytes;
	return NULL;
}

/* The one section of the text that is a volume group. */
static const struct tw_lvm_node *find_group(const struct tw_lvm_text *text)
{
	const struct tw_lvm_node *node = tw_lvm_root(text)->child;
	while (node && node->kind != TW_LVM_SECTION)
		node = node->next;
	return node;
}

static bool take_group(struct tw_lvm_pv *pv, struct tw_lvm_text *text)
{
	struct tw_lvm_id id;
	const struct tw_lvm_node *group = find_group(text);
	uint64_t seqno = tw_lvm_number(group, "seqno");
	if (!group || !tw_lvm_id_of(group, &id) || seqno == UINT64_MAX ||
		!tw_lvm_name_ok(group->key)) {
		snprintf(pv->why, sizeof(pv->why), "its metadata names no volume group");
		return false;
	}
	if (pv->group && pv->seqno >= seqno)
		return false;
	tw_lvm_text_destroy(pv->text);
	pv->text = text;
	pv->group = group;
	pv->group_id = id;
	pv->seqno = seqno;
	return true;
}

/* Takes the text, when it is newer than what there was. */
static struct tw_error *take_text(
	struct tw_lvm_budget *budget, struct tw_lvm_pv *pv, char **raw, size_t len)
{
	struct tw_lvm_text *text;
	struct tw_error *err = tw_lvm_parse(tw_span(*raw, len), &budget->parts, &text);
	if (!err && take_group(pv, text)) {
		free(pv->metadata);
		pv->metadata = TW_STEAL(*raw);
		return NULL;
	}
	if (!err) {
		tw_lvm_text_destroy(text);
		return NULL;
	}
	if (tw_error_code(err) != TW_BAD_DATA)
		return err;
	snprintf(pv->why, sizeof(pv->why), "%s", tw_error_message(err));
	tw_error_destroy(err);
	return NULL;
}

/* Reads one area; the newest text of all stays. */
static struct tw_error *read_mda(const struct tw_source *disk, struct tw_layout *layout,
	struct tw_lvm_budget *budget, struct tw_lvm_pv *pv, const struct mda *mda)
{
	uint8_t data[MDA_HEADER_BYTES];
	struct tw_span header = tw_span(data, sizeof(data));
	size_t len;
	if (mda->bytes <= MDA_HEADER_BYTES || mda->offset > pv->bytes ||
		mda->bytes > pv->bytes - mda->offset)
		return NULL;
	TW_TRY(tw_layout_add_spot(layout, pv->start + mda->offset, MDA_HEADER_BYTES));
	TW_TRY(tw_source_read(disk, pv->start + mda->offset, data, sizeof(data)));
	if (memcmp(data + MDA_MAGIC, mda_magic, sizeof(mda_magic)) ||
		tw_le32(header, MDA_VERSION) != 1 || tw_le64(header, MDA_START) != mda->offset ||
		tw_le64(header, MDA_BYTES) != mda->bytes ||
		checksum(tw_span_sub(header, MDA_CHECKED, sizeof(data))) !=
			tw_le32(header, MDA_CRC)) {
		snprintf(pv->why, sizeof(pv->why), "its metadata area is damaged");
		return NULL;
	}
	TW_AUTO_FREE char *raw = NULL;
	TW_TRY(read_text(disk, budget, pv, mda, header, &raw, &len));
	return raw ? take_text(budget, pv, &raw, len) : NULL;
}

/* The lists of the data areas, then of the metadata areas; each ends with an offset of 0. */
static size_t find_mdas(struct tw_span header, struct mda mdas[static MAX_METADATA_AREAS])
{
	size_t at = PV_LISTS, n = 0;
	while (at + PV_LIST_ENTRY <= header.len && tw_le64(header, at))
		at += PV_LIST_ENTRY;
	for (at += PV_LIST_ENTRY;
		n < MAX_METADATA_AREAS && at + PV_LIST_ENTRY <= header.len && tw_le64(header, at);
		at += PV_LIST_ENTRY)
		mdas[n++] = (struct mda){tw_le64(header, at), tw_le64(header, at + 8)};
	return n;
}

/* The label's sector, or an empty span. */
static struct tw_span find_label(struct tw_span sectors)
{
	for (size_t i = 0; i < LABEL_SECTORS; i++) {
		struct tw_span label = tw_span_sub(sectors, i * SECTOR, SECTOR);
		if (label.len == SECTOR && !memcmp(label.data, "LABELONE", 8) &&
			!memcmp(label.data + LABEL_TYPE, "LVM2 001", 8) &&
			tw_le64(label, LABEL_SECTOR) == i &&
			checksum(tw_span_sub(label, LABEL_CHECKED, SECTOR)) ==
				tw_le32(label, LABEL_CRC))
			return label;
	}
	return tw_span(NULL, 0);
}

struct tw_error *tw_lvm_pv_read(const struct tw_source *disk, struct tw_layout *layout,
	struct tw_lvm_budget *budget, struct tw_lvm_pv *pv)
{
	uint8_t sectors[LABEL_SECTORS * SECTOR];
	struct mda mdas[MAX_METADATA_AREAS];
	if (pv->bytes < sizeof(sectors)) {
		snprintf(pv->why, sizeof(pv->why), "it is too small");
		return NULL;
	}
	TW_TRY(tw_layout_add_spot(layout, pv->start, sizeof(sectors)));
	TW_TRY(tw_source_read(disk, pv->start, sectors, sizeof(sectors)));
	struct tw_span label = find_label(tw_span(sectors, sizeof(sectors)));
	struct tw_span header = tw_span_sub(label, tw_le32(label, LABEL_OFFSET), SECTOR);
	if (header.len < PV_LISTS || !id_from(tw_span_sub(header, PV_ID, TW_LVM_ID), &pv->id)) {
		snprintf(pv->why, sizeof(pv->why), "its label is damaged");
		return NULL;
	}
	size_t n = find_mdas(header, mdas);
	for (size_t i = 0; i < n; i++)
		TW_TRY(read_mda(disk, layout, budget, pv, &mdas[i]));
	return NULL;
}

void tw_lvm_pv_deinit(struct tw_lvm_pv *pv)
{
	tw_lvm_text_destroy(pv->text);
	free(pv->metadata);
}
