/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the sectors of a disk's partition tables lie. libblkid reads what they say; this finds
 * them, so that it has them to read and that a write to them is seen. Layouts: the MBR and its
 * chain of extended boot records, and the UEFI specification, chapter 5 (GPT).
 */
#ifndef TW_VOLUME_TABLES_H
#define TW_VOLUME_TABLES_H

#include "volume/layout.h"
#include "volume/window.h"

/* Adds the spots of every table to the layout and copies them into the window. sector: bytes of
 * one. */
struct tw_error *tw_tables_find(
	struct tw_window *window, uint32_t sector, struct tw_layout *layout) TW_MUST_CHECK;

#endif
