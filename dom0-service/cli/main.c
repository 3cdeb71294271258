/* SPDX-License-Identifier: BSD-3-Clause */
/* tapwire: finds the command, runs it, and prints its error, if any. */
#include "base/buf.h"
#include "base/log.h"
#include "cli/commands.h"
#include "supervise/child.h"
#include "supervise/tapctl.h"

#include <argp.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const struct tw_command commands[] = {
	{ "attach", "watch a disk that an unmodified tapdisk serves to a running guest",
		tw_cmd_attach },
	{ "check-config", "check an INI file and say what it means", tw_cmd_check_config },
	{ "check-xenstore", "hold a live xenstore against the schema", tw_cmd_check_xenstore },
	{ "crawl", "list every file of a disk image", tw_cmd_crawl },
	{ "dead-letters", "list, show, send again or drop what targets have refused",
		tw_cmd_dead_letters },
	{ "detach", "take the mirror from a tapdisk", tw_cmd_detach },
	{ "infer", "print the file events of a recorded trace", tw_cmd_infer },
	{ "redeliver", "send a target again what it has had before", tw_cmd_redeliver },
	{ "serve", "serve an image over NBD and watch what is written to it", tw_cmd_serve },
	{ "spool", "show what the spool holds", tw_cmd_spool },
	{ "status", "show disks and targets of a running service", tw_cmd_status },
	{ "tail", "print events as they happen", tw_cmd_tail },
	{ "targets", "show targets; suspend or resume one", tw_cmd_targets },
};
#define NCOMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct tw_command *find(const char *name)
{
	for (size_t i = 0; i < NCOMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t ab = a < b ? a : b;
	return ab < c ? ab : c;
}

/* Levenshtein's distance; names longer than the table are far from everything. */
static size_t distance(const char *a, const char *b)
{
	size_t row[32];
	size_t n = strlen(b);
	if (n >= sizeof(row) / sizeof(row[0]))
		return SIZE_MAX;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t above = row[j];
			row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
			diagonal = above;
		}
	}
	return row[n];
}

static struct tw_error *unknown(const char *name)
{
	const struct tw_command *best = NULL;
	size_t best_distance = 3; /* further away is no typing mistake */
	for (size_t i = 0; i < NCOMMANDS; i++) {
		size_t d = distance(name, commands[i].name);
		bool prefix = *name && strncmp(name, commands[i].name, strlen(name)) == 0;
		if (prefix)
			d = 0;
		if (d < best_distance) {
			best = &commands[i];
			best_distance = d;
		}
	}
	if (best)
		return tw_error_create(
			TW_USAGE, "unknown command \"%s\"; did you mean \"%s\"?", name, best->name);
	return tw_error_create(
		TW_USAGE, "unknown command \"%s\"; `tapwire --help` lists the commands", name);
}

/* argp frees what this returns. */
static char *help_filter(int key, const char *text, void *input)
{
	(void)input;
	if (key != ARGP_KEY_HELP_PRE_DOC)
		return (char *)text;
	struct tw_buf out = TW_BUF_INIT;
	tw_buf_printf(&out, "%s\n\nCommands:\n", text);
	for (size_t i = 0; i < NCOMMANDS; i++)
		tw_buf_printf(&out, "  %-15s %s\n", commands[i].name, commands[i].help);
	tw_buf_puts(&out, "\n`tapwire COMMAND --help` tells more about one.");
	tw_buf_append(&out, "", 1);
	return out.failed ? (char *)text : out.data;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	(void)arg;
	int *command = state->input;
	switch (key) {
	case ARGP_KEY_ARG:
		*command = state->next - 1;
		state->next = state->argc; /* the rest is the command's */
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_state_help(state, stderr, ARGP_HELP_STD_USAGE);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static struct tw_error *run(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse,
		.args_doc = "COMMAND [OPTION...]",
		.doc = "Tell what changed in a guest's files, from the host, without an agent.",
		.help_filter = help_filter,
	};
	int at = argc;
	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &at);
	const struct tw_command *command = find(argv[at]);
	if (!command)
		return unknown(argv[at]);
	char name[64];
	snprintf(name, sizeof(name), "tapwire %s", command->name);
	argv[at] = name;
	TW_TRY(command->run(argc - at, argv + at));
	if (fflush(stdout) != 0 || ferror(stdout))
		return tw_error_errno(errno ? errno : EIO, "standard output");
	return NULL;
}

/* A message may quote what a guest wrote: nothing in it may reach the terminal as a command. */
static void print_error(const struct tw_error *err)
{
	fputs("tapwire: ", stderr);
	for (const char *c = tw_error_message(err); *c; c++)
		fputc((unsigned char)*c < ' ' || *c == 0x7f ? '?' : *c, stderr);
	fputc('\n', stderr);
}

int main(int argc, char **argv)
{
	tw_child_main(argc, argv);
	tw_tapctl_main(argc, argv);
	argp_program_version = "tapwire " TW_VERSION;
	argp_err_exit_status = EX_USAGE;
	tw_log_init("tapwire", TW_LOG_INFO);
	struct tw_error *err = run(argc, argv);
	if (!err)
		return 0;
	print_error(err);
	int status = tw_error_exit_status(err);
	tw_error_destroy(err);
	return status;
}
