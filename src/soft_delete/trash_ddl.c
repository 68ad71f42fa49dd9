/*
 * trash_ddl.c
 *
 * What happens to tables in trash mode as objects, followed: what is kept of a
 * renamed column goes by its new name, partitions come and go, the view shows
 * the columns that the table has, and readers are those of the table. No DDL
 * fails because the trash cannot follow it, but for a partition that would
 * bring a trash of its own.
 */
#include "soft_delete/soft_delete.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#define MAX_NAMES 100			/* tries to find a free one */

/* ---- columns ---- */

/* What a column or key of the trash is called that is in the way of another one. */
static char *
name_aside(Oid root, Oid trash, const char *name)
{
	for (int i = 1; i <= MAX_NAMES; i++)
	{
		char	   *aside = rk_name_fit(name, i == 1 ? "_dropped" : psprintf("_dropped_%d", i));

		if (get_attnum(trash, aside) == InvalidAttrNumber && get_attnum(root, aside) == InvalidAttrNumber)
			return aside;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_COLUMN),
			 errmsg("no name is free for column \"%s\" of %s", name, rk_relation_name(trash))));
}

static void
rename_trash_column(Oid trash, const char *from, const char *to)
{
	rk_trash_run_as_owner(trash, psprintf("ALTER TABLE %s RENAME COLUMN %s TO %s", rk_relation_name(trash),
										  quote_identifier(from), quote_identifier(to)));
}

/*
 * A renamed column's values are under its new name from now on. What the trash
 * has of that name is of a column that was dropped, and moves aside. All that
 * runs as the trash's owner: his triggers and indexes are on it.
 */
static void
follow_rename(const RenameStmt *rename, Oid root, Oid trash)
{
	Oid			types[4] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[4];
	char	   *aside;
	bool		moves;			/* from a column of the trash to _extra */
	char	   *column;
	RkIdentity	saved;

	if ((rename->renameType != OBJECT_COLUMN && rename->renameType != OBJECT_ATTRIBUTE) ||
		get_attnum(root, rename->newname) == InvalidAttrNumber)
		return;
	column = psprintf("x.%s", quote_identifier(rename->subname));
	aside = name_aside(root, trash, rename->newname);
	moves = !rk_trash_is_own_column(rename->subname) && get_attnum(trash, rename->subname) > 0 &&
		rk_trash_is_own_column(rename->newname);
	values[0] = CStringGetTextDatum(rename->subname);
	values[1] = CStringGetTextDatum(rename->newname);
	values[2] = CStringGetTextDatum(aside);

	rk_identity_assume(&saved, rk_relation_owner(trash), true);
	SPI_connect();
	if (SPI_execute_with_args(psprintf("UPDATE %s x SET _extra = x._extra - $1 - $2"
									   " || CASE WHEN x._extra ? $2 THEN jsonb_build_object($3, x._extra -> $2) ELSE '{}' END"
									   " || CASE WHEN x._extra ? $1 THEN jsonb_build_object($2, x._extra -> $1) ELSE '{}' END"
									   " WHERE x._extra ?| ARRAY[$1, $2]", rk_relation_name(trash)),
							  3, types, values, NULL, false, 0) < 0 ||
		(moves &&
		 SPI_execute_with_args(psprintf("UPDATE %s x SET _extra = coalesce(x._extra, '{}') || jsonb_build_object($1,"
										" CASE WHEN %s IS NOT NULL THEN format('%%s', %s) END)"
										" WHERE NOT coalesce(x._extra ? $1, false)",
										rk_relation_name(trash), column, column),
							   1, types, &values[1], NULL, false, 0) < 0))
		elog(ERROR, "could not rename what is kept of a column");
	SPI_finish();
	rk_identity_restore(&saved);

	if (rk_trash_is_own_column(rename->newname) || rk_trash_is_own_column(rename->subname))
		return;
	if (get_attnum(trash, rename->newname) > 0)
		rename_trash_column(trash, rename->newname, aside);
	if (get_attnum(trash, rename->subname) > 0)
		rename_trash_column(trash, rename->subname, rename->newname);
}

/* ---- partitions ---- */

/* Partitions that came get their flush trigger; those that went lose it. */
static void
follow_partitions(Oid root)
{
	List	   *tree = rk_relation_tree(root, NoLock);
	ListCell   *lc;

	if (list_length(tree) > 1 || get_rel_relkind(root) == RELKIND_PARTITIONED_TABLE)
	{
		for_each_from(lc, tree, 1)
			rk_changes_follow_partition(root, lfirst_oid(lc));
		foreach(lc, rk_fetch_oids("SELECT f.tgrelid FROM pg_trigger f JOIN pg_class c ON c.oid = f.tgrelid"
								  " WHERE f.tgname = '" RK_FLUSH_TRIGGER "' AND c.relkind <> 'v'"
								  " AND NOT EXISTS (SELECT FROM pg_trigger r WHERE r.tgrelid = f.tgrelid"
								  "  AND r.tgname = '" RK_CHANGES_TRIGGER "')"))
			rk_flush_triggers_drop(NULL, lfirst_oid(lc));
	}
}

/* A partition with a trash of its own would keep rows of a table that has none. */
static void
refuse_partition_with_trash(Oid root, Oid attached)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(attached, NoLock))
		if (rk_trash_options_of(lfirst_oid(lc)) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot attach %s to %s: it keeps its deleted rows and the partitioned table does not",
						rk_relation_name(lfirst_oid(lc)), rk_relation_name(root)),
				 errhint("SELECT rowkeeper.soft_delete_off(%s) before, or SELECT rowkeeper.soft_delete(%s) after it.",
						 quote_literal_cstr(rk_relation_name(lfirst_oid(lc))),
						 quote_literal_cstr(rk_relation_name(root)))));
}

/* ---- events ---- */

/* A schema was renamed, and with it all its views. */
static void
schema_altered(const RkDdlCommand *command)
{
	ListCell   *lc;

	foreach(lc, rk_fetch_oids(psprintf("SELECT c.oid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
									   " WHERE c.relkind = 'v' AND c.relnamespace = %u"
									   " AND a.attnum = 1 AND a.attname = '_batch'", command->relid)))
		rk_trash_view_follow_name(lfirst_oid(lc));
}

static void
table_altered(const RkDdlCommand *command)
{
	Oid			root;
	Oid			trash;
	RkSoftDeleteOptions *options;

	if (get_rel_relkind(command->relid) != RELKIND_RELATION &&
		get_rel_relkind(command->relid) != RELKIND_PARTITIONED_TABLE)
		return;
	root = rk_root_of(command->relid);
	options = rk_trash_options_of(root);
	if (options == NULL && OidIsValid(command->attached) && !rk_is_loading_dump())
		refuse_partition_with_trash(root, command->attached);
	if (options == NULL || options->trash_table == NULL)
		return;

	/*
	 * also in a restore: one with --disable-triggers makes them fire less
	 * after it
	 */
	rk_changes_repair(command->relid, true);
	if (rk_is_loading_dump())
		return;
	follow_partitions(root);
	trash = rk_trash_relation(options->trash_table);
	if (!OidIsValid(trash) || root != command->relid)
		return;
	if (command->parsetree != NULL && IsA(command->parsetree, RenameStmt))
		follow_rename((const RenameStmt *) command->parsetree, root, trash);
	rk_trash_readers_repair(NULL, root);
	rk_trash_view_follow_columns(root, options);
}

static void
relation_altered(const RkDdlCommand *command)
{
	ListCell   *lc;

	if (get_rel_relkind(command->relid) == RELKIND_VIEW && !rk_is_loading_dump())
		rk_trash_view_follow_name(command->relid);
	foreach(lc, rk_relations_reached(command->relid))
	{
		RkDdlCommand reached = *command;

		reached.relid = lfirst_oid(lc);
		table_altered(&reached);
	}
}

void
rk_trash_ddl_init(void)
{
	static const RkEventListener listener = {
		.relation_altered = relation_altered,
		.schema_altered = schema_altered,
		.readers_altered = rk_trash_readers_altered
	};

	rk_events_listen(&listener);
}
