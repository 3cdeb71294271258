/* SPDX-License-Identifier: BSD-3-Clause */
/* Scope guards: release what a variable holds when it goes out of scope. */
#ifndef TW_BASE_SCOPE_H
#define TW_BASE_SCOPE_H

#include <stdlib.h>
#include <unistd.h>

static inline void tw_scope_free(void *p)
{
	free(*(void **)p);
}

static inline void tw_scope_close(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define TW_AUTO_FREE __attribute__((cleanup(tw_scope_free)))
#define TW_AUTO_CLOSE __attribute__((cleanup(tw_scope_close)))

/* Takes the pointer out of a guarded variable, so that the guard lets it live. */
#define TW_STEAL(p)                                                                                \
	({                                                                                         \
		__auto_type tw_stolen = (p);                                                       \
		(p) = NULL;                                                                        \
		tw_stolen;                                                                         \
	})

#endif
