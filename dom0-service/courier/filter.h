/* SPDX-License-Identifier: BSD-3-Clause */
/* Which events a target wants, beyond their types: by domain, volume and path. */
#ifndef TW_COURIER_FILTER_H
#define TW_COURIER_FILTER_H

#include "base/error.h"
#include "config/config.h"
#include "courier/spool.h"

struct tw_filter;

/* config is not needed afterwards. TW_CONFIG when a pattern is none. */
struct tw_error *tw_filter_create(const struct tw_config_target *config, struct tw_filter **out) TW_MUST_CHECK;
void tw_filter_destroy(struct tw_filter *filter);
/* As the spool wants to have it; borrows filter. */
struct tw_spool_filter tw_filter_for_spool(struct tw_filter *filter);

#endif
