/* SPDX-License-Identifier: BSD-3-Clause */
/* What is said of a watched disk in few words: in xenstore, and by `tapwire status`. */
#ifndef TW_SUPERVISE_REPORT_H
#define TW_SUPERVISE_REPORT_H

#include <stdbool.h>
#include <stdint.h>

/* The words of xenstore's key state; WAITING is told to nobody: there is no capture yet. */
enum tw_report_state {
	TW_REPORT_WAITING,
	TW_REPORT_STARTING,
	TW_REPORT_CRAWLING,
	TW_REPORT_LIVE,
	TW_REPORT_RESYNC,
	TW_REPORT_FAILED,
};

struct tw_report {
	enum tw_report_state state;
	uint64_t events;
	uint64_t lag;    /* bytes in the ring */
	char error[512]; /* of the last failure, printable; "" when there was none */
	char remark[256]; /* what is not watched of it, printable; "" when there is nothing to say */
};

/* "waiting", "starting" and so on. */
const char *tw_report_state_name(enum tw_report_state state);

/* Takes a line of the inspector's (its --status-fd): "status STATE EVENTS LAG", "error TEXT" or "remark TEXT". The
 * inspector reads what a guest wrote, so it is not trusted to keep to that; what is not understood changes nothing. A
 * failed disk is not "starting" again before it has come further than that. Returns whether anything has changed. */
bool tw_report_take(struct tw_report *report, const char *line);

/* What is told of a disk whose mirror has this trouble (NULL: none): without its writes nothing else counts. */
struct tw_report tw_report_with_trouble(const struct tw_report *report, const char *trouble);

/* The inspector has ended with this status (see child.h), having said why or not. Returns whether anything has
 * changed. */
bool tw_report_ended(struct tw_report *report, int status);

#endif
