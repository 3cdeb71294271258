/* SPDX-License-Identifier: BSD-3-Clause */
/* The JSON object that answers a STATUS frame. */
#ifndef TW_COURIER_STATUS_H
#define TW_COURIER_STATUS_H

#include "base/buf.h"
#include "courier/server.h"
#include "courier/spool.h"
#include "courier/target.h"

struct tw_status {
	struct tw_server_stats server;
	struct tw_spool_stats spool;
	uint64_t spool_max_bytes;
	bool held; /* no room: inspectors hold back */
	const struct tw_target_stats *targets;
	size_t ntargets;
};

/* Appends the object; out->failed when there was no memory. */
void tw_status_encode(const struct tw_status *status, struct tw_buf *out);

#endif
