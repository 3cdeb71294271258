/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside of LVM: lvm_pv.c reads physical volumes, lvm_group.c maps a group's logical volumes, lvm.c
 * puts them together. */
#ifndef TW_VOLUME_LVM_INSIDE_H
#define TW_VOLUME_LVM_INSIDE_H

#include "volume/lvm.h"
#include "volume/lvm_text.h"

/* Letters and digits of an identity; the text has dashes in between, the label has not. */
#define TW_LVM_ID 32u

struct tw_lvm_id {
	char text[TW_LVM_ID + 1];
};

/* What all metadata of a disk may have: bytes and parts. Copies of a text that was read are not
 * read again. */
struct tw_lvm_budget {
	size_t bytes, parts;
	uint32_t seen[64]; /* checksums */
	unsigned nseen;
};

/* A physical volume on this disk. */
struct tw_lvm_pv {
	size_t place;          /* in the layout */
	uint64_t start, bytes; /* on the disk */
	struct tw_lvm_id id;
	char *metadata; /* the newest text that it holds, or NULL */
	struct tw_lvm_text *text;
	const struct tw_lvm_node *group; /* the section of the volume group, or NULL */
	struct tw_lvm_id group_id;
	uint64_t seqno;
	char why[96]; /* why it has no metadata */
};

/* Reads the label and the metadata. What is broken is in pv->why. */
struct tw_error *tw_lvm_pv_read(const struct tw_source *disk, struct tw_layout *layout,
	struct tw_lvm_budget *budget, struct tw_lvm_pv *pv) TW_MUST_CHECK;
void tw_lvm_pv_deinit(struct tw_lvm_pv *pv);

/* The identity of that name in a section. False: it has none, or one that breaks the rules. */
bool tw_lvm_id_of(const struct tw_lvm_node *node, struct tw_lvm_id *out);
/* Names are letters, digits and some signs; so they can stand in a subject and in a log. */
bool tw_lvm_name_ok(struct tw_span name);

/* Adds a group's logical volumes. pvs: all of this disk. */
struct tw_error *tw_lvm_group_map(const struct tw_lvm_node *group, const struct tw_lvm_id *id,
	const struct tw_lvm_pv *pvs, size_t npvs, uint64_t disk_bytes,
	struct tw_layout *layout) TW_MUST_CHECK;

#endif
