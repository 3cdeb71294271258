/* SPDX-License-Identifier: BSD-3-Clause */
/* What every unit test of dom0-service includes first: cmocka with what it needs, and checks of error objects. */
#ifndef CHECK_H
#define CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"

/* The call succeeds. */
#define ok(expr) check_ok((expr), #expr, __FILE__, __LINE__)
/* The call fails with this code. */
#define fails(expr, code) check_fails((expr), (code), #expr, __FILE__, __LINE__)

static inline void check_ok(struct tw_error *err, const char *what, const char *file, int line)
{
	if (!err)
		return;
	print_error("%s: %s\n", what, tw_error_message(err));
	tw_error_destroy(err);
	_fail(file, line);
}

static inline void check_fails(struct tw_error *err, enum tw_code code, const char *what,
	const char *file, int line)
{
	if (err && tw_error_code(err) == code) {
		tw_error_destroy(err);
		return;
	}
	print_error("%s: %s\n", what, err ? tw_error_message(err) : "no error");
	tw_error_destroy(err);
	_fail(file, line);
}

/* A generator of our own, so that a seed means the same everywhere. */
struct dice {
	uint64_t state;
};

static inline uint32_t roll(struct dice *dice, uint32_t sides)
{
	dice->state = dice->state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((dice->state >> 33) % sides);
}

#endif
