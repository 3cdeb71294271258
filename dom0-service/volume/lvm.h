/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * LVM2: physical volumes and the logical volumes on them, from a disk's bytes. LVM's own library
 * went out of Debian with version 2.03, and its tools want block devices and the device mapper; so
 * this reads the format itself, as lib/format_text and lib/label of LVM2 describe it.
 */
#ifndef TW_VOLUME_LVM_H
#define TW_VOLUME_LVM_H

#include "base/span.h"
#include "volume/layout.h"
#include "volume/source.h"

/* Adds the logical volumes of the layout's places of type LVM2_member to it, each with its segments
 * or the reason why it has none; gives the places themselves a reason, and the spots where a change
 * shows. Whatever the metadata says is no error. */
struct tw_error *tw_lvm_find(const struct tw_source *disk, struct tw_layout *layout) TW_MUST_CHECK;

#endif
