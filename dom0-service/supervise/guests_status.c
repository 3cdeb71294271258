/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/buf.h"
#include "ring.h"
#include "supervise/guests_inside.h"

#include <string.h>
#include <utlist.h>

/* What a person has to do for a disk that nobody captures. */
static void put_advice(const struct tw_guest_entry *entry, const struct tw_instance *disk, struct tw_json *json)
{
	struct tw_buf text = TW_BUF_INIT;
	if (strcmp(disk->script, "block-tapwire") == 0)
		tw_buf_puts(&text, "its capture is not up; see the key hotplug-error, and the log of xl");
	else if (strcmp(disk->ids.kind, "vbd3") == 0)
		tw_buf_printf(&text, "tapwire attach %s %s", *disk->name ? disk->name : entry->uuid, entry->vdev);
	else
		tw_buf_printf(&text,
			"disk = [ 'vdev=%s, access=%s, format=raw, script=block-tapwire, target=aio:%s' ]",
			entry->vdev, disk->read_only ? "ro" : "rw", disk->image);
	tw_buf_append(&text, "", 1);
	if (!text.failed)
		tw_json_text(json, "to_do", text.data);
	tw_buf_deinit(&text);
}

static void put_disk(
	const struct tw_guests *guests, const struct tw_guest_entry *entry, struct tw_json *json)
{
	const struct tw_instance *disk = tw_guest_current(entry);
	const struct tw_config_guest *rule =
		tw_config_match(guests->config, disk->name, entry->uuid, entry->vdev);
	bool captured = tw_ring_has_producer(entry->ring);
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
	tw_json_text(json, "state",
		entry->refused ? "refused"
		: !entry->put  ? "ignored"
		: !captured    ? "not captured"
			       : tw_report_state_name(entry->report.state));
	if (entry->refused)
		tw_json_text(json, "error", entry->refused);
	else if (*entry->report.error)
		tw_json_text(json, "error", entry->report.error);
	if (rule)
		tw_json_text(json, "section", rule->name);
	if (disk->orphan)
		tw_json_bool(json, "forgotten_by_xenstore", true);
	if (entry->put && !captured && disk->image)
		put_advice(entry, disk, json);
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
