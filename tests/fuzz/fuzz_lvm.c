/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Input: a byte 0 and the text of LVM's metadata, or another byte, pieces that are put over the first 8 KiB of a
 * physical volume with good metadata (where, how many bytes, these), and all checksums are made right again. A
 * second physical volume of the group is on the same disk. What comes of it lies on the disk and does not overlap.
 */
#include "../unit/volume/lvm_image.h"
#include "input.h"

#include "volume/lvm.h"

enum { PV = 64 << 10, DISK = 2 * PV };

static const char good[] =
	"vg { id = \"gggggg-0000-0000-0000-0000-0000-00GGGG\" seqno = 7 extent_size = 8 physical_volumes {"
	" pv0 { id = \"aaaaaa-0000-0000-0000-0000-0000-00AAAA\" pe_start = 32 pe_count = 12 }"
	" pv1 { id = \"bbbbbb-0000-0000-0000-0000-0000-00BBBB\" pe_start = 32 pe_count = 12 } } logical_volumes {"
	" a { id = \"llllll-0000-0000-0000-0000-0000-000001\" status = [\"READ\", \"WRITE\", \"VISIBLE\"]"
	" segment_count = 2 segment1 { start_extent = 0 extent_count = 2 type = \"striped\" stripe_count = 1"
	" stripes = [\"pv0\", 0] } segment2 { start_extent = 2 extent_count = 4 type = \"striped\" stripe_count = 2"
	" stripe_size = 4 stripes = [\"pv1\", 2, \"pvmove0\", 0] } }"
	" pvmove0 { id = \"llllll-0000-0000-0000-0000-0000-000002\" status = [\"PVMOVE\"] segment_count = 1"
	" segment1 { start_extent = 0 extent_count = 2 type = \"mirror\" mirror_count = 2 extents_moved = 2"
	" mirrors = [\"pv0\", 4, \"pv1\", 7] } } } }";

static uint8_t *make(struct input *in)
{
	uint8_t *disk = calloc(1, DISK);
	if (!disk)
		abort();
	lvm_make_pv(disk, PV, 1, "aaaaaa0000000000000000000000AAAA");
	lvm_make_pv(disk + PV, PV, 0, "bbbbbb0000000000000000000000BBBB");
	if (take(in, 1) == 0) {
		size_t len = in->size < LVM_MDA_BYTES - LVM_SECTOR ? in->size : LVM_MDA_BYTES - LVM_SECTOR;
		lvm_put_text(disk, 4096, (const char *)in->data, len);
		return disk;
	}
	lvm_put_text(disk, LVM_MDA_BYTES - 100, good, sizeof(good));
	while (in->size > 2) {
		uint32_t at = take(in, 2) % (2 * LVM_MDA_AT);
		take_bytes(in, disk + at, take(in, 1) % 9);
	}
	uint64_t offset = le64toh(*(uint64_t *)(void *)(disk + LVM_MDA_AT + 40));
	uint64_t len = le64toh(*(uint64_t *)(void *)(disk + LVM_MDA_AT + 48));
	if (offset < LVM_MDA_BYTES && len <= LVM_MDA_BYTES - offset)
		put32(disk + LVM_MDA_AT + 56, lvm_crc(disk + LVM_MDA_AT + offset, len));
	lvm_sign_label(disk + LVM_SECTOR);
	lvm_sign_header(disk + LVM_MDA_AT);
	return disk;
}

static void check(const struct tw_layout *layout, size_t known)
{
	uint8_t used[DISK / LVM_SECTOR] = {0};
	for (size_t i = known; i < layout->n; i++) {
		const struct tw_segments *s = &layout->places[i].segments;
		struct tw_pieces pieces = tw_pieces(s, 0, DISK);
		struct tw_piece piece;
		uint64_t bytes = 0;
		while (tw_pieces_next(&pieces, &piece)) {
			for (uint64_t at = piece.disk; at < piece.disk + piece.bytes; at += LVM_SECTOR)
				if (used[at / LVM_SECTOR]++)
					abort();
			bytes += piece.bytes;
		}
		if (bytes != s->bytes || (!*layout->places[i].why && !bytes))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct tw_layout layout = {0};
	uint8_t *disk = make(&in);
	const struct tw_source source = {.read = fuzz_read, .arg = disk, .bytes = DISK};
	for (unsigned i = 0; i < 2; i++) {
		struct tw_volume_place *place;
		if (tw_layout_add(&layout, &place) || tw_segments_range(&place->segments, i * PV, PV))
			abort();
		strcpy(place->type, "LVM2_member");
	}
	if (tw_lvm_find(&source, &layout))
		abort();
	check(&layout, 2);
	tw_layout_deinit(&layout);
	free(disk);
	return 0;
}
