/* SPDX-License-Identifier: BSD-3-Clause */
/* A follower that has missed writes looks at them. */
#ifndef EXT4_MENDING_H
#define EXT4_MENDING_H

#include "guest.h"

/* Looks at what was missed. What the guest wrote meanwhile is to be seen afterwards. */
static inline struct tw_error *look_again(struct guest *g)
{
	struct tw_buf gathered = TW_BUF_INIT;
	void *found;
	bool stands, again = false;
	TW_TRY(ext4_survey(g->fs, &found, &stands));
	tw_missed_tidy(&g->missed);
	g->ahead = true; /* of the stream, from here on */
	g->missing = false;
	g->read = 0;
	struct tw_error *err = ext4_gather(found, &g->missed, &gathered, &again);
	assert_false(again);
	ext4_gathered_destroy(found);
	for (size_t i = 0; i < g->nlate; i++)
		ok(tw_missed_add_range(&g->missed, g->late[i].block * BLOCK, BLOCK));
	tw_missed_tidy(&g->missed);
	if (!err)
		err = ext4_mend(g->fs, tw_span(gathered.data, gathered.len), &g->missed,
			(struct tw_time){ 9, 0 });
	tw_buf_deinit(&gathered);
	tw_missed_clear(&g->missed);
	g->ahead = false;
	return err;
}

static inline void see_late(struct guest *g)
{
	for (size_t i = 0; i < g->nlate; i++)
		see(g, g->late[i].block, g->late[i].data, true);
	g->nlate = 0;
}

static inline struct tw_error *try_mend(struct guest *g)
{
	TW_TRY(look_again(g));
	see_late(g);
	return NULL;
}

static inline void mend(struct guest *g, const char *when)
{
	ok(try_mend(g));
	ok(ext4_settle(g->fs, (struct tw_time){ 10, 0 }, true));
	same_as_disk(g, when);
}

#endif
