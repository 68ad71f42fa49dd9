/*
 * capture.c
 *
 * Audit as a consumer of the change batch: one row change becomes one entry.
 * What is logged of a table is prepared once and cached with the relation
 * (AuditTable); the row path below only compares, encodes and appends.
 *
 * Values are compared as they are stored first: an unchanged TOAST pointer is
 * an unchanged value and is never fetched. An update that changes nothing of
 * what is logged is not logged.
 */
#include "audit/audit.h"

#include "access/genam.h"
#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

typedef struct AuditTable
{
	int32		table_id;
	int16		klass;
	bool		full;
	AttrNumber *logged;
	int			nlogged;
	Bitmapset  *key_columns;
	RkEncoder  *row;
	RkEncoder  *record_id;
	RkKey	   *key;
	AttrNumber	tenant;			/* 0: the table has no tenant column */
	Oid			tenant_type;
	FmgrInfo	tenant_output;
} AuditTable;

#define MAXINT8LEN 20

int			rk_audit_consumer;

/* ---- what is prepared once a relation ---- */

/*
 * Read one row of a small table of the log by a scan under a snapshot of now:
 * that of a transaction under REPEATABLE READ may be older than the call that
 * put the row there.
 */
static Datum
look_up(const char *table, int nkeys, ScanKey keys, AttrNumber result, bool *found)
{
	Oid			relid = rk_audit_log_relation(table);
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	Datum		value = (Datum) 0;
	bool		isnull = true;

	*found = false;
	if (!OidIsValid(relid))
		return value;
	rel = table_open(relid, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, nkeys, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		value = heap_getattr(tuple, result, RelationGetDescr(rel), &isnull);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	*found = !isnull;
	return value;
}

/* The table's stable number in the log; false where it was never audited. */
bool
rk_audit_dictionary_find(Oid root, int32 *table_id)
{
	ScanKeyData key;
	bool		found;

	if (!OidIsValid(rk_audit_log_schema()))
		return false;
	ScanKeyInit(&key, 2, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(root));
	*table_id = DatumGetInt32(look_up("tables", 1, &key, 1, &found));
	return found;
}

/* The retention class of a "keep", NULL: for ever; false: there is none. */
bool
rk_audit_class_look_up(const char *keep, int16 *klass)
{
	ScanKeyData key;
	bool		found;

	*klass = 0;
	if (keep == NULL)
		return true;
	ScanKeyInit(&key, 2, BTEqualStrategyNumber, F_INTERVAL_EQ,
				DirectFunctionCall3(interval_in, CStringGetDatum(keep),
									ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	*klass = DatumGetInt16(look_up("classes", 1, &key, 1, &found));
	return found;
}

int16
rk_audit_class_find(const char *keep)
{
	int16		klass;

	if (!rk_audit_class_look_up(keep, &klass))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the audit log has no retention class for \"%s\"", keep)));
	return klass;
}

/* The columns of the primary key in its order; NULL where there is none. */
AttrNumber *
rk_audit_key_columns(Relation rel, int *count)
{
	Oid			index_oid;
	Relation	index;
	AttrNumber *columns;

	/* fills what the next call reads */
	list_free(RelationGetIndexList(rel));
	index_oid = rk_primary_key_index(rel);
	*count = 0;
	if (!OidIsValid(index_oid))
		return NULL;

	index = index_open(index_oid, AccessShareLock);
	*count = IndexRelationGetNumberOfKeyAttributes(index);
	columns = palloc(*count * sizeof(AttrNumber));
	for (int i = 0; i < *count; i++)
		columns[i] = index->rd_index->indkey.values[i];
	index_close(index, AccessShareLock);
	return columns;
}

/*
 * A name that is no column any more was renamed behind the event triggers'
 * back. Its values were to be kept out of the log, so no row goes in.
 */
static void
check_exclude(Relation rel, Oid root, const RkAuditOptions *options)
{
	ListCell   *lc;

	foreach(lc, options->exclude)
		if (get_attnum(RelationGetRelid(rel), lfirst(lc)) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of %s, which is left out of the audit, does not exist any more",
						(char *) lfirst(lc), rk_relation_name(root)),
				 errhint("SELECT rowkeeper.audit(%s, exclude => ...) with the name it has now.",
						 quote_literal_cstr(rk_relation_name(root)))));
}

static void *
prepare_table(Relation rel, Oid root, Jsonb *stored_options)
{
	AuditTable *table = palloc0(sizeof(AuditTable));
	TupleDesc	desc = RelationGetDescr(rel);
	RkAuditOptions *options = rk_audit_options_parse(stored_options);
	Bitmapset  *logged = NULL;
	AttrNumber *key_columns;
	int			nkeys;

	if (!rk_audit_dictionary_find(root, &table->table_id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s has an audit trigger, but the audit log does not know it",
						rk_relation_name(root)),
				 errhint("SELECT rowkeeper.audit(%s).", quote_literal_cstr(rk_relation_name(root)))));

	key_columns = rk_audit_key_columns(rel, &nkeys);
	if (key_columns == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("audited table %s has no primary key", rk_relation_name(RelationGetRelid(rel))),
				 errhint("Add it again, or stop the audit with SELECT rowkeeper.audit_off(%s).",
						 quote_literal_cstr(rk_relation_name(root)))));

	table->klass = rk_audit_class_find(options->keep);
	table->full = options->full;
	for (int i = 0; i < nkeys; i++)
		table->key_columns = bms_add_member(table->key_columns, key_columns[i]);

	table->logged = palloc(desc->natts * sizeof(AttrNumber));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		bool		is_varlena;
		Oid			output;

		if (column->attisdropped || rk_is_virtual(column))
			continue;
		if (!rk_audit_excludes(options, NameStr(column->attname)))
		{
			logged = bms_add_member(logged, column->attnum);
			table->logged[table->nlogged++] = column->attnum;
		}
		if (options->tenant != NULL &&
			strcmp(options->tenant, NameStr(column->attname)) == 0)
		{
			table->tenant = column->attnum;
			table->tenant_type = getBaseType(column->atttypid);
			getTypeOutputInfo(column->atttypid, &output, &is_varlena);
			fmgr_info_cxt(output, &table->tenant_output, CurrentMemoryContext);
		}
	}
	check_exclude(rel, root, options);
	table->row = rk_audit_encoder_create(desc, logged);
	table->record_id = rk_audit_encoder_create(desc, table->key_columns);
	table->key = rk_audit_key_create(desc, key_columns, nkeys);
	return table;
}

/* ---- comparing ---- */

/* Whether a varlena value lies in the tuple as it is, uncompressed. */
static bool
is_plain(Datum value)
{
	return !VARATT_IS_EXTERNAL(DatumGetPointer(value)) &&
		!VARATT_IS_COMPRESSED(DatumGetPointer(value));
}

static bool
varlena_differs(Datum old, Datum new)
{
	struct varlena *a = (struct varlena *) DatumGetPointer(old);
	struct varlena *b = (struct varlena *) DatumGetPointer(new);

	if (VARSIZE_ANY(a) == VARSIZE_ANY(b) && memcmp(a, b, VARSIZE_ANY(a)) == 0)
		return false;
	if (!is_plain(old))
		a = detoast_attr(a);
	if (!is_plain(new))
		b = detoast_attr(b);
	return VARSIZE_ANY_EXHDR(a) != VARSIZE_ANY_EXHDR(b) ||
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) != 0;
}

static bool
value_differs(Form_pg_attribute column, Datum old, Datum new)
{
	if (column->attbyval)
		return old != new;
	if (column->attlen == -1)
		return varlena_differs(old, new);
	return !datumIsEqual(old, new, false, column->attlen);
}

/* ---- one change ---- */

typedef struct Row
{
	Datum	   *values;
	bool	   *nulls;
} Row;

static Row
deform_row(HeapTuple tuple, TupleDesc desc)
{
	Row			row;

	row.values = palloc(desc->natts * (sizeof(Datum) + sizeof(bool)));
	row.nulls = (bool *) (row.values + desc->natts);
	heap_deform_tuple(tuple, desc, row.values, row.nulls);
	return row;
}

/* A row's tenant as text; the common integer types without their output function. */
static text *
tenant_of(AuditTable *table, Row row)
{
	int			i = table->tenant - 1;
	char		number[MAXINT8LEN + 1];

	if (table->tenant == 0 || row.nulls[i])
		return NULL;
	switch (table->tenant_type)
	{
		case INT4OID:
			return cstring_to_text_with_len(number, pg_ltoa(DatumGetInt32(row.values[i]), number));
		case INT8OID:
			return cstring_to_text_with_len(number, pg_lltoa(DatumGetInt64(row.values[i]), number));
		default:
			return cstring_to_text(OutputFunctionCall(&table->tenant_output, row.values[i]));
	}
}

static Jsonb *
encode_key(AuditTable *table, Row row)
{
	return rk_audit_encode(table->record_id, row.values, row.nulls, NULL, NULL);
}

/* {"as_text": ["column", ...]}: what jsonb could not hold as it is */
static Jsonb *
describe_as_text(TupleDesc desc, const Bitmapset *as_text)
{
	JsonbParseState *state = NULL;
	JsonbValue	key = {.type = jbvString,.val.string = {7, "as_text"}};
	int			column = -1;

	if (as_text == NULL)
		return NULL;
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	pushJsonbValue(&state, WJB_KEY, &key);
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	while ((column = bms_next_member(as_text, column)) >= 0)
	{
		JsonbValue	name = {.type = jbvString};

		name.val.string.val = NameStr(TupleDescAttr(desc, column - 1)->attname);
		name.val.string.len = strlen(name.val.string.val);
		pushJsonbValue(&state, WJB_ELEM, &name);
	}
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* An INSERT or a DELETE: the whole row, as new or as old data. */
static void
log_whole_row(RkFrame *frame, AuditTable *table, const RkChange *change)
{
	bool		insert = change->kind == RK_INSERT;
	TupleDesc	desc = RelationGetDescr(change->rel);
	Row			row = deform_row(insert ? change->new_row : change->old_row, desc);
	Bitmapset  *as_text = NULL;
	Jsonb	   *data = rk_audit_encode(table->row, row.values, row.nulls, NULL, &as_text);
	RkLogEntry	entry = {
		.action = change->meaning,
		.table_id = table->table_id,
		.klass = table->klass,
		.key_hash = rk_audit_key_hash(table->key, row.values),
		.record_id = encode_key(table, row),
		.tenant = tenant_of(table, row)
	};

	if (insert)
		entry.new_data = data;
	else
		entry.old_data = data;
	entry.detail = describe_as_text(desc, as_text);
	rk_audit_log_append(frame, change, &entry);
}

/*
 * Beside the entry of a key-changing UPDATE, which is found under the old
 * key, a link under the new one leads back to it.
 */
static void
log_key_link(RkFrame *frame, AuditTable *table, const RkChange *change, Row new,
			 const RkLogEntry *update)
{
	RkLogEntry	link = {
		.action = RK_LOG_KEY_LINK,
		.table_id = table->table_id,
		.klass = table->klass,
		.key_hash = rk_audit_key_hash(table->key, new.values),
		.record_id = encode_key(table, new),
		.old_data = update->record_id
	};

	rk_audit_log_append(frame, change, &link);
}

static void
log_update(RkFrame *frame, AuditTable *table, const RkChange *change)
{
	TupleDesc	desc = RelationGetDescr(change->rel);
	Row			old = deform_row(change->old_row, desc);
	Row			new = deform_row(change->new_row, desc);
	bool	   *changed = palloc0(desc->natts * sizeof(bool));
	bool		any = false;
	bool		key_changed = false;
	Bitmapset  *as_text = NULL;
	const bool *include = table->full ? NULL : changed;
	RkLogEntry	entry = {
		.action = change->meaning,
		.table_id = table->table_id,
		.klass = table->klass
	};

	for (int n = 0; n < table->nlogged; n++)
	{
		int			i = table->logged[n] - 1;

		if (old.nulls[i] != new.nulls[i] ||
			(!old.nulls[i] &&
			 value_differs(TupleDescAttr(desc, i), old.values[i], new.values[i])))
		{
			changed[i] = any = true;
			key_changed |= bms_is_member(i + 1, table->key_columns);
		}
	}
	if (!any)
		return;

	entry.key_hash = rk_audit_key_hash(table->key, old.values);
	entry.record_id = encode_key(table, old);
	entry.old_data = rk_audit_encode(table->row, old.values, old.nulls, include, &as_text);
	entry.new_data = rk_audit_encode(table->row, new.values, new.nulls, include, &as_text);
	entry.detail = describe_as_text(desc, as_text);
	entry.tenant = tenant_of(table, old);
	if (table->tenant > 0 && changed[table->tenant - 1])
		entry.new_tenant = tenant_of(table, new);
	rk_audit_log_append(frame, change, &entry);
	if (key_changed)
		log_key_link(frame, table, change, new, &entry);
}

/* {"partition": "schema.name"} where a partition was truncated alone. */
static void
log_truncate(RkFrame *frame, AuditTable *table, const RkChange *change)
{
	RkLogEntry	entry = {
		.action = RK_TRUNCATE,
		.table_id = table->table_id,
		.klass = table->klass
	};

	if (RelationGetRelid(change->rel) != change->info->root)
		entry.detail = rk_audit_detail("partition",
									   rk_relation_name(RelationGetRelid(change->rel)), NULL);
	rk_audit_log_append(frame, change, &entry);
}

/*
 * Changes go by unlogged because a superuser said so: one event for each
 * table and subtransaction that had any.
 */
static void
log_gap(RkFrame *frame, AuditTable *table, const RkChange *change)
{
	static SubTransactionId subid;
	static TransactionId xid;
	static List *reported;		/* table ids, in xid's memory */
	MemoryContext old;
	RkLogEntry	entry = {
		.action = RK_LOG_DISABLE,
		.table_id = table->table_id,
		.klass = table->klass
	};

	if (xid != GetTopTransactionId() || subid != GetCurrentSubTransactionId())
		reported = NIL;
	xid = GetTopTransactionId();
	subid = GetCurrentSubTransactionId();
	if (list_member_int(reported, table->table_id))
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	reported = lappend_int(reported, table->table_id);
	MemoryContextSwitchTo(old);
	entry.detail = rk_audit_detail("setting", "rowkeeper.audit_capture", "value", "off", NULL);
	rk_audit_log_append(frame, change, &entry);
}

static void
capture_change(RkFrame *frame, void *prepared, const RkChange *change)
{
	AuditTable *table = prepared;

	if (!rk_audit_capture)
	{
		log_gap(frame, table, change);
		return;
	}
	switch (change->kind)
	{
		case RK_INSERT:
		case RK_DELETE:
			log_whole_row(frame, table, change);
			break;
		case RK_UPDATE:
			log_update(frame, table, change);
			break;
		case RK_TRUNCATE:
			log_truncate(frame, table, change);
			break;
		case RK_SOFT_DELETE:
		case RK_RESTORE:
			elog(ERROR, "a meaning is no kind of change");
	}
}

void
rk_audit_init(void)
{
	static const RkChangeConsumer consumer = {
		.name = "audit",
		.events = TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE,
		.prepare = prepare_table,
		.capture = capture_change,
		.flush = rk_audit_log_flush
	};

	rk_audit_consumer = rk_consumer_register(&consumer);
	rk_audit_writer_init();
	rk_audit_enable_init();
	rk_audit_ddl_init();
	rk_audit_leaves_init();
	rk_audit_upkeep_init();
}
