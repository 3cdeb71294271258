/* SPDX-License-Identifier: BSD-3-Clause */
/* systemd's notification protocol, sd_notify(3). */
#ifndef TW_SUPERVISE_NOTIFY_H
#define TW_SUPERVISE_NOTIFY_H

/* Tells the service manager, if there is one ("READY=1"). Best effort. */
void tw_notify(const char *state);

#endif
