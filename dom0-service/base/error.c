/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

struct tw_error {
	enum tw_code code;
	int errnum;
	char *message;
};

static struct tw_error nomem = {.code = TW_NOMEM, .message = (char *)"out of memory"};

static struct tw_error *make(enum tw_code code, int errnum, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

static struct tw_error *make(enum tw_code code, int errnum, const char *fmt, va_list ap)
{
	char *text = NULL;
	if (vasprintf(&text, fmt, ap) < 0)
		return &nomem;
	if (errnum) {
		char *full = NULL;
		int len = asprintf(&full, "%s: %s", text, strerror(errnum));
		free(text);
		if (len < 0)
			return &nomem;
		text = full;
	}
	struct tw_error *err = malloc(sizeof(*err));
	if (!err) {
		free(text);
		return &nomem;
	}
	*err = (struct tw_error){.code = code, .errnum = errnum, .message = text};
	return err;
}

struct tw_error *tw_error_create(enum tw_code code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	struct tw_error *err = make(code, 0, fmt, ap);
	va_end(ap);
	return err;
}

struct tw_error *tw_error_errno(int errnum, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	struct tw_error *err = make(TW_IO, abs(errnum), fmt, ap);
	va_end(ap);
	return err;
}

struct tw_error *tw_error_nomem(void)
{
	return &nomem;
}

struct tw_error *tw_error_context(struct tw_error *err, const char *fmt, ...)
{
	if (!err || err == &nomem)
		return err;
	char *prefix = NULL;
	va_list ap;
	va_start(ap, fmt);
	int len = vasprintf(&prefix, fmt, ap);
	va_end(ap);
	if (len < 0)
		return err;
	char *full = NULL;
	if (asprintf(&full, "%s: %s", prefix, err->message) >= 0) {
		free(err->message);
		err->message = full;
	}
	free(prefix);
	return err;
}

enum tw_code tw_error_code(const struct tw_error *err)
{
	return err->code;
}

int tw_error_errnum(const struct tw_error *err)
{
	return err->errnum;
}

const char *tw_error_message(const struct tw_error *err)
{
	return err->message;
}

int tw_error_exit_status(const struct tw_error *err)
{
	switch (err->code) {
	case TW_NOMEM:
		return EX_OSERR;
	case TW_IO:
		return err->errnum == ENOENT || err->errnum == EACCES || err->errnum == EISDIR
			       ? EX_NOINPUT
			       : EX_IOERR;
	case TW_BAD_DATA:
	case TW_GAP:
		return EX_DATAERR;
	case TW_UNSUPPORTED:
	case TW_UNAVAILABLE:
		return EX_UNAVAILABLE;
	case TW_CONFIG:
		return EX_CONFIG;
	case TW_USAGE:
		return EX_USAGE;
	}
	return EX_SOFTWARE;
}

void tw_error_destroy(struct tw_error *err)
{
	if (!err || err == &nomem)
		return;
	free(err->message);
	free(err);
}
