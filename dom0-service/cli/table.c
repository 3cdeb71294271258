/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/table.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct tw_error *tw_table_row(struct tw_table *table)
{
	size_t size = (table->rows + 1) * TW_TABLE_COLUMNS;
	char **cells = reallocarray(table->cells, size, sizeof(*cells));
	if (!cells)
		return tw_error_nomem();
	memset(cells + table->rows * TW_TABLE_COLUMNS, 0, TW_TABLE_COLUMNS * sizeof(*cells));
	table->cells = cells;
	table->rows++;
	return NULL;
}

struct tw_error *tw_table_cell(struct tw_table *table, const char *text)
{
	char **row = table->cells + (table->rows - 1) * TW_TABLE_COLUMNS;
	size_t column = 0;
	while (column < TW_TABLE_COLUMNS && row[column])
		column++;
	if (column == TW_TABLE_COLUMNS)
		return NULL;
	row[column] = strdup(*text ? text : "-");
	if (!row[column])
		return tw_error_nomem();
	for (char *c = row[column]; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	if (column >= table->columns)
		table->columns = column + 1;
	return NULL;
}

static const char *cell(const struct tw_table *table, size_t row, size_t column)
{
	const char *text = table->cells[row * TW_TABLE_COLUMNS + column];
	return text ? text : "";
}

void tw_table_print(const struct tw_table *table, FILE *out)
{
	size_t width[TW_TABLE_COLUMNS] = { 0 };
	for (size_t row = 0; row < table->rows; row++)
		for (size_t column = 0; column < table->columns; column++)
			if (strlen(cell(table, row, column)) > width[column])
				width[column] = strlen(cell(table, row, column));
	for (size_t row = 0; row < table->rows; row++) {
		for (size_t column = 0; column < table->columns; column++) {
			bool last = column + 1 == table->columns;
			fprintf(out, "%-*s%s", last ? 0 : (int)width[column],
				cell(table, row, column), last ? "\n" : "  ");
		}
	}
}

void tw_table_deinit(struct tw_table *table)
{
	for (size_t i = 0; i < table->rows * TW_TABLE_COLUMNS; i++)
		free(table->cells[i]);
	free(table->cells);
	*table = (struct tw_table)TW_TABLE_INIT;
}
