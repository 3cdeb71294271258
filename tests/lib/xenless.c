/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An LD_PRELOAD library that answers for the hypervisor, so that Debian's xenstored runs without one.
 *
 * All of the "machine" is in the directory $XENLESS:
 *   xsd_port, xsd_kva   what /proc/xen has in dom0: the number of an event channel, a page
 *   domain-N            domain N exists; its content: empty, or the letters s (shut down) and d (dying)
 *   page-N              N's xenstore page, which N maps, too; without it the page leads nowhere
 *   events              a FIFO: who writes a port (4 bytes) raises that event channel
 *   bell-N              a FIFO: gets a byte when xenstored raises N's event channel
 * VIRQ_DOM_EXC ("a domain has died") is port 1, domain N's event channel is port FIRST_PORT + N.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

#define PUBLIC __attribute__((visibility("default")))
#define VIRQ_PORT 1
#define FIRST_PORT 0x10000
#define PAGE 4096

static char something; /* what every handle points to */

static int real_open(const char *path, int flags, mode_t mode)
{
	int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	return next(path, flags, mode);
}

static int open_in(const char *name, unsigned domid, int flags)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/%s", getenv("XENLESS"), name);
	if (strchr(name, '-'))
		snprintf(path + strlen(path), sizeof(path) - strlen(path), "%u", domid);
	return real_open(path, flags | O_CLOEXEC, 0);
}

PUBLIC int open(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
	va_end(args);
	if (strcmp(path, "/proc/xen/xsd_port") == 0 || strcmp(path, "/proc/xen/xsd_kva") == 0)
		return open_in(strrchr(path, '/') + 1, 0, flags);
	return real_open(path, flags, mode);
}

/* --- event channels --- */

static int events = -1;

PUBLIC xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned flags)
{
	(void)logger, (void)flags;
	events = open_in("events", 0, O_RDWR | O_NONBLOCK);
	return events < 0 ? NULL : (xenevtchn_handle *)&something;
}

PUBLIC int xenevtchn_fd(xenevtchn_handle *xce)
{
	(void)xce;
	return events;
}

PUBLIC xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce, unsigned virq)
{
	(void)xce, (void)virq;
	return VIRQ_PORT;
}

PUBLIC xenevtchn_port_or_error_t xenevtchn_bind_interdomain(
	xenevtchn_handle *xce, uint32_t domid, evtchn_port_t remote)
{
	(void)xce, (void)remote;
	return (xenevtchn_port_or_error_t)(FIRST_PORT + domid);
}

PUBLIC xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
	uint32_t port;
	(void)xce;
	return read(events, &port, sizeof(port)) == sizeof(port) ? (xenevtchn_port_or_error_t)port : -1;
}

PUBLIC int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
	(void)xce;
	int bell = open_in("bell-", port - FIRST_PORT, O_WRONLY | O_NONBLOCK);
	if (bell >= 0) {
		(void)!write(bell, "", 1);
		close(bell);
	}
	return 0;
}

PUBLIC int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
	(void)xce, (void)port;
	return 0;
}

PUBLIC int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
	(void)xce, (void)port;
	return 0;
}

/* --- grants: a domain's page --- */

PUBLIC xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger, unsigned flags)
{
	(void)logger, (void)flags;
	return (xengnttab_handle *)&something;
}

PUBLIC int xengnttab_close(xengnttab_handle *xgt)
{
	(void)xgt;
	return 0;
}

PUBLIC int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t count)
{
	(void)xgt, (void)count;
	return 0;
}

PUBLIC void *xengnttab_map_grant_ref(xengnttab_handle *xgt, uint32_t domid, uint32_t ref, int prot)
{
	(void)xgt, (void)ref;
	int fd = open_in("page-", domid, O_RDWR);
	void *page = mmap(NULL, PAGE, prot, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	if (fd >= 0)
		close(fd);
	return page == MAP_FAILED ? NULL : page;
}

PUBLIC int xengnttab_unmap(xengnttab_handle *xgt, void *page, uint32_t count)
{
	(void)xgt;
	return munmap(page, count * (size_t)PAGE);
}

/* --- domains --- */

PUBLIC xc_interface *xc_interface_open(
	struct xentoollog_logger *logger, struct xentoollog_logger *dombuild, unsigned flags)
{
	(void)logger, (void)dombuild, (void)flags;
	return (xc_interface *)&something;
}

PUBLIC int xc_interface_close(xc_interface *xch)
{
	(void)xch;
	return 0;
}

PUBLIC int xc_domain_getinfo(xc_interface *xch, uint32_t domid, unsigned max, xc_dominfo_t *info)
{
	char letters[8] = "";
	(void)xch, (void)max;
	int fd = open_in("domain-", domid, O_RDONLY);
	if (fd < 0)
		return 0;
	(void)!read(fd, letters, sizeof(letters) - 1);
	close(fd);
	memset(info, 0, sizeof(*info));
	info->domid = domid;
	info->shutdown = strchr(letters, 's') != NULL;
	info->dying = strchr(letters, 'd') != NULL;
	return 1;
}
