/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one logging call of dom0-service: a line on standard error, with systemd's "<n>" priority
 * prefix when standard error is the journal. Subject is "domain/vdev/volume" or what of it is
 * known ("" for the program itself).
 */
#ifndef TW_BASE_LOG_H
#define TW_BASE_LOG_H

enum tw_log_level { TW_LOG_ERROR = 3, TW_LOG_WARN = 4, TW_LOG_INFO = 6, TW_LOG_DEBUG = 7 };

/* Sets the program's name (static string) and the highest level that is written. */
void tw_log_init(const char *program, enum tw_log_level max);

void tw_log(enum tw_log_level level, const char *subject, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
