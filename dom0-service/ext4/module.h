/* SPDX-License-Identifier: BSD-3-Clause */
/* The ext4 module's line for the table in volume/fs.c. */
#ifndef TW_EXT4_MODULE_H
#define TW_EXT4_MODULE_H

#include "volume/fs.h"

extern const struct tw_fs_ops tw_fs_ext4;

#endif
