/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/chunk.h"

#include "link/frame.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

/* What is shorter is not worth the work, and readable with the sqlite3 shell. */
#define CODE_MIN 2048
/* The disk is what is slow: a fast level that leaves a sixth is better than a small one that costs more. */
#define LEVEL (-5)
#define DECODED_MAX (TW_CHUNK_BYTES + TW_FRAME_MAX_BODY + 4096)

/* A digest, or why there is none, begins at most so far from an event's end. */
#define SHA256_TAIL 128u

struct entry {
	uint32_t end;
	uint32_t type;
};

struct tw_chunk *tw_chunk_create(void)
{
	return calloc(1, sizeof(struct tw_chunk));
}

void tw_chunk_destroy(struct tw_chunk *chunk)
{
	if (!chunk)
		return;
	tw_buf_deinit(&chunk->text);
	tw_buf_deinit(&chunk->index);
	free(chunk);
}

bool tw_chunk_add(struct tw_chunk *chunk, unsigned int type, uint64_t sequence, const char *body, size_t len)
{
	if (!tw_buf_reserve(&chunk->text, len + 1) || !tw_buf_reserve(&chunk->index, sizeof(struct entry))) {
		chunk->text.failed = chunk->index.failed = false;
		return false;
	}
	if (chunk->n)
		tw_buf_append(&chunk->text, ",", 1);
	else
		chunk->sequence_first = sequence;
	tw_buf_append(&chunk->text, body, len);
	const struct entry entry = { .end = (uint32_t)chunk->text.len, .type = type };
	tw_buf_append(&chunk->index, &entry, sizeof(entry));
	chunk->sequence_last = sequence;
	chunk->n++;
	return true;
}

static struct entry entry_at(const struct tw_chunk *chunk, uint32_t i)
{
	struct entry entry;
	memcpy(&entry, chunk->index.data + i * sizeof(entry), sizeof(entry));
	return entry;
}

unsigned int tw_chunk_type(const struct tw_chunk *chunk, uint32_t i)
{
	return entry_at(chunk, i).type;
}

const char *tw_chunk_text(const struct tw_chunk *chunk, uint32_t i, uint32_t n, size_t *len)
{
	size_t start = i ? entry_at(chunk, i - 1).end + 1u : 0;
	*len = entry_at(chunk, i + n - 1).end - start;
	return chunk->text.data + start;
}

struct tw_chunk_coder {
	ZSTD_CCtx *zstd;
};

struct tw_chunk_coder *tw_chunk_coder_create(void)
{
	struct tw_chunk_coder *coder = calloc(1, sizeof(*coder));
	if (coder)
		coder->zstd = ZSTD_createCCtx();
	if (coder && coder->zstd)
		return coder;
	free(coder);
	return NULL;
}

void tw_chunk_coder_destroy(struct tw_chunk_coder *coder)
{
	if (coder)
		ZSTD_freeCCtx(coder->zstd);
	free(coder);
}

int tw_chunk_code(struct tw_chunk_coder *coder, const struct tw_buf *data, struct tw_buf *buf, const void **out,
	size_t *len)
{
	*out = data->data;
	*len = data->len;
	if (data->len < CODE_MIN)
		return TW_CHUNK_PLAIN;
	tw_buf_reset(buf);
	size_t bound = ZSTD_compressBound(data->len);
	void *at = tw_buf_reserve(buf, bound);
	if (!at)
		return TW_CHUNK_PLAIN;
	size_t coded = ZSTD_compressCCtx(coder->zstd, at, bound, data->data, data->len, LEVEL);
	if (ZSTD_isError(coded) || coded >= data->len)
		return TW_CHUNK_PLAIN;
	*out = at;
	*len = coded;
	return TW_CHUNK_ZSTD;
}

struct tw_error *tw_chunk_decode(int coding, const void *data, size_t len, struct tw_buf *out)
{
	if (coding == TW_CHUNK_PLAIN) {
		tw_buf_append(out, data, len);
		return out->failed ? tw_error_nomem() : NULL;
	}
	unsigned long long size = coding == TW_CHUNK_ZSTD ? ZSTD_getFrameContentSize(data, len) : 0;
	if (!size || size > DECODED_MAX)
		return tw_error_create(TW_BAD_DATA, "a chunk of events is damaged");
	void *at = tw_buf_reserve(out, size);
	if (!at)
		return tw_error_nomem();
	if (ZSTD_decompress(at, size, data, len) != size)
		return tw_error_create(TW_BAD_DATA, "a chunk of events is damaged");
	out->len += size;
	return NULL;
}

struct tw_error *tw_chunk_check(const struct tw_chunk *chunk)
{
	bool good = chunk->n && chunk->index.len == (size_t)chunk->n * sizeof(struct entry);
	size_t at = 0;
	for (uint32_t i = 0; good && i < chunk->n; i++) {
		size_t start = i ? at + 1 : 0;
		at = entry_at(chunk, i).end;
		good = at > start && at <= chunk->text.len;
	}
	if (!good || at != chunk->text.len)
		return tw_error_create(TW_BAD_DATA, "a chunk of events is damaged");
	return NULL;
}

bool tw_chunk_strip(const char *body, size_t len, unsigned int keep, size_t *cut, size_t *rest)
{
	static const char content[] = ",\"content\":[", sha256[] = ",\"sha256";
	static const char closing[] = "}}";
	const size_t n = sizeof(closing) - 1;
	/* Of an event without extras, what comes last is the domain. */
	if (len < 3 || body[len - 3] == '}' || memcmp(body + len - n, closing, n) != 0)
		return false;
	/* In a string, its quotes would be escaped. */
	const char *at = keep & TW_CHUNK_CONTENT ? NULL : memmem(body, len, content, sizeof(content) - 1);
	const size_t tail = len < SHA256_TAIL ? len : SHA256_TAIL;
	if (!at && !(keep & TW_CHUNK_SHA256))
		at = memmem(body + len - tail, tail, sha256, sizeof(sha256) - 1);
	if (!at)
		return false;
	*cut = (size_t)(at - body);
	*rest = n;
	return true;
}
