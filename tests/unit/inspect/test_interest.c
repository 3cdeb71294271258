/* SPDX-License-Identifier: BSD-3-Clause */
/* The map of what is wanted, as the producer sees it at any moment. */
#include "disks.h"

#include "inspect/interest.h"
#include "inspect/volume.h"
#include "ring-layout.h"

#include <pthread.h>
#include <sys/mman.h>

enum { UNITS = DISK_BYTES >> TW_RING_DIRTY_SHIFT, WORDS = UNITS / 64, ROUNDS = 20000 };

struct scene {
	struct tw_disk *disk;
	struct tw_ring *ring;
	struct tw_ring_reader *reader;
	struct tw_interest *interest;
	const _Atomic uint64_t *bits;
	void *map;
	size_t map_bytes;
	uint64_t metadata[WORDS]; /* what must be wanted all the time */
	_Atomic bool over;
	uint64_t missing; /* times that a word lacked one of them */
};

static bool all_wanted;

static bool wants_all(void *fs)
{
	(void)fs;
	return all_wanted;
}

static void open_scene(const struct disks *d, struct scene *s, struct tw_fs_ops *ops)
{
	char path[80];
	memset(s, 0, sizeof(*s));
	ok(tw_disk_create(d->image, "test", no_event, NULL, &s->disk));
	ok(tw_disk_crawl(s->disk, true));
	/* The volume's word on whether it wants everything is ours. */
	*ops = *s->disk->volumes[0]->ops;
	ops->wants_all = wants_all;
	s->disk->volumes[0]->ops = ops;
	assert_int_equal(tw_ring_create(d->ring, DISK_BYTES, TW_RING_MIN_BYTES, &s->ring), 0);
	assert_int_equal(tw_ring_reader_open(d->ring, &s->reader), 0);
	ok(tw_interest_create(&s->interest));
	snprintf(path, sizeof(path), "%s.interest", d->ring);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	s->map_bytes = (size_t)st.st_size;
	s->map = mmap(NULL, s->map_bytes, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(s->map != MAP_FAILED);
	close(fd);
	s->bits = ring_interest_bits(s->map);
}

static void close_scene(struct scene *s)
{
	munmap(s->map, s->map_bytes);
	tw_interest_destroy(s->interest);
	tw_ring_reader_destroy(s->reader);
	tw_ring_destroy(s->ring);
	tw_disk_destroy(s->disk);
}

static void update(struct scene *s, bool all)
{
	all_wanted = all;
	ok(tw_interest_update(s->interest, s->reader, s->disk));
}

static uint64_t word(const struct scene *s, size_t w)
{
	return atomic_load_explicit(&s->bits[w], memory_order_relaxed);
}

/* True when one of the blocks of this unit is no file's, or describes the file system. */
static bool is_metadata(const struct scene *s, uint64_t unit)
{
	const struct tw_volume *volume = s->disk->volumes[0];
	struct tw_view *view = volume->ops->view(volume->fs);
	const uint32_t bits = TW_RING_DIRTY_SHIFT - tw_view_blockbits(view);
	const uint64_t end = (unit + 1) << bits;
	struct tw_owner owner;
	for (uint64_t at = unit << bits;
		at < end && tw_owners_find(tw_view_owners(view), at, end - at, &owner);
		at = owner.block + owner.count)
		if (owner.kind != TW_OWNER_DATA && owner.kind != TW_OWNER_UNWRITTEN)
			return true;
	return unit == 0;
}

static void what_is_metadata_is_wanted_and_no_more(void **state)
{
	struct scene s;
	struct tw_fs_ops ops;
	open_scene(*state, &s, &ops);
	update(&s, false);
	uint64_t wanted = 0;
	for (int round = 0; round < 2; round++) {
		for (uint64_t unit = 0; unit < UNITS; unit++) {
			const bool is = word(&s, unit / 64) >> unit % 64 & 1;
			wanted += is;
			if (is != is_metadata(&s, unit))
				fail_msg("unit %llu: wanted %d", (unsigned long long)unit, is);
		}
		assert_in_range(wanted, 1, UNITS - 1);
		wanted = 0;
		update(&s, true);
		for (size_t w = 0; w < WORDS; w++)
			assert_true(word(&s, w) == UINT64_MAX);
		update(&s, false);
	}
	close_scene(&s);
}

static void *producer(void *arg)
{
	struct scene *s = arg;
	while (!s->over)
		for (size_t w = 0; w < WORDS; w++)
			s->missing += (word(s, w) & s->metadata[w]) != s->metadata[w];
	return NULL;
}

/* When a log comes into use, what the volume wants shrinks. The guest writes meanwhile. */
static void metadata_is_wanted_at_every_moment(void **state)
{
	struct scene s;
	struct tw_fs_ops ops;
	pthread_t thread;
	open_scene(*state, &s, &ops);
	update(&s, false);
	for (size_t w = 0; w < WORDS; w++)
		s.metadata[w] = word(&s, w);
	assert_int_equal(pthread_create(&thread, NULL, producer, &s), 0);
	for (int i = 0; i < ROUNDS; i++)
		update(&s, i % 2 == 0);
	s.over = true;
	pthread_join(thread, NULL);
	assert_int_equal(s.missing, 0);
	close_scene(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK_TEST(what_is_metadata_is_wanted_and_no_more),
		DISK_TEST(metadata_is_wanted_at_every_moment),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
