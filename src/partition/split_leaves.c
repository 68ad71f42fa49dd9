/*
 * split_leaves.c
 *
 * The first steps of a split: the partitioned table that takes the place of a
 * wide partition, <table>_hist, and its own partitions, all empty; then the
 * triggers by which what is written to the partition is written to them.
 *
 * Nobody but their owner may read or write them until they are the table's: what
 * protects its rows may change meanwhile. Where that is row security, a policy lets
 * nobody see a row there, also not who may read or write all tables (pg_read_all_data,
 * pg_write_all_data). Where there is none, he may: a backup that he makes is not to fail.
 */
#include "partition/partition.h"

#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#define LEAVES_AT_ONCE 20

/* ---- the partitions to be ---- */

/* The table's set, of which there is only the wide partition: the model of the others. */
static RkPartitionSet
set_of_wide(const RkPartitionSet *set, const RkPartition *wide)
{
	RkPartitionSet result = *set;

	result.parts = palloc(sizeof(RkPartition));
	result.parts[0] = *wide;
	result.count = 1;
	return result;
}

/* The partitions that take its place: RkWanted *; NIL: more than are made by one call. */
static List *
plan_leaves(const RkPartitionSet *set, const RkPartition *wide, int64 first)
{
	RkPartitionSet empty = *set;
	List	   *leaves = NIL;
	int64		position = first;

	empty.count = 0;
	do
	{
		RkWanted   *leaf = rk_partition_wanted_for(&empty, position);

		if (leaves == NIL)
			leaf->lower_text = rk_partition_lower_text(set, wide);
		else
			leaf->lower_text = ((RkWanted *) llast(leaves))->upper_text;
		position = leaf->upper;
		if (position >= wide->upper)
			leaf->upper_text = rk_partition_upper_text(set, wide);
		leaves = lappend(leaves, leaf);
		if (list_length(leaves) > RK_MAX_CREATED)
			return NIL;
	} while (position < wide->upper);
	return leaves;
}

/* Where the period begins that has the oldest row. */
static int64
find_first(const RkPartitionSet *set, const RkPartition *wide)
{
	char	   *key = pstrdup(quote_identifier(set->key->name));
	bool		may_be_infinite = set->key->type == TIMESTAMPTZOID || set->key->type == TIMESTAMPOID ||
		set->key->type == DATEOID;
	bool		isnull;
	Datum		value;
	int64		position;

	value = rk_fetch(set->owner,
					 psprintf("SELECT %s FROM ONLY %s WHERE %s IS NOT NULL%s ORDER BY %s LIMIT 1", key,
							  rk_relation_name(wide->relid), key,
							  may_be_infinite ? psprintf(" AND %s OPERATOR(pg_catalog.>) '-infinity'", key) : "", key),
					 0, NULL, NULL, NULL, &isnull);
	position = isnull ? wide->upper - 1 : rk_key_position(set->key, value);
	if (wide->lower != RK_NO_START)
		position = Max(position, wide->lower);
	if (position == RK_NO_START)
		return RK_NO_START;
	return rk_grid_point(&set->grid, rk_grid_number(&set->grid, Min(position, wide->upper - 1)));
}

static RkPartitionSet *
load_set(Oid root)
{
	RkPartitionOptions *options;

	rk_split_check_there(root);
	options = rk_partition_options_of(root);
	if (options == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("partitions of %s are not maintained", rk_relation_name(root)),
				 errhint("SELECT rowkeeper.partition(%s) begins.", quote_literal_cstr(rk_relation_name(root)))));
	return rk_partition_set_load(root, options);
}

/* The partition that is divided, and the table's set; NULL: it is none of its partitions any more. */
const RkPartition *
rk_split_load_wide(RkSplitCall *call, const RkSplit *split, RkPartitionSet **set)
{
	const RkPartition *wide;

	*set = load_set(call->root);
	wide = rk_partition_find(*set, split->wide);
	if (wide == NULL)
		call->altered = true;
	return wide;
}

/* The tables of its foreign keys, for a partition that is to have them. */
RkLockRequest *
rk_split_partner_locks(Oid root, LOCKMODE mode, int room, int *count)
{
	List	   *partners = rk_partition_partners(root);
	RkLockRequest *locks = palloc0(sizeof(RkLockRequest) * (list_length(partners) + room + 1));
	ListCell   *lc;

	*count = 0;
	foreach(lc, list_delete_oid(partners, root))
		rk_partition_add_lock(locks, count, lfirst_oid(lc), mode);
	return locks;
}

/* ---- step 1: the new table ---- */

typedef struct Beginning
{
	RkPartitionSet *set;
	RkSplit    *split;
} Beginning;

static void
add_foreign_keys(const RkSplit *split)
{
	char	   *keys = rk_fetch_text_about(rk_extension_owner(), split->root,
										   "SELECT string_agg(format('ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)), ', ' ORDER BY oid)"
										   " FROM pg_constraint WHERE conrelid = $1 AND contype = 'f'");

	if (keys != NULL)
		rk_partition_run(split->owner, psprintf("ALTER TABLE %s %s", rk_relation_name(split->history), keys));
}

/* Its rows are the table's, whose rights may be others by tomorrow. */
static void
take_rights(const RkSplit *split, Oid relid)
{
	char	   *roles = rk_fetch_text_about(rk_extension_owner(), relid,
											"SELECT string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC'"
											"  ELSE quote_ident(pg_get_userbyid(a.grantee)) END, ', ')"
											" FROM pg_class c CROSS JOIN LATERAL (SELECT x.grantee FROM aclexplode(c.relacl) x"
											"  UNION SELECT x.grantee FROM pg_attribute k, aclexplode(k.attacl) x WHERE k.attrelid = c.oid) a"
											" WHERE c.oid = $1 AND a.grantee <> c.relowner");

	if (roles != NULL)
		rk_convert_run(split->owner, true,
					   psprintf("REVOKE ALL ON %s FROM %s", rk_relation_name(relid), roles));
}

bool
rk_split_has_row_security(Oid relid)
{
	return rk_exists_about(rk_extension_owner(), relid, "SELECT 1 FROM pg_class WHERE oid = $1 AND relrowsecurity");
}

static void
keep_to_owner(const RkSplit *split, Oid relid)
{
	char	   *name = rk_relation_name(relid);

	take_rights(split, relid);
	if (!rk_split_has_row_security(split->root))
		return;
	rk_convert_run(split->owner, true, psprintf("CREATE POLICY " RK_SPLIT_POLICY " ON %s AS RESTRICTIVE USING (false)", name));
	rk_convert_run(split->owner, true, psprintf("ALTER TABLE %s ENABLE ROW LEVEL SECURITY", name));
}

static void
create_history(void *arg)
{
	Beginning  *beginning = arg;
	RkPartitionSet *set = beginning->set;
	RkSplit    *split = beginning->split;
	char	   *name = rk_name_fit(get_rel_name(set->root), "_hist");
	char	   *schema = rk_partition_schema_of_new(set);

	if (OidIsValid(get_relname_relid(name, get_namespace_oid(schema, false))))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation %s already exists, and the partitions of %s are to be under that name",
						quote_qualified_identifier(schema, name), rk_relation_name(split->wide)),
				 errhint("Rename it; or drop it, where an earlier split has left it.")));
	rk_convert_run(split->owner, true,
				   psprintf("CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY) PARTITION BY RANGE (%s)%s",
							quote_qualified_identifier(schema, name), rk_relation_name(set->root),
							quote_identifier(set->key->name), rk_partition_storage(set->root, InvalidOid)));
	split->history = get_relname_relid(name, get_namespace_oid(schema, false));
	add_foreign_keys(split);
	rk_partition_dress(split->root, split->history, split->owner, RK_DRESS_CLOSED);
	rk_tell_partition_built(split->root, split->history);
	keep_to_owner(split, split->history);
	rk_split_write(split);
}

static void
say_what_it_takes(const RkSplit *split)
{
	ereport(NOTICE,
			(errmsg("the rows of %s are copied: that needs about %s of disk space until it is dropped",
					rk_relation_name(split->wide),
					rk_fetch_text_about(rk_extension_owner(), split->wide,
										"SELECT pg_size_pretty(pg_total_relation_size($1))"))));
}

static const RkPartition *
choose_wide(const RkPartitionSet *set, int64 *first)
{
	const RkPartition *wide = set->count > 0 ? &set->parts[0] : NULL;
	char	   *why = NULL;
	List	   *leaves;

	if (wide == NULL || wide->parent != set->root)
		return NULL;
	rk_split_check(set->root, wide->relid);
	if (wide->pending)
		why = "its detach is pending";
	else if (wide->upper == RK_NO_END)
		why = "it has no end";
	if (why != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot split %s: %s", rk_relation_name(wide->relid), why)));
	*first = find_first(set, wide);
	leaves = *first == RK_NO_START ? NIL : plan_leaves(set, wide, *first);
	if (leaves == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot split %s: it would be more than %d partitions", rk_relation_name(wide->relid), RK_MAX_CREATED),
				 errhint("Its oldest row has %s: look whether that is right, or make partitions longer.",
						 *first == RK_NO_START ? "the least there is" : rk_key_bound(set->key, *first))));
	return list_length(leaves) > 1 ? wide : NULL;
}

/*
 * The search path that the owner's code has where rows are copied, whoever calls
 * for that to go on.
 */
static char *
path_of_caller(void)
{
	const char *path = GetConfigOption("search_path", false, false);

	return psprintf("%s%spg_temp", path, path[0] != '\0' ? ", " : "");
}

void
rk_split_begin(RkSplitCall *call)
{
	RkPartitionSet *set;
	RkSplit    *split = palloc0(sizeof(RkSplit));
	const RkPartition *wide;
	int			count;
	Beginning	beginning;

	LockRelationOid(call->root, ShareUpdateExclusiveLock);
	set = load_set(call->root);
	wide = choose_wide(set, &split->first);
	if (wide == NULL)
	{
		call->nothing = true;
		ereport(NOTICE,
				(errmsg("the first partition of %s need not be split", rk_relation_name(call->root))));
		return;
	}
	split->root = call->root;
	split->owner = set->owner;
	split->wide = wide->relid;
	split->search_path = path_of_caller();
	if (!call->insist)
		say_what_it_takes(split);
	beginning.set = set;
	beginning.split = split;
	(void) rk_partition_try(rk_split_partner_locks(call->root, ShareRowExclusiveLock, 0, &count),
							create_history, &beginning, call->insist, &call->failure);
}

typedef struct Leaf
{
	const RkPartitionSet *set;
	const RkSplit *split;
	const RkWanted *wanted;
	Oid			relid;
} Leaf;

static void
attach_leaf(void *arg)
{
	Leaf	   *leaf = arg;
	ListCell   *lc;

	rk_convert_run(leaf->split->owner, true,
				   psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)",
							rk_relation_name(leaf->split->history), rk_relation_name(leaf->relid),
							leaf->wanted->lower_text, leaf->wanted->upper_text));
	foreach(lc, rk_relation_tree(leaf->relid, NoLock))
		rk_partition_dress(get_partition_parent(lfirst_oid(lc), true), lfirst_oid(lc), leaf->split->owner, RK_DRESS_CLOSED);
}

static void
make_leaf(void *arg)
{
	Leaf	   *leaf = arg;
	int			count;
	RkLockRequest *locks = rk_split_partner_locks(leaf->split->root, ShareRowExclusiveLock, 0, &count);
	ErrorData  *failure;
	ListCell   *lc;

	leaf->relid = rk_partition_build(NULL, leaf->set, leaf->wanted);
	foreach(lc, rk_relation_tree(leaf->relid, NoLock))
		keep_to_owner(leaf->split, lfirst_oid(lc));
	if (!rk_partition_try(locks, attach_leaf, leaf, true, &failure))
		ReThrowError(failure);
}

static bool
is_leaf_made(const RkSplit *split, const char *schema, const char *name)
{
	Oid			there = get_relname_relid(name, get_namespace_oid(schema, false));

	return OidIsValid(there) && get_rel_relispartition(there) &&
		get_partition_parent(there, true) == split->history;
}

/* An event trigger may put one on every table: the copy would fire it, row by row. */
static void
check_triggers(RkSplitCall *call, const RkSplit *split)
{
	char	   *trigger = rk_fetch_text_about(rk_extension_owner(), split->history,
											  "SELECT format('trigger %I of %s', g.tgname, g.tgrelid::regclass)"
											  " FROM pg_partition_tree($1) p JOIN pg_trigger g ON g.tgrelid = p.relid"
											  " WHERE NOT g.tgisinternal AND g.tgparentid = 0"
											  "  AND NOT rowkeeper._partition_split_is_ours(g.tgfoid)"
											  " ORDER BY p.level, g.oid LIMIT 1");

	call->for_good = trigger != NULL;
	if (trigger != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot split %s: %s, which takes its place, would be fired for what is copied",
						rk_relation_name(split->wide), trigger),
				 errhint("Disable the event trigger that makes it.")));
}

/* Some partitions of the new table. */
void
rk_split_make_leaves(RkSplitCall *call)
{
	RkSplit    *split = rk_split_useful(call);
	RkPartitionSet *set;
	RkPartitionSet model;
	const RkPartition *wide;
	int			made = 0;
	ListCell   *lc;

	call->more = false;
	if (split == NULL || split->watched)
		return;
	wide = rk_split_load_wide(call, split, &set);
	if (wide == NULL)
		return;
	check_triggers(call, split);
	model = set_of_wide(set, wide);
	foreach(lc, plan_leaves(set, wide, split->first))
	{
		Leaf		leaf = {&model, split, lfirst(lc)};
		ErrorData  *error;

		if (is_leaf_made(split, rk_partition_schema_of_new(set), leaf.wanted->name))
			continue;
		error = rk_attempt(make_leaf, &leaf);
		if (error != NULL && !rk_partition_is_for_lock(error))
			ReThrowError(error);
		call->failure = error;
		/* what was locked for it is given back */
		if (error != NULL || ++made == LEAVES_AT_ONCE || rk_partition_partners(call->root) != NIL)
		{
			call->more = true;
			return;
		}
	}
}

/* ---- step 2: the triggers ---- */

static void
create_triggers(void *arg)
{
	const RkSplit *split = arg;
	Oid			extension = rk_extension_owner();
	char	   *wide = rk_relation_name(split->wide);

	/* a dump from the middle of another split may have brought them along */
	rk_split_drop_triggers(split->wide);
	(void) rk_run(extension, psprintf("CREATE TRIGGER \"%s\" AFTER INSERT OR UPDATE OR DELETE ON %s"
									  " FOR EACH ROW EXECUTE FUNCTION rowkeeper._partition_split_apply()", RK_SPLIT_TRIGGER, wide));
	(void) rk_run(extension, psprintf("CREATE TRIGGER \"%s\" AFTER TRUNCATE ON %s"
									  " FOR EACH STATEMENT EXECUTE FUNCTION rowkeeper._partition_split_apply()", RK_SPLIT_TRUNCATE_TRIGGER, wide));
	(void) rk_run(extension, psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER \"%s\", ENABLE ALWAYS TRIGGER \"%s\"",
									  wide, RK_SPLIT_TRIGGER, RK_SPLIT_TRUNCATE_TRIGGER));
	rk_split_note(split, "watched = true, objects = rowkeeper._partition_split_objects(relation, partition, history)");
}

/* What the table's own partitions are held to, so that ATTACH reads no row. */
static void
add_check(const RkPartitionSet *set, const RkPartition *wide, const RkSplit *split)
{
	char	   *key = pstrdup(quote_identifier(set->key->name));
	char	   *lower = wide->lower == RK_NO_START ? ""
		: psprintf(" AND %s >= %s", key, rk_partition_lower_text(set, wide));

	if (!rk_exists_about(rk_extension_owner(), split->history,
						 "SELECT 1 FROM pg_constraint WHERE conrelid = $1 AND conname = '" RK_SPLIT_CHECK "'"))
		rk_convert_run(split->owner, true,
					   psprintf("ALTER TABLE %s ADD CONSTRAINT " RK_SPLIT_CHECK " CHECK (%s IS NOT NULL%s AND %s < %s)",
								rk_relation_name(split->history), key, lower, key, rk_partition_upper_text(set, wide)));
}

/*
 * Rows are written there before anybody has to: what fails for them, or does not find
 * what it calls in the search path, does so here.
 */
static void
rehearse(void *arg)
{
	List	   *last;

	(void) rk_split_copy(arg, NIL, 1, &last);
}

void
rk_split_watch(RkSplitCall *call)
{
	RkSplit    *split = rk_split_useful(call);
	RkPartitionSet *set;
	const RkPartition *wide;
	ErrorData  *error;
	RkLockRequest locks[] = {
		{InvalidOid, ShareRowExclusiveLock},
		{InvalidOid, NoLock}
	};

	rk_progress_update(2, 0);
	if (split == NULL || split->watched)
		return;
	wide = rk_split_load_wide(call, split, &set);
	if (wide == NULL)
		return;
	check_triggers(call, split);
	call->for_good = true;
	error = rk_attempt_and_undo(rehearse, split);
	if (error != NULL && !rk_split_is_in_the_way(error))
		ReThrowError(error);
	call->for_good = false;
	add_check(set, wide, split);
	locks[0].relid = split->wide;
	(void) rk_partition_try(locks, create_triggers, split, call->insist, &call->failure);
}
