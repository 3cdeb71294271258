/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/files.h"

#include <sys/resource.h>

#define WANTED 65536

unsigned int tw_files_raise_limit(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return 1024; /* what every Linux gives; does not happen */
	rlim_t before = files.rlim_cur;
	if (before < WANTED && before < files.rlim_max) {
		files.rlim_cur = files.rlim_max < WANTED ? files.rlim_max : WANTED;
		if (setrlimit(RLIMIT_NOFILE, &files) < 0)
			files.rlim_cur = before;
	}
	return files.rlim_cur < WANTED ? (unsigned int)files.rlim_cur : WANTED;
}
