/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/detach_service.h"
#include "base/log.h"
#include "base/scope.h"
#include "event/json.h"
#include "supervise/paths.h"
#include "supervise/query.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <yajl/yajl_tree.h>

#define ANSWER_MS 3000
#define LOOK_MS 50
/* The tapdisk pauses when its requests have come back, and the inspector reads what waits. */
#define PATIENCE_MS 60000

static struct tw_error *put_question(const char *who, const char *vdev, struct tw_buf *out)
{
	struct tw_json json;
	tw_json_begin(&json, out);
	tw_json_open(&json, NULL);
	tw_json_text(&json, "command", "detach");
	tw_json_text(&json, "guest", who);
	tw_json_text(&json, "vdev", vdev);
	tw_json_close(&json);
	return tw_json_end(&json);
}

static bool is_true(yajl_val object, const char *name)
{
	const char *path[] = { name, NULL };
	return YAJL_IS_TRUE(yajl_tree_get(object, path, yajl_t_true));
}

/* A service that does not know the question has nothing to do with it. */
static struct tw_error *ask_once(const char *socket, const struct tw_buf *question, bool *ours, bool *gone)
{
	char why[128] = "";
	struct tw_buf answer = TW_BUF_INIT;
	struct tw_error *err = tw_query_ask(socket, ANSWER_MS, question, &answer);
	yajl_val tree = err ? NULL : yajl_tree_parse(answer.data, why, sizeof(why));
	*ours = tree && is_true(tree, "ours");
	*gone = tree && is_true(tree, "gone");
	yajl_tree_free(tree);
	tw_buf_deinit(&answer);
	return err;
}

static struct tw_error *ask(const char *socket, const struct tw_buf *question, bool *done)
{
	bool ours = false, gone;
	for (unsigned waited = 0; waited < PATIENCE_MS; waited += LOOK_MS) {
		struct tw_error *err = ask_once(socket, question, &ours, &gone);
		/* A guest may wait for this: it goes on without a service that hangs. */
		if (err && !waited)
			tw_log(TW_LOG_WARN, "", "%s; if it has put the mirror there, it may do so again",
				tw_error_message(err));
		if (err && waited)
			return err;
		tw_error_destroy(err);
		*done = ours && gone;
		if (!ours || gone)
			return NULL;
		nanosleep(&(struct timespec){ .tv_nsec = LOOK_MS * 1000000L }, NULL);
	}
	return tw_error_create(TW_UNAVAILABLE,
		"tapwired has not got the mirror away in %d s and goes on trying; see its log, and `tapwire status`",
		PATIENCE_MS / 1000);
}

struct tw_error *tw_detach_by_service(const char *state, const char *who, const char *vdev, bool *done)
{
	TW_AUTO_FREE char *dir = NULL;
	struct tw_buf question = TW_BUF_INIT;
	struct tw_error *err = tw_query_find_service(state, &dir);
	*done = false;
	if (err && !state) {
		tw_error_destroy(err);
		return NULL;
	}
	TW_TRY(err);
	TW_AUTO_FREE char *socket = tw_path_join(dir, TW_CONTROL_SOCKET);
	err = socket ? put_question(who, vdev, &question) : tw_error_nomem();
	if (!err)
		err = ask(socket, &question, done);
	tw_buf_deinit(&question);
	return err;
}
