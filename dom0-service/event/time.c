/* SPDX-License-Identifier: BSD-3-Clause */
#include "event/json.h"


#define DAY 86400
#define FIRST_SECOND INT64_C(-62167219200) /* 0000-01-01T00:00:00Z */
#define LAST_SECOND INT64_C(253402300799)  /* 9999-12-31T23:59:59Z */

static struct tw_time clamp(struct tw_time t)
{
	if (t.sec < FIRST_SECOND)
		return (struct tw_time){ FIRST_SECOND, 0 };
	if (t.sec > LAST_SECOND)
		return (struct tw_time){ LAST_SECOND, 999999999 };
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

/* n decimal digits and a character behind them. Not snprintf: four times an event, it would be a sixth of all
 * instructions between a transaction and its events. */
static char *digits(char *out, unsigned value, int n, char then)
{
	for (int i = n; i-- > 0; value /= 10)
		out[i] = (char)('0' + value % 10);
	out[n] = then;
	return out + n + 1;
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
	out = digits(out, (unsigned)year, 4, '-');
	out = digits(out, (unsigned)month, 2, '-');
	out = digits(out, (unsigned)mday, 2, 'T');
	out = digits(out, (unsigned)rest / 3600, 2, ':');
	out = digits(out, (unsigned)rest / 60 % 60, 2, ':');
	out = digits(out, (unsigned)rest % 60, 2, '.');
	out = digits(out, t.nsec, 9, 'Z');
	*out = '\0';
}
