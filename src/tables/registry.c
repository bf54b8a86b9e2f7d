/*
 * tables/registry.c: the list of tables, from tables.def.
 */
#include "tables/tables_private.h"

const struct lens_table_type *lens_table_type(enum lens_table t)
{
	static const struct lens_table_type *const types[] = {
#define LENS_TABLE(id, ...) &lens_table_##id,
#define LENS_TABLE_ALSO LENS_TABLE
#include "h5lens/tables.def"
	};

	return types[t];
}

const char *lens_table_name(enum lens_table t)
{
	static const char *const names[] = {
#define LENS_TABLE(id, ...) #id,
#define LENS_TABLE_ALSO LENS_TABLE
#include "h5lens/tables.def"
	};

	return names[t];
}

const char *lens_table_group(enum lens_table t)
{
	static const char *const groups[] = {
#define LENS_TABLE(id, ...) #id,
#define LENS_TABLE_ALSO(id, other) #other,
#include "h5lens/tables.def"
	};

	return groups[t];
}
