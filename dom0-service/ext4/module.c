/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"
#include "ext4/module.h"

#include <stdlib.h>

void ext4_destroy(void *arg)
{
	struct ext4 *fs = arg;
	if (!fs)
		return;
	tw_changeset_destroy(fs->set);
	tw_view_destroy(fs->view);
	tw_jbd2_destroy(fs->journal);
	ext4_fc_destroy(fs->fast);
	ext4_block_clear(&fs->fast_dirs);
	ext4_block_clear(&fs->fast_blocks);
	ext4_block_clear(&fs->fast_mapped);
	tw_missed_clear(&fs->fast_missed);
	ext4_block_clear(&fs->held);
	ext4_roots_clear(fs);
	ext4_block_clear(&fs->nodes);
	ext4_block_clear(&fs->xattrs);
	ext4_block_clear(&fs->recent);
	ext4_block_clear(&fs->direct);
	ext4_block_clear(&fs->early);
	ext4_block_clear(&fs->inline_now);
	tw_numtab_clear(&fs->inlines);
	tw_numtab_clear(&fs->xattr_block);
	ext4_xattr_sets_destroy(fs->sets);
	ext4_xattr_diff_deinit(&fs->diff);
	ext4_newcomers_destroy(fs->newcomers);
	ext4_geometry_deinit(&fs->geo);
	free(fs);
}

static struct tw_error *ext4_open(const struct tw_fs_env *env, void **out)
{
	struct ext4 *fs = calloc(1, sizeof(*fs));
	if (!fs)
		return tw_error_nomem();
	fs->env = *env;
	struct tw_error *err = ext4_crawl(fs);
	if (!err)
		err = ext4_fast_crawl(fs);
	if (!err)
		err = ext4_changeset(fs);
	if (err) {
		ext4_destroy(fs);
		return err;
	}
	*out = fs;
	return NULL;
}

static bool ext4_in_place(void *arg, uint64_t block)
{
	const struct ext4 *fs = arg;
	return !ext4_block_find(fs->recent, block);
}

static bool ext4_is_logged(void *arg, uint64_t block, const void *data)
{
	const struct ext4 *fs = arg;
	const struct ext4_block *recent = ext4_block_find(fs->recent, block);
	return recent && recent->digest == ext4_digest(data, fs->geo.blocksize);
}

static bool ext4_data_waits(void *arg, uint32_t ino)
{
	const struct ext4 *fs = arg;
	const struct tw_change *change = tw_changeset_find(fs->set, ino);
	return (change && change->nranges) || ext4_block_find(fs->held, ino);
}

static const char *ext4_uuid(void *arg)
{
	const struct ext4 *fs = arg;
	return fs->geo.uuid;
}

static struct tw_view *ext4_view(void *arg)
{
	const struct ext4 *fs = arg;
	return fs->view;
}

const struct tw_fs_ops tw_fs_ext4 = {
	.name = "ext4",
	.open = ext4_open,
	.load = ext4_load,
	.save = ext4_save,
	.write = ext4_write,
	.wants = ext4_wants,
	.wants_all = ext4_wants_all,
	.settle = ext4_settle,
	.announce = ext4_announce,
	.resync = ext4_resync,
	.survey = ext4_survey,
	.gather = ext4_gather,
	.gathered_destroy = ext4_gathered_destroy,
	.mend = ext4_mend,
	.xattrs = ext4_attrs_names,
	.in_place = ext4_in_place,
	.is_logged = ext4_is_logged,
	.inline_data = ext4_inline_data,
	.data_waits = ext4_data_waits,
	.uuid = ext4_uuid,
	.view = ext4_view,
	.destroy = ext4_destroy,
};
