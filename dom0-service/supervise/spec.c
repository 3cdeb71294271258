/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/spec.h"

#include <stdlib.h>
#include <string.h>

/* Where a spec has strings; the numbers are copied and compared one by one. */
static const size_t strings[] = {
	offsetof(struct tw_disk_spec, name),
	offsetof(struct tw_disk_spec, image),
	offsetof(struct tw_disk_spec, ring),
	offsetof(struct tw_disk_spec, state_dir),
	offsetof(struct tw_disk_spec, courier_socket),
	offsetof(struct tw_disk_spec, id.host),
	offsetof(struct tw_disk_spec, id.domain_uuid),
	offsetof(struct tw_disk_spec, id.domain_name),
	offsetof(struct tw_disk_spec, id.vdev),
	offsetof(struct tw_disk_spec, id.epoch),
	offsetof(struct tw_disk_spec, nbd_socket),
	offsetof(struct tw_disk_spec, ring_size),
	offsetof(struct tw_disk_spec, record),
	offsetof(struct tw_disk_spec, tapdisk),
	offsetof(struct tw_disk_spec, tap_ctl),
	offsetof(struct tw_disk_spec, content),
};
#define NSTRINGS (sizeof(strings) / sizeof(strings[0]))

static const char **string_of(struct tw_disk_spec *spec, size_t i)
{
	return (const char **)(void *)((char *)spec + strings[i]);
}

struct tw_disk_spec *tw_disk_spec_copy(const struct tw_disk_spec *spec)
{
	struct tw_disk_spec *copy = calloc(1, sizeof(*copy));
	if (!copy)
		return NULL;
	*copy = *spec;
	for (size_t i = 0; i < NSTRINGS; i++)
		*string_of(copy, i) = NULL;
	for (size_t i = 0; i < NSTRINGS; i++) {
		const char *text = *string_of((struct tw_disk_spec *)spec, i);
		if (!text)
			continue;
		*string_of(copy, i) = strdup(text);
		if (!*string_of(copy, i)) {
			tw_disk_spec_free(copy);
			return NULL;
		}
	}
	return copy;
}

bool tw_disk_spec_equal(const struct tw_disk_spec *a, const struct tw_disk_spec *b)
{
	for (size_t i = 0; i < NSTRINGS; i++) {
		const char *left = *string_of((struct tw_disk_spec *)a, i);
		const char *right = *string_of((struct tw_disk_spec *)b, i);
		if (left && right ? strcmp(left, right) != 0 : left != right)
			return false;
	}
	return a->id.domid == b->id.domid && a->stall_ms == b->stall_ms && a->tries == b->tries &&
		a->memory_max == b->memory_max && a->nice == b->nice;
}

void tw_disk_spec_free(struct tw_disk_spec *spec)
{
	if (!spec)
		return;
	for (size_t i = 0; i < NSTRINGS; i++)
		free((char *)*string_of(spec, i));
	free(spec);
}
