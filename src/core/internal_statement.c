/*
 * internal_statement.c
 *
 * The one way by which the extension runs statements of its own. A statement
 * runs as a named role (a table's owner, or the extension's owner for the
 * log), outside the row security that this owner has forced on himself, and
 * under fixed settings: search_path above all, so that nobody's objects stand
 * in for the catalog's, and everything that changes how values are read or
 * where tables go. Without NOFORCE_RLS an owner under forced row security
 * sees no rows, and a validation "succeeds".
 *
 * DDL of ours is not told to the features that listen (rk_in_own_statement()).
 * Queries and DML are another matter: they reach users' code, be it a trigger,
 * a domain's check or a cast, and what that creates must be heard. So only
 * rk_run() and rk_run_step(), which take DDL, and rk_identity_own_ddl() are
 * passed over.
 *
 * An error unwinds by itself: the (sub)transaction's abort restores user,
 * security context and settings.
 */
#include "rowkeeper.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/syscache.h"

static const struct
{
	const char *name;
	const char *value;
}			pinned_settings[] =

{
	{"search_path", "pg_catalog, pg_temp"},
	{"DateStyle", "ISO, YMD"},
	{"TimeZone", "UTC"},
	{"IntervalStyle", "postgres"},
	{"row_security", "on"},
	{"default_tablespace", ""},
	{"default_table_access_method", "heap"},
	{"check_function_bodies", "off"},
	{"jit", "off"},				/* compiling takes longer than they do */
	{"quote_all_identifiers", "off"},
};

static void
set_own_statement(bool own)
{
	(void) set_config_option("rowkeeper.own_statement", own ? "on" : "off", PGC_INTERNAL,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/* ---- plans made past forced row security ---- */

static bool plans_at_risk = false;	/* in this transaction */
static bool plans_forgotten = false;	/* since it was said last */

static void
forget_plans_at_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			rk_plans_forget();
			plans_at_risk = false;
			break;
		default:
			break;
	}
}

static void
forget_plans_of_subtransaction(SubXactEvent event, SubTransactionId mine,
							   SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		rk_plans_forget();
}

/*
 * From here on users' code (their triggers, above all) may run past the row
 * security that an owner has forced on himself. The session's plan cache does
 * not look at that: plans from before would be held to it, and the owner's next
 * call of a function that is planned now would be shown all rows. So what was
 * planned is forgotten here, and again by rk_plans_forget(), which whoever says
 * this says when it is over; where that is an error, the end of the
 * (sub)transaction does.
 */
void
rk_plans_at_risk(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(forget_plans_at_end, NULL);
		RegisterSubXactCallback(forget_plans_of_subtransaction, NULL);
		registered = true;
	}
	if (!plans_forgotten)
		ResetPlanCache();
	plans_at_risk = plans_forgotten = true;
}

/* Plans that were made since rk_plans_at_risk() are made anew. */
void
rk_plans_forget(void)
{
	if (plans_at_risk)
		ResetPlanCache();
	plans_forgotten = false;
}

/* ---- identities ---- */

/*
 * The pinned settings for a whole process, which runs commands of ours only;
 * within a transaction.
 */
void
rk_settings_pin(void)
{
	for (int i = 0; i < lengthof(pinned_settings); i++)
		SetConfigOption(pinned_settings[i].name, pinned_settings[i].value,
						PGC_USERSET, PGC_S_SESSION);
}

/*
 * Become "role" under the pinned settings, remembering what was in *saved.
 * restricted: for work on users' tables in maintenance, where their code must
 * not be able to leave anything behind in the session.
 */
void
rk_identity_assume(RkIdentity *saved, Oid role, bool restricted)
{
	GetUserIdAndSecContext(&saved->user, &saved->sec_context);
	SetUserIdAndSecContext(role,
						   saved->sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS |
						   (restricted ? SECURITY_RESTRICTED_OPERATION : 0));

	saved->users_code = false;
	saved->guc_level = NewGUCNestLevel();
	set_own_statement(false);
	for (int i = 0; i < lengthof(pinned_settings); i++)
		(void) set_config_option(pinned_settings[i].name, pinned_settings[i].value,
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * The same for queries of users' tables. To plan one is to run users' code, too:
 * what the expressions of their indexes and statistics call. So where the role
 * is not who we are, it can leave nothing behind in the session.
 */
void
rk_identity_assume_reader(RkIdentity *saved, Oid role)
{
	rk_identity_assume(saved, role, role != GetUserId());
}

/*
 * Become the owner of a user's table, to change rows of it: his triggers run
 * as he, with the settings of the session, its search_path above all. So the
 * statement itself must name everything with its schema. Where he is not who
 * we were, his code can leave nothing behind in the session; deferred
 * triggers, which would fire as somebody else, are an error then: make
 * constraints immediate before.
 */
void
rk_identity_assume_owner(RkIdentity *saved, Oid owner)
{
	GetUserIdAndSecContext(&saved->user, &saved->sec_context);
	SetUserIdAndSecContext(owner,
						   saved->sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS |
						   (owner != saved->user ? SECURITY_RESTRICTED_OPERATION : 0));
	saved->users_code = true;
	rk_plans_at_risk();
	saved->guc_level = NewGUCNestLevel();
	set_own_statement(false);
	(void) set_config_option("row_security", "on", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* DDL from here to rk_identity_restore() is ours. */
void
rk_identity_own_ddl(void)
{
	set_own_statement(true);
}

void
rk_identity_restore(const RkIdentity *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->user, saved->sec_context);
	if (saved->users_code)
		rk_plans_forget();
}

/*
 * SET CONSTRAINTS ALL IMMEDIATE: what is deferred fires now, and what comes
 * does not wait for the commit.
 */
void
rk_constraints_immediate(void)
{
	AfterTriggerSetState(makeNode(ConstraintsSetStmt));
}

/* Whether the running statement is one of ours; no user can set this. */
bool
rk_in_own_statement(void)
{
	return rk_own_statement;
}

/* The owner of the extension, who owns the log as well. */
Oid
rk_extension_owner(void)
{
	Relation	catalog = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("rowkeeper"));
	scan = systable_beginscan(catalog, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"rowkeeper\" is not installed in this database")));
	return owner;
}

/*
 * A statement that is run again and again, planned once a session and for any
 * parameters; within SPI. It names everything with its schema where it is run
 * under a search_path that others set.
 */
SPIPlanPtr
rk_plan_once(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types)
{
	if (*plan == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare_cursor(sql, nargs, types, CURSOR_OPT_GENERIC_PLAN);

		if (prepared == NULL || SPI_keepplan(prepared) != 0)
			elog(ERROR, "could not prepare \"%s\"", sql);
		*plan = prepared;
	}
	return *plan;
}

static uint64
run(Oid role, bool own, const char *sql, int nargs, Oid *types, Datum *values,
	const char *nulls)
{
	RkIdentity	saved;
	uint64		processed;
	int			result;

	rk_identity_assume(&saved, role, false);
	if (own)
		rk_identity_own_ddl();
	SPI_connect();
	result = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
	processed = SPI_processed;
	SPI_finish();
	rk_identity_restore(&saved);
	return processed;
}

/*
 * Run one statement of ours as "role": DDL that no listener hears of, or DML
 * on what is ours, never DML on a user's table. Returns the number of rows it
 * processed.
 */
uint64
rk_run(Oid role, const char *sql)
{
	return run(role, true, sql, 0, NULL, NULL, NULL);
}

/* DML, or a query, with parameters; nulls as SPI has them ('n' for NULL). */
uint64
rk_run_args(Oid role, const char *sql, int nargs, Oid *types, Datum *values,
			const char *nulls)
{
	return run(role, false, sql, nargs, types, values, nulls);
}

/*
 * Run a query as "role" and return the first column of its first row, copied
 * into the caller's memory context; *isnull is also set where there is no row.
 */
Datum
rk_fetch(Oid role, const char *sql, int nargs, Oid *types, Datum *values,
		 const char *nulls, bool *isnull)
{
	RkIdentity	saved;
	Datum		value = (Datum) 0;
	int			result;

	*isnull = true;
	rk_identity_assume_reader(&saved, role);
	SPI_connect();
	result = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 1);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
	if (SPI_processed > 0)
	{
		TupleDesc	desc = SPI_tuptable->tupdesc;

		value = SPI_getbinval(SPI_tuptable->vals[0], desc, 1, isnull);
		if (!*isnull)
			value = SPI_datumTransfer(value,
									  TupleDescAttr(desc, 0)->attbyval,
									  TupleDescAttr(desc, 0)->attlen);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return value;
}

/* As rk_fetch_text_about(), as the extension's owner, of a query that is planned once. */
char *
rk_fetch_text_planned(SPIPlanPtr *plan, Oid object, const char *sql)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(object)};
	MemoryContext caller = CurrentMemoryContext;
	char	   *answer = NULL;
	RkIdentity	saved;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_plan(rk_plan_once(plan, sql, 1, types), values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", sql);
	if (SPI_processed > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		answer = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return answer;
}

/*
 * Run a query of ours as the caller, under the pinned settings, and return
 * the OIDs in its first column.
 */
List *
rk_fetch_oids(const char *sql)
{
	List	   *oids = NIL;
	MemoryContext caller = CurrentMemoryContext;
	RkIdentity	saved;

	rk_identity_assume(&saved, GetUserId(), false);
	SPI_connect();
	if (SPI_execute(sql, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", sql);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		oid = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(caller);

		oids = lappend_oid(oids, DatumGetObjectId(oid));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return oids;
}

/* The one value of a query about an object, which is $1. */
Datum
rk_fetch_about(Oid role, Oid object, const char *sql, bool *isnull)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(object)};

	return rk_fetch(role, sql, 1, types, values, NULL, isnull);
}

/* The same of a text; NULL where it is null or there is no row. */
char *
rk_fetch_text_about(Oid role, Oid object, const char *sql)
{
	bool		isnull;
	Datum		value = rk_fetch_about(role, object, sql, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* Whether a query about an object has a row, whose first value is not null. */
bool
rk_exists_about(Oid role, Oid object, const char *sql)
{
	bool		isnull;

	(void) rk_fetch_about(role, object, sql, &isnull);
	return !isnull;
}

/* The texts in the first column of a query about an object. */
List *
rk_fetch_texts_about(Oid role, Oid object, const char *sql)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(object)};
	List	   *texts = NIL;
	RkIdentity	saved;

	rk_identity_assume(&saved, role, false);
	SPI_connect();
	/* not read-only: it sees what this command did before */
	if (SPI_execute_with_args(sql, 1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", sql);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *text = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		MemoryContext old = MemoryContextSwitchTo(caller);

		texts = lappend(texts, pstrdup(text));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return texts;
}

/* Run a statement about an object, which is $1; as rk_run_args(). */
uint64
rk_run_about(Oid role, Oid object, const char *sql)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(object)};

	return rk_run_args(role, sql, 1, types, values, NULL);
}

/* A step is put together of names: what is more than one statement is an attack. */
static void
check_is_one(const char *sql)
{
	if (list_length(raw_parser(sql, RAW_PARSE_DEFAULT)) != 1)
		elog(ERROR, "not one statement: \"%s\"", sql);
}

/* Run a statement and show it as a step of the call (fcinfo NULL: only run). */
void
rk_run_step(FunctionCallInfo fcinfo, Oid role, const char *sql)
{
	check_is_one(sql);
	(void) rk_run(role, sql);
	if (fcinfo != NULL)
		rk_step(fcinfo, sql);
}

/*
 * Run DDL on a user's table and show it as a step. It is done for the user,
 * so every feature hears of it as if he had done it himself.
 */
void
rk_run_ddl_step(FunctionCallInfo fcinfo, Oid role, const char *sql)
{
	check_is_one(sql);
	(void) run(role, false, sql, 0, NULL, NULL, NULL);
	if (fcinfo != NULL)
		rk_step(fcinfo, sql);
}

/*
 * A name and what is to follow it. Where that is too long the name is cut, and
 * a hash of the whole keeps apart two that begin alike.
 */
char *
rk_name_fit(const char *name, const char *suffix)
{
	int			room = NAMEDATALEN - 1 - (int) strlen(suffix);
	int			length = strlen(name);

	if (length <= room)
		return psprintf("%s%s", name, suffix);
	return psprintf("%.*s_%08x%s", pg_mbcliplen(name, length, room - 9), name,
					hash_bytes((const unsigned char *) name, length), suffix);
}

Oid
rk_relation_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* The relation's name as SQL takes it anywhere: schema-qualified, quoted. */
char *
rk_relation_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		elog(ERROR, "cache lookup failed for relation %u", relid);
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name);
}
