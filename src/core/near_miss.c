/*
 * near_miss.c
 *
 * Columns that are named almost like one that a feature looks for: an
 * application whose rows have "updatedAt" must not get a second column that it
 * does not know.
 */
#include "rowkeeper.h"

#include "utils/rel.h"

/* Names that differ in what naming habits differ in: case and underscores. */
static bool
names_alike(const char *a, const char *b)
{
	for (;;)
	{
		while (*a == '_')
			a++;
		while (*b == '_')
			b++;
		if (pg_ascii_tolower((unsigned char) *a) != pg_ascii_tolower((unsigned char) *b))
			return false;
		if (*a == '\0')
			return true;
		a++;
		b++;
	}
}

/* A column named almost like one that the relation does not have, or NULL. */
Form_pg_attribute
rk_near_miss(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped && names_alike(NameStr(column->attname), name))
			return column;
	}
	return NULL;
}
