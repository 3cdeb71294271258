/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The error object of dom0-service: every fallible function returns NULL for success or an error
 * that its caller owns. tapdisk-plugin keeps tapdisk's own idiom (0 or negative errno);
 * tw_error_errno() is the seam between the two.
 */
#ifndef TW_BASE_ERROR_H
#define TW_BASE_ERROR_H

enum tw_code {
	TW_NOMEM = 1,   /* out of memory */
	TW_IO,          /* a system call failed; tw_error_errnum() tells how */
	TW_BAD_DATA,    /* bytes that break their format: image, trace, state */
	TW_UNSUPPORTED, /* well-formed, but a feature that tapwire does not follow */
	TW_CONFIG,      /* the INI file is wrong */
	TW_USAGE,       /* the command line is wrong */
	TW_GAP,         /* writes are missing; only a fresh look at the image helps */
	TW_UNAVAILABLE, /* a peer that should be there is not */
};

struct tw_error;

#define TW_MUST_CHECK __attribute__((warn_unused_result))

/* Makes an error with a printf-style message: what, where, what to do. Never NULL: without memory
 * it is a static out-of-memory error. */
struct tw_error *tw_error_create(enum tw_code code, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), returns_nonnull)) TW_MUST_CHECK;

/* TW_IO with ": strerror(errnum)" after the message. A negative errnum is taken as its absolute
 * value, so that a negative-errno return can be handed over as it is. */
struct tw_error *tw_error_errno(int errnum, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), returns_nonnull)) TW_MUST_CHECK;

/* The static out-of-memory error. */
struct tw_error *tw_error_nomem(void) __attribute__((returns_nonnull)) TW_MUST_CHECK;

/* Puts "context: " before the message. Takes err and returns it (or NULL for NULL). */
struct tw_error *tw_error_context(struct tw_error *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3))) TW_MUST_CHECK;

enum tw_code tw_error_code(const struct tw_error *err);
int tw_error_errnum(const struct tw_error *err);          /* 0 when not TW_IO */
const char *tw_error_message(const struct tw_error *err); /* lives as long as err */

/* The sysexits.h exit status of a program that ends with this error. */
int tw_error_exit_status(const struct tw_error *err);

/* Frees err; NULL is fine. */
void tw_error_destroy(struct tw_error *err);

/* TW_TRY(f()) returns f's error from the calling function. */
#define TW_TRY(expr)                                                                               \
	do {                                                                                       \
		struct tw_error *tw_try_err = (expr);                                              \
		if (tw_try_err)                                                                    \
			return tw_try_err;                                                         \
	} while (0)

#endif
