/* SPDX-License-Identifier: BSD-3-Clause */
#include "event/event.h"

#include <string.h>

static const char *const types[TW_EVENT_TYPE_END] = {
	[TW_EVENT_FILE_CREATED] = "org.tapwire.file.created",
	[TW_EVENT_FILE_MODIFIED] = "org.tapwire.file.modified",
	[TW_EVENT_FILE_TRUNCATED] = "org.tapwire.file.truncated",
	[TW_EVENT_FILE_RENAMED] = "org.tapwire.file.renamed",
	[TW_EVENT_FILE_LINKED] = "org.tapwire.file.linked",
	[TW_EVENT_FILE_UNLINKED] = "org.tapwire.file.unlinked",
	[TW_EVENT_FILE_DELETED] = "org.tapwire.file.deleted",
	[TW_EVENT_FILE_ATTRIBUTES] = "org.tapwire.file.attributes",
	[TW_EVENT_VOLUME_FOUND] = "org.tapwire.volume.found",
	[TW_EVENT_VOLUME_FORMATTED] = "org.tapwire.volume.formatted",
	[TW_EVENT_VOLUME_LOST] = "org.tapwire.volume.lost",
	[TW_EVENT_DISK_ATTACHED] = "org.tapwire.disk.attached",
	[TW_EVENT_DISK_DETACHED] = "org.tapwire.disk.detached",
	[TW_EVENT_DISK_RESYNCED] = "org.tapwire.disk.resynced",
	[TW_EVENT_SPOOL_DROPPED] = "org.tapwire.spool.dropped",
	[TW_EVENT_FILE_SETTLED] = "org.tapwire.file.settled",
};

static const char *const kinds[] = {
	[TW_KIND_FILE] = "file",
	[TW_KIND_DIR] = "dir",
	[TW_KIND_SYMLINK] = "symlink",
	[TW_KIND_FIFO] = "fifo",
	[TW_KIND_SOCKET] = "socket",
	[TW_KIND_CHAR] = "char",
	[TW_KIND_BLOCK] = "block",
};

const char *tw_event_type_name(enum tw_event_type type)
{
	if (type < TW_EVENT_FILE_CREATED || type >= TW_EVENT_TYPE_END)
		return "?";
	return types[type];
}

enum tw_event_type tw_event_type_from_name(const char *name)
{
	for (int type = TW_EVENT_FILE_CREATED; type < TW_EVENT_TYPE_END; type++)
		if (strcmp(types[type], name) == 0)
			return (enum tw_event_type)type;
	return (enum tw_event_type)0;
}

const char *tw_kind_name(enum tw_kind kind)
{
	if (kind < TW_KIND_FILE || kind > TW_KIND_BLOCK)
		return "?";
	return kinds[kind];
}
