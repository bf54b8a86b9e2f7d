/* table_private.h: tables for a terminal. */
#ifndef LENS_CLI_TABLE_PRIVATE_H
#define LENS_CLI_TABLE_PRIVATE_H

#include "cli/cli_private.h"

#define TABLE_MOST_COLUMNS 16

struct text_table {
	size_t n_columns, elastic; /* the column that is shortened; n_columns: none */
	bool right[TABLE_MOST_COLUMNS];
	char **cell; /* row by row, the head first */
	size_t n, cap;
};

/* Adds the next cell, a copy; control characters become escapes. */
void table_add(struct text_table *t, const char *cell);
/* The same for a number; NaN is "-". */
void table_number(struct text_table *t, const char *fmt, double v)
	__attribute__((format(printf, 2, 0)));
/* Prints all of it, and empties it. */
void table_print(struct text_table *t);

/* Places that a text takes on a terminal. */
size_t text_width(const char *s);
/* COLUMNS, else the terminal's width, else 100. */
size_t terminal_width(void);

#endif
