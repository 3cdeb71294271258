/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A trace: a recorded stream of writes in a file. Little-endian. Header: 8 bytes magic "TWTRACE1",
 * u32 sector size (512), u32 zero, u64 disk size in bytes. Records: u64 sequence, u64 time (ns
 * since the epoch), u64 first sector, u32 number of sectors, u32 flags (enum tw_record_flags), and
 * the payload if TW_RECORD_PAYLOAD is set. Format: docs/architecture.md, "Trace".
 *
 * Errors are negative errno: -EBADMSG for bytes that break the format, -EPIPE for a trace that
 * ends in the middle of a record, -ERANGE for a record beyond the end of the disk. A writer and a
 * reader are each for one thread at a time.
 */
#ifndef TW_TRACE_H
#define TW_TRACE_H

#include "record.h"

#define TW_TRACE_MAGIC "TWTRACE1"
#define TW_TRACE_HEADER_BYTES 24
#define TW_TRACE_RECORD_BYTES 32
/* No writer makes a longer record (64 MiB); a reader refuses one with -EBADMSG. */
#define TW_TRACE_MAX_SECTORS 131072u

struct tw_trace_writer;
struct tw_trace_reader;

/* Creates or empties the file and writes the header. disk_bytes: the size of the disk. */
int tw_trace_writer_create(const char *path, uint64_t disk_bytes, struct tw_trace_writer **out);
/* Appends to an existing trace (or creates it): a torn record at its end is cut off first. The
 * header's disk size must equal disk_bytes (else -EINVAL). last_sequence gets the last whole
 * record's sequence, or 0. */
int tw_trace_writer_append(const char *path, uint64_t disk_bytes, struct tw_trace_writer **out,
	uint64_t *last_sequence);
/* Appends one record; longer ones than TW_TRACE_MAX_SECTORS must have been split by the caller.
 * Buffered. */
int tw_trace_write(struct tw_trace_writer *w, const struct tw_record *rec);
/* Hands what is buffered to the kernel. */
int tw_trace_flush(struct tw_trace_writer *w);
/* Bytes written so far, the buffered ones too. */
uint64_t tw_trace_bytes(const struct tw_trace_writer *w);
/* Flushes and closes; NULL is fine. Returns the first error of the writer's life. */
int tw_trace_writer_destroy(struct tw_trace_writer *w);

/* Opens a trace ("-" is standard input) and checks its header. */
int tw_trace_reader_open(const char *path, struct tw_trace_reader **out);
uint64_t tw_trace_disk_bytes(const struct tw_trace_reader *r);
/* 1 and the next record (payload valid until the next call), 0 at a clean end, or a negative
 * errno; after an error only destroy may follow. */
int tw_trace_next(struct tw_trace_reader *r, struct tw_record *out);
/* Byte offset in the trace of the record that tw_trace_next returned last or failed at. */
uint64_t tw_trace_offset(const struct tw_trace_reader *r);
void tw_trace_reader_destroy(struct tw_trace_reader *r);

#endif
