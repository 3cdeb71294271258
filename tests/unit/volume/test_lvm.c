/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"
#include "lvm_image.h"

#include "volume/lvm_inside.h"

enum { PV_BYTES = 1 << 20, NPVS = 3, DISK = NPVS * PV_BYTES };

static const char *const ids[NPVS] = {"aaaaaa0000000000000000000000AAAA",
	"bbbbbb0000000000000000000000BBBB", "cccccc0000000000000000000000CCCC"};

struct disk {
	uint8_t bytes[DISK];
	struct tw_layout layout;
	char text[8192];
};

static int setup(void **state)
{
	struct disk *d = calloc(1, sizeof(*d));
	for (unsigned i = 0; i < NPVS; i++)
		lvm_make_pv(d->bytes + i * PV_BYTES, PV_BYTES, i, ids[i]);
	*state = d;
	return d ? 0 : -1;
}

static int teardown(void **state)
{
	struct disk *d = *state;
	tw_layout_deinit(&d->layout);
	free(d);
	return 0;
}

/* The id as metadata writes it. */
static const char *dashed(const char *id)
{
	static char out[4][48];
	static unsigned turn;
	char *to = out[turn++ % 4];
	snprintf(to, sizeof(out[0]), "%.6s-%.4s-%.4s-%.4s-%.4s-%.4s-%.6s", id, id + 6, id + 10, id + 14, id + 18,
		id + 22, id + 26);
	return to;
}

/* Metadata of a group of all physical volumes; volumes: the text of the logical ones. */
static size_t metadata(struct disk *d, unsigned seqno, const char *volumes)
{
	int n = snprintf(d->text, sizeof(d->text), "# a group\nvg {\n id = \"%s\"\n seqno = %u\n extent_size = 8\n"
		" physical_volumes {\n", dashed("gggggg0000000000000000000000GGGG"), seqno);
	for (unsigned i = 0; i < NPVS; i++)
		n += snprintf(d->text + n, sizeof(d->text) - (size_t)n,
			"  pv%u { id = \"%s\" pe_start = 32 pe_count = 200 }\n", i, dashed(ids[i]));
	n += snprintf(d->text + n, sizeof(d->text) - (size_t)n, " }\n logical_volumes {\n%s }\n}\n"
		"contents = \"Text Format Volume Group\"\n", volumes);
	return (size_t)n + 1; /* LVM writes its end, too */
}

#define LV(name, number, count, segments) \
	"  " name " { id = \"llllll-0000-0000-0000-0000-0000-00000" number "\"\n" \
	"   status = [\"READ\", \"WRITE\", \"VISIBLE\"]\n   segment_count = " count "\n" segments " }\n"
#define SEGMENT(number, start, extents, rest) \
	"   segment" number " { start_extent = " start " extent_count = " extents " " rest " }\n"
#define LINEAR(pv, extent) "type = \"striped\" stripe_count = 1 stripes = [\"" pv "\", " extent "]"

static const char two[] =
	LV("root", "1", "2", SEGMENT("1", "0", "3", LINEAR("pv0", "5")) SEGMENT("2", "3", "2", LINEAR("pv1", "0")))
	LV("data", "2", "1", SEGMENT("1", "0", "4", "type = \"striped\" stripe_count = 2 stripe_size = 4 "
		"stripes = [\"pv2\", 7, \"pv1\", 9]"));

/* Looks at the first npvs of the physical volumes. */
static void find(struct disk *d, unsigned npvs)
{
	const struct tw_source source = { .read = lvm_read, .arg = d->bytes, .bytes = DISK };
	struct tw_volume_place *place;
	tw_layout_deinit(&d->layout);
	for (unsigned i = 0; i < npvs; i++) {
		ok(tw_layout_add(&d->layout, &place));
		snprintf(place->name, sizeof(place->name), "%u", i + 1);
		strcpy(place->type, "LVM2_member");
		ok(tw_segments_range(&place->segments, i * PV_BYTES, PV_BYTES));
	}
	ok(tw_lvm_find(&source, &d->layout));
}

static struct tw_volume_place *volume(struct disk *d, const char *name)
{
	for (size_t i = 0; i < d->layout.n; i++)
		if (!strcmp(d->layout.places[i].name, name))
			return &d->layout.places[i];
	return NULL;
}

static void assert_why(const struct tw_volume_place *place, const char *part)
{
	char why[sizeof(place->why)] = "no such place";
	if (place)
		memcpy(why, place->why, sizeof(why));
	if (!strstr(why, part))
		fail_msg("\"%s\" is not in \"%s\"", part, why);
	assert_int_equal(place->segments.bytes, 0);
}

static void a_group_of_several_physical_volumes(void **state)
{
	struct disk *d = *state;
	lvm_put_text(d->bytes, 512, d->text, metadata(d, 1, two));
	find(d, NPVS);
	assert_int_equal(d->layout.n, NPVS + 2);
	const struct tw_segments *root = &volume(d, "vg/root")->segments, *data = &volume(d, "vg/data")->segments;
	assert_int_equal(root->n, 2);
	assert_int_equal(root->bytes, 5 * LVM_EXTENT);
	assert_int_equal(root->starts[0], LVM_PE_START + 5 * LVM_EXTENT);
	assert_int_equal(root->starts[1], PV_BYTES + LVM_PE_START);
	assert_int_equal(data->n, 1);
	assert_int_equal(data->list[0].stripe_bytes, 2048);
	assert_int_equal(data->starts[0], 2 * PV_BYTES + LVM_PE_START + 7 * LVM_EXTENT);
	assert_int_equal(data->starts[1], PV_BYTES + LVM_PE_START + 9 * LVM_EXTENT);
	assert_string_equal(volume(d, "vg/root")->id,
		"gggggg0000000000000000000000GGGG/llllll00000000000000000000000001");
	for (unsigned i = 0; i < NPVS; i++) {
		assert_non_null(strstr(d->layout.places[i].why, "physical volume of the LVM group vg"));
		assert_true(d->layout.places[i].expected);
	}
}

static void metadata_that_wraps_around_its_area(void **state)
{
	struct disk *d = *state;
	size_t len = metadata(d, 1, two);
	for (size_t offset = LVM_MDA_BYTES - 1; offset > LVM_MDA_BYTES - len; offset -= 97) {
		lvm_put_text(d->bytes, offset, d->text, len);
		find(d, NPVS);
		assert_int_equal(d->layout.n, NPVS + 2);
	}
}

static void the_newest_metadata_counts(void **state)
{
	struct disk *d = *state;
	const char *one = LV("old", "1", "1", SEGMENT("1", "0", "3", LINEAR("pv0", "5")));
	lvm_put_text(d->bytes, 512, d->text, metadata(d, 9, one));
	lvm_put_text(d->bytes + PV_BYTES, 512, d->text, metadata(d, 11, two));
	lvm_put_text(d->bytes + 2 * PV_BYTES, 512, d->text, metadata(d, 10, one));
	find(d, NPVS);
	assert_null(volume(d, "vg/old"));
	assert_non_null(volume(d, "vg/root"));
}

static void a_wrong_checksum_is_no_metadata(void **state)
{
	struct disk *d = *state;
	size_t len = metadata(d, 1, two);
	lvm_put_text(d->bytes, 512, d->text, len);
	d->bytes[LVM_MDA_AT + 512 + 100] ^= 1;
	find(d, NPVS);
	assert_int_equal(d->layout.n, NPVS);
	assert_non_null(strstr(d->layout.places[0].why, "wrong checksum"));
	lvm_put_text(d->bytes, 512, d->text, len);
	d->bytes[LVM_MDA_AT + 300] ^= 1;
	find(d, NPVS);
	assert_int_equal(d->layout.n, NPVS);
	assert_non_null(strstr(d->layout.places[0].why, "damaged"));
	d->bytes[LVM_MDA_AT + 300] ^= 1;
	find(d, NPVS);
	assert_int_equal(d->layout.n, NPVS + 2);
	d->bytes[200] ^= 1;
	find(d, NPVS);
	assert_int_equal(d->layout.n, NPVS);
	assert_non_null(strstr(d->layout.places[0].why, "label is damaged"));
	assert_false(d->layout.places[0].expected);
}

static void metadata_with_an_impossible_place_is_not_read(void **state)
{
	struct disk *d = *state;
	static const uint64_t bad[][2] = {{511, 100}, {LVM_MDA_BYTES, 100}, {512, 0}, {512, LVM_MDA_BYTES},
		{UINT64_MAX, 10}, {512, UINT64_MAX}, {UINT64_MAX - 5, UINT64_MAX}};
	uint8_t *header = d->bytes + LVM_MDA_AT;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		put64(header + 40, bad[i][0]);
		put64(header + 48, bad[i][1]);
		lvm_sign_header(header);
		find(d, NPVS);
		assert_int_equal(d->layout.n, NPVS);
		assert_non_null(strstr(d->layout.places[0].why, "no possible place"));
	}
}

static void copies_of_a_text_are_read_once_and_too_much_is_not(void **state)
{
	struct disk *d = *state;
	const struct tw_source source = { .read = lvm_read, .arg = d->bytes, .bytes = DISK };
	size_t len = metadata(d, 1, two);
	for (unsigned i = 0; i < NPVS; i++)
		lvm_put_text(d->bytes + i * PV_BYTES, 512, d->text, len);
	struct tw_lvm_budget budget = {.bytes = len, .parts = 200};
	for (unsigned i = 0; i < NPVS; i++) {
		struct tw_lvm_pv pv = {.start = i * PV_BYTES, .bytes = PV_BYTES};
		ok(tw_lvm_pv_read(&source, &d->layout, &budget, &pv));
		assert_int_equal(pv.group != NULL, i == 0);
		tw_lvm_pv_deinit(&pv);
	}
	assert_true(budget.parts < 200);
	for (unsigned i = 0; i < 2; i++) {
		struct tw_lvm_budget little = {.bytes = len - 1 + i, .parts = 20};
		struct tw_lvm_pv pv = {.start = 0, .bytes = PV_BYTES};
		ok(tw_lvm_pv_read(&source, &d->layout, &little, &pv));
		assert_null(pv.group);
		assert_non_null(strstr(pv.why, i ? "too many parts" : "no possible place"));
		tw_lvm_pv_deinit(&pv);
	}
	find(d, NPVS);
	assert_int_equal(d->layout.n, NPVS + 2);
}

static void a_part_that_is_not_here_is_said(void **state)
{
	struct disk *d = *state;
	lvm_put_text(d->bytes, 512, d->text, metadata(d, 1, two));
	find(d, 1);
	assert_int_equal(d->layout.n, 1 + 2);
	assert_why(volume(d, "vg/root"), "on another disk (the group's pv1)");
	assert_why(volume(d, "vg/data"), "on another disk (the group's pv2)");
}

static void two_physical_volumes_of_one_name_are_none(void **state)
{
	struct disk *d = *state;
	lvm_put_text(d->bytes, 512, d->text, metadata(d, 1, two));
	memcpy(d->bytes + PV_BYTES, d->bytes, 16384);
	find(d, NPVS);
	assert_int_equal(d->layout.n, NPVS);
	assert_non_null(strstr(d->layout.places[1].why, "twice"));
	assert_false(d->layout.places[1].expected);
}

/* Each of these in a group with a volume that is as it should be. */
static void what_is_wrong_with_a_volume_is_said(void **state)
{
	static const struct {
		const char *volume, *why;
	} cases[] = {
		{LV("x", "3", "1", SEGMENT("1", "0", "2", "type = \"raid1\"")), "type raid1"},
		{LV("x", "3", "1", SEGMENT("1", "0", "2", "type = \"\x1b[2J\"")), "without a type"},
		{LV("x", "3", "2", SEGMENT("1", "0", "2", LINEAR("pv0", "50"))), "a segment is missing"},
		{LV("x", "3", "1", SEGMENT("1", "1", "2", LINEAR("pv0", "50"))), "do not follow"},
		{LV("x", "3", "1", SEGMENT("1", "0", "0", LINEAR("pv0", "50"))), "do not follow"},
		{LV("x", "3", "1", SEGMENT("1", "0", "2", LINEAR("pv0", "199"))), "beyond the end"},
		{LV("x", "3", "1", SEGMENT("1", "0", "2", LINEAR("pv0", "18446744073709551614"))), "beyond the end"},
		{LV("x", "3", "1", SEGMENT("1", "0", "2", LINEAR("pv9", "50"))), "no physical volume"},
		{LV("x", "3", "1", SEGMENT("1", "0", "2", LINEAR("pv0", "6"))), "two volumes"},
		{LV("x", "3", "1", SEGMENT("1", "0", "3", "type = \"striped\" stripe_count = 2 stripe_size = 4 "
			"stripes = [\"pv0\", 50, \"pv1\", 50]")), "stripes of an impossible"},
		{LV("x", "3", "1", SEGMENT("1", "0", "2", "type = \"striped\" stripe_count = 2 stripe_size = 4 "
			"stripes = [\"pv0\", 50, \"pv1\"]")), "too few stripes"},
		{LV("x", "3", "1", SEGMENT("1", "0", "2", "type = \"striped\" stripe_count = 2 stripe_size = 3 "
			"stripes = [\"pv0\", 50, \"pv1\", 50]")), "do not fit"},
		{LV("x", "3", "1", SEGMENT("1", "0", "2", "type = \"striped\" stripe_count = 2 stripe_size = 4 "
			"stripes = [\"pv0\", 50, \"pv0\", 50]")), "overlap"},
	};
	struct disk *d = *state;
	char text[4096];
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		snprintf(text, sizeof(text), "%s%s", two, cases[i].volume);
		lvm_put_text(d->bytes, 512, d->text, metadata(d, 1, text));
		find(d, NPVS);
		assert_why(volume(d, "vg/x"), cases[i].why);
		assert_string_equal(volume(d, "vg/root")->why, "");
		assert_string_equal(volume(d, "vg/data")->why, "");
	}
}

#define HIDDEN(name, number, segment) \
	"  " name " { id = \"llllll-0000-0000-0000-0000-0000-00000" number "\" status = [\"READ\", \"WRITE\"]\n" \
	"   segment_count = 1\n" segment " }\n"

static void snapshots_are_named_and_their_origin_goes_on(void **state)
{
	struct disk *d = *state;
	char text[4096];
	snprintf(text, sizeof(text), "%s%s%s", two,
		HIDDEN("store", "5", SEGMENT("1", "0", "2", LINEAR("pv0", "60"))),
		HIDDEN("snapshot0", "6", SEGMENT("1", "0", "5",
			"type = \"snapshot\" chunk_size = 8 origin = \"root\" cow_store = \"store\"")));
	lvm_put_text(d->bytes, 512, d->text, metadata(d, 1, text));
	find(d, NPVS);
	assert_why(volume(d, "vg/store"), "type snapshot");
	assert_string_equal(volume(d, "vg/root")->why, "");
	assert_null(volume(d, "vg/snapshot0"));
	snprintf(text, sizeof(text), "%s%s%s", two,
		HIDDEN("store", "5", SEGMENT("1", "0", "2", LINEAR("pv0", "60"))),
		HIDDEN("snapshot0", "6", SEGMENT("1", "0", "5",
			"type = \"snapshot\" chunk_size = 8 origin = \"root\" merging_store = \"store\"")));
	lvm_put_text(d->bytes, 512, d->text, metadata(d, 2, text));
	find(d, NPVS);
	assert_why(volume(d, "vg/root"), "being merged");
	assert_string_equal(volume(d, "vg/data")->why, "");
}

/* pvmove of three parts, of which the first is done. */
static void what_pvmove_moves_is_followed(void **state)
{
	struct disk *d = *state;
	static const char text[] =
		LV("root", "1", "2", SEGMENT("1", "0", "3", LINEAR("pvmove0", "0"))
			SEGMENT("2", "3", "2", LINEAR("pvmove0", "3")))
		LV("data", "2", "1", SEGMENT("1", "0", "4", "type = \"striped\" stripe_count = 2 stripe_size = 4 "
			"stripes = [\"pv2\", 7, \"pvmove0\", 5]"))
		"  pvmove0 { id = \"llllll-0000-0000-0000-0000-0000-000009\" status = [\"READ\", \"PVMOVE\"]\n"
		"   segment_count = 3\n"
		SEGMENT("1", "0", "3", "type = \"mirror\" mirror_count = 2 extents_moved = 3 "
			"mirrors = [\"pv0\", 5, \"pv2\", 100]")
		SEGMENT("2", "3", "2", "type = \"mirror\" mirror_count = 2 mirrors = [\"pv1\", 0, \"pv2\", 103]")
		SEGMENT("3", "5", "2", LINEAR("pv1", "9")) " }\n";
	lvm_put_text(d->bytes, 512, d->text, metadata(d, 1, text));
	find(d, NPVS);
	assert_string_equal(volume(d, "vg/root")->why, "");
	const struct tw_segments *root = &volume(d, "vg/root")->segments, *data = &volume(d, "vg/data")->segments;
	assert_int_equal(root->starts[0], 2 * PV_BYTES + LVM_PE_START + 100 * LVM_EXTENT);
	assert_int_equal(root->starts[1], PV_BYTES + LVM_PE_START);
	assert_int_equal(data->starts[1], PV_BYTES + LVM_PE_START + 9 * LVM_EXTENT);
	assert_null(volume(d, "vg/pvmove0"));
}

static void where_a_change_shows_is_known(void **state)
{
	struct disk *d = *state;
	lvm_put_text(d->bytes, 512, d->text, metadata(d, 1, two));
	find(d, NPVS);
	assert_int_equal(d->layout.nspots, 2 * NPVS);
	for (unsigned i = 0; i < NPVS; i++) {
		assert_int_equal(d->layout.spots[2 * i].offset, i * PV_BYTES);
		assert_int_equal(d->layout.spots[2 * i].length, 2048);
		assert_int_equal(d->layout.spots[2 * i + 1].offset, i * PV_BYTES + LVM_MDA_AT);
		assert_int_equal(d->layout.spots[2 * i + 1].length, 512);
	}
}

#define LVM_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LVM_TEST(a_group_of_several_physical_volumes),
		LVM_TEST(metadata_that_wraps_around_its_area),
		LVM_TEST(the_newest_metadata_counts),
		LVM_TEST(a_wrong_checksum_is_no_metadata),
		LVM_TEST(metadata_with_an_impossible_place_is_not_read),
		LVM_TEST(copies_of_a_text_are_read_once_and_too_much_is_not),
		LVM_TEST(a_part_that_is_not_here_is_said),
		LVM_TEST(two_physical_volumes_of_one_name_are_none),
		LVM_TEST(what_is_wrong_with_a_volume_is_said),
		LVM_TEST(snapshots_are_named_and_their_origin_goes_on),
		LVM_TEST(what_pvmove_moves_is_followed),
		LVM_TEST(where_a_change_shows_is_known),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
