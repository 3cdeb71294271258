/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/status.h"

#include <string.h>
#include <yajl/yajl_gen.h>

static void key(yajl_gen gen, const char *name)
{
	yajl_gen_string(gen, (const unsigned char *)name, strlen(name));
}

static void put_number(yajl_gen gen, const char *name, uint64_t value)
{
	key(gen, name);
	yajl_gen_integer(gen, (long long)value);
}

static void put_text(yajl_gen gen, const char *name, const char *value)
{
	key(gen, name);
	yajl_gen_string(gen, (const unsigned char *)value, strlen(value));
}

static void put_target(yajl_gen gen, const struct tw_target_stats *target)
{
	yajl_gen_map_open(gen);
	put_text(gen, "name", target->name);
	put_text(gen, "epoch", target->epoch);
	put_number(gen, "next_batch", target->next_batch);
	put_number(gen, "delivered", target->delivered);
	put_number(gen, "batches", target->batches);
	put_number(gen, "retries", target->retries);
	put_number(gen, "backlog", target->backlog);
	put_number(gen, "refused", target->refused);
	put_number(gen, "dropped", target->dropped);
	put_number(gen, "concurrency", target->concurrency);
	put_number(gen, "last_status", (uint64_t)target->last_status);
	put_text(gen, "last_error", target->last_error);
	key(gen, "suspended");
	yajl_gen_bool(gen, target->suspended);
	yajl_gen_map_close(gen);
}

static void put_spool(yajl_gen gen, const struct tw_status *status)
{
	key(gen, "spool");
	yajl_gen_map_open(gen);
	put_number(gen, "events", status->spool.events);
	put_number(gen, "bytes", status->spool.bytes);
	put_number(gen, "max_bytes", status->spool_max_bytes);
	put_number(gen, "file_bytes", status->spool.file_bytes);
	put_number(gen, "dead_letters", status->spool.dead);
	key(gen, "full");
	yajl_gen_bool(gen, status->held);
	yajl_gen_map_close(gen);
}

static void append(void *arg, const char *text, size_t len)
{
	tw_buf_append(arg, text, len);
}

void tw_status_encode(const struct tw_status *status, struct tw_buf *out)
{
	yajl_gen gen = yajl_gen_alloc(NULL);
	if (!gen) {
		out->failed = true;
		return;
	}
	yajl_gen_config(gen, yajl_gen_print_callback, append, out);
	yajl_gen_map_open(gen);
	put_text(gen, "version", TW_VERSION);
	put_number(gen, "received", status->server.received);
	put_number(gen, "stored", status->server.stored);
	put_number(gen, "duplicates", status->server.duplicates);
	put_number(gen, "refused", status->server.refused);
	put_number(gen, "inspectors", status->server.inspectors);
	put_number(gen, "tails", status->server.tails);
	put_spool(gen, status);
	key(gen, "targets");
	yajl_gen_array_open(gen);
	for (size_t i = 0; i < status->ntargets; i++)
		put_target(gen, &status->targets[i]);
	yajl_gen_array_close(gen);
	yajl_gen_map_close(gen);
	yajl_gen_free(gen);
}
