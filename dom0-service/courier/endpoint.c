/* SPDX-License-Identifier: BSD-3-Clause */
/* One request at a time: what it looks like, and what came of it. */
#include "courier/webhook_inside.h"

#include "base/scope.h"
#include "courier/sign.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <zlib.h>
#include <zstd.h>

#define ANSWER_MAX (16u << 20) /* Elasticsearch has a word for each event */
#define REDIRECTS_MAX 5L
#define GZIP_BITS (15 + 16) /* the largest window, with gzip's frame */
#define ZSTD_LEVEL 1

struct tw_error *tw_webhook_failed(const char *what)
{
	return tw_error_create(TW_UNAVAILABLE, "libcurl: %s", what);
}

/* Why there was no answer, without what differs from one attempt to the next. */
static const char *reason(struct tw_endpoint *endpoint, CURLcode code)
{
	long errnum = 0;
	curl_easy_getinfo(endpoint->easy, CURLINFO_OS_ERRNO, &errnum);
	if (!errnum)
		return curl_easy_strerror(code);
	snprintf(endpoint->error, sizeof(endpoint->error), "%s: %s", curl_easy_strerror(code),
		strerror((int)errnum));
	return endpoint->error;
}

void tw_endpoint_finish(struct tw_endpoint *endpoint, CURLcode code)
{
	struct tw_webhook_result result = {
		.error = "", .answer = endpoint->answer.data, .answer_len = endpoint->answer.len
	};
	endpoint->busy = false;
	if (code == CURLE_OK) {
		curl_off_t after = 0;
		curl_easy_getinfo(endpoint->easy, CURLINFO_RESPONSE_CODE, &result.status);
		curl_easy_getinfo(endpoint->easy, CURLINFO_RETRY_AFTER, &after);
		result.retry_after_s = after;
	} else {
		result.error = reason(endpoint, code);
	}
	endpoint->done(endpoint->arg, &result);
}

/* An answer without end is an error. */
static size_t take_answer(char *data, size_t size, size_t n, void *arg)
{
	struct tw_endpoint *endpoint = arg;
	if (endpoint->answer.len + size * n > ANSWER_MAX)
		return 0;
	tw_buf_append(&endpoint->answer, data, size * n);
	return endpoint->answer.failed ? 0 : size * n;
}

static void set_options(struct tw_endpoint *endpoint)
{
	const struct tw_config_target *target = endpoint->target;
	CURL *easy = endpoint->easy;
	curl_easy_setopt(easy, CURLOPT_PRIVATE, endpoint);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	/* Whatever the environment says. */
	curl_easy_setopt(easy, CURLOPT_PROXY, target->proxy ? target->proxy : "");
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, (long)target->follow_redirects);
	curl_easy_setopt(easy, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
	curl_easy_setopt(easy, CURLOPT_POSTREDIR, CURL_REDIR_POST_ALL); /* what is delivered stays a POST */
	curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR,
		strncasecmp(target->url, "https:", 6) == 0 ? "https" : "http,https");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "tapwire/" TW_VERSION);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)target->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)target->connect_timeout_ms);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, endpoint);
}

/* libcurl takes NULL for "not set". */
static void set_security(struct tw_endpoint *endpoint)
{
	const struct tw_config_target *target = endpoint->target;
	CURL *easy = endpoint->easy;
	if (target->ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, target->ca_file);
	curl_easy_setopt(easy, CURLOPT_SSLCERT, target->client_cert_file);
	curl_easy_setopt(easy, CURLOPT_SSLKEY,
		target->client_key_file ? target->client_key_file : target->client_cert_file);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION,
		target->tls_min == 13 ? CURL_SSLVERSION_TLSv1_3 : CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_PINNEDPUBLICKEY, target->pinned_key);
	curl_easy_setopt(easy, CURLOPT_USERPWD, target->basic_auth);
	curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
	curl_easy_setopt(easy, CURLOPT_PROXYUSERPWD, target->proxy_auth);
	curl_easy_setopt(easy, CURLOPT_INTERFACE, target->interface);
}

static void set_http_version(struct tw_endpoint *endpoint)
{
	static const long versions[] = {
		[TW_HTTP_AUTO] = CURL_HTTP_VERSION_2TLS,
		[TW_HTTP_1_1] = CURL_HTTP_VERSION_1_1,
		[TW_HTTP_2] = CURL_HTTP_VERSION_2_0,
		[TW_HTTP_2_DIRECT] = CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE,
	};
	curl_easy_setopt(endpoint->easy, CURLOPT_HTTP_VERSION, versions[endpoint->target->http_version]);
}

struct tw_error *tw_endpoint_create(struct tw_webhook *hook, const struct tw_config_target *target,
	tw_webhook_done_fn done, void *arg, struct tw_endpoint **out)
{
	struct tw_endpoint *endpoint = calloc(1, sizeof(*endpoint));
	if (!endpoint)
		return tw_error_nomem();
	endpoint->hook = hook;
	endpoint->target = target;
	endpoint->done = done;
	endpoint->arg = arg;
	endpoint->easy = curl_easy_init();
	if (!endpoint->easy) {
		free(endpoint);
		return tw_webhook_failed("no easy handle");
	}
	set_options(endpoint);
	set_security(endpoint);
	set_http_version(endpoint);
	*out = endpoint;
	return NULL;
}

void tw_endpoint_destroy(struct tw_endpoint *endpoint)
{
	if (!endpoint)
		return;
	if (endpoint->busy)
		curl_multi_remove_handle(endpoint->hook->multi, endpoint->easy);
	curl_easy_cleanup(endpoint->easy);
	curl_slist_free_all(endpoint->headers);
	tw_buf_deinit(&endpoint->answer);
	tw_buf_deinit(&endpoint->coded);
	free(endpoint);
}

static struct tw_error *add_header(struct tw_endpoint *endpoint, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static struct tw_error *add_header(struct tw_endpoint *endpoint, const char *fmt, ...)
{
	TW_AUTO_FREE char *text = NULL;
	va_list ap;
	va_start(ap, fmt);
	int len = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (len < 0) {
		text = NULL;
		return tw_error_nomem();
	}
	struct curl_slist *grown = curl_slist_append(endpoint->headers, text);
	if (!grown)
		return tw_error_nomem();
	endpoint->headers = grown;
	return NULL;
}

/* One signature a secret, so that a receiver may have any of them while they are exchanged. It is of the body as it
 * is before it is compressed, which is what an application gets to see. */
static struct tw_error *add_signatures(struct tw_endpoint *endpoint, const struct tw_post *post, int64_t now)
{
	const struct tw_config_target *target = endpoint->target;
	TW_AUTO_FREE char *all = NULL;
	for (size_t i = 0; i < target->nsecrets; i++) {
		const struct tw_config_secret *secret = &target->secrets[i];
		char signature[TW_SIGNATURE_SIZE];
		TW_TRY(tw_sign(secret->key, secret->len, post->id, now, post->body, post->len, signature));
		char *grown = NULL;
		if (asprintf(&grown, "%s%s%s", all ? all : "", all ? " " : "", signature) < 0)
			return tw_error_nomem();
		free(all);
		all = grown;
	}
	return all ? add_header(endpoint, "webhook-signature: %s", all) : NULL;
}

static struct tw_error *add_headers(struct tw_endpoint *endpoint, const struct tw_post *post)
{
	static const char *const codings[] = {
		[TW_COMPRESSION_GZIP] = "gzip", [TW_COMPRESSION_ZSTD] = "zstd"
	};
	const struct tw_config_target *target = endpoint->target;
	int64_t now = time(NULL);
	curl_slist_free_all(endpoint->headers);
	endpoint->headers = NULL;
	TW_TRY(add_header(endpoint, "Content-Type: %s", post->type));
	if (target->compression)
		TW_TRY(add_header(endpoint, "Content-Encoding: %s", codings[target->compression]));
	TW_TRY(add_header(endpoint, "Expect:")); /* not a round trip more for a large batch */
	TW_TRY(add_header(endpoint, "Tapwire-Batch: %s", post->batch));
	TW_TRY(add_header(endpoint, "Tapwire-Previous: %llu", (unsigned long long)post->previous));
	TW_TRY(add_header(endpoint, "webhook-id: %s", post->id));
	TW_TRY(add_header(endpoint, "webhook-timestamp: %lld", (long long)now));
	TW_TRY(add_signatures(endpoint, post, now));
	if (target->bearer_token)
		TW_TRY(add_header(endpoint, "Authorization: %s %s",
			target->format == TW_FORMAT_SPLUNK_HEC ? "Splunk" : "Bearer", target->bearer_token));
	for (size_t i = 0; i < target->headers.n; i++)
		TW_TRY(add_header(endpoint, "%s", target->headers.items[i]));
	return NULL;
}

static struct tw_error *gzip(const struct tw_post *post, struct tw_buf *out)
{
	z_stream stream = { 0 };
	if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, GZIP_BITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return tw_error_nomem();
	size_t bound = deflateBound(&stream, post->len);
	stream.next_out = tw_buf_reserve(out, bound);
	stream.avail_out = (uInt)bound;
	stream.next_in = (Bytef *)post->body;
	stream.avail_in = (uInt)post->len;
	bool good = stream.next_out && deflate(&stream, Z_FINISH) == Z_STREAM_END;
	out->len += stream.total_out;
	deflateEnd(&stream);
	return good ? NULL : tw_error_nomem();
}

static struct tw_error *zstd(const struct tw_post *post, struct tw_buf *out)
{
	size_t bound = ZSTD_compressBound(post->len);
	void *at = tw_buf_reserve(out, bound);
	size_t len = at ? ZSTD_compress(at, bound, post->body, post->len, ZSTD_LEVEL) : 0;
	if (!at || ZSTD_isError(len))
		return tw_error_nomem();
	out->len += len;
	return NULL;
}

struct tw_error *tw_endpoint_post(struct tw_endpoint *endpoint, const struct tw_post *post)
{
	const char *body = post->body;
	size_t len = post->len;
	TW_TRY(add_headers(endpoint, post));
	if (endpoint->target->compression) {
		tw_buf_reset(&endpoint->coded);
		TW_TRY(endpoint->target->compression == TW_COMPRESSION_GZIP ? gzip(post, &endpoint->coded)
									     : zstd(post, &endpoint->coded));
		body = endpoint->coded.data;
		len = endpoint->coded.len;
	}
	tw_buf_reset(&endpoint->answer);
	curl_easy_setopt(endpoint->easy, CURLOPT_URL, post->url ? post->url : endpoint->target->url);
	curl_easy_setopt(endpoint->easy, CURLOPT_HTTPHEADER, endpoint->headers);
	curl_easy_setopt(endpoint->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
	curl_easy_setopt(endpoint->easy, CURLOPT_POSTFIELDS, body);
	CURLMcode code = curl_multi_add_handle(endpoint->hook->multi, endpoint->easy);
	if (code != CURLM_OK)
		return tw_webhook_failed(curl_multi_strerror(code));
	endpoint->busy = true;
	return NULL;
}
