/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/statefile.h"

#include "base/pack.h"
#include "base/scope.h"
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC "TWSTATE1"
/* Replaying this much log takes well under a second. */
#define MIN_LOG_BYTES (32ull << 20)

struct tw_statefile {
	char *dir;
	uint64_t generation; /* the snapshot names its log, so that both change in one rename */
	uint64_t snapshot_bytes;
	struct tw_trace_writer *log;
	uint64_t nresyncs; /* files beside the log */
	uint64_t resync_bytes;
};

struct tw_error *tw_statefile_create(const char *dir, struct tw_statefile **out)
{
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return tw_error_errno(errno, "%s", dir);
	struct tw_statefile *state = calloc(1, sizeof(*state));
	if (state)
		state->dir = strdup(dir);
	if (!state || !state->dir) {
		free(state);
		return tw_error_nomem();
	}
	*out = state;
	return NULL;
}

void tw_statefile_destroy(struct tw_statefile *state)
{
	if (!state)
		return;
	if (state->log)
		tw_trace_writer_destroy(state->log);
	free(state->dir);
	free(state);
}

static char *path_of(const struct tw_statefile *state, const char *name)
{
	char *path;
	return asprintf(&path, "%s/%s", state->dir, name) < 0 ? NULL : path;
}

static char *log_path(const struct tw_statefile *state, uint64_t generation)
{
	char *path;
	int len =
		asprintf(&path, "%s/writes-%llu.trace", state->dir, (unsigned long long)generation);
	return len < 0 ? NULL : path;
}

static char *resync_path(const struct tw_statefile *state, uint64_t generation, uint64_t n)
{
	char *path;
	int len = asprintf(&path, "%s/resync-%llu-%llu", state->dir,
		(unsigned long long)generation, (unsigned long long)n);
	return len < 0 ? NULL : path;
}

/* A log that is gone needs them no more. */
static void remove_resyncs(const struct tw_statefile *state, uint64_t generation)
{
	for (uint64_t n = 0;; n++) {
		TW_AUTO_FREE char *path = resync_path(state, generation, n);
		if (!path || unlink(path) < 0)
			return;
	}
}

static struct tw_error *write_all(int fd, const char *path, const void *data, size_t len)
{
	const char *at = data;
	while (len) {
		ssize_t n = write(fd, at, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return tw_error_errno(errno, "%s", path);
		at += n;
		len -= (size_t)n;
	}
	return NULL;
}

/* Writes a file whole or not at all. */
static struct tw_error *replace_file(const struct tw_statefile *state, const char *name,
	const void *data, size_t len, bool durable)
{
	TW_AUTO_FREE char *path = path_of(state, name), *fresh = NULL;
	if (!path || asprintf(&fresh, "%s.new", path) < 0)
		return tw_error_nomem();
	TW_AUTO_CLOSE int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return tw_error_errno(errno, "%s", fresh);
	TW_TRY(write_all(fd, fresh, data, len));
	if (durable && fsync(fd) < 0)
		return tw_error_errno(errno, "%s", fresh);
	if (rename(fresh, path) < 0)
		return tw_error_errno(errno, "%s", path);
	return NULL;
}

struct tw_error *tw_statefile_status(const struct tw_statefile *state, const char *json)
{
	return replace_file(state, "status.json", json, strlen(json), false);
}

static struct tw_error *read_file(const char *path, struct tw_buf *out, bool *found)
{
	TW_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	*found = fd >= 0;
	if (fd < 0)
		return errno == ENOENT ? NULL : tw_error_errno(errno, "%s", path);
	for (;;) {
		char *at = tw_buf_reserve(out, 1 << 20);
		if (!at)
			return tw_error_nomem();
		ssize_t n = read(fd, at, 1 << 20);
		if (n < 0)
			return tw_error_errno(errno, "%s", path);
		if (!n)
			return NULL;
		out->len += (size_t)n;
	}
}

static struct tw_error *unpack(struct tw_statefile *state, struct tw_span file,
	struct tw_disk *disk, struct tw_outbox *box, struct tw_state_position *position)
{
	struct tw_unpack in = {.span = file};
	const uint8_t *magic = tw_unpack_raw(&in, 8);
	uint64_t digest = tw_unpack64(&in);
	struct tw_span rest = tw_span_sub(file, in.off, file.len);
	if (!magic || memcmp(magic, MAGIC, 8) || XXH3_64bits(rest.data, rest.len) != digest)
		return tw_error_create(TW_BAD_DATA, "the saved state is damaged");
	state->generation = tw_unpack64(&in);
	const uint8_t *epoch = tw_unpack_raw(&in, TW_EPOCH_BYTES);
	const uint8_t *ring = tw_unpack_raw(&in, TW_RING_ID_BYTES);
	position->record = tw_unpack64(&in);
	struct tw_span frames = tw_unpack_bytes(&in), saved = tw_unpack_bytes(&in);
	if (!epoch || epoch[TW_EPOCH_BYTES - 1] || !ring || in.failed)
		return tw_error_create(TW_BAD_DATA, "the saved state is cut off");
	memcpy(position->epoch, epoch, TW_EPOCH_BYTES);
	memcpy(position->ring, ring, TW_RING_ID_BYTES);
	TW_TRY(tw_outbox_restore(box, frames));
	state->snapshot_bytes = file.len;
	return tw_disk_load(disk, saved);
}

struct tw_error *tw_statefile_load(struct tw_statefile *state, struct tw_disk *disk,
	struct tw_outbox *box, struct tw_state_position *position, bool *found)
{
	TW_AUTO_FREE char *path = path_of(state, "view");
	struct tw_buf file = TW_BUF_INIT;
	if (!path)
		return tw_error_nomem();
	struct tw_error *err = read_file(path, &file, found);
	if (!err && *found)
		err = tw_error_context(
			unpack(state, tw_span(file.data, file.len), disk, box, position), "%s",
			path);
	tw_buf_deinit(&file);
	return err;
}

static struct tw_error *log_error(int ret, const char *path)
{
	return ret < 0 ? tw_error_errno(ret, "%s", path) : NULL;
}

static struct tw_error *feed_log(struct tw_trace_reader *reader, const char *path,
	struct tw_state_position *position,
	struct tw_error *(*record)(const struct tw_record *record, void *arg), void *arg)
{
	struct tw_record rec;
	int ret;
	while ((ret = tw_trace_next(reader, &rec)) > 0) {
		if (rec.sequence > position->record)
			position->record = rec.sequence;
		TW_TRY(record(&rec, arg));
	}
	/* A record that was cut off by a crash had not been acted upon. */
	return ret == -EPIPE ? NULL : log_error(ret, path);
}

struct tw_error *tw_statefile_look(const struct tw_statefile *state,
	struct tw_error *(*record)(const struct tw_record *record, void *arg), void *arg)
{
	TW_AUTO_FREE char *path = log_path(state, state->generation);
	struct tw_state_position nowhere = {.record = 0};
	struct tw_trace_reader *reader;
	if (!path)
		return tw_error_nomem();
	int ret = tw_trace_reader_open(path, &reader);
	if (ret < 0)
		return ret == -ENOENT || ret == -EPIPE ? NULL : log_error(ret, path);
	struct tw_error *err = feed_log(reader, path, &nowhere, record, arg);
	tw_trace_reader_destroy(reader);
	return err;
}

struct tw_error *tw_statefile_replay(struct tw_statefile *state, uint64_t disk_bytes,
	struct tw_state_position *position,
	struct tw_error *(*record)(const struct tw_record *record, void *arg), void *arg)
{
	TW_AUTO_FREE char *path = log_path(state, state->generation);
	TW_AUTO_FREE char *stale = log_path(state, state->generation - 1);
	struct tw_trace_reader *reader;
	uint64_t last;
	if (!path || !stale)
		return tw_error_nomem();
	unlink(stale); /* a kill between the snapshot's rename and this left it */
	remove_resyncs(state, state->generation - 1);
	int ret = tw_trace_reader_open(path, &reader);
	if (ret < 0 && ret != -ENOENT && ret != -EPIPE)
		return log_error(ret, path);
	if (ret >= 0) {
		struct tw_error *err = feed_log(reader, path, position, record, arg);
		tw_trace_reader_destroy(reader);
		TW_TRY(err);
	}
	return log_error(tw_trace_writer_append(path, disk_bytes, &state->log, &last), path);
}

static struct tw_error *pack(const struct tw_statefile *state, struct tw_disk *disk,
	const struct tw_outbox *box, const struct tw_state_position *position, struct tw_buf *out)
{
	struct tw_span frames = tw_outbox_frames(box);
	tw_buf_append(out, MAGIC, 8);
	tw_pack64(out, 0);
	tw_pack64(out, state->generation + 1);
	tw_buf_append(out, position->epoch, TW_EPOCH_BYTES);
	tw_buf_append(out, position->ring, TW_RING_ID_BYTES);
	tw_pack64(out, position->record);
	tw_pack_bytes(out, frames.data, frames.len);
	size_t at = out->len;
	tw_pack64(out, 0);
	TW_TRY(tw_disk_save(disk, out));
	if (out->failed)
		return tw_error_nomem();
	uint64_t len = htole64(out->len - at - sizeof(len));
	memcpy(out->data + at, &len, sizeof(len));
	uint64_t digest = htole64(XXH3_64bits(out->data + 16, out->len - 16));
	memcpy(out->data + 8, &digest, sizeof(digest));
	return NULL;
}

struct tw_error *tw_statefile_snapshot(struct tw_statefile *state, struct tw_disk *disk,
	const struct tw_outbox *box, const struct tw_state_position *position)
{
	TW_AUTO_FREE char *old = log_path(state, state->generation);
	TW_AUTO_FREE char *new = log_path(state, state->generation + 1);
	struct tw_trace_writer *log;
	struct tw_buf file = TW_BUF_INIT;
	if (!old || !new)
		return tw_error_nomem();
	TW_TRY(log_error(tw_trace_writer_create(new, tw_disk_bytes(disk), &log), new));
	struct tw_error *err = log_error(tw_trace_flush(log), new);
	if (!err)
		err = pack(state, disk, box, position, &file);
	if (!err)
		err = replace_file(state, "view", file.data, file.len, true);
	if (!err)
		state->snapshot_bytes = file.len;
	tw_buf_deinit(&file);
	if (err) {
		tw_trace_writer_destroy(log);
		unlink(new);
		return err;
	}
	if (state->log)
		tw_trace_writer_destroy(state->log);
	unlink(old);
	remove_resyncs(state, state->generation);
	state->nresyncs = state->resync_bytes = 0;
	state->log = log;
	state->generation++;
	return NULL;
}

bool tw_statefile_has_log(const struct tw_statefile *state)
{
	return state->log != NULL;
}

static struct tw_error *append(struct tw_statefile *state, const struct tw_record *record)
{
	return log_error(tw_trace_write(state->log, record), state->dir);
}

/* A record that no write makes: of one sector that is zeroes and has a payload. */
#define NOTE_FLAGS (TW_RECORD_PAYLOAD | TW_RECORD_DISCARD | TW_RECORD_ZEROES)
#define NOTE_HEADER 2u

bool tw_statefile_is_note(const struct tw_record *record)
{
	return record->flags == NOTE_FLAGS;
}

struct tw_error *tw_statefile_log(struct tw_statefile *state, const struct tw_record *record)
{
	/* Whoever fills the ring makes no notes; and zeroes need no payload. */
	struct tw_record plain = *record;
	if (!tw_statefile_is_note(record))
		return append(state, record);
	plain.flags &= ~(uint32_t)TW_RECORD_PAYLOAD;
	plain.payload = NULL;
	return append(state, &plain);
}

struct tw_error *tw_statefile_flush(struct tw_statefile *state)
{
	return log_error(tw_trace_flush(state->log), state->dir);
}

struct tw_error *tw_statefile_log_resync(
	struct tw_statefile *state, const struct tw_record *record, struct tw_span bytes)
{
	char name[64];
	struct tw_buf file = TW_BUF_INIT;
	struct tw_record mark = *record;
	mark.flags = TW_RECORD_GAP;
	mark.nsectors = 0;
	mark.sector = state->nresyncs;
	mark.payload = NULL;
	snprintf(name, sizeof(name), "resync-%llu-%llu", (unsigned long long)state->generation,
		(unsigned long long)state->nresyncs);
	tw_pack64(&file, XXH3_64bits(bytes.data, bytes.len));
	tw_buf_append(&file, bytes.data, bytes.len);
	struct tw_error *err = file.failed ? tw_error_nomem()
					   : replace_file(state, name, file.data, file.len, false);
	tw_buf_deinit(&file);
	TW_TRY(err);
	state->nresyncs++;
	state->resync_bytes += bytes.len;
	return tw_statefile_log(state, &mark);
}

bool tw_statefile_is_resync(const struct tw_record *record)
{
	return record->flags == TW_RECORD_GAP && !record->nsectors;
}

struct tw_error *tw_statefile_resync(
	struct tw_statefile *state, const struct tw_record *record, struct tw_buf *out)
{
	TW_AUTO_FREE char *path = resync_path(state, state->generation, record->sector);
	bool found;
	if (!path)
		return tw_error_nomem();
	TW_TRY(read_file(path, out, &found));
	if (record->sector >= state->nresyncs)
		state->nresyncs = record->sector + 1;
	struct tw_span file = tw_span(out->data, out->len);
	uint64_t digest = tw_le64(file, 0);
	if (!found || file.len < 8 || XXH3_64bits(file.data + 8, file.len - 8) != digest)
		return tw_error_create(TW_BAD_DATA, "%s: missing or damaged", path);
	tw_buf_consume(out, 8);
	state->resync_bytes += out->len;
	return NULL;
}

struct tw_error *tw_statefile_log_note(
	struct tw_statefile *state, const struct tw_record *record, struct tw_span note)
{
	uint8_t sector[TW_SECTOR_SIZE] = {(uint8_t)note.len, (uint8_t)(note.len >> 8)};
	struct tw_record mark = *record;
	memcpy(sector + NOTE_HEADER, note.data, note.len);
	mark.flags = NOTE_FLAGS;
	mark.sector = 0;
	mark.nsectors = 1;
	mark.payload = sector;
	return append(state, &mark);
}

struct tw_span tw_statefile_note(const struct tw_record *record)
{
	struct tw_span sector = tw_span(record->payload, TW_SECTOR_SIZE);
	return tw_span_sub(sector, NOTE_HEADER, tw_le16(sector, 0));
}

bool tw_statefile_wants_snapshot(const struct tw_statefile *state)
{
	uint64_t limit = 2 * state->snapshot_bytes;
	return tw_trace_bytes(state->log) + state->resync_bytes > (limit > MIN_LOG_BYTES ? limit : MIN_LOG_BYTES);
}
