/*
 * tables/registry.c: the list of tables, from tables.def.
 */
#include "tables/tables_private.h"

static const struct lens_table_type *registered(enum lens_table t)
{
	static const struct lens_table_type *const types[] = {
#define LENS_TABLE(id, ...) &lens_table_##id,
#define LENS_TABLE_ALSO LENS_TABLE
#include "h5lens/tables.def"
	};

	return types[t];
}

bool lens_table_has_positions(enum lens_table t, enum lens_positions_key key)
{
	return registered(t)->at_all_pos && registered(t)->positions_key == key;
}

const struct lens_table_type *lens_table_type(enum lens_table t,
					      const struct lens_tables_options *opt)
{
	const struct lens_table_type *type = registered(t);
	enum lens_read_at at = type->positions_key == LENS_ATTRS_POSITIONS
				       ? opt->attrs_positions
				       : opt->lens_positions;

	if (at == LENS_READ_AT_ALL && type->at_all_pos)
		return type->at_all_pos;
	return opt->answer_tokens == LENS_ANSWERS_OF_ANY && type->of_any ? type->of_any : type;
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
