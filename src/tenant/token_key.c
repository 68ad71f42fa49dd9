/*
 * token_key.c
 *
 * The keys that tokens are signed with: rows of rowkeeper._token_key, which
 * nobody is granted and which a forced row security without a policy keeps
 * from those who may read all data. Read under a catalog snapshot, which a
 * check hook may use before the transaction has one of its own, into a cache
 * of the session that is thrown away when a key is added or dropped: keys
 * change without a restart.
 */
#include "tenant/tenant.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#define MIN_SECRET_LENGTH 32	/* RFC 7518: as long as the hash */
#define MAX_SECRET_LENGTH 1024	/* no TOAST, which has no row security */

enum
{
	KEY_KID = 1, KEY_SECRET, KEY_NOT_BEFORE, KEY_NOT_AFTER, KEY_TENANT_CLAIM,
	KEY_USER_CLAIM, KEY_AUDIENCE, KEY_COLUMNS = KEY_AUDIENCE
};

static MemoryContext keys_context = NULL;
static List *keys = NIL;		/* of RkTokenKey */
static bool keys_complete = false;	/* false: reading them failed */
static Oid	keys_table = InvalidOid;	/* InvalidOid: read them again */

PG_FUNCTION_INFO_V1(rowkeeper_tenant_key_add);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_key_drop);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_has_keys);

/* ---- the cache ---- */

static char *
text_column(Datum *values, bool *nulls, int column)
{
	return nulls[column - 1] ? NULL : TextDatumGetCString(values[column - 1]);
}

static RkTokenKey *
read_key(HeapTuple tuple, TupleDesc desc)
{
	Datum		values[KEY_COLUMNS];
	bool		nulls[KEY_COLUMNS];
	RkTokenKey *key = palloc0(sizeof(RkTokenKey));

	heap_deform_tuple(tuple, desc, values, nulls);
	key->kid = text_column(values, nulls, KEY_KID);
	key->secret = DatumGetByteaPCopy(values[KEY_SECRET - 1]);
	key->not_before = nulls[KEY_NOT_BEFORE - 1] ? DT_NOBEGIN
		: DatumGetTimestampTz(values[KEY_NOT_BEFORE - 1]);
	key->not_after = nulls[KEY_NOT_AFTER - 1] ? DT_NOEND
		: DatumGetTimestampTz(values[KEY_NOT_AFTER - 1]);
	key->tenant_claim = text_column(values, nulls, KEY_TENANT_CLAIM);
	key->user_claim = text_column(values, nulls, KEY_USER_CLAIM);
	key->audience = text_column(values, nulls, KEY_AUDIENCE);
	return key;
}

/*
 * The table of keys, or InvalidOid. In a database without the extension, where
 * the library may be preloaded all the same, a table of that name is anybody's.
 */
static Oid
find_keys_table(void)
{
	Oid			extension = get_extension_oid("rowkeeper", true);
	Oid			schema = get_namespace_oid("rowkeeper", true);
	Oid			table = OidIsValid(schema) ? get_relname_relid("_token_key", schema) : InvalidOid;

	return OidIsValid(extension) && OidIsValid(table) &&
		getExtensionOfObject(RelationRelationId, table) == extension ? table : InvalidOid;
}

static void
read_keys(void)
{
	Oid			table = find_keys_table();
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	MemoryContext old;

	if (keys_context == NULL)
		keys_context = AllocSetContextCreate(CacheMemoryContext, "rowkeeper token keys",
											 ALLOCSET_SMALL_SIZES);
	MemoryContextReset(keys_context);
	keys = NIL;
	keys_complete = false;
	if (!OidIsValid(table))
		return;

	rel = table_open(table, AccessShareLock);
	if (RelationGetDescr(rel)->natts != KEY_COLUMNS)
		elog(ERROR, "table of keys has unexpected columns");
	keys_table = table;
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	old = MemoryContextSwitchTo(keys_context);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		keys = lappend(keys, read_key(tuple, RelationGetDescr(rel)));
	MemoryContextSwitchTo(old);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	keys_complete = true;
}

static List *
current_keys(void)
{
	AcceptInvalidationMessages();
	if (!OidIsValid(keys_table) || !keys_complete)
		read_keys();
	return keys;
}

static void
forget_keys(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == keys_table)
		keys_table = InvalidOid;
}

/* The key of a name; of NULL the only key there is. NULL: there is none. */
const RkTokenKey *
rk_token_key_find(const char *kid)
{
	List	   *known = current_keys();
	ListCell   *lc;

	if (kid == NULL)
		return list_length(known) == 1 ? linitial(known) : NULL;
	foreach(lc, known)
		if (strcmp(((RkTokenKey *) lfirst(lc))->kid, kid) == 0)
		return lfirst(lc);
	return NULL;
}

/* The key that became valid last, of those that are valid now. */
const RkTokenKey *
rk_token_key_newest(void)
{
	TimestampTz now = GetCurrentTimestamp();
	const RkTokenKey *newest = NULL;
	ListCell   *lc;

	foreach(lc, current_keys())
	{
		const RkTokenKey *key = lfirst(lc);

		if (key->not_before <= now && now < key->not_after &&
			(newest == NULL || key->not_before >= newest->not_before))
			newest = key;
	}
	return newest;
}

/* rowkeeper._tenant_has_keys() returns boolean: whether there is any key, for the doctor. */
Datum
rowkeeper_tenant_has_keys(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(current_keys() != NIL);
}

/* ---- adding and dropping ---- */

/* Every session reads the keys again once this transaction commits. */
static void
announce_change(void)
{
	CacheInvalidateRelcacheByRelid(find_keys_table());
}

static void
check_superuser(void)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser may change the keys of tokens")));
}

static void
check_named(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument) ||
		VARSIZE_ANY_EXHDR(DatumGetPointer(PG_GETARG_DATUM(argument))) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be NULL or empty", name)));
}

/*
 * rowkeeper.tenant_key_add(kid text, secret bytea, not_before timestamptz,
 * not_after timestamptz, tenant_claim text, user_claim text, audience text)
 * returns text, the kid: a key that tokens may be signed with. Superusers
 * only. Locks: ROW EXCLUSIVE on the table of keys. 22023 for a secret of less
 * than 32 or more than 1024 bytes or an empty name; 23505 for a kid there is already.
 */
Datum
rowkeeper_tenant_key_add(PG_FUNCTION_ARGS)
{
	Oid			types[KEY_COLUMNS] = {TEXTOID, BYTEAOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[KEY_COLUMNS];
	char		nulls[KEY_COLUMNS + 1] = {0};

	check_superuser();
	check_named(fcinfo, 0, "kid");
	check_named(fcinfo, 4, "tenant_claim");
	check_named(fcinfo, 5, "user_claim");
	if (PG_ARGISNULL(1) || VARSIZE_ANY_EXHDR(PG_GETARG_BYTEA_PP(1)) < MIN_SECRET_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the secret of a key must have at least %d bytes", MIN_SECRET_LENGTH),
				 errhint("For example gen_random_bytes(32) of pgcrypto.")));
	if (VARSIZE_ANY_EXHDR(PG_GETARG_BYTEA_PP(1)) > MAX_SECRET_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the secret of a key must have at most %d bytes", MAX_SECRET_LENGTH)));
	for (int i = 0; i < KEY_COLUMNS; i++)
	{
		values[i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper._token_key (kid, secret, not_before, not_after, tenant_claim, user_claim, audience)"
					   " VALUES ($1, $2, $3, $4, $5, $6, $7)",
					   KEY_COLUMNS, types, values, nulls);
	announce_change();
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}

/*
 * rowkeeper.tenant_key_drop(kid text) returns text, the kid: tokens signed with
 * it are refused from the commit on. Superusers only. 42704 where there is none.
 */
Datum
rowkeeper_tenant_key_drop(PG_FUNCTION_ARGS)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1];

	check_superuser();
	check_named(fcinfo, 0, "kid");
	values[0] = PG_GETARG_DATUM(0);
	if (rk_run_args(rk_extension_owner(), "DELETE FROM rowkeeper._token_key WHERE kid = $1",
					1, types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no key \"%s\"", TextDatumGetCString(values[0]))));
	announce_change();
	PG_RETURN_DATUM(values[0]);
}

void
rk_token_key_init(void)
{
	rk_relcache_listen(forget_keys);
}
