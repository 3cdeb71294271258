/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A disk for SQLite, in memory, whose power fails and whose room ends on request. What was written since a file's
 * last sync may be on the disk after a power failure, in sectors, or not: that is drawn by lot. Deleting and making
 * files is durable at once.
 */
#ifndef TW_TEST_FAULTY_VFS_H
#define TW_TEST_FAULTY_VFS_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FAULTY_FILES 8
#define FAULTY_SECTOR 512

struct faulty_file {
	char name[256];
	bool exists;
	unsigned char *now; /* as the program sees it */
	size_t size;
	unsigned char *safe; /* as it was when it was last synced */
	size_t safe_size;
};

static struct {
	struct faulty_file files[FAULTY_FILES];
	uint64_t writes;	/* and syncs and truncations, so far */
	uint64_t power_off_at;	/* the power fails before this one; 0: never */
	uint64_t full_from;	/* these have no room */
	uint64_t full_until;
	size_t room;		/* for all files together; 0: no end to it */
	bool off;
} faulty;

struct faulty_handle {
	sqlite3_file base;
	struct faulty_file *file;
};

static void faulty_reset(void)
{
	for (size_t i = 0; i < FAULTY_FILES; i++) {
		free(faulty.files[i].now);
		free(faulty.files[i].safe);
	}
	memset(&faulty, 0, sizeof(faulty));
}

static struct faulty_file *faulty_find(const char *name, bool make)
{
	for (size_t i = 0; i < FAULTY_FILES; i++)
		if (faulty.files[i].exists && strcmp(faulty.files[i].name, name) == 0)
			return &faulty.files[i];
	for (size_t i = 0; make && i < FAULTY_FILES; i++) {
		if (faulty.files[i].exists)
			continue;
		faulty.files[i] = (struct faulty_file){ .exists = true };
		strncpy(faulty.files[i].name, name, sizeof(faulty.files[i].name) - 1);
		return &faulty.files[i];
	}
	return NULL;
}

static void faulty_resize(unsigned char **data, size_t *size, size_t want)
{
	*data = realloc(*data, want + 1);
	if (want > *size)
		memset(*data + *size, 0, want - *size);
	*size = want;
}

/* Counts a change; what comes of it. */
static int faulty_change(bool grows)
{
	if (faulty.off)
		return SQLITE_IOERR_WRITE;
	uint64_t n = ++faulty.writes;
	if (n == faulty.power_off_at) {
		faulty.off = true;
		return SQLITE_IOERR_WRITE;
	}
	return grows && n >= faulty.full_from && n < faulty.full_until ? SQLITE_FULL : SQLITE_OK;
}

/* True when a file of this size would be too much. */
static bool faulty_too_large(const struct faulty_file *file, size_t size)
{
	size_t used = size;
	for (size_t i = 0; i < FAULTY_FILES; i++)
		if (faulty.files[i].exists && &faulty.files[i] != file)
			used += faulty.files[i].size;
	return faulty.room && size > file->size && used > faulty.room;
}

static int faulty_close(sqlite3_file *base)
{
	(void)base;
	return SQLITE_OK;
}

static int faulty_read(sqlite3_file *base, void *out, int n, sqlite3_int64 offset)
{
	const struct faulty_file *file = ((struct faulty_handle *)base)->file;
	if (faulty.off)
		return SQLITE_IOERR_READ;
	size_t at = (size_t)offset;
	size_t have = at < file->size ? file->size - at : 0;
	if (have > (size_t)n)
		have = (size_t)n;
	if (have)
		memcpy(out, file->now + at, have);
	memset((char *)out + have, 0, (size_t)n - have);
	return have == (size_t)n ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int faulty_write(sqlite3_file *base, const void *data, int n, sqlite3_int64 offset)
{
	struct faulty_file *file = ((struct faulty_handle *)base)->file;
	int rc = faulty_change(true);
	if (rc != SQLITE_OK)
		return rc;
	size_t end = (size_t)offset + (size_t)n;
	if (faulty_too_large(file, end))
		return SQLITE_FULL;
	if (end > file->size)
		faulty_resize(&file->now, &file->size, end);
	memcpy(file->now + offset, data, (size_t)n);
	return SQLITE_OK;
}

static int faulty_truncate(sqlite3_file *base, sqlite3_int64 size)
{
	struct faulty_file *file = ((struct faulty_handle *)base)->file;
	int rc = faulty_change(false);
	if (rc == SQLITE_OK && (size_t)size < file->size)
		faulty_resize(&file->now, &file->size, (size_t)size);
	return rc;
}

static int faulty_sync(sqlite3_file *base, int flags)
{
	struct faulty_file *file = ((struct faulty_handle *)base)->file;
	(void)flags;
	int rc = faulty_change(false);
	if (rc != SQLITE_OK)
		return rc;
	file->safe = realloc(file->safe, file->size + 1);
	if (file->size)
		memcpy(file->safe, file->now, file->size);
	file->safe_size = file->size;
	return SQLITE_OK;
}

static int faulty_size(sqlite3_file *base, sqlite3_int64 *out)
{
	*out = (sqlite3_int64)((struct faulty_handle *)base)->file->size;
	return faulty.off ? SQLITE_IOERR_FSTAT : SQLITE_OK;
}

static int faulty_lock(sqlite3_file *base, int level)
{
	(void)base;
	(void)level;
	return SQLITE_OK;
}

static int faulty_reserved(sqlite3_file *base, int *out)
{
	(void)base;
	*out = 0;
	return SQLITE_OK;
}

static int faulty_control(sqlite3_file *base, int op, void *arg)
{
	struct faulty_file *file = ((struct faulty_handle *)base)->file;
	if (op != SQLITE_FCNTL_SIZE_HINT)
		return SQLITE_NOTFOUND;
	size_t size = (size_t)*(sqlite3_int64 *)arg;
	if (size <= file->size)
		return SQLITE_OK;
	int rc = faulty_change(true);
	if (rc == SQLITE_OK && faulty_too_large(file, size))
		rc = SQLITE_FULL;
	if (rc == SQLITE_OK)
		faulty_resize(&file->now, &file->size, size);
	return rc;
}

static int faulty_sector(sqlite3_file *base)
{
	(void)base;
	return FAULTY_SECTOR;
}

static int faulty_characteristics(sqlite3_file *base)
{
	(void)base;
	return 0; /* nothing is promised */
}

static int faulty_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *out)
{
	static const sqlite3_io_methods methods = {
		.iVersion = 1,
		.xClose = faulty_close,
		.xRead = faulty_read,
		.xWrite = faulty_write,
		.xTruncate = faulty_truncate,
		.xSync = faulty_sync,
		.xFileSize = faulty_size,
		.xLock = faulty_lock,
		.xUnlock = faulty_lock,
		.xCheckReservedLock = faulty_reserved,
		.xFileControl = faulty_control,
		.xSectorSize = faulty_sector,
		.xDeviceCharacteristics = faulty_characteristics,
	};
	struct faulty_handle *handle = (struct faulty_handle *)base;
	(void)vfs;
	handle->base.pMethods = NULL;
	if (faulty.off)
		return SQLITE_CANTOPEN;
	handle->file = faulty_find(name ? name : "unnamed", true);
	handle->base.pMethods = &methods;
	if (out)
		*out = flags;
	return SQLITE_OK;
}

static int faulty_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
	(void)vfs;
	(void)sync;
	struct faulty_file *file = faulty_find(name, false);
	if (faulty.off)
		return SQLITE_IOERR_DELETE;
	if (!file)
		return SQLITE_IOERR_DELETE_NOENT;
	free(file->now);
	free(file->safe);
	*file = (struct faulty_file){ 0 };
	return SQLITE_OK;
}

static int faulty_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
	(void)vfs;
	(void)flags;
	*out = faulty_find(name, false) != NULL;
	return SQLITE_OK;
}

static int faulty_path(sqlite3_vfs *vfs, const char *name, int n, char *out)
{
	(void)vfs;
	strncpy(out, name, (size_t)n - 1);
	out[n - 1] = '\0';
	return SQLITE_OK;
}

static int faulty_random(sqlite3_vfs *vfs, int n, char *out)
{
	(void)vfs;
	for (int i = 0; i < n; i++)
		out[i] = (char)rand();
	return n;
}

static int faulty_sleep(sqlite3_vfs *vfs, int us)
{
	(void)vfs;
	return us;
}

static int faulty_time(sqlite3_vfs *vfs, double *out)
{
	(void)vfs;
	*out = 2461000.5;
	return SQLITE_OK;
}

/* Makes it what SQLite uses. */
static void faulty_register(void)
{
	static sqlite3_vfs vfs = {
		.iVersion = 1,
		.szOsFile = sizeof(struct faulty_handle),
		.mxPathname = 255,
		.zName = "faulty",
		.xOpen = faulty_open,
		.xDelete = faulty_delete,
		.xAccess = faulty_access,
		.xFullPathname = faulty_path,
		.xRandomness = faulty_random,
		.xSleep = faulty_sleep,
		.xCurrentTime = faulty_time,
	};
	sqlite3_vfs_register(&vfs, 1);
}

/* The power comes back: of what was not synced, each sector is there or is not. Order means nothing. */
static void faulty_power_on(unsigned int lot)
{
	srand(lot);
	for (size_t i = 0; i < FAULTY_FILES; i++) {
		struct faulty_file *file = &faulty.files[i];
		if (!file->exists)
			continue;
		size_t size = rand() % 2 ? file->size : file->safe_size;
		unsigned char *disk = calloc(1, size + 1);
		for (size_t at = 0; at < size; at += FAULTY_SECTOR) {
			size_t n = size - at < FAULTY_SECTOR ? size - at : FAULTY_SECTOR;
			bool fresh = rand() % 2;
			const unsigned char *from = fresh ? file->now : file->safe;
			size_t have = fresh ? file->size : file->safe_size;
			have = at < have ? have - at : 0;
			if (have)
				memcpy(disk + at, from + at, have < n ? have : n);
		}
		free(file->now);
		file->now = disk;
		file->size = size;
		file->safe = realloc(file->safe, size + 1);
		memcpy(file->safe, disk, size);
		file->safe_size = size;
	}
	faulty.off = false;
	faulty.power_off_at = 0;
	faulty.writes = 0;
}

#endif
