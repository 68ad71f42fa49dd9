/*
 * options.c
 *
 * What soft_delete() was told of a table: JSON in the arguments of a trigger
 * on the table, "rowkeeper_soft_delete" in flag mode, the trigger that feeds
 * the change batch in trash mode. So it survives dump and restore, reaches
 * every partition, and each change of it invalidates what is cached of the
 * table.
 */
#include "soft_delete/soft_delete.h"

#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_options);

static RkSoftDeleteOptions *
parse_options(Jsonb *stored)
{
	RkSoftDeleteOptions *options = palloc0(sizeof(RkSoftDeleteOptions));
	char	   *on_delete = rk_option_text(stored, "on_delete");

	options->deleted_at = rk_option_text(stored, "deleted_at");
	options->deleted_by = rk_option_text(stored, "deleted_by");
	options->batch = rk_option_text(stored, "batch");
	options->allow_hard = on_delete != NULL && strcmp(on_delete, "allow") == 0;
	options->view_schema = rk_option_text(stored, "view_schema");
	options->view_name = rk_option_text(stored, "view_name");
	options->keep = rk_option_text(stored, "keep");
	options->cascade = rk_option_boolean(stored, "cascade", true);
	options->adopted = rk_option_boolean(stored, "adopted", false);
	options->hidden = rk_option_boolean(stored, "hidden", false);
	options->grants = rk_option_names(stored, "grants");
	return options;
}

/* The options as the row trigger carries them; equal options are equal text. */
char *
rk_flag_options_format(const RkSoftDeleteOptions *options)
{
	JsonbParseState *state = NULL;
	ListCell   *lc;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	rk_option_push_text(&state, "mode", "flag");
	rk_option_push_text(&state, "deleted_at", options->deleted_at);
	rk_option_push_text(&state, "deleted_by", options->deleted_by);
	rk_option_push_text(&state, "batch", options->batch);
	rk_option_push_text(&state, "on_delete", options->allow_hard ? "allow" : "error");
	rk_option_push_text(&state, "view_schema", options->view_schema);
	rk_option_push_text(&state, "view_name", options->view_name);
	rk_option_push_text(&state, "keep", options->keep);
	rk_option_push_boolean(&state, "cascade", options->cascade);
	rk_option_push_boolean(&state, "adopted", options->adopted);
	if (options->hidden)
	{
		rk_option_push_boolean(&state, "hidden", true);
		rk_option_push(&state, WJB_KEY, "grants");
		pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
		foreach(lc, options->grants)
			rk_option_push(&state, WJB_ELEM, lfirst(lc));
		pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	}
	return rk_options_text(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static char *
flag_options_text(Oid root)
{
	RkTriggerRow row;

	if (!rk_trigger_read(root, RK_SOFT_DELETE_TRIGGER, "_soft_delete_row", &row) ||
		row.arguments == NIL)
		return NULL;
	return linitial(row.arguments);
}

/* The options of a table in flag mode; NULL where it is not. */
RkSoftDeleteOptions *
rk_flag_options_of(Oid root)
{
	char	   *text = flag_options_text(root);
	RkSoftDeleteOptions *options;

	options = text == NULL ? NULL
		: parse_options(DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text))));

	/* one that a user forged is refused, but seen until then */
	if (options != NULL && (options->deleted_at == NULL || options->batch == NULL ||
							options->view_schema == NULL || options->view_name == NULL))
		return NULL;
	return options;
}

/* The options of a table in either mode; NULL where it has no soft delete. */
RkSoftDeleteOptions *
rk_soft_delete_options_of(Oid root)
{
	RkSoftDeleteOptions *options = rk_flag_options_of(root);

	return options != NULL ? options : rk_trash_options_of(root);
}

/* Every table that has soft delete: roots. */
List *
rk_soft_delete_tables(void)
{
	List	   *tables = NIL;
	List	   *candidates = rk_fetch_oids("SELECT DISTINCT tgrelid FROM pg_trigger"
										   " WHERE tgname IN ('" RK_SOFT_DELETE_TRIGGER "', '" RK_CHANGES_TRIGGER "')"
										   " AND tgparentid = 0 ORDER BY tgrelid");
	ListCell   *lc;

	foreach(lc, candidates)
		if (rk_soft_delete_options_of(lfirst_oid(lc)) != NULL)
		tables = lappend_oid(tables, lfirst_oid(lc));
	return tables;
}

/*
 * rowkeeper._soft_delete_options(target regclass) returns jsonb: what
 * soft_delete() was told of a table, as pg_trigger shows it to everybody; NULL
 * where it has no soft delete. No locks on the table, no privileges.
 */
Datum
rowkeeper_soft_delete_options(PG_FUNCTION_ARGS)
{
	char	   *text = flag_options_text(PG_GETARG_OID(0));
	Jsonb	   *trash;

	if (text !=NULL)
		return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
	trash = rk_changes_options(PG_GETARG_OID(0), "trash");
	if (trash == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(trash);
}
