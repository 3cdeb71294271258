/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/module.h"
#include "volume/fs.h"

#include <string.h>

static const struct {
	const char *type; /* libblkid's TYPE */
	const struct tw_fs_ops *ops;
} modules[] = {
	{"ext4", &tw_fs_ext4},
	{"ext3", &tw_fs_ext4},
	{"ext2", &tw_fs_ext4},
};

const struct tw_fs_ops *tw_fs_find(const char *type)
{
	for (size_t i = 0; i < sizeof(modules) / sizeof(*modules); i++)
		if (!strcmp(modules[i].type, type))
			return modules[i].ops;
	return NULL;
}
