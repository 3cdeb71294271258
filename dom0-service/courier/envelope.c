/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One pass over the text, as strict as RFC 8259 and stricter where receivers differ: no lone surrogates, and
 * nothing that a reader could take for a second id. Every event passes here, so it is written for speed.
 */
#include "courier/envelope.h"

#include "event/put.h"

#include <stdbool.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define ID_MAX 160
#define DEPTH_MAX 32 /* an event's own depth is 5 */

struct scan {
	const unsigned char *at;
	const unsigned char *end;
	const struct tw_envelope *envelope;
	size_t source_len;
	char id[ID_MAX];
	size_t id_len;
	int sources; /* seen, and of them right */
	int good_sources;
	int ids;
	int good_ids;
};

/* A string as it stands in the text, without its quotes. */
struct text {
	const unsigned char *at;
	size_t len;
	bool escaped;
};

static bool is(const struct text *text, const char *want, size_t len)
{
	return text->len == len && memcmp(text->at, want, len) == 0;
}

static void skip_space(struct scan *s)
{
	while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
		s->at++;
}

static bool take(struct scan *s, unsigned char c)
{
	if (s->at >= s->end || *s->at != c)
		return false;
	s->at++;
	return true;
}

/* The first byte that is not plain: a quote, a backslash, a control character or no ASCII; end when all are. */
static const unsigned char *skip_plain(const unsigned char *at, const unsigned char *end)
{
#ifdef __SSE2__
	const __m128i quote = _mm_set1_epi8('"');
	const __m128i slash = _mm_set1_epi8('\\');
	const __m128i space = _mm_set1_epi8(' ');
	for (; end - at >= 16; at += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)at);
		/* As signed bytes, what is no ASCII is less than a space, too. */
		__m128i odd = _mm_or_si128(_mm_cmplt_epi8(v, space),
			_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash)));
		int mask = _mm_movemask_epi8(odd);
		if (mask)
			return at + __builtin_ctz((unsigned int)mask);
	}
#endif
	while (at < end && *at >= ' ' && *at < 0x80 && *at != '"' && *at != '\\')
		at++;
	return at;
}

/* The length of a UTF-8 sequence that begins with a byte of 0x80 or more, 0 when it is none. */
static size_t utf8_length(const unsigned char *at, const unsigned char *end)
{
	size_t n = *at >= 0xf0 ? 4 : *at >= 0xe0 ? 3 : 2;
	if (*at < 0xc2 || *at > 0xf4 || (size_t)(end - at) < n)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	if ((*at == 0xe0 && at[1] < 0xa0) || (*at == 0xed && at[1] > 0x9f) || (*at == 0xf0 && at[1] < 0x90) ||
		(*at == 0xf4 && at[1] > 0x8f))
		return 0;
	return n;
}

/* The value of \uXXXX at at, or -1. */
static int unicode_escape(const unsigned char *at, const unsigned char *end)
{
	int value = 0;
	if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++) {
		int c = at[i] | 0x20;
		if (at[i] >= '0' && at[i] <= '9')
			value = value * 16 + at[i] - '0';
		else if (c >= 'a' && c <= 'f')
			value = value * 16 + c - 'a' + 10;
		else
			return -1;
	}
	return value;
}

static size_t escape_length(const unsigned char *at, const unsigned char *end)
{
	if (end - at < 2)
		return 0;
	if (at[1] != 'u')
		return at[1] && strchr("\"\\/bfnrt", at[1]) ? 2 : 0;
	int value = unicode_escape(at, end);
	if (value < 0 || (value >= 0xdc00 && value <= 0xdfff))
		return 0;
	if (value < 0xd800 || value > 0xdbff)
		return 6;
	int low = unicode_escape(at + 6, end);
	return low >= 0xdc00 && low <= 0xdfff ? 12 : 0;
}

static bool scan_string(struct scan *s, struct text *out)
{
	if (!take(s, '"'))
		return false;
	const unsigned char *at = s->at;
	out->at = at;
	out->escaped = false;
	for (;;) {
		at = skip_plain(at, s->end);
		if (at >= s->end || *at < 0x20)
			return false;
		size_t n = 1;
		if (*at == '"') {
			out->len = (size_t)(at - out->at);
			s->at = at + 1;
			return true;
		}
		if (*at == '\\') {
			n = escape_length(at, s->end);
			out->escaped = true;
		} else if (*at >= 0x80) {
			n = utf8_length(at, s->end);
		}
		if (!n)
			return false;
		at += n;
	}
}

static bool scan_digits(struct scan *s)
{
	const unsigned char *start = s->at;
	while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
		s->at++;
	return s->at > start;
}

static bool scan_number(struct scan *s)
{
	take(s, '-');
	if (!take(s, '0') && !scan_digits(s))
		return false;
	if (take(s, '.') && !scan_digits(s))
		return false;
	if (!take(s, 'e') && !take(s, 'E'))
		return true;
	if (!take(s, '+'))
		take(s, '-');
	return scan_digits(s);
}

static bool scan_word(struct scan *s, const char *word)
{
	size_t len = strlen(word);
	if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len) != 0)
		return false;
	s->at += len;
	return true;
}

static bool scan_value(struct scan *s, int depth, struct text *text);

static bool scan_array(struct scan *s, int depth)
{
	struct text text;
	skip_space(s);
	if (take(s, ']'))
		return true;
	do {
		if (!scan_value(s, depth, &text))
			return false;
	} while (take(s, ','));
	return take(s, ']');
}

/* What an attribute of the event itself says. A key that is written with escapes could be any. */
static bool check_member(struct scan *s, const struct text *key, const struct text *value)
{
	const struct tw_envelope *envelope = s->envelope;
	if (key->escaped)
		return false;
	if (is(key, "source", 6)) {
		s->sources++;
		s->good_sources += value->at && value->len >= s->source_len &&
			memcmp(value->at, envelope->source, s->source_len) == 0 &&
			(value->len == s->source_len || value->at[s->source_len] == '/');
	} else if (is(key, "id", 2)) {
		s->ids++;
		s->good_ids += value->at && is(value, s->id, s->id_len);
	}
	return true;
}

static bool scan_object(struct scan *s, int depth)
{
	skip_space(s);
	if (take(s, '}'))
		return true;
	do {
		struct text key;
		struct text value;
		skip_space(s);
		if (!scan_string(s, &key))
			return false;
		skip_space(s);
		if (!take(s, ':') || !scan_value(s, depth, &value))
			return false;
		if (depth == 1 && !check_member(s, &key, &value))
			return false;
	} while (take(s, ','));
	return take(s, '}');
}

/* text->at is NULL when the value is no string. */
static bool scan_value(struct scan *s, int depth, struct text *text)
{
	bool good = false;
	text->at = NULL;
	skip_space(s);
	if (s->at >= s->end || depth > DEPTH_MAX)
		return false;
	switch (*s->at) {
	case '"':
		good = scan_string(s, text);
		break;
	case '{':
		s->at++;
		good = scan_object(s, depth + 1);
		break;
	case '[':
		s->at++;
		good = scan_array(s, depth + 1);
		break;
	case 't':
		good = scan_word(s, "true");
		break;
	case 'f':
		good = scan_word(s, "false");
		break;
	case 'n':
		good = scan_word(s, "null");
		break;
	default:
		good = scan_number(s);
	}
	skip_space(s);
	return good;
}

struct tw_error *tw_envelope_check(const char *body, size_t len, const struct tw_envelope *envelope)
{
	if (len < 2 || body[0] != '{' || body[len - 1] != '}')
		return tw_error_create(TW_BAD_DATA, "event that is no JSON object");
	struct scan s = {
		.at = (const unsigned char *)body,
		.end = (const unsigned char *)body + len,
		.envelope = envelope,
		.source_len = strlen(envelope->source),
	};
	size_t epoch_len = strlen(envelope->epoch);
	if (epoch_len + 22 > sizeof(s.id))
		return tw_error_create(TW_BAD_DATA, "event whose epoch is too long");
	memcpy(s.id, envelope->epoch, epoch_len);
	s.id[epoch_len] = '-';
	s.id_len = (size_t)(tw_decimal(s.id + epoch_len + 1, envelope->sequence) - s.id);
	struct text text;
	if (!scan_value(&s, 0, &text) || s.at != s.end)
		return tw_error_create(TW_BAD_DATA, "event that is no JSON: stopped at byte %zu of %zu",
			(size_t)(s.at - (const unsigned char *)body), len);
	if (s.sources != 1 || s.good_sources != 1)
		return tw_error_create(TW_BAD_DATA, "event whose source is not %s or below it", envelope->source);
	if (s.ids != 1 || s.good_ids != 1)
		return tw_error_create(TW_BAD_DATA, "event whose id is not %.*s", (int)s.id_len, s.id);
	return NULL;
}
