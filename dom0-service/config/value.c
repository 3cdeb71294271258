/* SPDX-License-Identifier: BSD-3-Clause */
#include "config/value.h"

#include "base/scope.h"
#include "event/event.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define TYPE_PREFIX "org.tapwire."
#define SECRET_PREFIX "whsec_"
#define SECRET_MIN 24
#define SECRET_MAX 64
#define FILE_MAX 65536

struct unit {
	const char *name;
	uint64_t factor;
};

/* Digits, optional blanks, and a unit of the table (which ends with a NULL name). */
static bool parse_number(const char *text, const struct unit *units, uint64_t *out)
{
	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	char *end;
	unsigned long long n = strtoull(text, &end, 10);
	if (errno)
		return false;
	while (*end == ' ')
		end++;
	for (const struct unit *u = units; u->name; u++)
		if (strcasecmp(end, u->name) == 0)
			return !__builtin_mul_overflow((uint64_t)n, u->factor, out);
	return false;
}

bool tw_value_bytes(const char *text, uint64_t *out)
{
	static const struct unit units[] = {
		{ "", 1 }, { "b", 1 },
		{ "k", 1ull << 10 }, { "kb", 1ull << 10 }, { "kib", 1ull << 10 },
		{ "m", 1ull << 20 }, { "mb", 1ull << 20 }, { "mib", 1ull << 20 },
		{ "g", 1ull << 30 }, { "gb", 1ull << 30 }, { "gib", 1ull << 30 },
		{ "t", 1ull << 40 }, { "tb", 1ull << 40 }, { "tib", 1ull << 40 },
		{ NULL, 0 },
	};
	return parse_number(text, units, out) && *out > 0 && *out <= INT64_MAX;
}

bool tw_value_ms(const char *text, uint64_t *out)
{
	static const struct unit units[] = {
		{ "", 1 }, { "ms", 1 }, { "s", 1000 }, { "min", 60000 }, { "h", 3600000 }, { NULL, 0 },
	};
	return parse_number(text, units, out) && *out <= 86400000;
}

bool tw_value_count(const char *text, uint64_t *out)
{
	static const struct unit units[] = { { "", 1 }, { NULL, 0 } };
	return parse_number(text, units, out) && *out >= 1 && *out <= 1000000;
}

/* The types that match a name or a glob, as bits. */
static uint64_t match_events(const char *pattern)
{
	uint64_t bits = 0;
	for (int type = 1; type < TW_EVENT_TYPE_END; type++) {
		const char *name = tw_event_type_name((enum tw_event_type)type);
		if (strncmp(name, TYPE_PREFIX, strlen(TYPE_PREFIX)) == 0)
			name += strlen(TYPE_PREFIX);
		if (fnmatch(pattern, name, 0) == 0)
			bits |= 1ull << type;
	}
	return bits;
}

bool tw_value_events(const char *text, uint64_t *out)
{
	TW_AUTO_FREE char *list = strdup(text);
	if (!list)
		return false;
	*out = 0;
	char *rest = list;
	for (char *item; (item = strsep(&rest, ","));) {
		item += strspn(item, " \t");
		item[strcspn(item, " \t")] = '\0';
		uint64_t bits = match_events(item);
		if (!bits)
			return false;
		*out |= bits;
	}
	return true;
}

bool tw_value_url(const char *text)
{
	CURLU *url = curl_url();
	if (!url)
		return false;
	char *scheme = NULL;
	char *host = NULL;
	bool good = curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK &&
		curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK && *host &&
		(strcasecmp(scheme, "http") == 0 || strcasecmp(scheme, "https") == 0);
	curl_free(scheme);
	curl_free(host);
	curl_url_cleanup(url);
	return good;
}

bool tw_value_header(const char *text)
{
	static const char *const ours[] = { "content-type", "content-length", "transfer-encoding", "expect",
		"webhook-id", "webhook-timestamp", "webhook-signature", "tapwire-batch" };
	size_t len = strcspn(text, ":");
	if (!len || text[len] != ':' || !text[len + 1 + strspn(text + len + 1, " \t")])
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("!#$%&'*+-.^_`|~", text[i]))
			return false;
	for (const char *c = text + len; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return false;
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (strlen(ours[i]) == len && strncasecmp(text, ours[i], len) == 0)
			return false;
	return true;
}

struct tw_error *tw_value_read_file(const char *path, char **out, bool *world_readable)
{
	TW_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return tw_error_errno(errno, "%s", path);
	struct stat st;
	if (fstat(fd, &st) < 0)
		return tw_error_errno(errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return tw_error_create(TW_CONFIG, "%s: not a file", path);
	TW_AUTO_FREE char *text = malloc(FILE_MAX + 1);
	if (!text)
		return tw_error_nomem();
	ssize_t len = read(fd, text, FILE_MAX);
	if (len < 0)
		return tw_error_errno(errno, "%s", path);
	text[len] = '\0';
	char *start = text + strspn(text, " \t\r\n");
	start[strcspn(start, "\r\n")] = '\0';
	for (size_t n = strlen(start); n && isspace((unsigned char)start[n - 1]); n--)
		start[n - 1] = '\0';
	if (!*start)
		return tw_error_create(TW_CONFIG, "%s: empty", path);
	*world_readable = st.st_mode & S_IROTH;
	*out = strdup(start);
	OPENSSL_cleanse(text, (size_t)len);
	return *out ? NULL : tw_error_nomem();
}

bool tw_value_secret(const char *text, unsigned char **key, size_t *len)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	if (strncmp(text, SECRET_PREFIX, strlen(SECRET_PREFIX)) != 0)
		return false;
	text += strlen(SECRET_PREFIX);
	size_t chars = strspn(text, alphabet);
	size_t pad = strspn(text + chars, "=");
	size_t all = chars + pad;
	/* EVP_DecodeBlock is lenient about what is around the text and counts the padding as bytes. */
	if (text[all] || all % 4 || pad > 2 || all > 4 * SECRET_MAX)
		return false;
	unsigned char bytes[4 * SECRET_MAX];
	int n = EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)all);
	if (n < 0 || (size_t)n < SECRET_MIN + pad || (size_t)n > SECRET_MAX + pad)
		return false;
	*len = (size_t)n - pad;
	*key = malloc(*len);
	if (*key)
		memcpy(*key, bytes, *len);
	OPENSSL_cleanse(bytes, sizeof(bytes));
	return *key != NULL;
}
