/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whether writing to an image can run out of space.
 *
 * A tapdisk whose image says ENOSPC while it has a mirror drops the image, answers the guest from the
 * mirror alone, and lets reads of what is not there be zeroes: it takes the mirror for a copy that is
 * to take over. A sink is no copy. So no mirror is put to an image for which that could happen.
 */
#ifndef TW_SUPERVISE_ALLOCATED_H
#define TW_SUPERVISE_ALLOCATED_H

#include "base/error.h"

/* NULL when every block of the regular file has a place of its own, or when the image is a block
 * device (of a thin-provisioned one it cannot be seen). Else TW_UNSUPPORTED with the reason: a hole,
 * blocks shared with another file, a file system that writes in other places. */
struct tw_error *tw_image_check_allocated(const char *image) TW_MUST_CHECK;

#endif
