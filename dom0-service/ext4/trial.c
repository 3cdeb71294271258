/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/trial.h"

#include <stdlib.h>

struct tw_error *ext4_trial_suspect(struct ext4_trial *t, uint32_t ino, struct ext4_suspect **out)
{
	struct ext4_suspect *s;
	HASH_FIND(hh, t->suspects, &ino, sizeof(ino), s);
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return tw_error_nomem();
		s->ino = ino;
		HASH_ADD(hh, t->suspects, ino, sizeof(s->ino), s);
	}
	*out = s;
	return NULL;
}

void ext4_trial_forget(struct ext4_trial *t)
{
	struct ext4_suspect *s, *next;
	HASH_ITER (hh, t->suspects, s, next) {
		HASH_DEL(t->suspects, s);
		ext4_map_deinit(&s->map);
		free(s->spans);
		free(s);
	}
	struct ext4_place *p, *next_place;
	HASH_ITER (hh, t->places, p, next_place) {
		HASH_DEL(t->places, p);
		free(p);
	}
}

struct ext4_place *ext4_trial_place_find(
	const struct ext4_trial *t, uint32_t dir, const uint8_t *bytes, uint8_t len)
{
	uint8_t key[4 + 255];
	struct ext4_place *p;
	memcpy(key, &dir, 4);
	memcpy(key + 4, bytes, len);
	HASH_FIND(hh, t->places, key, 4u + len, p);
	return p;
}

struct tw_error *ext4_trial_place(struct ext4_trial *t, uint32_t dir, const uint8_t *bytes,
	uint8_t len, struct ext4_place **out)
{
	struct ext4_place *p = ext4_trial_place_find(t, dir, bytes, len);
	if (!p) {
		p = calloc(1, sizeof(*p));
		if (!p)
			return tw_error_nomem();
		memcpy(p->key, &dir, 4);
		memcpy(p->key + 4, bytes, len);
		HASH_ADD(hh, t->places, key, 4u + len, p);
	}
	*out = p;
	return NULL;
}
