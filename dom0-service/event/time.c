/* SPDX-License-Identifier: BSD-3-Clause */
#include "event/time.h"
#include "event/put.h"

#include <string.h>

#define DAY 86400
#define NANOSECONDS 20                     /* where they begin in a text */
#define FIRST_SECOND INT64_C(-62167219200) /* 0000-01-01T00:00:00Z */
#define LAST_SECOND INT64_C(253402300799)  /* 9999-12-31T23:59:59Z */

static struct tw_time clamp(struct tw_time t)
{
	if (t.sec < FIRST_SECOND)
		return (struct tw_time){FIRST_SECOND, 0};
	if (t.sec > LAST_SECOND)
		return (struct tw_time){LAST_SECOND, 999999999};
	if (t.nsec > 999999999)
		t.nsec = 999999999;
	return t;
}

/* Gregorian date of a day since 1970-01-01. The year begins in March here, so that the leap day is
 * its last; an era is 400 years, 146097 days. Not gmtime_r: it takes a lock, twice an event. */
static void civil(int64_t day, int *year, int *month, int *mday)
{
	int64_t shifted = day + 719468; /* days since 0000-03-01, not negative after clamp + era */
	int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
	int64_t of_era = shifted - era * 146097;
	int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int64_t of_year = of_era - (365 * y + y / 4 - y / 100);
	int64_t m = (5 * of_year + 2) / 153;
	*mday = (int)(of_year - (153 * m + 2) / 5 + 1);
	*month = (int)(m < 10 ? m + 3 : m - 9);
	*year = (int)(y + era * 400 + (*month <= 2));
}

/* Nine digits. Not snprintf: four times an event, it would be half of all instructions for its
 * text. */
static void put_nanoseconds(char *out, uint32_t nsec)
{
	uint32_t upper = nsec / 100000, lower = nsec % 100000;
	tw_two_digits(out, upper / 100);
	tw_two_digits(out + 2, upper % 100);
	tw_two_digits(out + 4, lower / 1000);
	tw_two_digits(out + 6, lower / 10 % 100);
	out[8] = (char)('0' + lower % 10);
}

void tw_time_format(struct tw_time value, char out[static TW_TIME_TEXT_BYTES])
{
	struct tw_time t = clamp(value);
	int64_t day = t.sec / DAY;
	int rest = (int)(t.sec % DAY);
	if (rest < 0) {
		rest += DAY;
		day--;
	}
	int year, month, mday;
	civil(day, &year, &month, &mday);
	memcpy(out, "0000-00-00T00:00:00.000000000Z", TW_TIME_TEXT_LEN + 1);
	tw_two_digits(out, (unsigned)year / 100);
	tw_two_digits(out + 2, (unsigned)year % 100);
	tw_two_digits(out + 5, (unsigned)month);
	tw_two_digits(out + 8, (unsigned)mday);
	tw_two_digits(out + 11, (unsigned)rest / 3600);
	tw_two_digits(out + 14, (unsigned)rest / 60 % 60);
	tw_two_digits(out + 17, (unsigned)rest % 60);
	put_nanoseconds(out + NANOSECONDS, t.nsec);
}

void tw_stamp_init(struct tw_stamp *stamp)
{
	stamp->value = (struct tw_time){0, 0};
	tw_time_format(stamp->value, stamp->text);
}

void tw_stamp_change(struct tw_stamp *stamp, struct tw_time value)
{
	struct tw_time t = clamp(value);
	/* A clamped second stands for others, which have other nanoseconds. */
	if (value.sec == stamp->value.sec && t.sec == value.sec)
		put_nanoseconds(stamp->text + NANOSECONDS, t.nsec);
	else
		tw_time_format(value, stamp->text);
	stamp->value = value;
}
