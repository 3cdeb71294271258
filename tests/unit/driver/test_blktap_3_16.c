/* SPDX-License-Identifier: BSD-3-Clause */
/* The driver with the shape that struct tap_disk has since blktap 3.16: built with TW_TAPDISK_API=316. */
#include "test_writes.c"
