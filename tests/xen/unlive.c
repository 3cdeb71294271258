/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Preloaded into xl migrate: the guest is suspended before its memory is copied, not after. Debian's Xen cannot follow
 * what a PV guest writes to its memory (it has no shadow paging), and emulation has no other guests. All else of a
 * migration is as it is: when which guest is suspended, has its disks attached, runs, and goes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>

#define SUSPEND_LIVE 2 /* LIBXL_SUSPEND_LIVE */

int libxl_domain_suspend(void *ctx, uint32_t domid, int fd, int flags, const void *how);

int libxl_domain_suspend(void *ctx, uint32_t domid, int fd, int flags, const void *how)
{
	int (*next)(void *, uint32_t, int, int, const void *) = dlsym(RTLD_NEXT, "libxl_domain_suspend");
	return next(ctx, domid, fd, flags & ~SUSPEND_LIVE, how);
}
