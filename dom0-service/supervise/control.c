/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/control.h"
#include "base/scope.h"
#include "event/json.h"
#include "supervise/paths.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yajl/yajl_tree.h>

#define QUESTION_MAX 4096
#define CLIENTS_MAX 32

struct client {
	uv_pipe_t pipe;
	uv_write_t write;
	struct tw_control *control;
	struct client *next;
	size_t asked; /* bytes in question */
	bool answered;
	char question[QUESTION_MAX];
	struct tw_buf answer;
};

struct tw_control {
	uv_pipe_t pipe;
	tw_control_fn answer;
	void *arg;
	struct client *clients;
	unsigned nclients;
	bool closing;
	bool listener_closed;
};

static void free_when_unused(struct tw_control *control)
{
	if (control->closing && control->listener_closed && !control->clients)
		free(control);
}

static void on_client_closed(uv_handle_t *handle)
{
	struct client *client = handle->data;
	struct tw_control *control = client->control;
	struct client **at = &control->clients;
	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	control->nclients--;
	tw_buf_deinit(&client->answer);
	free(client);
	free_when_unused(control);
}

static void close_client(struct client *client)
{
	if (!uv_is_closing((uv_handle_t *)&client->pipe))
		uv_close((uv_handle_t *)&client->pipe, on_client_closed);
}

static void on_written(uv_write_t *write, int status)
{
	(void)status;
	close_client(write->data);
}

static struct tw_error *read_word(yajl_val tree, const char *key, char **out)
{
	const char *path[] = { key, NULL };
	const char *word = YAJL_GET_STRING(yajl_tree_get(tree, path, yajl_t_string));
	*out = strdup(word ? word : "");
	return *out ? NULL : tw_error_nomem();
}

static struct tw_error *read_words(yajl_val tree, struct tw_question *out)
{
	TW_TRY(read_word(tree, "command", &out->command));
	TW_TRY(read_word(tree, "guest", &out->guest));
	TW_TRY(read_word(tree, "vdev", &out->vdev));
	return *out->command ? NULL : tw_error_create(TW_USAGE, "the question has no \"command\"");
}

static struct tw_error *read_question(const char *line, struct tw_question *out)
{
	char why[128] = "";
	yajl_val tree = yajl_tree_parse(line, why, sizeof(why));
	if (!tree)
		return tw_error_create(TW_USAGE, "the question is no JSON");
	struct tw_error *err = read_words(tree, out);
	yajl_tree_free(tree);
	return err;
}

static void free_question(struct tw_question *question)
{
	free(question->command);
	free(question->guest);
	free(question->vdev);
}

static void put_error(const struct tw_error *err, struct tw_buf *out)
{
	struct tw_json json;
	tw_json_begin(&json, out);
	tw_json_open(&json, NULL);
	tw_json_bool(&json, "ok", false);
	tw_json_text(&json, "error", tw_error_message(err));
	tw_json_close(&json);
	tw_error_destroy(tw_json_end(&json));
}

static void answer(struct client *client)
{
	struct tw_question question = { 0 };
	struct tw_control *control = client->control;
	struct tw_error *err = read_question(client->question, &question);
	if (!err)
		err = control->answer(control->arg, &question, &client->answer);
	free_question(&question);
	if (err) {
		tw_buf_reset(&client->answer);
		put_error(err, &client->answer);
		tw_error_destroy(err);
	}
	tw_buf_puts(&client->answer, "\n");
	uv_buf_t buf = uv_buf_init(client->answer.data, (unsigned)client->answer.len);
	client->answered = true;
	client->write.data = client;
	if (client->answer.failed ||
		uv_write(&client->write, (uv_stream_t *)&client->pipe, &buf, 1, on_written) < 0)
		close_client(client);
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
	(void)size;
	struct client *client = handle->data;
	*buf = uv_buf_init(
		client->question + client->asked, (unsigned)(QUESTION_MAX - 1 - client->asked));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	(void)buf;
	struct client *client = stream->data;
	if (n < 0) {
		close_client(client);
		return;
	}
	client->asked += (size_t)n;
	char *end = memchr(client->question, '\n', client->asked);
	if (end) {
		*end = '\0';
		uv_read_stop(stream);
		answer(client);
	}
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct tw_control *control = listener->data;
	struct client *client = status < 0 ? NULL : calloc(1, sizeof(*client));
	if (!client)
		return;
	client->control = control;
	client->pipe.data = client;
	uv_pipe_init(listener->loop, &client->pipe, 0);
	client->pipe.data = client;
	client->next = control->clients;
	control->clients = client;
	control->nclients++;
	if (uv_accept(listener, (uv_stream_t *)&client->pipe) < 0 ||
		control->nclients > CLIENTS_MAX ||
		uv_read_start((uv_stream_t *)&client->pipe, give_buffer, on_read) < 0)
		close_client(client);
}

static void on_listener_closed(uv_handle_t *handle)
{
	struct tw_control *control = handle->data;
	control->listener_closed = true;
	free_when_unused(control);
}

struct tw_error *tw_control_create(
	uv_loop_t *loop, const char *path, tw_control_fn fn, void *arg, struct tw_control **out)
{
	TW_TRY(tw_path_check_socket(path));
	struct tw_control *control = calloc(1, sizeof(*control));
	if (!control)
		return tw_error_nomem();
	control->answer = fn;
	control->arg = arg;
	uv_pipe_init(loop, &control->pipe, 0);
	control->pipe.data = control;
	/* The caller holds the directory's lock: what is left there is a dead service's. */
	unlink(path);
	mode_t mask = umask(0177); /* connecting takes the right to write */
	int ret = uv_pipe_bind(&control->pipe, path);
	umask(mask);
	if (ret == 0)
		ret = uv_listen((uv_stream_t *)&control->pipe, 16, on_connection);
	if (ret < 0) {
		tw_control_destroy(control);
		return tw_error_errno(ret, "%s", path);
	}
	*out = control;
	return NULL;
}

void tw_control_destroy(struct tw_control *control)
{
	if (!control)
		return;
	control->closing = true;
	for (struct client *c = control->clients; c; c = c->next)
		close_client(c);
	uv_close((uv_handle_t *)&control->pipe, on_listener_closed);
}
