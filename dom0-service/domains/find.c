/* SPDX-License-Identifier: BSD-3-Clause */
#include "domains/find.h"
#include "base/buf.h"
#include "base/scope.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* As xl has it: a word of digits is a number, though a guest may be called so. */
static bool is_number(const char *who, unsigned *domid)
{
	if (!*who || strspn(who, "0123456789") != strlen(who))
		return false;
	errno = 0;
	unsigned long n = strtoul(who, NULL, 10);
	*domid = errno || n >= TW_XS_DOMID_END ? TW_XS_DOMID_END : (unsigned)n;
	return true;
}

static bool is_meant(const struct tw_guest *guest, const char *who)
{
	return strcmp(guest->name, who) == 0 || (*guest->uuid && strcasecmp(guest->uuid, who) == 0);
}

static struct tw_error *no_guest(const char *who)
{
	return tw_error_create(TW_UNAVAILABLE,
		"no guest \"%s\" has disks that this domain serves; `xl list` has numbers and names", who);
}

/* A guest that migrates within the host is there twice. */
static struct tw_error *take_match(const char *who, struct tw_guest *guest, struct tw_guest **out)
{
	if (!guest || !is_meant(guest, who)) {
		tw_guest_free(guest);
		return NULL;
	}
	if (!*out) {
		*out = guest;
		return NULL;
	}
	struct tw_error *err = tw_error_create(TW_UNAVAILABLE, "\"%s\" is both domain %u and domain %u: say its number",
		who, (*out)->domid, guest->domid);
	tw_guest_free(guest);
	return err;
}

static struct tw_error *find_guest(
	struct tw_store *store, unsigned self, const char *who, struct tw_guest **out)
{
	unsigned domid;
	TW_AUTO_FREE unsigned *all = NULL;
	size_t n = 0;
	if (is_number(who, &domid)) {
		TW_TRY(tw_guest_read(store, self, domid, out));
		return *out ? NULL : no_guest(who);
	}
	TW_TRY(tw_guest_list(store, self, &all, &n));
	for (size_t i = 0; i < n; i++) {
		struct tw_guest *guest;
		TW_TRY(tw_guest_read(store, self, all[i], &guest));
		TW_TRY(take_match(who, guest, out));
	}
	return *out ? NULL : no_guest(who);
}

static struct tw_error *no_disk(const struct tw_guest *guest, const char *who, const char *vdev)
{
	struct tw_buf has = TW_BUF_INIT;
	for (size_t i = 0; i < guest->ndisks; i++)
		tw_buf_printf(&has, " %s", guest->disks[i].vdev);
	tw_buf_append(&has, "", 1);
	struct tw_error *err = has.failed ? tw_error_nomem()
					  : tw_error_create(TW_UNAVAILABLE, "%s has no disk \"%s\"; it has:%s", who,
						    vdev, (const char *)has.data);
	tw_buf_deinit(&has);
	return err;
}

struct tw_error *tw_find_disk(
	struct tw_store *store, const char *who, const char *vdev, struct tw_found_disk *out)
{
	unsigned self;
	*out = (struct tw_found_disk){ 0 };
	TW_TRY(tw_store_self(store, &self));
	TW_TRY(find_guest(store, self, who, &out->guest));
	for (size_t i = 0; i < out->guest->ndisks && !out->disk; i++)
		if (strcmp(out->guest->disks[i].vdev, vdev) == 0)
			out->disk = &out->guest->disks[i];
	return out->disk ? NULL : no_disk(out->guest, who, vdev);
}

void tw_found_disk_deinit(struct tw_found_disk *found)
{
	tw_guest_free(TW_STEAL(found->guest));
	found->disk = NULL;
}
