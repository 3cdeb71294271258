/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/handle.h"

#include <stdlib.h>
#include <uv.h>

static void free_handle(uv_handle_t *handle)
{
	free(handle);
}

void tw_handle_close(void *at)
{
	uv_handle_t **handle = at;
	if (*handle)
		uv_close(*handle, free_handle);
	*handle = NULL;
}
