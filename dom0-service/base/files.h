/* SPDX-License-Identifier: BSD-3-Clause */
/* How many files a process may have open. */
#ifndef TW_BASE_FILES_H
#define TW_BASE_FILES_H

/* Raises the limit of open files (RLIMIT_NOFILE) as far as the hard limit allows, up to some 65,000: the soft one
 * is 1,024 for programs that use select(). Children inherit it. Returns the limit that is in force. */
unsigned int tw_files_raise_limit(void);

#endif
