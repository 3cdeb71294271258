/* SPDX-License-Identifier: BSD-3-Clause */
/* The inspector's connection to the courier: hello, events, acknowledgements; reconnects when it
 * breaks. */
#ifndef TW_INSPECT_UPLINK_H
#define TW_INSPECT_UPLINK_H

#include "inspect/outbox.h"

struct tw_uplink;

/* socket: path of the courier's; source: the prefix of the events' source; epoch: the disk's. All
 * are copied. The outbox is borrowed. Does not connect yet. */
struct tw_error *tw_uplink_create(const char *socket, const char *epoch, const char *source,
	struct tw_outbox *box, struct tw_uplink **out) TW_MUST_CHECK;
void tw_uplink_destroy(struct tw_uplink *link);

/* Connects, says hello and waits up to timeout_ms for the welcome, which acknowledges in the
 * outbox. True: it is up. */
bool tw_uplink_connect(struct tw_uplink *link, int timeout_ms);
bool tw_uplink_up(const struct tw_uplink *link);
/* To poll; -1 when it is down. */
int tw_uplink_fd(const struct tw_uplink *link);
/* Sends what the socket takes and reads what has come, without waiting. A broken connection is
 * logged and closed. */
void tw_uplink_pump(struct tw_uplink *link);

#endif
