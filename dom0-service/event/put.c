/* SPDX-License-Identifier: BSD-3-Clause */
#include "event/put.h"
#include "event/utf8.h"

#include <limits.h>
#include <openssl/evp.h>

bool tw_put_grow(struct tw_put *put, size_t n)
{
	tw_put_end(put);
	if (!tw_buf_reserve(put->buf, n))
		return false;
	tw_put_begin(put, put->buf);
	return true;
}

/* --- numbers --- */

static const char pairs[] = "00010203040506070809101112131415161718192021222324"
			    "25262728293031323334353637383940414243444546474849"
			    "50515253545556575859606162636465666768697071727374"
			    "75767778798081828384858687888990919293949596979899";

void tw_two_digits(char *at, unsigned value)
{
	memcpy(at, pairs + 2 * value, 2);
}

static unsigned count_digits(uint64_t value)
{
	static const uint64_t powers[] = {0, 10ul, 100ul, 1000ul, 10000ul, 100000ul, 1000000ul,
		10000000ul, 100000000ul, 1000000000ul, 10000000000ul, 100000000000ul,
		1000000000000ul, 10000000000000ul, 100000000000000ul, 1000000000000000ul,
		10000000000000000ul, 100000000000000000ul, 1000000000000000000ul,
		10000000000000000000ul};
	/* 1233 / 4096 is a little more than log10(2): right, or one too few. */
	unsigned bits = 64 - (unsigned)__builtin_clzl(value | 1);
	unsigned guess = bits * 1233 >> 12;
	return guess + (value >= powers[guess] || !guess);
}

char *tw_decimal(char *at, uint64_t value)
{
	char *end = at + count_digits(value), *out = end;
	for (; value >= 100; value /= 100)
		tw_two_digits(out -= 2, (unsigned)(value % 100));
	if (value >= 10)
		tw_two_digits(out - 2, (unsigned)value);
	else
		out[-1] = (char)('0' + value);
	return end;
}

/* --- strings --- */

typedef int8_t bytes16 __attribute__((vector_size(16)));
typedef uint64_t words2 __attribute__((vector_size(16)));

/* True when all 16 bytes stand for themselves in a JSON string. As signed bytes, what is not ASCII
 * is below the space, too. */
static inline bool plain16(bytes16 v)
{
	words2 bad = (words2)((v < (int8_t)' ') | (v == (int8_t)'"') | (v == (int8_t)'\\'));
	return !(bad[0] | bad[1]);
}

static inline bool plain(uint8_t c)
{
	return c >= ' ' && c < 0x80 && c != '"' && c != '\\';
}

/* Copies 4 to 15 bytes if they are plain: both halves, which overlap, are looked at as one. */
static inline bool copy_short(char *out, const uint8_t *in, size_t n)
{
	words2 v = {0x2020202020202020, 0x2020202020202020};
	uint32_t low, high;
	if (n >= 8) {
		memcpy(&v, in, 8);
		memcpy((char *)&v + 8, in + n - 8, 8);
		if (!plain16((bytes16)v))
			return false;
		memcpy(out, &v, 8);
		memcpy(out + n - 8, (char *)&v + 8, 8);
		return true;
	}
	memcpy(&low, in, 4);
	memcpy(&high, in + n - 4, 4);
	v[0] = low | (uint64_t)high << 32;
	if (!plain16((bytes16)v))
		return false;
	memcpy(out, &low, 4);
	memcpy(out + n - 4, &high, 4);
	return true;
}

/* Copies bytes while they are plain, by 16; returns how many. */
static size_t copy_plain(char *out, const uint8_t *in, size_t n)
{
	size_t done = 0;
	bytes16 v;
	for (; n - done >= sizeof(v); done += sizeof(v)) {
		memcpy(&v, in + done, sizeof(v));
		if (!plain16(v))
			return done;
		memcpy(out + done, &v, sizeof(v));
	}
	if (n - done >= 4 && copy_short(out + done, in + done, n - done))
		return n;
	while (done < n && plain(in[done])) {
		out[done] = (char)in[done];
		done++;
	}
	return done;
}

static char *escaped(char *at, uint8_t c)
{
	static const char hex[] = "0123456789ABCDEF";
	static const char after[128] = {['\b'] = 'b',
		['\f'] = 'f',
		['\n'] = 'n',
		['\r'] = 'r',
		['\t'] = 't',
		['"'] = '"',
		['\\'] = '\\'};
	*at++ = '\\';
	if (after[c]) {
		*at++ = after[c];
		return at;
	}
	memcpy(at, "u00", 3);
	at[3] = hex[c >> 4];
	at[4] = hex[c & 15];
	return at + 5;
}

/* Puts the character that in begins with, or U+FFFD for what is none; returns the bytes taken. */
static size_t put_character(struct tw_put *put, const uint8_t *in, size_t n, bool *valid)
{
	if (plain(*in)) {
		*put->at++ = (char)*in;
		return 1;
	}
	if (*in < 0x80) {
		put->at = escaped(put->at, *in);
		return 1;
	}
	struct tw_utf8_step step = tw_utf8_next(in, n);
	if (step.valid) {
		memcpy(put->at, in, step.len);
		put->at += step.len;
	} else {
		memcpy(put->at, TW_UTF8_REPLACEMENT, 3);
		put->at += 3;
		*valid = false;
	}
	return step.len;
}

bool tw_put_string(struct tw_put *put, const void *data, size_t n)
{
	const uint8_t *in = data, *end = in + n;
	bool valid = true;
	/* A control character takes six bytes, any other ill-formed or escaped one fewer. */
	if (n > SIZE_MAX / 8) {
		put->buf->failed = true;
		return true;
	}
	if (!tw_put_room(put, 6 * n + 2))
		return true;
	*put->at++ = '"';
	while (in < end) {
		size_t same = copy_plain(put->at, in, (size_t)(end - in));
		put->at += same;
		in += same;
		/* Looking at 16 bytes again pays only behind the one that stopped it. */
		const uint8_t *behind = end - in > 16 ? in + 16 : end;
		while (in < behind)
			in += put_character(put, in, (size_t)(end - in), &valid);
	}
	*put->at++ = '"';
	return valid;
}

void tw_put_base64(struct tw_put *put, const void *data, size_t n)
{
	if (n > INT_MAX / 2) {
		put->buf->failed = true;
		return;
	}
	if (tw_put_room(put, n / 3 * 4 + 5))
		put->at += EVP_EncodeBlock((unsigned char *)put->at, data, (int)n);
}
