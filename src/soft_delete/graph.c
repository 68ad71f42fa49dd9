/*
 * graph.c
 *
 * The foreign keys around a table. A soft-deleted row is still there, so the
 * server's own foreign keys see nothing happen: what ON DELETE says is done
 * by us, and that is safe only where both ends of a cascading key are
 * soft-deleted in the same way. Enabling asks here first; what is refused
 * names the calls in the order that works: children first, and one table of a
 * cycle before with cascade => false.
 */
#include "soft_delete/soft_delete.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_trigger.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* ---- links ---- */

static RkLink *
read_link(Oid constraint)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Form_pg_constraint form;
	RkLink	   *link = palloc0(sizeof(RkLink));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for constraint %u", constraint);
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	link->constraint = constraint;
	link->name = pstrdup(NameStr(form->conname));
	link->child = form->conrelid;
	link->parent = form->confrelid;
	link->index = form->conindid;
	link->on_delete = form->confdeltype;
	link->deferrable = form->condeferrable;
	link->deferred = form->condeferred;
	DeconstructFkConstraintRow(tuple, &link->nkeys, link->child_keys, link->parent_keys,
							   link->operators, NULL, NULL, NULL, NULL);
	ReleaseSysCache(tuple);
	return link;
}

/* Of a constraint of a partition: the one of its root. */
static Oid
topmost_constraint(Oid constraint)
{
	for (;;)
	{
		HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
		Oid			parent;

		if (!HeapTupleIsValid(tuple))
			return InvalidOid;
		parent = ((Form_pg_constraint) GETSTRUCT(tuple))->conparentid;
		ReleaseSysCache(tuple);
		if (!OidIsValid(parent))
			return constraint;
		constraint = parent;
	}
}

/* Whether a constraint is a foreign key that is enforced, over periods or not. */
static bool
is_link(Oid constraint, bool temporal)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Form_pg_constraint form;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	result = form->contype == CONSTRAINT_FOREIGN && rk_is_enforced(form) &&
		rk_is_temporal(form) == temporal;
	ReleaseSysCache(tuple);
	return result;
}

static int
compare_links(const ListCell *a, const ListCell *b)
{
	const RkLink *left = lfirst(a);
	const RkLink *right = lfirst(b);

	if (left->constraint == right->constraint)
		return 0;
	return left->constraint < right->constraint ? -1 : 1;
}

static List *
read_links(List *constraints)
{
	List	   *links = NIL;
	ListCell   *lc;

	foreach(lc, constraints)
		links = lappend(links, read_link(lfirst_oid(lc)));
	list_sort(links, compare_links);
	return links;
}

/* The foreign keys that point to a table, by the server's own triggers on it. */
static List *
constraints_to(Oid parent, bool temporal)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *constraints = NIL;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(parent));
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);
		Oid			constraint;

		if (!OidIsValid(trigger->tgconstraint) ||
			RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_PK)
			continue;
		constraint = topmost_constraint(trigger->tgconstraint);
		if (OidIsValid(constraint) && is_link(constraint, temporal))
			constraints = list_append_unique_oid(constraints, constraint);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return constraints;
}

/* The foreign keys of a table. */
static List *
constraints_from(Oid child, bool temporal)
{
	Relation	catalog = table_open(ConstraintRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *constraints = NIL;

	ScanKeyInit(&key, Anum_pg_constraint_conrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(child));
	scan = systable_beginscan(catalog, ConstraintRelidTypidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_constraint form = (Form_pg_constraint) GETSTRUCT(tuple);

		/* what a partitioned parent has besides is below its own */
		if (!OidIsValid(form->conparentid) && is_link(form->oid, temporal))
			constraints = lappend_oid(constraints, form->oid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return constraints;
}

static List *
links_of_tree(Oid root, List *(*constraints_of) (Oid relid, bool temporal))
{
	List	   *constraints = NIL;
	ListCell   *lc;

	if (get_rel_relkind(root) != RELKIND_PARTITIONED_TABLE)
		return read_links(constraints_of(root, false));
	foreach(lc, rk_relation_tree(root, NoLock))
		constraints = list_concat_unique_oid(constraints, constraints_of(lfirst_oid(lc), false));
	return read_links(constraints);
}

/*
 * The foreign keys that point to a table, or to a partition of it alone, found
 * by an index. No table is locked. One over periods is none: rk_graph_check()
 * and rk_graph_check_keys() refuse it.
 */
List *
rk_links_to(Oid parent)
{
	return links_of_tree(parent, constraints_to);
}

/* The foreign keys of a table, or of a partition of it alone. It is not locked. */
List *
rk_links_from(Oid child)
{
	return links_of_tree(child, constraints_from);
}

/* Those that are declared for this relation itself. */
List *
rk_links_of(Oid relid)
{
	return read_links(constraints_from(relid, false));
}

/* ---- what is safe ---- */

/* The calls that would make everything below a table safe. */
typedef struct CallOrder
{
	List	   *open;			/* tables whose children are being looked at */
	List	   *done;			/* in the order in which to call */
	List	   *loops;			/* tables that must come before their children */
	bool		missing;
} CallOrder;

static void
order_calls(CallOrder *order, Oid table)
{
	ListCell   *lc;

	if (list_member_oid(order->done, table))
		return;
	order->open = lappend_oid(order->open, table);
	foreach(lc, rk_links_to(table))
	{
		RkLink	   *link = lfirst(lc);
		Oid			child = rk_root_of(link->child);

		if (link->on_delete != FKCONSTR_ACTION_CASCADE || child == table ||
			rk_soft_delete_options_of(child) != NULL)
			continue;
		order->missing = true;
		if (list_member_oid(order->open, child))
			order->loops = list_append_unique_oid(order->loops, child);
		else
			order_calls(order, child);
	}
	order->open = list_delete_last(order->open);
	order->done = lappend_oid(order->done, table);
}

static void
append_call(StringInfo calls, Oid table, bool trash, const char *cascade)
{
	appendStringInfo(calls, "%sSELECT rowkeeper.soft_delete(%s%s%s);",
					 calls->len > 0 ? "\n" : "",
					 quote_literal_cstr(rk_relation_name(table)),
					 trash ? ", mode => 'trash'" : "", cascade);
}

/* A cascading child without soft delete would lose its rows, or keep them alive. */
static void
check_children(Oid root, const RkSoftDeleteOptions *wanted)
{
	CallOrder	order = {0};
	StringInfoData calls;
	ListCell   *lc;

	order_calls(&order, root);
	if (!order.missing)
		return;
	initStringInfo(&calls);
	foreach(lc, order.loops)
		append_call(&calls, lfirst_oid(lc), wanted->trash, ", cascade => false");
	foreach(lc, order.done)
		append_call(&calls, lfirst_oid(lc), wanted->trash,
					list_member_oid(order.loops, lfirst_oid(lc)) ? ", cascade => true" : "");
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot soft-delete rows of %s: foreign keys cascade to tables without soft delete",
					rk_relation_name(root)),
			 errdetail("Their rows would stay alive, or go for good."),
			 errhint("This order works:\n%s", calls.data)));
}

static const char *
mode_name(const RkSoftDeleteOptions *options)
{
	return options->trash ? "trash" : "flag";
}

/* One cascading key between two tables that both have soft delete. */
static void
check_cascade(const RkLink *link, const RkSoftDeleteOptions *parent,
			  const RkSoftDeleteOptions *child)
{
	if (parent->trash != child->trash && (parent->cascade || parent->trash))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot mix modes of soft delete along the cascading foreign key \"%s\"",
						link->name),
				 errdetail("%s is in %s mode, %s in %s mode.",
						   rk_relation_name(link->parent), mode_name(parent),
						   rk_relation_name(link->child), mode_name(child)),
				 errhint("Use the same mode for both.")));
	if (!parent->trash && parent->allow_hard && !child->allow_hard)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot allow DELETE on %s and refuse it on %s",
						rk_relation_name(link->parent), rk_relation_name(link->child)),
				 errdetail("Foreign key \"%s\" passes it on.", link->name),
				 errhint("Give both the same on_delete, %s first.",
						 rk_relation_name(link->child))));
}

/* A key over periods references several rows at once, alive or deleted. */
static void
refuse_periods(const RkLink *link)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot soft-delete rows of %s: foreign key \"%s\" of %s is over periods",
					rk_relation_name(link->parent), link->name, rk_relation_name(link->child))));
}

/* Raise 0A000 where a foreign key of a table points over periods to one with soft delete. */
void
rk_graph_check_keys(Oid child)
{
	ListCell   *lc;

	foreach(lc, constraints_from(child, true))
	{
		RkLink	   *link = read_link(lfirst_oid(lc));

		if (rk_soft_delete_options_of(link->parent) != NULL)
			refuse_periods(link);
	}
}

/*
 * Raise 0A000 where a table cannot be soft-deleted as wanted because of its
 * foreign keys or those that point to it.
 */
void
rk_graph_check(Oid root, const RkSoftDeleteOptions *wanted)
{
	ListCell   *lc;

	foreach(lc, constraints_to(root, true))
		refuse_periods(read_link(lfirst_oid(lc)));
	rk_graph_check_keys(root);
	if (wanted->cascade)
		check_children(root, wanted);
	foreach(lc, rk_links_to(root))
	{
		RkLink	   *link = lfirst(lc);
		RkSoftDeleteOptions *child = link->child == root ? NULL
			: rk_soft_delete_options_of(link->child);

		if (link->on_delete == FKCONSTR_ACTION_CASCADE && child != NULL)
			check_cascade(link, wanted, child);
	}
	foreach(lc, rk_links_from(root))
	{
		RkLink	   *link = lfirst(lc);
		RkSoftDeleteOptions *parent = link->parent == root ? NULL
			: rk_soft_delete_options_of(link->parent);

		if (link->on_delete == FKCONSTR_ACTION_CASCADE && parent != NULL)
			check_cascade(link, parent, wanted);
	}
}
