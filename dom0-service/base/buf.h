/* SPDX-License-Identifier: BSD-3-Clause */
/* A growing byte buffer. A failed growth is remembered: append as often as you like, ask once. */
#ifndef TW_BASE_BUF_H
#define TW_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct tw_buf {
	char *data;
	size_t len;
	size_t cap;
	bool failed; /* an append found no memory; the content is incomplete */
};

#define TW_BUF_INIT                                                                                \
	{                                                                                          \
		NULL, 0, 0, false                                                                  \
	}

/* Makes room for n more bytes and returns where they go, or NULL. len is not changed. */
void *tw_buf_reserve(struct tw_buf *buf, size_t n);
void tw_buf_append(struct tw_buf *buf, const void *data, size_t n);
void tw_buf_puts(struct tw_buf *buf, const char *text);
void tw_buf_printf(struct tw_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drops the first n bytes. */
void tw_buf_consume(struct tw_buf *buf, size_t n);
/* Empties the buffer and keeps its memory. */
void tw_buf_reset(struct tw_buf *buf);
void tw_buf_deinit(struct tw_buf *buf);

#endif
