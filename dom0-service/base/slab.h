/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory that is taken in pieces and given back all at once. It is zero at first. Large amounts
 * come in huge pages, where the kernel has them. */
#ifndef TW_BASE_SLAB_H
#define TW_BASE_SLAB_H

#include <stddef.h>

struct tw_slab {
	void *newest; /* list of what was taken from the kernel */
	char *free;
	size_t left, next; /* bytes in the newest one, and of the next one */
};

/* Zero is a valid start. Aligned to 16 bytes. NULL: no memory. */
void *tw_slab_take(struct tw_slab *slab, size_t len);
/* Moves all that was taken from one slab to another; what was left of it is not used any more. */
void tw_slab_join(struct tw_slab *into, struct tw_slab *from);
void tw_slab_deinit(struct tw_slab *slab);

#endif
