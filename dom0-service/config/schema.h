/* SPDX-License-Identifier: BSD-3-Clause */
/* The keys of the INI file and how a value reaches its field. Private to config/. */
#ifndef TW_CONFIG_SCHEMA_H
#define TW_CONFIG_SCHEMA_H

#include "config/config.h"

enum tw_section { TW_SECTION_SERVICE, TW_SECTION_SPOOL, TW_SECTION_TARGET, TW_SECTION_DISK, TW_SECTION_GUEST,
	TW_SECTION_END };

/* "service" and so on. */
const char *tw_schema_section_name(enum tw_section section);
/* Whether its heading carries a name of its own: [target NAME]. */
bool tw_schema_section_named(enum tw_section section);
/* The index of a key of the section, or -1. */
int tw_schema_find(enum tw_section section, const char *name);
/* Puts the value of key n into its field of base (a tw_config, tw_config_target, tw_config_disk or
 * tw_config_guest).
 * *warning is set to a static text when the value is usable and doubtful, else left alone. The error's
 * message says what was found and what was expected. */
struct tw_error *tw_schema_set(int n, void *base, const char *value, const char **warning) TW_MUST_CHECK;
/* Puts the defaults of the section's keys into base. */
struct tw_error *tw_schema_defaults(enum tw_section section, void *base) TW_MUST_CHECK;
/* Frees what the section's keys put into base. */
void tw_schema_release(enum tw_section section, void *base);

#endif
