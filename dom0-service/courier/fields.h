/* SPDX-License-Identifier: BSD-3-Clause */
/* What filters and formats need of an event's body, which is known to be good JSON (courier/envelope.h). */
#ifndef TW_COURIER_FIELDS_H
#define TW_COURIER_FIELDS_H

#include "base/buf.h"
#include <stdbool.h>
#include <stddef.h>

/* A value as it stands in the body: a string with its quotes. at is NULL when there is none. */
struct tw_value {
	const char *at;
	size_t len;
};

struct tw_fields {
	struct tw_value id, source, type, subject, time, observed, data;
	struct tw_value old_path, path_b64, old_path_b64; /* of data */
	struct tw_value domain_id, domain_name, domain_uuid;
};

void tw_fields_get(const char *body, size_t len, struct tw_fields *out);

/* Appends what a string says, without its escapes; "" for anything else. */
void tw_value_text(const struct tw_value *value, struct tw_buf *out);
/* Appends the bytes of a string in base64. */
void tw_value_base64(const struct tw_value *value, struct tw_buf *out);

#endif
