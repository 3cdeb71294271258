/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The promise of the order: random trees over the same inode numbers, the difference of two as one
 * changeset in random order; the events, applied one by one, make the one tree out of the other.
 */
#include "tree_model.h"

enum { FIRST = 11, MAX_NODES = 60 };

struct node {
	uint16_t mode; /* 0: absent */
	uint32_t generation;
	struct tw_attr attr;
	unsigned nnames;
	struct { uint32_t dir, block; char name[4]; } names[3];
};

struct tree {
	struct node nodes[FIRST + MAX_NODES];
	unsigned end; /* of the numbers in use */
};

static bool taken(const struct tree *t, uint32_t dir, const char *name)
{
	for (unsigned i = FIRST; i < t->end; i++)
		for (unsigned k = 0; k < t->nodes[i].nnames; k++)
			if (t->nodes[i].names[k].dir == dir && !strcmp(t->nodes[i].names[k].name, name))
				return true;
	return false;
}

static void give(struct tree *t, uint32_t ino, uint32_t dir, const char *name, uint32_t block)
{
	struct node *n = &t->nodes[ino];
	if (taken(t, dir, name))
		return;
	n->names[n->nnames].dir = dir;
	n->names[n->nnames].block = block;
	snprintf(n->names[n->nnames].name, sizeof(n->names[0].name), "%s", name);
	n->nnames++;
}

/* Which inodes there are: some as before, some with a new identity, some gone, some new. */
static void choose_inodes(struct dice *dice, const struct tree *old, struct tree *new, unsigned calm)
{
	static const uint16_t modes[] = { FILE_MODE, FILE_MODE, DIR_MODE, DIR_MODE, LINK_MODE };
	for (uint32_t i = FIRST; i < new->end; i++) {
		const struct node *was = &old->nodes[i];
		struct node *n = &new->nodes[i];
		if (was->mode && roll(dice, calm)) {
			n->mode = was->mode;
			n->generation = was->generation;
			n->attr = was->attr;
		} else if (roll(dice, 3)) {
			n->mode = modes[roll(dice, 5)];
			n->generation = was->generation + 1;
			n->attr = (struct tw_attr){ .size = roll(dice, 100) };
		}
		if (!roll(dice, 5))
			n->attr.uid = roll(dice, 3);
		if (!roll(dice, 5))
			n->attr.mtime.sec = roll(dice, 1000);
		if (!roll(dice, 8))
			n->attr.size = roll(dice, 100);
	}
}

static uint32_t random_dir(struct dice *dice, const uint32_t *dirs, unsigned ndirs)
{
	/* The last ones more often: deep trees. */
	unsigned at = roll(dice, 2) ? roll(dice, ndirs) : ndirs - 1 - roll(dice, ndirs < 3 ? ndirs : 3);
	return dirs[at];
}

static bool contains(const uint32_t *dirs, unsigned ndirs, uint32_t ino)
{
	for (unsigned i = 0; i < ndirs; i++)
		if (dirs[i] == ino)
			return true;
	return false;
}

/* Names for one inode; what it was called before is often kept where that is possible. */
static void name_inode(struct dice *dice, const struct tree *old, struct tree *new, uint32_t ino,
	const uint32_t *dirs, unsigned ndirs, unsigned calm)
{
	struct node *n = &new->nodes[ino];
	const struct node *was = &old->nodes[ino];
	unsigned want = S_ISREG(n->mode) && !roll(dice, 4) ? 2 + roll(dice, 2) : 1;
	for (unsigned k = 0; k < was->nnames && n->nnames < want; k++)
		if (roll(dice, calm) && contains(dirs, ndirs, was->names[k].dir))
			give(new, ino, was->names[k].dir, was->names[k].name,
				roll(dice, 4) ? was->names[k].block : roll(dice, 3));
	for (unsigned tries = 0; n->nnames < want && tries < 50; tries++) {
		char name[4];
		snprintf(name, sizeof(name), "%c", 'a' + roll(dice, 5));
		if (tries > 10)
			snprintf(name, sizeof(name), "%u", roll(dice, 999));
		give(new, ino, random_dir(dice, dirs, ndirs), name, roll(dice, 3));
	}
	n->attr.nlink = n->nnames;
}

static void plant(struct dice *dice, const struct tree *old, struct tree *new)
{
	uint32_t order[MAX_NODES], dirs[MAX_NODES + 1] = { ROOT };
	unsigned n = 0, ndirs = 1, calm = 1 + roll(dice, 8);
	memset(new, 0, sizeof(*new));
	new->end = old->end;
	choose_inodes(dice, old, new, calm);
	for (uint32_t i = FIRST; i < new->end; i++)
		order[n++] = i;
	for (unsigned i = n; i > 1; i--) {
		unsigned k = roll(dice, i);
		uint32_t ino = order[k];
		order[k] = order[i - 1];
		order[i - 1] = ino;
	}
	for (unsigned i = 0; i < n; i++) {
		struct node *node = &new->nodes[order[i]];
		if (!S_ISDIR(node->mode))
			continue;
		name_inode(dice, old, new, order[i], dirs, ndirs, calm);
		if (node->nnames)
			dirs[ndirs++] = order[i];
	}
	for (unsigned i = 0; i < n; i++)
		if (new->nodes[order[i]].mode && !S_ISDIR(new->nodes[order[i]].mode))
			name_inode(dice, old, new, order[i], dirs, ndirs, calm);
	for (unsigned i = 0; i < n; i++)
		if (!new->nodes[order[i]].nnames)
			memset(&new->nodes[order[i]], 0, sizeof(struct node));
}

struct world {
	struct tw_view *view;
	struct tw_changeset *set;
	struct model model;
	struct tree tree;
};

static bool same_name(const struct node *a, unsigned i, const struct node *b, unsigned k)
{
	return a->names[i].dir == b->names[k].dir && !strcmp(a->names[i].name, b->names[k].name);
}

static bool has_name(const struct node *a, unsigned i, const struct node *b)
{
	for (unsigned k = 0; k < b->nnames; k++)
		if (same_name(a, i, b, k) && a->names[i].block == b->names[k].block)
			return true;
	return false;
}

static struct tw_name *view_name(const struct tw_view *view, uint32_t dir, const char *name)
{
	const struct tw_inode *inode = tw_view_inode(view, dir);
	return inode ? look_up(view, inode, name) : NULL;
}

static struct tw_attr attr_of(const struct node *n)
{
	struct tw_attr attr = n->attr;
	attr.mode = n->mode;
	attr.generation = n->generation;
	return attr;
}

static void feed_inode(struct world *w, const struct tree *new, uint32_t ino)
{
	struct tw_attr attr = attr_of(&new->nodes[ino]), old = attr_of(&w->tree.nodes[ino]);
	struct tw_change *change;
	struct tw_inode *inode;
	if (same_attr(&attr, &old))
		return;
	ok(tw_changeset_inode(w->set, ino, &change));
	ok(tw_view_inode_add(w->view, ino, &inode));
	ok(tw_view_set_attr(w->view, inode, &attr));
}

static void feed_names(struct world *w, const struct tree *new, uint32_t ino, bool come)
{
	const struct node *was = &w->tree.nodes[ino], *is = &new->nodes[ino];
	for (unsigned k = 0; !come && k < was->nnames; k++)
		if (!has_name(was, k, is)) {
			struct tw_name *name = view_name(w->view, was->names[k].dir, was->names[k].name);
			assert_non_null(name);
			ok(tw_changeset_remove_name(w->set, name));
		}
	for (unsigned k = 0; come && k < is->nnames; k++)
		if (!has_name(is, k, was))
			ok(tw_changeset_add_name(w->set, is->names[k].dir,
				is->names[k].dir * 8 + is->names[k].block, ino, is->names[k].name,
				(uint8_t)strlen(is->names[k].name)));
}

/* Everything of the difference, in random order. */
static void feed(struct world *w, struct dice *dice, const struct tree *new)
{
	unsigned order[3 * MAX_NODES], n = 0;
	for (unsigned i = 0; i < 3 * (new->end - FIRST); i++)
		order[n++] = i;
	for (unsigned i = n; i > 1; i--) {
		unsigned k = roll(dice, i), was = order[k];
		order[k] = order[i - 1];
		order[i - 1] = was;
	}
	for (unsigned i = 0; i < n; i++) {
		uint32_t ino = FIRST + order[i] / 3;
		if (order[i] % 3)
			feed_names(w, new, ino, order[i] % 3 == 2);
		else
			feed_inode(w, new, ino);
	}
}

static void trouble(const struct world *w, uint64_t seed, unsigned round, const char *what)
{
	print_error("seed %llu, round %u: %s; the events:\n%.*s", (unsigned long long)seed, round, what,
		(int)w->model.log.len, w->model.log.data);
	fail();
}

static const char *compare(struct world *w, const struct tree *new)
{
	unsigned names = 0, in_model = 0;
	for (uint32_t ino = FIRST; ino < new->end; ino++) {
		const struct node *n = &new->nodes[ino];
		struct tw_attr expected = attr_of(n);
		if (!same_attr(&expected, &w->model.inodes[ino]))
			return "an inode is not what the events made of it";
		for (unsigned k = 0; k < n->nnames; k++, names++) {
			const struct tw_name *in_view =
				view_name(w->view, n->names[k].dir, n->names[k].name);
			const struct model_name *told =
				model_lookup(&w->model, n->names[k].dir, n->names[k].name);
			if (!told || told->ino != ino)
				return "a name is not where the events put it";
			if (!in_view || in_view->ino != ino || in_view->removed)
				return "a name is not in the view";
			if (tw_view_name_block(w->view, in_view) != n->names[k].dir * 8 + n->names[k].block)
				return "a name is in another block";
		}
	}
	for (size_t i = 0; i < MODEL_NAMES; i++)
		in_model += w->model.names[i].dir != 0;
	if (in_model != names || tw_view_name_count(w->view) != names)
		return "there are other names";
	return NULL;
}

static void drop_gone(struct world *w, const struct tree *new)
{
	for (uint32_t ino = FIRST; ino < new->end; ino++) {
		const struct tw_inode *inode = tw_view_inode(w->view, ino);
		if (inode && !tw_view_mode(w->view, inode) && !tw_inode_named(inode) &&
			!tw_inode_nblocks(inode))
			tw_view_inode_drop(w->view, ino);
		inode = tw_view_inode(w->view, ino);
		if (!inode != !new->nodes[ino].mode)
			fail_msg("inode %u stays or went", ino);
	}
}

static void run(uint64_t seed, unsigned nodes, unsigned rounds)
{
	struct world *w = calloc(1, sizeof(*w));
	struct tree *new = calloc(1, sizeof(*new));
	struct dice dice = { seed * 2654435761u + 1 };
	struct tw_inode *root;
	ok(tw_view_create(MODEL_INOS - 1, ROOT, 10000, 12, &w->view));
	ok(tw_view_inode_add(w->view, ROOT, &root));
	w->model.inodes[ROOT].mode = DIR_MODE;
	ok(tw_view_set_attr(w->view, root, &(struct tw_attr){ .mode = DIR_MODE }));
	ok(tw_changeset_create(w->view, model_take, &w->model, &w->set));
	w->tree.end = FIRST + nodes;
	for (unsigned round = 0; round < rounds; round++) {
		const struct tw_commit commit = { { 1, 0 }, { 1, 0 }, round + 1, false };
		plant(&dice, &w->tree, new);
		feed(w, &dice, new);
		tw_buf_reset(&w->model.log);
		struct tw_error *err = tw_changeset_emit(w->set, &commit);
		if (err)
			trouble(w, seed, round, tw_error_message(err));
		if (*w->model.trouble)
			trouble(w, seed, round, w->model.trouble);
		drop_gone(w, new);
		const char *what = compare(w, new);
		if (what)
			trouble(w, seed, round, what);
		w->tree = *new;
	}
	tw_changeset_destroy(w->set);
	tw_view_destroy(w->view);
	tw_buf_deinit(&w->model.log);
	free(w);
	free(new);
}

static void small_trees_follow_their_events(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 3000; seed++)
		run(seed, 2 + (unsigned)seed % 6, 10);
}

static void bigger_trees_follow_their_events(void **state)
{
	(void)state;
	for (uint64_t seed = 10000; seed < 10200; seed++)
		run(seed, 12 + (unsigned)seed % (MAX_NODES - 12), 12);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_trees_follow_their_events),
		cmocka_unit_test(bigger_trees_follow_their_events),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
