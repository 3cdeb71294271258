/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *tw_buf_reserve(struct tw_buf *buf, size_t n)
{
	if (buf->cap - buf->len >= n)
		return buf->data + buf->len;
	size_t cap = buf->cap ? buf->cap : 256;
	while (cap - buf->len < n) {
		if (__builtin_mul_overflow(cap, 2, &cap)) {
			buf->failed = true;
			return NULL;
		}
	}
	char *data = realloc(buf->data, cap);
	if (!data) {
		buf->failed = true;
		return NULL;
	}
	buf->data = data;
	buf->cap = cap;
	return data + buf->len;
}

void tw_buf_append(struct tw_buf *buf, const void *data, size_t n)
{
	void *at = tw_buf_reserve(buf, n);
	if (!at || !n)
		return;
	memcpy(at, data, n);
	buf->len += n;
}

void tw_buf_puts(struct tw_buf *buf, const char *text)
{
	tw_buf_append(buf, text, strlen(text));
}

void tw_buf_printf(struct tw_buf *buf, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	char *at = len < 0 ? NULL : tw_buf_reserve(buf, (size_t)len + 1);
	if (!at)
		return;
	va_start(ap, fmt);
	vsnprintf(at, (size_t)len + 1, fmt, ap);
	va_end(ap);
	buf->len += (size_t)len;
}

void tw_buf_consume(struct tw_buf *buf, size_t n)
{
	if (!n)
		return;
	buf->len -= n;
	memmove(buf->data, buf->data + n, buf->len);
}

void tw_buf_reset(struct tw_buf *buf)
{
	buf->len = 0;
	buf->failed = false;
}

void tw_buf_deinit(struct tw_buf *buf)
{
	free(buf->data);
	*buf = (struct tw_buf)TW_BUF_INIT;
}
