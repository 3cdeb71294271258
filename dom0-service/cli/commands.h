/* SPDX-License-Identifier: BSD-3-Clause */
/* The commands of `tapwire`, one file each. */
#ifndef TW_CLI_COMMANDS_H
#define TW_CLI_COMMANDS_H

#include "base/error.h"

struct tw_command {
	const char *name;
	const char *help; /* one line, as `tapwire --help` shows it */
	/* argv[0] is "tapwire NAME". An error is printed by main(), once; --help, --version and a
	 * wrong option end the program inside argp. */
	struct tw_error *(*run)(int argc, char **argv);
};

struct tw_error *tw_cmd_attach(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_check_config(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_check_xenstore(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_crawl(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_dead_letters(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_detach(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_infer(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_redeliver(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_serve(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_spool(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_status(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_tail(int argc, char **argv) TW_MUST_CHECK;
struct tw_error *tw_cmd_targets(int argc, char **argv) TW_MUST_CHECK;

#endif
