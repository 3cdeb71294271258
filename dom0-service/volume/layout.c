/* SPDX-License-Identifier: BSD-3-Clause */
#include "volume/layout.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A disk whose tables claim more spots than this is looked at less often, that is all. */
#define MAX_SPOTS 4096u

struct tw_error *tw_layout_add(struct tw_layout *layout, struct tw_volume_place **out)
{
	*out = NULL;
	if (layout->n == TW_LAYOUT_MAX_PLACES) {
		layout->more = true;
		return NULL;
	}
	if (!TW_GROW(layout->places, layout->n, layout->cap))
		return tw_error_nomem();
	*out = &layout->places[layout->n++];
	**out = (struct tw_volume_place){0};
	return NULL;
}

struct tw_error *tw_layout_add_spot(struct tw_layout *layout, uint64_t offset, uint64_t bytes)
{
	if (layout->nspots == MAX_SPOTS)
		return NULL;
	if (!TW_GROW(layout->spots, layout->nspots, layout->capspots))
		return tw_error_nomem();
	layout->spots[layout->nspots++] = (struct tw_range){offset, bytes};
	return NULL;
}

void tw_layout_deinit(struct tw_layout *layout)
{
	for (size_t i = 0; i < layout->n; i++)
		tw_volume_place_deinit(&layout->places[i]);
	free(layout->places);
	free(layout->spots);
	*layout = (struct tw_layout){0};
}

void tw_volume_place_refuse(struct tw_volume_place *place, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(place->why, sizeof(place->why), fmt, ap);
	va_end(ap);
}

bool tw_volume_place_same(const struct tw_volume_place *a, const struct tw_volume_place *b)
{
	if (*a->id || *b->id)
		return !strcmp(a->id, b->id);
	return tw_segments_start(&a->segments) == tw_segments_start(&b->segments);
}

bool tw_volume_place_equal(const struct tw_volume_place *a, const struct tw_volume_place *b)
{
	return !strcmp(a->id, b->id) && !strcmp(a->name, b->name) && !strcmp(a->type, b->type) &&
	       !strcmp(a->why, b->why) && tw_segments_equal(&a->segments, &b->segments);
}

struct tw_error *tw_volume_place_copy(
	struct tw_volume_place *to, const struct tw_volume_place *from)
{
	*to = *from;
	return tw_segments_copy(&to->segments, &from->segments);
}

void tw_volume_place_deinit(struct tw_volume_place *place)
{
	tw_segments_deinit(&place->segments);
}
