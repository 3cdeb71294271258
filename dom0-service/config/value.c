/* SPDX-License-Identifier: BSD-3-Clause */
#include "config/value.h"

#include "base/buf.h"
#include "base/scope.h"
#include "base/glob.h"
#include "event/event.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
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

bool tw_value_age(const char *text, uint64_t *out)
{
	static const struct unit units[] = {
		{ "s", 1000 }, { "min", 60000 }, { "h", 3600000 }, { "d", 86400000 }, { NULL, 0 },
	};
	*out = 0;
	return strcmp(text, "0") == 0 ||
		(parse_number(text, units, out) && *out <= UINT64_C(3650) * 86400000);
}

bool tw_value_count(const char *text, uint64_t *out)
{
	static const struct unit units[] = { { "", 1 }, { NULL, 0 } };
	return parse_number(text, units, out) && *out >= 1 && *out <= 1000000;
}

bool tw_value_nice(const char *text, uint64_t *out)
{
	static const struct unit units[] = { { "", 1 }, { NULL, 0 } };
	return parse_number(text, units, out) && *out <= 19;
}

bool tw_value_matches(const char *list, const char *name)
{
	TW_AUTO_FREE char *copy = strdup(list);
	char *rest = copy;
	for (char *item; copy && (item = strsep(&rest, ","));) {
		item += strspn(item, " \t");
		for (size_t n = strlen(item); n && (item[n - 1] == ' ' || item[n - 1] == '\t'); n--)
			item[n - 1] = '\0';
		if (*item && fnmatch(item, name, 0) == 0)
			return true;
	}
	return false;
}

bool tw_value_tapdisk(const char *text)
{
	const size_t pid = strspn(text, "0123456789");
	const char *minor = text + pid + 1;
	if (strcmp(text, "auto") == 0)
		return true;
	return pid > 0 && pid < 10 && text[pid] == ':' && *minor && strlen(minor) < 10 &&
		minor[strspn(minor, "0123456789")] == '\0';
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

static bool is_url(const char *text, const char *const *schemes)
{
	CURLU *url = curl_url();
	if (!url)
		return false;
	char *scheme = NULL;
	char *host = NULL;
	bool good = curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
		curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK && *host;
	while (good && *schemes && strcasecmp(scheme, *schemes) != 0)
		schemes++;
	good = good && *schemes;
	curl_free(scheme);
	curl_free(host);
	curl_url_cleanup(url);
	return good;
}

bool tw_value_url(const char *text)
{
	static const char *const schemes[] = { "http", "https", NULL };
	return is_url(text, schemes);
}

bool tw_value_name(const char *text, const char *more)
{
	size_t len = strlen(text);
	for (const char *c = text; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr(more, *c))
			return false;
	return len && len <= 200;
}

bool tw_value_proxy(const char *text)
{
	static const char *const schemes[] = { "http", "https", "socks5", "socks5h", NULL };
	return is_url(text, schemes);
}

bool tw_value_pattern(const char *text)
{
	struct tw_glob *glob = tw_glob_create(text + (*text == '!'));
	bool good = glob && text[*text == '!'];
	tw_glob_destroy(glob);
	return good;
}

bool tw_value_pin(const char *text)
{
	static const char prefix[] = "sha256//";
	for (;;) {
		unsigned char digest[48];
		size_t len = strcspn(text, ";");
		size_t skip = strlen(prefix);
		if (len != skip + 44 || strncmp(text, prefix, skip) != 0 ||
			EVP_DecodeBlock(digest, (const unsigned char *)text + skip, 44) != 33)
			return false;
		if (!text[len])
			return true;
		text += len + 1;
	}
}

/* Appends what ${kind:name} stands for. */
static struct tw_error *expand_one(const char *kind, size_t kind_len, const char *name, struct tw_buf *out)
{
	if (kind_len == 3 && strncmp(kind, "env", 3) == 0) {
		const char *value = getenv(name);
		if (!value)
			return tw_error_create(TW_CONFIG, "the environment has no variable %s, expected one", name);
		tw_buf_puts(out, value);
		return NULL;
	}
	if (kind_len != 4 || strncmp(kind, "file", 4) != 0)
		return tw_error_create(TW_CONFIG, "unknown ${%.*s:, expected ${env:NAME} or ${file:PATH}",
			(int)kind_len, kind);
	TW_AUTO_FREE char *text = NULL;
	bool world_readable;
	struct tw_error *err = tw_value_read_file(name, &text, &world_readable);
	if (err) {
		struct tw_error *told = tw_error_create(TW_CONFIG, "${file:%s}: %s, expected a file with one line",
			name, tw_error_message(err));
		tw_error_destroy(err);
		return told;
	}
	tw_buf_puts(out, text);
	OPENSSL_cleanse(text, strlen(text));
	return NULL;
}

static struct tw_error *expand_all(const char *text, struct tw_buf *out)
{
	while (*text) {
		const char *start = strstr(text, "${");
		const char *end = start ? strchr(start, '}') : NULL;
		const char *colon = end ? memchr(start, ':', (size_t)(end - start)) : NULL;
		if (!colon) {
			tw_buf_puts(out, text);
			return NULL;
		}
		tw_buf_append(out, text, (size_t)(start - text));
		TW_AUTO_FREE char *name = strndup(colon + 1, (size_t)(end - colon - 1));
		if (!name)
			return tw_error_nomem();
		TW_TRY(expand_one(start + 2, (size_t)(colon - start - 2), name, out));
		text = end + 1;
	}
	return NULL;
}

struct tw_error *tw_value_expand(const char *text, char **out)
{
	*out = NULL;
	if (!strstr(text, "${"))
		return NULL;
	struct tw_buf buf = TW_BUF_INIT;
	struct tw_error *err = expand_all(text, &buf);
	tw_buf_append(&buf, "", 1);
	if (!err && buf.failed)
		err = tw_error_nomem();
	if (!err)
		*out = TW_STEAL(buf.data);
	tw_buf_deinit(&buf);
	return err;
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
