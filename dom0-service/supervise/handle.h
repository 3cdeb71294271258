/* SPDX-License-Identifier: BSD-3-Clause */
/* Handles of the loop that are on the heap, as the loop needs them for a moment after they are closed. */
#ifndef TW_SUPERVISE_HANDLE_H
#define TW_SUPERVISE_HANDLE_H

/* at: of a pointer to a handle from malloc(), or of NULL. Closes it, frees it when that is done, and sets the pointer
 * to NULL. */
void tw_handle_close(void *at);

#endif
