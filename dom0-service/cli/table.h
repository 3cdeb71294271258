/* SPDX-License-Identifier: BSD-3-Clause */
/* Rows of text cells, printed with aligned columns. */
#ifndef TW_CLI_TABLE_H
#define TW_CLI_TABLE_H

#include "base/error.h"
#include <stddef.h>
#include <stdio.h>

#define TW_TABLE_COLUMNS 16

struct tw_table {
	char **cells; /* rows one after the other, each of TW_TABLE_COLUMNS; NULL: empty */
	size_t rows;
	size_t columns; /* of the longest row */
};

#define TW_TABLE_INIT { NULL, 0, 0 }

/* Begins a row. */
struct tw_error *tw_table_row(struct tw_table *table) TW_MUST_CHECK;
/* Appends a cell to the last row: a copy of text with control characters made harmless. Cells
 * beyond TW_TABLE_COLUMNS are dropped. */
struct tw_error *tw_table_cell(struct tw_table *table, const char *text) TW_MUST_CHECK;
void tw_table_print(const struct tw_table *table, FILE *out);
void tw_table_deinit(struct tw_table *table);

#endif
