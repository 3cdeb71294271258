/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/slab.h"

#include <stdint.h>
#include <sys/mman.h>

#define ALIGN 16u
#define FIRST (64u << 10)
#define HUGE (2u << 20)

/* At the start of each piece. */
struct header {
	struct header *older;
	size_t len;
};
_Static_assert(sizeof(struct header) == ALIGN, "what follows it is aligned");

static void *from_kernel(size_t len)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return at == MAP_FAILED ? NULL : at;
}

/* A multiple of a huge page, at a multiple of it. */
static void *huge_from_kernel(size_t len)
{
	char *at = from_kernel(len + HUGE);
	if (!at)
		return NULL;
	size_t before = -(uintptr_t)at & (HUGE - 1);
	if (before)
		munmap(at, before);
	if (HUGE - before)
		munmap(at + before + len, HUGE - before);
	/* Advice: without huge pages it works as well. */
	madvise(at + before, len, MADV_HUGEPAGE);
	return at + before;
}

static int grow(struct tw_slab *slab, size_t len)
{
	size_t size = slab->next ? slab->next : FIRST;
	while (size < len + sizeof(struct header) && size < HUGE)
		size *= 2;
	if (size < len + sizeof(struct header))
		size = (len + sizeof(struct header) + HUGE - 1) & ~(size_t)(HUGE - 1);
	struct header *header = size >= HUGE ? huge_from_kernel(size) : from_kernel(size);
	if (!header)
		return -1;
	header->older = slab->newest;
	header->len = size;
	slab->newest = header;
	slab->free = (char *)(header + 1);
	slab->left = size - sizeof(*header);
	slab->next = size < HUGE ? size * 2 : HUGE;
	return 0;
}

void *tw_slab_take(struct tw_slab *slab, size_t len)
{
	len = (len + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	if (len > slab->left && grow(slab, len) < 0)
		return NULL;
	void *at = slab->free;
	slab->free += len;
	slab->left -= len;
	return at;
}

void tw_slab_join(struct tw_slab *into, struct tw_slab *from)
{
	struct header *newest = into->newest, *oldest = from->newest;
	if (!oldest)
		return;
	if (!newest) {
		*into = *from;
	} else {
		/* Behind the newest one, which is in use. */
		while (oldest->older)
			oldest = oldest->older;
		oldest->older = newest->older;
		newest->older = from->newest;
	}
	*from = (struct tw_slab){0};
}

void tw_slab_deinit(struct tw_slab *slab)
{
	struct header *header = slab->newest;
	while (header) {
		struct header *older = header->older;
		munmap(header, header->len);
		header = older;
	}
	*slab = (struct tw_slab){0};
}
