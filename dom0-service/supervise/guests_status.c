/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/buf.h"
#include "ring.h"
#include "supervise/guests_inside.h"

#include <string.h>
#include <unistd.h>
#include <utlist.h>

bool tw_guest_is_meant(const struct tw_guests *guests, const struct tw_guest_entry *entry)
{
	const struct tw_instance *current = tw_guest_current(entry);
	return (current && strcmp(current->script, "block-tapwire") == 0) || access(entry->ring, F_OK) == 0 ||
	       (current && tw_guest_wants_mirror(guests, entry));
}

const char *tw_guest_failure(const struct tw_guests *guests, const struct tw_guest_entry *entry)
{
	if (entry->refused)
		return tw_guest_is_meant(guests, entry) ? entry->refused : NULL;
	return entry->put ? NULL : entry->tap.trouble;
}

/* The first section that matches counts: when there is one, the line belongs there. */
static void put_attach(
	struct tw_buf *text, const struct tw_config_guest *rule, const char *guest, const char *vdev)
{
	if (rule)
		tw_buf_printf(text, "attach = yes in the section [guest %s]", rule->name);
	else
		tw_buf_printf(text, "a section [guest NAME] with domain = %s and attach = yes", guest);
	tw_buf_printf(text, " of tapwire.conf; or tapwire attach %s %s", guest, vdev);
}

/* What a person has to do for a disk that nobody captures. */
static void put_advice(const struct tw_guest_entry *entry, const struct tw_config_guest *rule, struct tw_json *json)
{
	struct tw_buf text = TW_BUF_INIT;
	const struct tw_instance *disk = tw_guest_current(entry);
	if (strcmp(disk->script, "block-tapwire") == 0)
		tw_buf_puts(&text, "its capture is not up; see the key hotplug-error, and the log of xl");
	else if (entry->detached)
		tw_buf_puts(&text, "detached by hand; systemctl reload tapwired attaches it again");
	else if (entry->tap.asked)
		tw_buf_puts(&text, "nothing; a mirror is being put under its tapdisk");
	else if (strcmp(disk->ids.kind, "vbd3") == 0 && disk->read_only)
		tw_buf_puts(&text, "nothing; the guest may not write it");
	else if (strcmp(disk->ids.kind, "vbd3") == 0)
		put_attach(&text, rule, *disk->name ? disk->name : entry->uuid, entry->vdev);
	else
		tw_buf_printf(&text,
			"disk = [ 'vdev=%s, access=%s, format=raw, script=block-tapwire, target=aio:%s' ]",
			entry->vdev, disk->read_only ? "ro" : "rw", disk->image);
	tw_buf_append(&text, "", 1);
	if (!text.failed)
		tw_json_text(json, "to_do", text.data);
	tw_buf_deinit(&text);
}

/* What brings its writes. */
static const char *capture_of(const struct tw_guests *guests, const struct tw_guest_entry *entry, bool captured)
{
	if (!captured)
		return "none";
	if (tw_fleet_is_mirrored(guests->fleet, entry->state_dir))
		return "mirror";
	return strcmp(tw_guest_current(entry)->script, "block-tapwire") == 0 ? "block-tapwire" : "other";
}

/* NULL: none. */
static const char *error_of(const struct tw_guest_entry *entry)
{
	if (entry->refused)
		return entry->refused;
	if (!entry->put && entry->tap.trouble)
		return entry->tap.trouble;
	return *entry->report.error ? entry->report.error : NULL;
}

static void put_disk(
	const struct tw_guests *guests, const struct tw_guest_entry *entry, struct tw_json *json)
{
	const struct tw_instance *disk = tw_guest_current(entry);
	const struct tw_config_guest *rule =
		tw_config_match(guests->config, disk->name, entry->uuid, entry->vdev);
	bool captured = tw_ring_has_producer(entry->ring);
	const char *error = error_of(entry);
	tw_json_open(json, NULL);
	tw_json_text(json, "guest", disk->name);
	tw_json_text(json, "uuid", entry->uuid);
	tw_json_u64(json, "domid", disk->ids.domid);
	tw_json_text(json, "vdev", entry->vdev);
	tw_json_text(json, "kind", disk->ids.kind);
	tw_json_text(json, "mode", disk->read_only ? "r" : "w");
	tw_json_text(json, "target", disk->params);
	tw_json_text(json, "image", disk->image ? disk->image : "");
	tw_json_text(json, "ring", entry->ring);
	tw_json_bool(json, "captured", captured);
	tw_json_text(json, "capture", capture_of(guests, entry, captured));
	tw_json_text(json, "state",
		entry->refused                     ? "refused"
		: !entry->put && !entry->tap.asked ? "ignored"
		: !captured                        ? "not captured"
						   : tw_report_state_name(entry->report.state));
	if (error)
		tw_json_text(json, "error", error);
	if (*entry->report.remark)
		tw_json_text(json, "remark", entry->report.remark);
	if (rule)
		tw_json_text(json, "section", rule->name);
	if (disk->orphan)
		tw_json_bool(json, "forgotten_by_xenstore", true);
	if (!captured && (entry->put || entry->tap.asked) && (entry->tap.asked ? !error : disk->image != NULL))
		put_advice(entry, rule, json);
	tw_json_close(json);
}

void tw_guests_status(const struct tw_guests *guests, struct tw_json *json)
{
	struct tw_guest_entry *entry, *next;
	if (!guests->domains) {
		tw_json_open(json, "xenstore");
		tw_json_text(json, "state", "off");
		tw_json_close(json);
		return;
	}
	tw_domains_status(guests->domains, "xenstore", json);
	tw_json_open_array(json, "guests");
	HASH_ITER (hh, guests->entries, entry, next)
		if (entry->instances)
			put_disk(guests, entry, json);
	tw_json_close_array(json);
}
