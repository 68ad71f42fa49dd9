/*
 * foreign_key.c
 *
 * Foreign keys between isolated tables. The server checks them past row
 * security, so by a key without the tenant a row may point to another
 * tenant's, and whoever tries learns which keys there are. tenant_fk() puts
 * the tenant into the key. Whether the rows that are there satisfy it we
 * count ourselves first: an owner whom row security is forced on sees none,
 * and his VALIDATE would find nothing wrong.
 */
#include "tenant/protect.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_constraint.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* A foreign key as it is. */
typedef struct ForeignKey
{
	char	   *name;
	int			count;
	AttrNumber	child[INDEX_MAX_KEYS];
	AttrNumber	parent[INDEX_MAX_KEYS];
	List	   *cleared;		/* AttrNumber; of ON DELETE SET */
	char		on_update;
	char		on_delete;
	char		match;
	bool		deferrable;
	bool		deferred;
	bool		valid;
} ForeignKey;

PG_FUNCTION_INFO_V1(rowkeeper_tenant_fk);

/* ---- reading ---- */

static int
read_numbers(HeapTuple tuple, TupleDesc desc, AttrNumber column, AttrNumber *numbers)
{
	bool		isnull;
	Datum		stored = heap_getattr(tuple, column, desc, &isnull);
	ArrayType  *array;

	if (isnull)
		return 0;
	array = DatumGetArrayTypeP(stored);
	memcpy(numbers, ARR_DATA_PTR(array), sizeof(AttrNumber) * ARR_DIMS(array)[0]);
	return ARR_DIMS(array)[0];
}

static ForeignKey *
read_key(HeapTuple tuple, TupleDesc desc)
{
	Form_pg_constraint constraint = (Form_pg_constraint) GETSTRUCT(tuple);
	ForeignKey *key = palloc0(sizeof(ForeignKey));
	AttrNumber	cleared[INDEX_MAX_KEYS];
	int			clears = read_numbers(tuple, desc, Anum_pg_constraint_confdelsetcols, cleared);

	key->name = pstrdup(NameStr(constraint->conname));
	key->count = read_numbers(tuple, desc, Anum_pg_constraint_conkey, key->child);
	(void) read_numbers(tuple, desc, Anum_pg_constraint_confkey, key->parent);
	for (int i = 0; i < clears; i++)
		key->cleared = lappend_int(key->cleared, cleared[i]);
	key->on_update = constraint->confupdtype;
	key->on_delete = constraint->confdeltype;
	key->match = constraint->confmatchtype;
	key->deferrable = constraint->condeferrable;
	key->deferred = constraint->condeferred;
	key->valid = constraint->convalidated;
	return key;
}

/* The foreign keys from one table to another. */
static List *
foreign_keys(Oid child, Oid parent)
{
	Relation	catalog = table_open(ConstraintRelationId, AccessShareLock);
	ScanKeyData scan_key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *keys = NIL;

	ScanKeyInit(&scan_key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(child));
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true, NULL, 1, &scan_key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint constraint = (Form_pg_constraint) GETSTRUCT(tuple);

		if (constraint->contype == CONSTRAINT_FOREIGN && constraint->confrelid == parent &&
			!OidIsValid(constraint->conparentid) && rk_is_enforced(constraint) &&
			!rk_is_temporal(constraint))
			keys = lappend(keys, read_key(tuple, RelationGetDescr(catalog)));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return keys;
}

static bool
has_number(const AttrNumber *numbers, int count, AttrNumber wanted)
{
	for (int i = 0; i < count; i++)
		if (numbers[i] == wanted)
			return true;
	return false;
}

/* Whether a key has this column of the child point to that one of the parent. */
static bool
has_pair(const ForeignKey *key, AttrNumber child, AttrNumber parent)
{
	for (int i = 0; i < key->count; i++)
		if (key->child[i] == child && key->parent[i] == parent)
			return true;
	return false;
}

/* The child's columns that ON DELETE SET clears. */
static Bitmapset *
cleared_columns(const ForeignKey *key)
{
	Bitmapset  *columns = NULL;

	if (key->on_delete == FKCONSTR_ACTION_SETNULL || key->on_delete == FKCONSTR_ACTION_SETDEFAULT)
		for (int i = 0; i < key->count; i++)
			if (key->cleared == NIL || list_member_int(key->cleared, key->child[i]))
				columns = bms_add_member(columns, key->child[i]);
	return columns;
}

/* Whether two keys do the same, and when. */
static bool
does_the_same(const ForeignKey *key, const ForeignKey *other)
{
	return key->on_update == other->on_update && key->on_delete == other->on_delete &&
		key->deferrable == other->deferrable && key->deferred == other->deferred &&
		bms_equal(cleared_columns(key), cleared_columns(other));
}

/* Whether a key is another one with the tenants of both in it. */
static bool
is_with_tenant(const ForeignKey *key, const ForeignKey *plain, AttrNumber child_tenant, AttrNumber parent_tenant)
{
	if (key->count != plain->count + 1 || !has_pair(key, child_tenant, parent_tenant))
		return false;
	for (int i = 0; i < plain->count; i++)
		if (!has_pair(key, plain->child[i], plain->parent[i]))
			return false;
	return true;
}

/* ---- writing ---- */

static char *
columns_of(Oid relid, const AttrNumber *numbers, int count)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < count; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", quote_identifier(get_attname(relid, numbers[i], false)));
	return list.data;
}

static char *
column_list(Oid relid, const char *tenant, const AttrNumber *numbers, int count)
{
	return psprintf("%s, %s", quote_identifier(tenant), columns_of(relid, numbers, count));
}

static const char *
action_name(char action)
{
	switch (action)
	{
		case FKCONSTR_ACTION_RESTRICT:
			return "RESTRICT";
		case FKCONSTR_ACTION_CASCADE:
			return "CASCADE";
		case FKCONSTR_ACTION_SETNULL:
			return "SET NULL";
		case FKCONSTR_ACTION_SETDEFAULT:
			return "SET DEFAULT";
		default:
			return "NO ACTION";
	}
}

/* ON DELETE SET NULL must not clear the tenant. */
static char *
delete_action(Oid child, const ForeignKey *key)
{
	AttrNumber	columns[INDEX_MAX_KEYS];
	int			count = 0;

	for (int column = -1; (column = bms_next_member(cleared_columns(key), column)) >= 0;)
		columns[count++] = column;
	return count == 0 ? pstrdup(action_name(key->on_delete)) :
		psprintf("%s (%s)", action_name(key->on_delete), columns_of(child, columns, count));
}

static char *
new_name(const ForeignKey *key)
{
	return makeObjectName(key->name, NULL, "tenant");
}

static char *
add_key_sql(Oid child, Oid parent, const char *child_tenant, const char *parent_tenant,
			const ForeignKey *key, bool validate)
{
	return psprintf("ALTER TABLE %s ADD CONSTRAINT %s FOREIGN KEY (%s) REFERENCES %s (%s)"
					" ON UPDATE %s ON DELETE %s%s%s%s",
					rk_relation_name(child), quote_identifier(new_name(key)),
					column_list(child, child_tenant, key->child, key->count),
					rk_relation_name(parent), column_list(parent, parent_tenant, key->parent, key->count),
					action_name(key->on_update), delete_action(child, key),
					key->deferrable ? " DEFERRABLE" : "",
					key->deferred ? " INITIALLY DEFERRED" : "",
					validate ? "" : " NOT VALID");
}

/* A role that sees all rows of both tables: an owner with the other's rights. */
static Oid
counting_role(Oid child, Oid parent)
{
	Oid			of_child = rk_relation_owner(child);
	Oid			of_parent = rk_relation_owner(parent);

	if (has_privs_of_role(of_child, of_parent))
		return of_child;
	if (!has_privs_of_role(of_parent, of_child))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s and %s have different owners, neither of whom sees all rows of both",
						rk_relation_name(child), rk_relation_name(parent)),
				 errhint("Let one own both, or grant \"%s\" to \"%s\" meanwhile.",
						 GetUserNameFromId(of_parent, false), GetUserNameFromId(of_child, false))));
	return of_parent;
}

/* Rows whose parent is another tenant's, or nobody's. */
static int64
count_violations(Oid child, Oid parent, const char *child_tenant, const char *parent_tenant,
				 const ForeignKey *key)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT count(*) FROM %s c WHERE NOT EXISTS (SELECT FROM %s p WHERE p.%s = c.%s",
					 rk_relation_name(child), rk_relation_name(parent),
					 quote_identifier(parent_tenant), quote_identifier(child_tenant));
	for (int i = 0; i < key->count; i++)
		appendStringInfo(&sql, " AND p.%s = c.%s",
						 quote_identifier(get_attname(parent, key->parent[i], false)),
						 quote_identifier(get_attname(child, key->child[i], false)));
	appendStringInfoChar(&sql, ')');
	for (int i = 0; i < key->count; i++)
		appendStringInfo(&sql, " AND c.%s IS NOT NULL",
						 quote_identifier(get_attname(child, key->child[i], false)));
	return rk_tenant_count(counting_role(child, parent), sql.data);
}

static void
check_violations(Oid child, Oid parent, const char *child_tenant, const char *parent_tenant,
				 const ForeignKey *key)
{
	int64		count = count_violations(child, parent, child_tenant, parent_tenant, key);

	if (count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg_plural(INT64_FORMAT " row of %s points to another tenant's row of %s",
							   INT64_FORMAT " rows of %s point to another tenant's row of %s",
							   count, count, rk_relation_name(child), rk_relation_name(parent)),
				 errdetail("Foreign key \"%s\" does not have the tenant in it.", key->name)));
}

/* ---- the parent's key ---- */

static bool
has_unique_key(Oid parent, const char *tenant, const ForeignKey *key)
{
	Relation	rel = table_open(parent, AccessShareLock);
	AttrNumber	number = get_attnum(parent, tenant);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		Form_pg_index form = index->rd_index;
		bool		fits = form->indisunique && form->indisvalid && form->indimmediate &&
			form->indnkeyatts == key->count + 1 && RelationGetIndexPredicate(index) == NIL &&
			has_number(form->indkey.values, form->indnkeyatts, number);

		for (int i = 0; i < key->count; i++)
			fits &= has_number(form->indkey.values, form->indnkeyatts, key->parent[i]);
		found |= fits;
		index_close(index, AccessShareLock);
	}
	table_close(rel, NoLock);
	return found;
}

static void
ensure_unique_key(FunctionCallInfo fcinfo, Oid parent, const char *tenant, const ForeignKey *key)
{
	char	   *columns = column_list(parent, tenant, key->parent, key->count);
	char	   *name = makeObjectName(get_rel_name(parent), "tenant", "key");

	if (has_unique_key(parent, tenant, key))
		return;
	if (rk_tenant_is_large(parent))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s has no unique key (%s), and is too large to make one here",
						rk_relation_name(parent), columns),
				 errhint("Run first, then call again:\nCREATE UNIQUE INDEX CONCURRENTLY %s ON %s (%s);\n"
						 "ALTER TABLE %s ADD CONSTRAINT %s UNIQUE USING INDEX %s;",
						 quote_identifier(name), rk_relation_name(parent), columns,
						 rk_relation_name(parent), quote_identifier(name), quote_identifier(name))));
	rk_run_ddl_step(fcinfo, rk_relation_owner(parent),
					psprintf("ALTER TABLE %s ADD UNIQUE (%s)", rk_relation_name(parent), columns));
}

/* ---- doing it ---- */

/* With the tenant in it a key is MATCH SIMPLE: rows without a tenant have one. */
static void
check_match(Oid child, const ForeignKey *plain)
{
	const char *columns;

	if (plain->match != FKCONSTR_MATCH_FULL || plain->count == 1)
		return;
	columns = columns_of(child, plain->child, plain->count);
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("foreign key \"%s\" of %s is MATCH FULL, which it cannot be with the tenant in it",
					plain->name, rk_relation_name(child)),
			 errhint("Make it MATCH SIMPLE, with CHECK (num_nulls(%s) IN (0, %d)) beside it.",
					 columns, plain->count)));
}

/* Beside one without an action, which fires first, a new key's would come too late. */
static void
check_substitute(Oid child, const ForeignKey *plain, const ForeignKey *with_tenant)
{
	if (!does_the_same(plain, with_tenant))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign key \"%s\" of %s has the tenant in it, but does not do what \"%s\" does",
						with_tenant->name, rk_relation_name(child), plain->name),
				 errhint("Give both the same ON DELETE, ON UPDATE and DEFERRABLE, or drop one of them.")));
}

static void
finish_key(FunctionCallInfo fcinfo, Oid child, const ForeignKey *plain)
{
	rk_run_ddl_step(fcinfo, rk_relation_owner(child),
					psprintf("ALTER TABLE %s DROP CONSTRAINT %s",
							 rk_relation_name(child), quote_identifier(plain->name)));
}

/*
 * A new key. Of a partitioned table it cannot be NOT VALID before 18, so there
 * the statement that adds it validates it, for us with all rows in view.
 */
static void
add_key(FunctionCallInfo fcinfo, Oid child, Oid parent, const char *child_tenant,
		const char *parent_tenant, const ForeignKey *plain)
{
	bool		at_once = get_rel_relkind(child) == RELKIND_PARTITIONED_TABLE || !rk_tenant_is_large(child);

	if (plain->on_update == FKCONSTR_ACTION_SETNULL || plain->on_update == FKCONSTR_ACTION_SETDEFAULT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign key \"%s\" of %s sets its columns ON UPDATE, and would set the tenant with them",
						plain->name, rk_relation_name(child))));
	if (at_once)
		check_violations(child, parent, child_tenant, parent_tenant, plain);
	ensure_unique_key(fcinfo, parent, parent_tenant, plain);
	rk_run_ddl_step(fcinfo, rk_relation_owner(child),
					add_key_sql(child, parent, child_tenant, parent_tenant, plain, at_once));
	if (at_once)
		finish_key(fcinfo, child, plain);
	else
		ereport(NOTICE,
				(errmsg("foreign key \"%s\" of %s holds for new rows", new_name(plain), rk_relation_name(child)),
				 errhint("Commit, then call again: that validates it, and writers go on.")));
}

/* One that was added before: validated, with all rows in view. */
static void
validate_key(FunctionCallInfo fcinfo, Oid child, Oid parent, const char *child_tenant,
			 const char *parent_tenant, const ForeignKey *plain, const ForeignKey *key)
{
	check_violations(child, parent, child_tenant, parent_tenant, plain);
	if (!key->valid)
		rk_run_ddl_step(fcinfo, rk_relation_owner(child),
						psprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s", rk_relation_name(child),
								 quote_identifier(key->name)));
	finish_key(fcinfo, child, plain);
}

static const char *
tenant_column(Oid relid)
{
	RkTenantOptions *options;

	rk_check_owner(relid);
	options = rk_tenant_options_of(relid);
	if (options == NULL || options->by[RK_CLAIM_TENANT] == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tenants in %s are not isolated", rk_relation_name(relid)),
				 errhint("SELECT rowkeeper.tenant(%s) first.", quote_literal_cstr(rk_relation_name(relid)))));
	if (options->shared)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s is shared: rows without a tenant fit no foreign key with the tenant in it",
						rk_relation_name(relid)),
				 errhint("Keep the key as it is, or SELECT rowkeeper.tenant(%s, shared => false) first.",
						 quote_literal_cstr(rk_relation_name(relid)))));
	return options->by[RK_CLAIM_TENANT];
}

static void
convert_keys(FunctionCallInfo fcinfo, Oid child, Oid parent)
{
	const char *child_tenant = tenant_column(child);
	const char *parent_tenant = tenant_column(parent);
	AttrNumber	child_number = get_attnum(child, child_tenant);
	AttrNumber	parent_number = get_attnum(parent, parent_tenant);
	List	   *keys;
	ListCell   *lc;

	LockRelationOid(child, ShareUpdateExclusiveLock);
	keys = foreign_keys(child, parent);
	if (keys == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s has no foreign key to %s", rk_relation_name(child), rk_relation_name(parent))));
	foreach(lc, keys)
	{
		const ForeignKey *plain = lfirst(lc);
		const ForeignKey *with_tenant = NULL;
		ListCell   *other;

		if (has_pair(plain, child_number, parent_number))
			continue;
		if (has_number(plain->child, plain->count, child_number))
		{
			ereport(WARNING,
					(errmsg("foreign key \"%s\" of %s stays as it is: its \"%s\" points to another column than the tenant of %s",
							plain->name, rk_relation_name(child), child_tenant, rk_relation_name(parent))));
			continue;
		}
		foreach(other, keys)
			if (is_with_tenant(lfirst(other), plain, child_number, parent_number))
			with_tenant = lfirst(other);
		check_match(child, plain);
		if (with_tenant != NULL)
		{
			check_substitute(child, plain, with_tenant);
			validate_key(fcinfo, child, parent, child_tenant, parent_tenant, plain, with_tenant);
		}
		else
			add_key(fcinfo, child, parent, child_tenant, parent_tenant, plain);
	}
}

/*
 * rowkeeper.tenant_fk(child regclass, parent regclass) returns SETOF text:
 * every foreign key from one isolated table to another gets the tenant, and
 * the one without goes. On a child above rowkeeper.inline_rows it is NOT VALID
 * at first, and the same call validates it later. The caller must own both.
 * Locks: SHARE ROW EXCLUSIVE on both while a key is added, ACCESS EXCLUSIVE on
 * both while one is dropped, SHARE UPDATE EXCLUSIVE while it is validated.
 * 23503 with the count where rows point to another tenant's; 55000 without
 * isolation or a unique key on a large parent, or where a key with the tenant
 * is there that does something else; 42704 without a foreign key;
 * 0A000 for a shared table, a MATCH FULL key of several columns, ON UPDATE SET,
 * and owners of whom neither has the rights of the other.
 */
Datum
rowkeeper_tenant_fk(PG_FUNCTION_ARGS)
{
	rk_steps_begin(fcinfo);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("child and parent must not be null")));
	convert_keys(fcinfo, PG_GETARG_OID(0), PG_GETARG_OID(1));
	return (Datum) 0;
}
