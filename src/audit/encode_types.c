/*
 * encode_types.c
 *
 * How each type gets into jsonb, decided once per column: written by us, by
 * the type's output function, or by to_jsonb. The decision follows what
 * to_jsonb would do, with one exception: where it would parse the value as
 * JSON (json itself, types of extensions with a cast to json, and arrays and
 * row types that contain either), it may fail on the user's statement, drop
 * duplicate keys, or leave something the type cannot read back. Such a value
 * is kept as its output text.
 *
 * The walk also collects which settings the output depends on, so that they
 * are pinned only for columns that need it and only while they differ.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/tupdesc.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_coerce.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "audit/audit.h"
#include "audit/encode.h"

typedef struct TypeFacts
{
	uint32		pins;
	bool		parses_json;
	List	   *rowtypes;		/* of RkRowType * */
} TypeFacts;

static void collect_facts(TypeFacts *facts, Oid typid);

static bool
is_array_type(Oid typid)
{
	return OidIsValid(get_element_type(typid)) ||
		typid == ANYARRAYOID || typid == ANYCOMPATIBLEARRAYOID ||
		typid == RECORDARRAYOID;
}

/* The test of to_jsonb: only types that are not built in may have one. */
static bool
has_cast_to_json(Oid typid)
{
	Oid			function;

	return typid >= FirstNormalObjectId &&
		find_coercion_pathway(JSONOID, typid, COERCION_EXPLICIT,
							  &function) == COERCION_PATH_FUNC &&
		OidIsValid(function);
}

/* The pins of a type that is neither array, row type, domain nor range. */
static uint32
base_type_pins(Oid typid)
{
	switch (typid)
	{
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case TIMEOID:
		case TIMETZOID:
			return RK_PIN_DATETIME;

		case INTERVALOID:
			return RK_PIN_INTERVAL;

		case BYTEAOID:
			return RK_PIN_BYTEA;

		case CASHOID:
			return RK_PIN_MONEY;

		case FLOAT4OID:
		case FLOAT8OID:
		case POINTOID:
		case LSEGOID:
		case PATHOID:
		case BOXOID:
		case POLYGONOID:
		case LINEOID:
		case CIRCLEOID:
			return RK_PIN_FLOAT;

		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
			return RK_PIN_NAMES;

		case ANYARRAYOID:
		case RECORDOID:
		case RECORDARRAYOID:
			return RK_PIN_ALL;

		default:
			break;
	}

	if (typid >= FirstNormalObjectId && get_typtype(typid) != TYPTYPE_ENUM)
		return RK_PIN_ALL;
	return 0;
}

static void
collect_row_facts(TypeFacts *facts, Oid typid)
{
	TypeCacheEntry *entry = lookup_type_cache(typid, TYPECACHE_TUPDESC);
	RkRowType  *rowtype;
	TupleDesc	desc;

	if (entry->tupDesc == NULL)
	{
		facts->pins |= RK_PIN_ALL;
		return;
	}
	rowtype = palloc(sizeof(RkRowType));
	rowtype->typid = typid;
	rowtype->identifier = entry->tupDesc_identifier;
	facts->rowtypes = lappend(facts->rowtypes, rowtype);

	desc = lookup_rowtype_tupdesc_copy(typid, -1);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped)
			collect_facts(facts, att->atttypid);
	}
	FreeTupleDesc(desc);
}

static void
collect_facts(TypeFacts *facts, Oid typid)
{
	check_stack_depth();

	typid = getBaseType(typid);
	if (is_array_type(typid) && OidIsValid(get_element_type(typid)))
		collect_facts(facts, get_element_type(typid));
	else if (typid != RECORDOID && type_is_rowtype(typid))
		collect_row_facts(facts, typid);
	else if (typid == JSONOID || has_cast_to_json(typid))
	{
		facts->parses_json = true;
		facts->pins |= base_type_pins(typid);
	}
	else if (type_is_range(typid) || type_is_multirange(typid))
	{
		/* always printed, never walked: nothing in it is parsed */
		TypeFacts	inner = {0};

		if (type_is_multirange(typid))
			typid = get_multirange_range(typid);
		collect_facts(&inner, get_range_subtype(typid));
		facts->pins |= inner.pins;
		facts->rowtypes = list_concat(facts->rowtypes, inner.rowtypes);
	}
	else
		facts->pins |= base_type_pins(typid);
}

/* The kinds that need no look into the type; OUTPUT for everything else. */
static RkKind
base_type_kind(Oid typid)
{
	switch (typid)
	{
		case BOOLOID:
			return RK_KIND_BOOL;
		case INT2OID:
			return RK_KIND_INT2;
		case INT4OID:
			return RK_KIND_INT4;
		case INT8OID:
			return RK_KIND_INT8;
		case FLOAT4OID:
			return RK_KIND_FLOAT4;
		case FLOAT8OID:
			return RK_KIND_FLOAT8;
		case NUMERICOID:
			return RK_KIND_NUMERIC;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return RK_KIND_TEXT;
		case NAMEOID:
			return RK_KIND_NAME;
		case UUIDOID:
			return RK_KIND_UUID;
		case DATEOID:
			return RK_KIND_DATE;
		case TIMEOID:
			return RK_KIND_TIME;
		case TIMESTAMPOID:
			return RK_KIND_TIMESTAMP;
		case TIMESTAMPTZOID:
			return RK_KIND_TIMESTAMPTZ;
		case JSONBOID:
			return RK_KIND_JSONB;
		case BYTEAOID:
			return RK_KIND_BYTEA;
		default:
			break;
	}

	if (typid >= FirstNormalObjectId)
	{
		FmgrInfo	output;
		Oid			function;
		bool		is_varlena;

		if (get_typtype(typid) == TYPTYPE_ENUM)
			return RK_KIND_ENUM;

		/* citext and its like: text under another name */
		getTypeOutputInfo(typid, &function, &is_varlena);
		fmgr_info(function, &output);
		if (is_varlena && output.fn_addr == textout)
			return RK_KIND_TEXT;
	}
	return RK_KIND_OUTPUT;
}

static void
plan_output(RkTypePlan *plan)
{
	Oid			function;
	bool		is_varlena;

	plan->kind = RK_KIND_OUTPUT;
	getTypeOutputInfo(plan->typid, &function, &is_varlena);
	fmgr_info_cxt(function, &plan->call, CurrentMemoryContext);
}

static void
plan_to_jsonb(RkTypePlan *plan, Oid typid)
{
	Node	   *argument = (Node *) makeNullConst(typid, -1, InvalidOid);

	plan->kind = RK_KIND_TO_JSONB;
	fmgr_info_cxt(F_TO_JSONB, &plan->call, CurrentMemoryContext);

	/* to_jsonb asks its call expression for the type of its argument */
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID,
											 list_make1(argument),
											 InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL),
					   &plan->call);
}

/*
 * Rows of a named type are taken apart by us: the to_jsonb of some servers
 * reads the names of attributes after it has let go of their descriptor, which
 * an invalidation in the middle of a row may have freed.
 */
static void
plan_row(RkTypePlan *plan, Oid typid)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(typid, -1);
	Bitmapset  *attributes = NULL;

	plan->kind = RK_KIND_ROW;
	plan->row = CreateTupleDescCopy(desc);
	ReleaseTupleDesc(desc);
	for (int i = 1; i <= plan->row->natts; i++)
		attributes = bms_add_member(attributes, i);
	plan->row_encoder = rk_audit_encoder_create(plan->row, attributes);
}

static void
plan_array(RkTypePlan *plan)
{
	Oid			element = get_element_type(plan->typid);
	Oid			base = OidIsValid(element) ? getBaseType(element) : InvalidOid;

	plan_to_jsonb(plan, plan->typid);
	if (!OidIsValid(base) || is_array_type(base) || base == RECORDOID)
		return;
	get_typlenbyvalalign(element, &plan->typlen, &plan->typbyval, &plan->typalign);
	if (type_is_rowtype(base))
	{
		plan_to_jsonb(plan, JSONBARRAYOID);
		plan_row(plan, base);
		plan->kind = RK_KIND_ROW_ARRAY;
		return;
	}
	plan->element = base_type_kind(base);
	if (!rk_kind_calls_out(plan->element))
		plan->kind = RK_KIND_ARRAY;
}

/*
 * Fill *plan; what it points to is allocated in CurrentMemoryContext.
 */
void
rk_type_plan(RkTypePlan *plan, Oid typid)
{
	TypeFacts	facts = {0};
	ListCell   *lc;

	memset(plan, 0, sizeof(RkTypePlan));
	plan->typid = getBaseType(typid);
	collect_facts(&facts, plan->typid);
	plan->as_text = facts.parses_json;

	if (plan->typid == JSONOID)
		plan->kind = RK_KIND_TEXT;
	else if (plan->as_text)
		plan_output(plan);
	else if (is_array_type(plan->typid))
		plan_array(plan);
	else if (plan->typid == RECORDOID)
		plan_to_jsonb(plan, plan->typid);
	else if (type_is_rowtype(plan->typid))
		plan_row(plan, plan->typid);
	else
	{
		plan->kind = base_type_kind(plan->typid);
		if (plan->kind == RK_KIND_OUTPUT)
			plan_output(plan);
	}

	if (rk_kind_calls_out(plan->kind))
		plan->pins = facts.pins;
	plan->nrowtypes = list_length(facts.rowtypes);
	plan->rowtypes = palloc(sizeof(RkRowType) * Max(plan->nrowtypes, 1));
	foreach(lc, facts.rowtypes)
		plan->rowtypes[foreach_current_index(lc)] = *(RkRowType *) lfirst(lc);
	list_free_deep(facts.rowtypes);
}

/*
 * A row type can change without a sign to the table that has a column of it
 * (ALTER TYPE ... ADD ATTRIBUTE).
 */
bool
rk_type_plan_current(const RkTypePlan *plan)
{
	for (int i = 0; i < plan->nrowtypes; i++)
	{
		TypeCacheEntry *entry = lookup_type_cache(plan->rowtypes[i].typid,
												  TYPECACHE_TUPDESC);

		if (entry->tupDesc_identifier != plan->rowtypes[i].identifier)
			return false;
	}
	return true;
}

static void
pin_setting(int *guc_level, const char *name, const char *value)
{
	if (*guc_level == 0)
		*guc_level = NewGUCNestLevel();
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Give the settings named by pins their fixed values, as far as they differ.
 * Returns what rk_unpin_settings() wants; after an error the (sub)transaction's
 * end restores them.
 */
int
rk_pin_settings(uint32 pins)
{
	int			guc_level = 0;

	if (pins & RK_PIN_DATETIME)
	{
		if (DateStyle != USE_ISO_DATES)
			pin_setting(&guc_level, "DateStyle", "ISO");
		if (strcmp(pg_get_timezone_name(session_timezone), "UTC") != 0)
			pin_setting(&guc_level, "TimeZone", "UTC");
	}
	if ((pins & RK_PIN_INTERVAL) && IntervalStyle != INTSTYLE_POSTGRES)
		pin_setting(&guc_level, "IntervalStyle", "postgres");
	if ((pins & RK_PIN_BYTEA) && bytea_output != BYTEA_OUTPUT_HEX)
		pin_setting(&guc_level, "bytea_output", "hex");
	if ((pins & RK_PIN_FLOAT) && extra_float_digits != 1)
		pin_setting(&guc_level, "extra_float_digits", "1");
	if ((pins & RK_PIN_MONEY) && strcmp(GetConfigOption("lc_monetary", false, false), "C") != 0)
		pin_setting(&guc_level, "lc_monetary", "C");
	if (pins & RK_PIN_NAMES)
	{
		if (namespace_search_path[0] != '\0')
			pin_setting(&guc_level, "search_path", "");
		if (quote_all_identifiers)
			pin_setting(&guc_level, "quote_all_identifiers", "off");
	}
	return guc_level;
}

void
rk_unpin_settings(int guc_level)
{
	if (guc_level != 0)
		AtEOXact_GUC(true, guc_level);
}
