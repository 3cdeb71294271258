/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/report.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = { "waiting", "starting", "crawling", "live", "resync", "failed" };

const char *tw_report_state_name(enum tw_report_state state)
{
	return names[state];
}

static bool find_state(const char *name, enum tw_report_state *out)
{
	for (size_t i = TW_REPORT_STARTING; i < TW_REPORT_FAILED; i++) {
		if (strcmp(names[i], name) != 0)
			continue;
		*out = (enum tw_report_state)i;
		return true;
	}
	return false;
}

static bool take_status(struct tw_report *report, const char *text)
{
	char word[16];
	uint64_t events, lag;
	int end = -1;
	enum tw_report_state state;
	if (sscanf(text, "%15s %" SCNu64 " %" SCNu64 "%n", word, &events, &lag, &end) != 3 || end < 0 || text[end] ||
		!find_state(word, &state))
		return false;
	if (report->state == TW_REPORT_FAILED && state == TW_REPORT_STARTING)
		return false;
	bool changed = report->state != state || report->events != events || report->lag != lag;
	report->state = state;
	report->events = events;
	report->lag = lag;
	return changed;
}

static void make_clean(const char *text, char *out, size_t size)
{
	snprintf(out, size, "%s", text);
	for (char *c = out; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
}

static bool set_remark(struct tw_report *report, const char *text)
{
	char clean[sizeof(report->remark)];
	make_clean(text, clean, sizeof(clean));
	bool changed = strcmp(report->remark, clean) != 0;
	memcpy(report->remark, clean, sizeof(clean));
	return changed;
}

static bool set_error(struct tw_report *report, const char *text)
{
	char clean[sizeof(report->error)];
	make_clean(text, clean, sizeof(clean));
	if (report->state == TW_REPORT_FAILED && strcmp(report->error, clean) == 0)
		return false;
	report->state = TW_REPORT_FAILED;
	memcpy(report->error, clean, sizeof(clean));
	return true;
}

bool tw_report_take(struct tw_report *report, const char *line)
{
	if (strncmp(line, "status ", 7) == 0)
		return take_status(report, line + 7);
	if (strncmp(line, "error ", 6) == 0 && line[6])
		return set_error(report, line + 6);
	if (strncmp(line, "remark ", 7) == 0)
		return set_remark(report, line + 7);
	return false;
}

bool tw_report_ended(struct tw_report *report, int status)
{
	char text[64];
	if (report->state == TW_REPORT_FAILED) /* it has said why */
		return false;
	if (status > 128)
		snprintf(text, sizeof(text), "the inspector was killed by signal %d", status - 128);
	else
		snprintf(text, sizeof(text), "the inspector ended with status %d", status);
	return set_error(report, text);
}

struct tw_report tw_report_with_trouble(const struct tw_report *report, const char *trouble)
{
	struct tw_report told = *report;
	if (trouble)
		(void)set_error(&told, trouble);
	return told;
}
