/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/guest_disk.h"
#include "base/scope.h"
#include "supervise/tapctl.h"

#include <stdlib.h>
#include <string.h>

static struct tw_error *find_disk(const char *guest, const char *vdev, struct tw_found_disk *out)
{
	struct tw_store *store;
	TW_TRY(tw_store_open(false, &store));
	struct tw_error *err = tw_find_disk(store, guest, vdev, out);
	tw_store_close(store);
	return err;
}

/* What no mirror could tell anything of, or something else tells of already. */
static struct tw_error *check(const struct tw_guest_disk *disk)
{
	if (disk->problem && disk->image)
		return tw_error_create(TW_UNSUPPORTED, "%s", disk->problem);
	if (disk->cdrom)
		return tw_error_create(TW_UNSUPPORTED, "it is a cdrom");
	if (disk->read_only)
		return tw_error_create(TW_UNSUPPORTED, "the guest may not write it");
	if (strcmp(disk->script, "block-tapwire") == 0)
		return tw_error_create(
			TW_UNSUPPORTED, "its hotplug script, block-tapwire, captures it: see `tapwire status`");
	return NULL;
}

static void find_numbers(const struct tw_guest_disk *disk, const char *given, int *pid, int *minor)
{
	*pid = *minor = -1;
	if (strcmp(given, "auto") != 0)
		(void)tw_vbd_parse_target(given, pid, minor);
	else
		(void)tw_vbd_of_backend(disk->kind, disk->served, disk->numbers, pid, minor);
}

static struct tw_error *find_tapdisk(
	const char *tap_ctl, const char *given, const struct tw_found_disk *found, char **target, char **image)
{
	int pid, minor;
	find_numbers(found->disk, given, &pid, &minor);
	if (minor < 0 && !found->disk->image)
		return tw_error_create(TW_UNSUPPORTED, "%s", found->disk->problem);
	return tw_tapctl_find(tap_ctl, pid, minor, found->disk->image, target, image);
}

struct tw_error *tw_guest_tapdisk_find(const char *tap_ctl, const char *guest, const char *vdev, const char *given,
	struct tw_guest_tapdisk *out)
{
	TW_TRY(find_disk(guest, vdev, &out->found));
	const struct tw_found_disk *found = &out->found;
	struct tw_error *err = check(found->disk);
	if (!err)
		err = find_tapdisk(tap_ctl, given, found, &out->target, &out->image);
	if (err)
		return tw_error_context(err, "%s of %s", vdev, guest);
	out->id = (struct tw_disk_id){ .domid = found->guest->domid, .vdev = found->disk->vdev };
	if (found->guest->named) {
		out->id.domain_uuid = found->guest->uuid;
		out->id.domain_name = found->guest->name;
	}
	return NULL;
}

void tw_guest_tapdisk_deinit(struct tw_guest_tapdisk *tapdisk)
{
	tw_found_disk_deinit(&tapdisk->found);
	free(TW_STEAL(tapdisk->target));
	free(TW_STEAL(tapdisk->image));
}
