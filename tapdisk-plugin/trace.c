/* SPDX-License-Identifier: BSD-3-Clause */
#include "trace.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define WRITE_BUFFER (1u << 20)
#define READ_BUFFER (256u << 10)
#define KNOWN_FLAGS                                                                                \
	(TW_RECORD_PAYLOAD | TW_RECORD_FLUSH | TW_RECORD_DISCARD | TW_RECORD_ZEROES | TW_RECORD_GAP)

struct wire_header {
	char magic[8];
	uint32_t sector_size;
	uint32_t zero;
	uint64_t disk_bytes;
};
_Static_assert(sizeof(struct wire_header) == TW_TRACE_HEADER_BYTES, "trace header");

struct wire_record {
	uint64_t sequence;
	uint64_t time_ns;
	uint64_t sector;
	uint32_t nsectors;
	uint32_t flags;
};
_Static_assert(sizeof(struct wire_record) == TW_TRACE_RECORD_BYTES, "trace record");

/* --- what both sides know of the format --- */

/* A disk whose size is no multiple of the sector ends in the middle of its last sector. */
static uint64_t disk_sectors(uint64_t disk_bytes)
{
	return disk_bytes / TW_SECTOR_SIZE + (disk_bytes % TW_SECTOR_SIZE != 0);
}

static struct wire_header header_for(uint64_t disk_bytes)
{
	struct wire_header header = {
		.sector_size = htole32(TW_SECTOR_SIZE),
		.disk_bytes = htole64(disk_bytes),
	};
	memcpy(header.magic, TW_TRACE_MAGIC, sizeof(header.magic));
	return header;
}

static int check_header(const struct wire_header *header)
{
	if (memcmp(header->magic, TW_TRACE_MAGIC, sizeof(header->magic)) != 0)
		return -EBADMSG;
	if (le32toh(header->sector_size) != TW_SECTOR_SIZE || header->zero != 0)
		return -EBADMSG;
	return 0; /* any disk size: whoever knows the disk says which one is right */
}

static int check_record(const struct tw_record *rec, uint64_t disk_bytes)
{
	const uint64_t sectors = disk_sectors(disk_bytes);
	if (rec->flags & ~(uint32_t)KNOWN_FLAGS)
		return -EBADMSG;
	if (rec->nsectors > TW_TRACE_MAX_SECTORS)
		return -EBADMSG;
	if ((rec->flags & TW_RECORD_PAYLOAD) && rec->nsectors == 0)
		return -EBADMSG;
	if ((rec->flags & (TW_RECORD_FLUSH | TW_RECORD_GAP)) && (rec->flags & TW_RECORD_PAYLOAD))
		return -EBADMSG;
	if (rec->nsectors == 0)
		return 0;
	return rec->sector >= sectors || rec->nsectors > sectors - rec->sector ? -ERANGE : 0;
}

static size_t payload_bytes(const struct tw_record *rec)
{
	return rec->flags & TW_RECORD_PAYLOAD ? (size_t)rec->nsectors * TW_SECTOR_SIZE : 0;
}

static struct tw_record decode(const void *bytes)
{
	struct wire_record wire;
	memcpy(&wire, bytes, sizeof(wire));
	return (struct tw_record){
		.sequence = le64toh(wire.sequence),
		.time_ns = le64toh(wire.time_ns),
		.sector = le64toh(wire.sector),
		.nsectors = le32toh(wire.nsectors),
		.flags = le32toh(wire.flags),
	};
}

/* --- writer --- */

struct tw_trace_writer {
	int fd;
	int error; /* the first one; nothing is written after it */
	uint64_t disk_bytes;
	uint64_t written; /* bytes that the kernel has, whole records only */
	size_t used;      /* bytes in buffer, whole records only */
	char buffer[WRITE_BUFFER];
};

/* Writes it all or cuts the file back to its last whole record, so that a full disk leaves a trace
 * that is shorter and not broken. */
static int write_whole(struct tw_trace_writer *w, struct iovec *iov, int iovcnt)
{
	uint64_t done = 0;
	while (iovcnt > 0) {
		ssize_t n = writev(w->fd, iov, iovcnt);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			w->error = n < 0 ? -errno : -EIO;
			/* Fails on a pipe; then the reader sees where it ends. */
			if (ftruncate(w->fd, (off_t)w->written) == 0)
				(void)lseek(w->fd, (off_t)w->written, SEEK_SET);
			return w->error;
		}
		done += (uint64_t)n;
		while (iovcnt > 0 && (size_t)n >= iov->iov_len) {
			n -= (ssize_t)iov->iov_len;
			iov++;
			iovcnt--;
		}
		if (iovcnt > 0) {
			iov->iov_base = (char *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	w->written += done;
	return 0;
}

static int writer_new(int fd, uint64_t disk_bytes, struct tw_trace_writer **out)
{
	/* The buffer is written before it is read: no need to clear a megabyte. */
	struct tw_trace_writer *w = malloc(sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->fd = fd;
	w->error = 0;
	w->disk_bytes = disk_bytes;
	w->written = 0;
	w->used = 0;
	*out = w;
	return 0;
}

/* Takes fd, also when it fails. */
static int start_trace(int fd, uint64_t disk_bytes, struct tw_trace_writer **out)
{
	struct wire_header header = header_for(disk_bytes);
	struct iovec iov = {&header, sizeof(header)};
	struct tw_trace_writer *w;
	int ret = writer_new(fd, disk_bytes, &w);
	if (ret) {
		close(fd);
		return ret;
	}
	ret = write_whole(w, &iov, 1);
	if (ret) {
		close(fd);
		free(w);
		return ret;
	}
	*out = w;
	return 0;
}

int tw_trace_writer_create(const char *path, uint64_t disk_bytes, struct tw_trace_writer **out)
{
	/* A trace holds what the guest wrote: nobody else may read it. */
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	return start_trace(fd, disk_bytes, out);
}

/* n bytes at offset, fewer only at the end of the file. */
static ssize_t pread_whole(int fd, void *buf, size_t n, uint64_t offset)
{
	size_t done = 0;
	while (done < n) {
		ssize_t got = pread(fd, (char *)buf + done, n - done, (off_t)(offset + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

/* Finds the end of the last whole record; payloads are stepped over. */
static int find_end(
	int fd, uint64_t size, uint64_t disk_bytes, uint64_t *end, uint64_t *last_sequence)
{
	uint64_t at = TW_TRACE_HEADER_BYTES;
	*last_sequence = 0;
	for (;;) {
		char bytes[TW_TRACE_RECORD_BYTES];
		*end = at;
		ssize_t n = pread_whole(fd, bytes, sizeof(bytes), at);
		if (n < 0)
			return (int)n;
		if ((size_t)n < sizeof(bytes))
			return 0;
		struct tw_record rec = decode(bytes);
		int ret = check_record(&rec, disk_bytes);
		if (ret)
			return ret;
		at += sizeof(bytes) + payload_bytes(&rec);
		if (at > size)
			return 0;
		*last_sequence = rec.sequence;
	}
}

/* Checks the header of an existing trace: 1 when it is whole, 0 when the file has nothing but a
 * torn one. */
static int existing_header(int fd, uint64_t disk_bytes)
{
	const struct wire_header want = header_for(disk_bytes);
	struct wire_header header;
	ssize_t n = pread_whole(fd, &header, sizeof(header), 0);
	if (n < 0)
		return (int)n;
	if ((size_t)n < sizeof(header))
		return memcmp(&header, &want, (size_t)n) == 0 ? 0 : -EBADMSG;
	int ret = check_header(&header);
	if (ret)
		return ret;
	return header.disk_bytes == want.disk_bytes ? 1 : -EINVAL;
}

/* Leaves fd open when it fails. */
static int resume_trace(
	int fd, uint64_t disk_bytes, struct tw_trace_writer **out, uint64_t *last_sequence)
{
	struct stat st;
	uint64_t end;
	if (fstat(fd, &st) < 0)
		return -errno;
	int ret = find_end(fd, (uint64_t)st.st_size, disk_bytes, &end, last_sequence);
	if (ret)
		return ret;
	if (ftruncate(fd, (off_t)end) < 0 || lseek(fd, (off_t)end, SEEK_SET) < 0)
		return -errno;
	ret = writer_new(fd, disk_bytes, out);
	if (ret == 0)
		(*out)->written = end;
	return ret;
}

int tw_trace_writer_append(const char *path, uint64_t disk_bytes, struct tw_trace_writer **out,
	uint64_t *last_sequence)
{
	*last_sequence = 0;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int ret = existing_header(fd, disk_bytes);
	if (ret == 0) {
		if (ftruncate(fd, 0) == 0)
			return start_trace(fd, disk_bytes, out);
		ret = -errno;
	} else if (ret > 0) {
		ret = resume_trace(fd, disk_bytes, out, last_sequence);
	}
	if (ret < 0)
		close(fd);
	return ret;
}

int tw_trace_flush(struct tw_trace_writer *w)
{
	struct iovec iov = {w->buffer, w->used};
	if (w->error)
		return w->error;
	if (w->used == 0)
		return 0;
	w->used = 0;
	return write_whole(w, &iov, 1);
}

int tw_trace_write(struct tw_trace_writer *w, const struct tw_record *rec)
{
	struct wire_record wire = {
		.sequence = htole64(rec->sequence),
		.time_ns = htole64(rec->time_ns),
		.sector = htole64(rec->sector),
		.nsectors = htole32(rec->nsectors),
		.flags = htole32(rec->flags),
	};
	const size_t payload = payload_bytes(rec);
	int ret = w->error ? w->error : check_record(rec, w->disk_bytes);
	if (ret)
		return ret;
	if (w->used + sizeof(wire) + payload > sizeof(w->buffer))
		ret = tw_trace_flush(w);
	if (ret)
		return ret;
	if (sizeof(wire) + payload > sizeof(w->buffer)) {
		struct iovec iov[2] = {{&wire, sizeof(wire)}, {(void *)rec->payload, payload}};
		return write_whole(w, iov, 2);
	}
	memcpy(w->buffer + w->used, &wire, sizeof(wire));
	if (payload)
		memcpy(w->buffer + w->used + sizeof(wire), rec->payload, payload);
	w->used += sizeof(wire) + payload;
	return 0;
}

uint64_t tw_trace_bytes(const struct tw_trace_writer *w)
{
	return w->written + w->used;
}

int tw_trace_writer_destroy(struct tw_trace_writer *w)
{
	if (!w)
		return 0;
	int ret = tw_trace_flush(w);
	if (close(w->fd) < 0 && ret == 0)
		ret = -errno;
	free(w);
	return ret;
}

/* --- reader --- */

struct tw_trace_reader {
	int fd;
	uint64_t disk_bytes;
	uint64_t offset; /* in the trace, of the record that was looked at last */
	uint64_t next;   /* in the trace, of the one after it */
	size_t start;    /* of the unread bytes in buffer */
	size_t end;
	size_t cap;
	char *buffer;
};

static int make_room(struct tw_trace_reader *r, size_t need)
{
	if (r->cap - r->start >= need)
		return 0;
	memmove(r->buffer, r->buffer + r->start, r->end - r->start);
	r->end -= r->start;
	r->start = 0;
	if (r->cap >= need)
		return 0;
	char *bigger = realloc(r->buffer, need);
	if (!bigger)
		return -ENOMEM;
	r->buffer = bigger;
	r->cap = need;
	return 0;
}

/* Makes need bytes available at start: 1, or 0 when the trace ends before. */
static int fill(struct tw_trace_reader *r, size_t need)
{
	int ret = make_room(r, need);
	if (ret)
		return ret;
	while (r->end - r->start < need) {
		ssize_t n = read(r->fd, r->buffer + r->end, r->cap - r->end);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		r->end += (size_t)n;
	}
	return 1;
}

static int read_header(struct tw_trace_reader *r)
{
	struct wire_header header;
	int ret = fill(r, sizeof(header));
	if (ret < 0)
		return ret;
	/* Something else entirely is no trace, however short it is. */
	if (memcmp(r->buffer, TW_TRACE_MAGIC, r->end < 8 ? r->end : 8) != 0)
		return -EBADMSG;
	if (ret == 0)
		return -EPIPE;
	memcpy(&header, r->buffer, sizeof(header));
	ret = check_header(&header);
	if (ret)
		return ret;
	r->disk_bytes = le64toh(header.disk_bytes);
	r->start = sizeof(header);
	r->offset = r->next = sizeof(header);
	return 0;
}

int tw_trace_reader_open(const char *path, struct tw_trace_reader **out)
{
	struct tw_trace_reader *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	const bool standard_input = strcmp(path, "-") == 0;
	r->fd = standard_input ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
			       : open(path, O_RDONLY | O_CLOEXEC);
	int ret = r->fd < 0 ? -errno : 0;
	r->buffer = malloc(READ_BUFFER);
	r->cap = READ_BUFFER;
	if (ret == 0)
		ret = r->buffer ? read_header(r) : -ENOMEM;
	if (ret) {
		tw_trace_reader_destroy(r);
		return ret;
	}
	*out = r;
	return 0;
}

uint64_t tw_trace_disk_bytes(const struct tw_trace_reader *r)
{
	return r->disk_bytes;
}

int tw_trace_next(struct tw_trace_reader *r, struct tw_record *out)
{
	r->offset = r->next;
	int ret = fill(r, TW_TRACE_RECORD_BYTES);
	if (ret < 0)
		return ret;
	if (ret == 0)
		return r->end == r->start ? 0 : -EPIPE;
	struct tw_record rec = decode(r->buffer + r->start);
	ret = check_record(&rec, r->disk_bytes);
	if (ret)
		return ret;
	const size_t payload = payload_bytes(&rec);
	ret = fill(r, TW_TRACE_RECORD_BYTES + payload);
	if (ret <= 0)
		return ret == 0 ? -EPIPE : ret;
	if (payload)
		rec.payload = r->buffer + r->start + TW_TRACE_RECORD_BYTES;
	r->start += TW_TRACE_RECORD_BYTES + payload;
	r->next += TW_TRACE_RECORD_BYTES + payload;
	*out = rec;
	return 1;
}

uint64_t tw_trace_offset(const struct tw_trace_reader *r)
{
	return r->offset;
}

void tw_trace_reader_destroy(struct tw_trace_reader *r)
{
	if (!r)
		return;
	if (r->fd >= 0)
		close(r->fd);
	free(r->buffer);
	free(r);
}
