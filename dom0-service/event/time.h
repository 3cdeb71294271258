/* SPDX-License-Identifier: BSD-3-Clause */
/* Times as text: RFC 3339 in UTC with nanoseconds. A year outside 0 to 9999 is clamped to the
 * nearest instant that RFC 3339 can say, and so are nanoseconds beyond a second (an inode's field
 * has 30 bits). */
#ifndef TW_EVENT_TIME_H
#define TW_EVENT_TIME_H

#include "event/event.h"

/* Room for a time's text and its NUL. */
#define TW_TIME_TEXT_BYTES 32
/* The length of every time's text. */
#define TW_TIME_TEXT_LEN 30

void tw_time_format(struct tw_time value, char out[static TW_TIME_TEXT_BYTES]);

/* A time that remembers its text: the next one is mostly the same, or in the same second. */
struct tw_stamp {
	struct tw_time value;
	char text[TW_TIME_TEXT_BYTES];
};

void tw_stamp_init(struct tw_stamp *stamp);
/* The other half of tw_stamp_set(). */
void tw_stamp_change(struct tw_stamp *stamp, struct tw_time value);

static inline void tw_stamp_set(struct tw_stamp *stamp, struct tw_time value)
{
	if (value.sec != stamp->value.sec || value.nsec != stamp->value.nsec)
		tw_stamp_change(stamp, value);
}

#endif
