/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/numtab.h"

#include <stdlib.h>
#include <string.h>

#define LEAST_PLACES 16u

/* Open addressing. The multiplier spreads numbers that follow each other. */
static uint32_t home(const struct tw_numtab *tab, uint32_t key)
{
	return (uint32_t)((key * 0x9e3779b97f4a7c15ull) >> 32) & tab->mask;
}

/* The place of a key, or the empty one where it would go. */
static uint32_t place(const struct tw_numtab *tab, uint32_t key)
{
	uint32_t at = home(tab, key);
	while (tab->keys[at] && tab->keys[at] != key)
		at = (at + 1) & tab->mask;
	return at;
}

static struct tw_error *resize(struct tw_numtab *tab, uint32_t places)
{
	struct tw_numtab new = {.mask = places - 1, .n = tab->n};
	new.keys = calloc(places, sizeof(*new.keys));
	new.values = malloc(places * sizeof(*new.values));
	if (!new.keys || !new.values) {
		tw_numtab_clear(&new);
		return tw_error_nomem();
	}
	for (uint32_t i = 0; tab->keys && i <= tab->mask; i++) {
		if (!tab->keys[i])
			continue;
		uint32_t at = place(&new, tab->keys[i]);
		new.keys[at] = tab->keys[i];
		new.values[at] = tab->values[i];
	}
	free(tab->keys);
	free(tab->values);
	*tab = new;
	return NULL;
}

struct tw_error *tw_numtab_set(struct tw_numtab *tab, uint32_t key, uint64_t value)
{
	uint64_t places = tab->keys ? tab->mask + 1ull : 0;
	if ((tab->n + 1ull) * 4 > places * 3)
		TW_TRY(resize(tab, places ? (uint32_t)places * 2 : LEAST_PLACES));
	uint32_t at = place(tab, key);
	tab->n += !tab->keys[at];
	tab->keys[at] = key;
	tab->values[at] = value;
	return NULL;
}

bool tw_numtab_get(const struct tw_numtab *tab, uint32_t key, uint64_t *out)
{
	if (!tab->n)
		return false;
	uint32_t at = place(tab, key);
	if (!tab->keys[at])
		return false;
	*out = tab->values[at];
	return true;
}

void tw_numtab_drop(struct tw_numtab *tab, uint32_t key)
{
	if (!tab->n)
		return;
	uint32_t hole = place(tab, key);
	if (!tab->keys[hole])
		return;
	/* What comes behind and would not be found over the hole moves into it. */
	for (uint32_t at = (hole + 1) & tab->mask; tab->keys[at]; at = (at + 1) & tab->mask) {
		uint32_t wants = home(tab, tab->keys[at]);
		if (((at - wants) & tab->mask) < ((at - hole) & tab->mask))
			continue;
		tab->keys[hole] = tab->keys[at];
		tab->values[hole] = tab->values[at];
		hole = at;
	}
	tab->keys[hole] = 0;
	tab->n--;
	/* Without memory for a smaller one it stays as large as it is. */
	if (tab->mask >= LEAST_PLACES * 2 && tab->n < tab->mask / 8)
		tw_error_destroy(resize(tab, (tab->mask + 1) / 4));
}

void tw_numtab_empty(struct tw_numtab *tab)
{
	if (tab->mask >= 1024 && tab->n < tab->mask / 16)
		tw_numtab_clear(tab);
	if (!tab->n)
		return;
	memset(tab->keys, 0, (tab->mask + 1ul) * sizeof(*tab->keys));
	tab->n = 0;
}

void tw_numtab_clear(struct tw_numtab *tab)
{
	free(tab->keys);
	free(tab->values);
	*tab = (struct tw_numtab){0};
}
