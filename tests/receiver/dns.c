/* SPDX-License-Identifier: BSD-3-Clause */
/* An LD_PRELOAD library: no name is known as long as the file $TAPWIRE_NO_DNS exists; afterwards every name that ends
 * in .invalid is this machine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
	int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
		(int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(
			RTLD_NEXT, "getaddrinfo");
	const char *file = getenv("TAPWIRE_NO_DNS");
	if (file && access(file, F_OK) == 0)
		return EAI_AGAIN;
	size_t len = node ? strlen(node) : 0;
	if (len > 8 && strcmp(node + len - 8, ".invalid") == 0)
		node = "127.0.0.1";
	return real(node, service, hints, out);
}
