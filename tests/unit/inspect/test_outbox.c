/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "inspect/outbox.h"
#include "link/frame.h"

#include <stdio.h>

static int setup(void **state)
{
	ok(tw_outbox_create((struct tw_outbox **)state));
	return 0;
}

static int teardown(void **state)
{
	tw_outbox_destroy(*state);
	return 0;
}

/* Events first .. last, each with its number as its text. */
static void add(struct tw_outbox *box, uint64_t first, uint64_t last)
{
	for (uint64_t n = first; n <= last; n++) {
		struct tw_buf json = TW_BUF_INIT;
		tw_buf_printf(&json, "{\"n\":%llu}", (unsigned long long)n);
		ok(tw_outbox_add(box, n, TW_EVENT_FILE_CREATED, &json));
		tw_buf_deinit(&json);
	}
}

/* The span is exactly the frames of events first .. last. */
static void frames_are(struct tw_span span, uint64_t first, uint64_t last)
{
	for (uint64_t n = first; n <= last; n++) {
		struct tw_frame frame;
		char text[32];
		int64_t len = tw_frame_parse((const char *)span.data, span.len, &frame);
		assert_true(len > 0);
		assert_int_equal(frame.kind, TW_FRAME_EVENT);
		assert_int_equal(frame.type, TW_EVENT_FILE_CREATED);
		assert_true(frame.sequence == n);
		int size = snprintf(text, sizeof(text), "{\"n\":%llu}", (unsigned long long)n);
		assert_int_equal(frame.length, size);
		assert_memory_equal(frame.body, text, frame.length);
		span = tw_span_sub(span, (size_t)len, span.len);
	}
	assert_int_equal(span.len, 0);
}

static void what_was_added_waits_to_be_sent(void **state)
{
	struct tw_outbox *box = *state;
	assert_int_equal(tw_outbox_unsent(box).len, 0);
	add(box, 1, 3);
	frames_are(tw_outbox_unsent(box), 1, 3);
	frames_are(tw_outbox_frames(box), 1, 3);
	assert_int_equal(tw_outbox_bytes(box), tw_outbox_frames(box).len);
}

static void what_was_sent_is_kept_until_it_is_acknowledged(void **state)
{
	struct tw_outbox *box = *state;
	add(box, 1, 3);
	tw_outbox_sent(box, tw_outbox_unsent(box).len);
	assert_int_equal(tw_outbox_unsent(box).len, 0);
	frames_are(tw_outbox_frames(box), 1, 3);
	tw_outbox_ack(box, 2);
	frames_are(tw_outbox_frames(box), 3, 3);
	tw_outbox_ack(box, 3);
	assert_int_equal(tw_outbox_bytes(box), 0);
	assert_int_equal(tw_outbox_acked(box), 3);
}

static void a_new_connection_gets_everything_that_is_not_acknowledged(void **state)
{
	struct tw_outbox *box = *state;
	add(box, 1, 5);
	tw_outbox_sent(box, tw_outbox_unsent(box).len);
	tw_outbox_ack(box, 2);
	tw_outbox_rewind(box);
	frames_are(tw_outbox_unsent(box), 3, 5);
	add(box, 6, 6);
	frames_are(tw_outbox_unsent(box), 3, 6);
}

static void a_frame_that_was_sent_in_part_goes_on_where_it_was(void **state)
{
	struct tw_outbox *box = *state;
	struct tw_buf wire = TW_BUF_INIT;
	add(box, 1, 20);
	for (unsigned step = 1; tw_outbox_unsent(box).len; step++) {
		struct tw_span rest = tw_outbox_unsent(box);
		size_t n = step % 7 < rest.len ? step % 7 : rest.len;
		tw_buf_append(&wire, rest.data, n);
		tw_outbox_sent(box, n);
		/* Acknowledgements come in between, also for a frame that is still on its way. */
		tw_outbox_ack(box, step / 10);
	}
	frames_are(tw_span(wire.data, wire.len), 1, 20);
	tw_buf_deinit(&wire);
}

static void an_acknowledgement_may_be_ahead(void **state)
{
	struct tw_outbox *box = *state;
	tw_outbox_ack(box, 10);
	add(box, 8, 12);
	frames_are(tw_outbox_frames(box), 11, 12);
	frames_are(tw_outbox_unsent(box), 11, 12);
	tw_outbox_ack(box, 5);
	assert_int_equal(tw_outbox_acked(box), 10);
	tw_outbox_ack(box, UINT64_MAX);
	assert_int_equal(tw_outbox_bytes(box), 0);
}

static void waiting_frames_survive_a_restart(void **state)
{
	struct tw_outbox *box = *state, *again;
	add(box, 1, 9);
	tw_outbox_sent(box, 30);
	tw_outbox_ack(box, 4);
	ok(tw_outbox_create(&again));
	ok(tw_outbox_restore(again, tw_outbox_frames(box)));
	frames_are(tw_outbox_unsent(again), 5, 9);
	add(again, 10, 10);
	tw_outbox_ack(again, 6);
	frames_are(tw_outbox_frames(again), 7, 10);
	tw_outbox_destroy(again);
}

static void damaged_frames_are_not_restored(void **state)
{
	struct tw_outbox *box = *state, *again;
	add(box, 1, 2);
	struct tw_buf copy = TW_BUF_INIT;
	tw_buf_append(&copy, tw_outbox_frames(box).data, tw_outbox_frames(box).len);
	ok(tw_outbox_create(&again));
	fails(tw_outbox_restore(again, tw_span(copy.data, copy.len - 1)), TW_BAD_DATA);
	fails(tw_outbox_restore(again, tw_span(copy.data, 3)), TW_BAD_DATA);
	copy.data[4] = TW_FRAME_ACK;
	fails(tw_outbox_restore(again, tw_span(copy.data, copy.len)), TW_BAD_DATA);
	assert_int_equal(tw_outbox_bytes(again), 0);
	tw_outbox_destroy(again);
	tw_buf_deinit(&copy);
}

static void an_event_too_long_for_a_frame_is_an_error(void **state)
{
	struct tw_outbox *box = *state;
	struct tw_buf json = TW_BUF_INIT;
	memset(tw_buf_reserve(&json, TW_FRAME_MAX_BODY + 1), ' ', TW_FRAME_MAX_BODY + 1);
	json.len = TW_FRAME_MAX_BODY + 1;
	fails(tw_outbox_add(box, 1, TW_EVENT_FILE_CREATED, &json), TW_BAD_DATA);
	json.len--;
	ok(tw_outbox_add(box, 1, TW_EVENT_FILE_CREATED, &json));
	assert_int_equal(tw_outbox_bytes(box), TW_FRAME_HEADER_BYTES + TW_FRAME_MAX_BODY);
	tw_buf_deinit(&json);
}

/* A wire that breaks now and then, and a courier that acknowledges what it got whole. */
static void random_breaks_lose_nothing_and_keep_the_order(void **state)
{
	struct tw_outbox *box = *state;
	struct dice dice = { 9 };
	struct tw_buf wire = TW_BUF_INIT;
	uint64_t added = 0, taken = 0;
	for (unsigned step = 0; step < 20000; step++) {
		struct tw_span rest = tw_outbox_unsent(box);
		struct tw_frame frame;
		if (!roll(&dice, 4)) {
			uint64_t last = added + 1 + roll(&dice, 3);
			add(box, added + 1, last);
			added = last;
		} else if (rest.len && roll(&dice, 50)) {
			size_t n = 1 + roll(&dice, (uint32_t)rest.len);
			tw_buf_append(&wire, rest.data, n);
			tw_outbox_sent(box, n);
		} else if (!roll(&dice, 5)) {
			tw_buf_reset(&wire);
			tw_outbox_rewind(box);
		}
		int64_t n;
		while ((n = tw_frame_parse(wire.data, wire.len, &frame)) > 0) {
			assert_true(frame.sequence <= taken + 1);
			taken = frame.sequence > taken ? frame.sequence : taken;
			tw_buf_consume(&wire, (size_t)n);
		}
		assert_true(n == 0);
		if (!roll(&dice, 3))
			tw_outbox_ack(box, taken);
	}
	assert_true(taken > 1000);
	tw_outbox_ack(box, taken);
	frames_are(tw_outbox_frames(box), taken + 1, added);
	tw_buf_deinit(&wire);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_was_added_waits_to_be_sent),
		TEST(what_was_sent_is_kept_until_it_is_acknowledged),
		TEST(a_new_connection_gets_everything_that_is_not_acknowledged),
		TEST(a_frame_that_was_sent_in_part_goes_on_where_it_was),
		TEST(an_acknowledgement_may_be_ahead),
		TEST(waiting_frames_survive_a_restart),
		TEST(damaged_frames_are_not_restored),
		TEST(an_event_too_long_for_a_frame_is_an_error),
		TEST(random_breaks_lose_nothing_and_keep_the_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
