/*
 * history.c
 *
 * audit_history(): the entries of one row.
 *
 * A row whose key was changed has its entries under several keys. The UPDATE
 * that changed it is under the old key and says the new one; a link beside it,
 * under the new key, leads back. Of the key that was asked for, all entries
 * belong to the answer; of a key that a change leads to, only those of the one
 * life, from INSERT to DELETE, that the change was part of.
 */
#include "audit/history.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"

PG_FUNCTION_INFO_V1(rowkeeper_audit_history);
PG_FUNCTION_INFO_V1(rowkeeper_audit_history_key);

/* ---- rows whose key was changed ---- */

/* The entries of a key that an entry refers to; NULL: there can be none. */
static RkKeyEntries *
get_key_entries(RkHistory *history, Jsonb *key)
{
	ListCell   *lc;
	int32		hash;

	foreach(lc, history->keys)
	{
		RkKeyEntries *known = lfirst(lc);

		if (rk_audit_same_key(known->key, key))
			return known;
	}
	return rk_audit_key_hash_stored(history, key, &hash) ? rk_audit_log_read(history, key, hash) : NULL;
}

/* Whether an entry is the last of a row's life under its key. */
static bool
ends_life(const RkHistoryEntry *entry)
{
	return entry->kind == RK_DELETE || rk_audit_changed_key(entry) != NULL;
}

/*
 * Whether another row had the key when an entry was written and left it later
 * in the same transaction, as a deferrable key allows. Who came first leaves
 * first.
 */
static bool
is_crowded(const RkKeyEntries *life, int i)
{
	int			end = i + 1;

	if (i == 0 || ends_life(&life->entries[i - 1]))
		return false;
	while (end < life->count && !ends_life(&life->entries[end]))
		end++;
	return end < life->count && life->entries[end].txid == life->entries[i].txid;
}

/* The life of a key that begins with a change to it, after the entry "id". */
static void
follow_forward(RkHistory *history, Jsonb *key, int64 id)
{
	while (key != NULL)
	{
		RkKeyEntries *life = get_key_entries(history, key);
		int			i = 0;

		key = NULL;
		if (life == NULL)
			return;
		while (i < life->count && life->entries[i].id <= id)
			i++;
		if (i < life->count && life->entries[i].action == RK_LOG_KEY_LINK)
		{
			/* the link of this very change */
			if (is_crowded(life, i++))
			{
				while (i < life->count && !ends_life(&life->entries[i]))
					i++;
				i++;
			}
		}
		for (; i < life->count; i++)
		{
			RkHistoryEntry *entry = &life->entries[i];

			if (entry->taken || entry->kind == RK_INSERT ||
				entry->action == RK_LOG_KEY_LINK)
				return;			/* known already, or another row's life */
			entry->taken = true;
			if (entry->kind == RK_DELETE)
				return;
			key = rk_audit_changed_key(entry);
			if (key != NULL)
			{
				id = entry->id;
				break;
			}
		}
	}
}

/* The life of a key that ends with a change of it, before the link "id". */
static void
follow_backward(RkHistory *history, Jsonb *key, int64 id)
{
	while (key != NULL)
	{
		RkKeyEntries *life = get_key_entries(history, key);
		bool		last = true;

		key = NULL;
		if (life == NULL)
			return;
		for (int i = life->count - 1; i >= 0; i--)
		{
			RkHistoryEntry *entry = &life->entries[i];

			if (entry->id >= id)
				continue;
			if ((entry->action == RK_LOG_KEY_LINK || entry->kind == RK_INSERT) &&
				is_crowded(life, i))
				continue;		/* another row, before ours had left */
			if (entry->taken || entry->kind == RK_DELETE)
				return;
			if (entry->action == RK_LOG_KEY_LINK)
			{
				key = entry->old_data;
				id = entry->id;
				break;
			}
			if (!last && rk_audit_changed_key(entry) != NULL)
				return;			/* an earlier row went away from this key */
			last = false;
			entry->taken = true;
			if (entry->kind == RK_INSERT)
				return;
		}
	}
}

/* Take all entries of the key that was asked for, and follow its changes. */
static void
take_history(RkHistory *history, RkKeyEntries *asked)
{
	for (int i = 0; i < asked->count; i++)
		asked->entries[i].taken = asked->entries[i].action != RK_LOG_KEY_LINK;
	for (int i = 0; i < asked->count; i++)
	{
		RkHistoryEntry *entry = &asked->entries[i];
		Jsonb	   *key;

		if (entry->action == RK_LOG_KEY_LINK)
			follow_backward(history, entry->old_data, entry->id);
		else if ((key = rk_audit_changed_key(entry)) != NULL)
			follow_forward(history, key, entry->id);
	}
}

/* ---- what a tenant sees ---- */

static bool
is_of_tenant(const RkHistory *history, const text *tenant)
{
	return tenant != NULL && history->tenant != NULL &&
		VARSIZE_ANY_EXHDR(tenant) == VARSIZE_ANY_EXHDR(history->tenant) &&
		memcmp(VARDATA_ANY(tenant), VARDATA_ANY(history->tenant), VARSIZE_ANY_EXHDR(tenant)) == 0;
}

/*
 * Whether an entry is shown to who asks, as audit_log would: of a row that
 * changed its tenant each of both sees his half, what is not is taken out.
 */
static bool
show_to_tenant(const RkHistory *history, RkHistoryEntry *entry)
{
	bool		was_his;
	bool		is_his;

	if (!history->of_tenant)
		return true;
	if (entry->id < history->tenant_from)
		return false;
	was_his = is_of_tenant(history, entry->tenant);
	is_his = is_of_tenant(history, entry->new_tenant);
	if (entry->new_tenant == NULL)
		return was_his;
	if (!was_his)
	{
		Jsonb	   *key = rk_audit_changed_key(entry);

		if (key != NULL)
			entry->record_id = key;
		entry->old_data = NULL;
	}
	if (!is_his)
		entry->new_data = NULL;
	entry->tenant = history->tenant;
	return was_his || is_his;
}

/*
 * What the caller, whom row security holds, sees of a table's entries: 0 none,
 * 1 his tenant's, a uuid, 2 all, 3 his tenant's, as the claim is written.
 */
static int
sight_of(Oid root)
{
	Oid			types[1] = {REGCLASSOID};
	Datum		values[1] = {ObjectIdGetDatum(root)};
	bool		isnull;

	return DatumGetInt32(rk_fetch(GetUserId(), "SELECT rowkeeper._tenant_sight($1)",
								  1, types, values, NULL, &isnull));
}

/* Of the tenant that the transaction acts for; without one an error, as of the table. */
static void
show_tenant_only(RkHistory *history, bool is_uuid)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(history->table_id)};
	bool		isnull;
	Datum		value;

	value = rk_fetch(GetUserId(), is_uuid ? "SELECT coalesce(rowkeeper._tenant_claim(), rowkeeper.tenant_text())"
					 : "SELECT rowkeeper.tenant_text()",
					 0, NULL, NULL, NULL, &isnull);
	history->tenant = isnull ? NULL : DatumGetTextPP(value);
	value = rk_fetch(rk_extension_owner(),
					 "SELECT tenant_from FROM rowkeeper_log.tables WHERE table_id = $1 AND to_id IS NULL",
					 1, types, values, NULL, &isnull);
	history->tenant_from = isnull ? 0 : DatumGetInt64(value);
}

/*
 * What is in the log from when the key had fewer columns, as it had before a
 * table was partitioned by one more: the row of that key has become this one,
 * unless this one began later.
 */
static void
take_narrower_key(RkHistory *history, const RkKeyEntries *asked, const Datum *values)
{
	if (asked->count > 0 && asked->entries[0].kind == RK_INSERT)
		return;
	for (int count = history->key_count - 1; count > 0; count--)
	{
		RkHistory	narrower = *history;
		RkKeyEntries *found;

		narrower.keys = NIL;
		narrower.key_count = count;
		narrower.key = rk_audit_key_create(RelationGetDescr(history->rel), history->key_columns, count);
		found = rk_audit_log_read(&narrower, rk_audit_key_encode(&narrower, values),
								  rk_audit_key_hash(narrower.key, values));
		if (found->count == 0)
			continue;
		take_history(&narrower, found);
		history->keys = list_concat(history->keys, narrower.keys);
		return;
	}
}

/* ---- the call ---- */

static void
put_history(ReturnSetInfo *result, RkHistory *history)
{
	List	   *taken = NIL;
	int			count = 0;
	RkHistoryEntry *entries;
	ListCell   *lc;

	foreach(lc, history->keys)
	{
		RkKeyEntries *known = lfirst(lc);

		for (int i = 0; i < known->count; i++)
			if (known->entries[i].taken)
				taken = lappend(taken, &known->entries[i]);
	}
	entries = palloc_extended(Max(1, list_length(taken)) * sizeof(RkHistoryEntry), MCXT_ALLOC_HUGE);
	foreach(lc, taken)
		entries[count++] = *(RkHistoryEntry *) lfirst(lc);
	qsort(entries, count, sizeof(RkHistoryEntry), rk_audit_compare_entries);
	for (int i = 0; i < count; i++)
		if (show_to_tenant(history, &entries[i]))
			rk_audit_log_put(result, history, &entries[i]);
}

/*
 * Whoever may read the whole table may read its history: SELECT on the table
 * (not on columns of it), and no row security that would hide rows from him.
 * Where it is that of tenants, he may read what is his. Returns what
 * sight_of() does.
 */
static int
check_may_read(Oid root)
{
	Oid			role = GetUserId();
	int			sight;

	if (has_privs_of_role(role, rk_extension_owner()))
		return 2;
	if (pg_class_aclcheck(root, role, ACL_SELECT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the history of %s", rk_relation_name(root)),
				 errhint("GRANT SELECT ON %s TO %s.", rk_relation_name(root),
						 quote_identifier(GetUserNameFromId(role, false)))));
	if (check_enable_rls(root, role, true) != RLS_ENABLED)
		return 2;
	sight = sight_of(root);
	if (sight == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the history of %s", rk_relation_name(root)),
				 errdetail("Row security hides rows of this table from you, and the history would show them."),
				 errhint("Ask as the table's owner or as a role with BYPASSRLS.")));
	return sight;
}

static void
begin_history(RkHistory *history, Oid target)
{
	int			sight;

	memset(history, 0, sizeof(RkHistory));
	history->root = rk_root_of(target);
	sight = check_may_read(history->root);
	history->of_tenant = sight != 2;
	if (!rk_audit_dictionary_find(history->root, &history->table_id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s was never audited", rk_relation_name(history->root)),
				 errhint("SELECT rowkeeper.audit(%s) begins its history.",
						 quote_literal_cstr(rk_relation_name(history->root)))));

	if (history->of_tenant)
		show_tenant_only(history, sight == 1);
	history->rel = table_open(history->root, AccessShareLock);
	history->key_columns = rk_audit_key_columns(history->rel, &history->key_count);
	if (history->key_columns == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s has no primary key any more", rk_relation_name(history->root)),
				 errhint("Its entries are in rowkeeper.audit_log.")));
	history->key = rk_audit_key_create(RelationGetDescr(history->rel),
									   history->key_columns, history->key_count);
}

static void
put_history_of(FunctionCallInfo fcinfo, RkHistory *history, char **texts)
{
	Datum	   *values = rk_audit_key_values(history, texts);
	RkKeyEntries *asked;

	rk_audit_log_open(history);
	asked = rk_audit_log_read(history, rk_audit_key_encode(history, values),
							  rk_audit_key_hash(history->key, values));
	take_history(history, asked);
	take_narrower_key(history, asked, values);
	put_history((ReturnSetInfo *) fcinfo->resultinfo, history);
	rk_audit_log_close(history);
	table_close(history->rel, NoLock);
}

/*
 * rowkeeper.audit_history(target regclass, VARIADIC key "any" | text[])
 *
 * The entries of one row, oldest first, also from before its key was changed
 * and after; of a partition: of its root. key: the primary key's values in its
 * order. No row: no entries. Locks: ACCESS SHARE on the table and the log.
 * Privileges: SELECT on the table, and no row security that applies to the
 * caller but that of tenant(), which shows him the entries of his rows; members
 * of the extension's owner always. Errors: 22004 null, 22023
 * wrong number of values, those of the key's types, 42501 not readable, 55000
 * never audited.
 */
Datum
rowkeeper_audit_history(PG_FUNCTION_ARGS)
{
	Oid			target = rk_target_argument(fcinfo);
	RkHistory	history;
	char	  **texts;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	begin_history(&history, target);
	if (type_is_array(get_fn_expr_argtype(fcinfo->flinfo, 1)) &&
		get_fn_expr_variadic(fcinfo->flinfo))
	{
		if (PG_ARGISNULL(1))
			rk_audit_key_refuse(&history, "the array of key values must not be null");
		texts = rk_audit_key_of_array(&history, PG_GETARG_ARRAYTYPE_P(1));
	}
	else
		texts = rk_audit_key_of_arguments(&history, fcinfo);
	put_history_of(fcinfo, &history, texts);
	return (Datum) 0;
}

/*
 * rowkeeper.audit_history(target regclass, key jsonb): the same with the key
 * as an object, {"id": 42}, or as a scalar where it has one column.
 */
Datum
rowkeeper_audit_history_key(PG_FUNCTION_ARGS)
{
	Oid			target = rk_target_argument(fcinfo);
	RkHistory	history;
	Jsonb	   *key;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	begin_history(&history, target);
	if (PG_ARGISNULL(1))
		rk_audit_key_refuse(&history, "key must not be null");
	key = PG_GETARG_JSONB_P(1);
	put_history_of(fcinfo, &history, rk_audit_key_of_jsonb(&history, key));
	return (Datum) 0;
}
