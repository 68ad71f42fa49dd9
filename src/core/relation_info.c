/*
 * relation_info.c
 *
 * What capture needs to know of a relation, cached by its OID: which features
 * consume its changes, and what each prepared for it. An entry starts
 * invalid and becomes valid only once it is filled, so an error midway is
 * harmless; the relcache callback makes it invalid again, and the next look-up
 * builds it anew. Features put their configuration into the arguments of our
 * row trigger, so every change of it invalidates the relation by itself.
 */
#include "rowkeeper.h"

#include "catalog/partition.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"


static HTAB *relation_infos = NULL;
static const RkChangeConsumer *consumers[RK_MAX_CONSUMERS];
static int	consumer_count = 0;
static const RkMeaning *meaning = NULL;
static int	restoring_depth = 0;	/* of the row triggers of a restore; 0:
									 * none */

/* Announce a consumer of row changes; called once, at load. */
int
rk_consumer_register(const RkChangeConsumer *consumer)
{
	if (consumer_count == RK_MAX_CONSUMERS)
		elog(ERROR, "too many change consumers");
	consumers[consumer_count] = consumer;
	return consumer_count++;
}

const RkChangeConsumer *
rk_consumer(int number)
{
	return number < consumer_count ? consumers[number] : NULL;
}

const RkChangeConsumer *
rk_consumer_named(const char *name)
{
	for (int i = 0; i < consumer_count; i++)
		if (strcmp(consumers[i]->name, name) == 0)
			return consumers[i];
	return NULL;
}

/* Announce who knows what changes mean: one feature, at load. */
void
rk_meaning_register(const RkMeaning *registered)
{
	if (meaning != NULL)
		elog(ERROR, "the meaning of changes is given already");
	meaning = registered;
}

/*
 * Say what a change means to the user (what it is, where nobody says more),
 * and have it completed where it means more.
 */
void
rk_meaning_apply(RkChange *change)
{
	void	   *prepared = change->info->meaning;

	change->meaning = change->kind;
	if (prepared == NULL)
		return;
	change->meaning = meaning->classify(prepared, change);
	if (change->meaning != change->kind)
		change->new_row = meaning->complete(prepared, change);
}

/*
 * The topmost partitioned ancestor of a relation, or the relation itself. A
 * partition whose detach is pending still belongs to it: its rows are written
 * until the detach is done.
 */
Oid
rk_root_of(Oid relid)
{
	while (get_rel_relispartition(relid))
		relid = get_partition_parent(relid, true);
	return relid;
}

static void
fill_relation_info(RkRelationInfo *info, Relation rel)
{
	MemoryContext old;

	if (info->context != NULL)
	{
		/* A capture further up the stack may still read the old one. */
		if (info->pins > 0)
			MemoryContextSetParent(info->context, TopTransactionContext);
		else
			MemoryContextDelete(info->context);
	}
	info->context = NULL;
	info->pins = 0;
	info->root = rel->rd_rel->relispartition ? rk_root_of(info->relid) : info->relid;
	memset(info->consumer, 0, sizeof(info->consumer));
	info->meaning = NULL;

	info->context = AllocSetContextCreate(TopMemoryContext, "rowkeeper relation",
										  ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(info->context);
	for (int i = 0; i < consumer_count; i++)
	{
		Jsonb	   *options = rk_changes_options(info->relid, consumers[i]->name);

		if (options != NULL)
			info->consumer[i] = consumers[i]->prepare(rel, info->root, options);
	}
	if (meaning != NULL)
		info->meaning = meaning->prepare(rel, info->root);
	MemoryContextSwitchTo(old);

	/*
	 * What was heard meanwhile was nothing of the above: the caller's lock
	 * keeps that as it is.
	 */
	info->valid = true;
}

/*
 * The cached information on a relation, which the caller has open and locked.
 * Stays readable until the next look-up of the same relation.
 */
RkRelationInfo *
rk_relation_info_get(Relation rel)
{
	static RkRelationInfo *last = NULL; /* entries are never removed */
	Oid			relid = RelationGetRelid(rel);
	bool		found;
	RkRelationInfo *info;

	if (last != NULL && last->relid == relid && last->valid)
		return last;

	info = hash_search(relation_infos, &relid, HASH_ENTER, &found);
	if (!found)
	{
		info->valid = false;
		info->pins = 0;
		info->context = NULL;
	}
	if (!info->valid)
		fill_relation_info(info, rel);
	last = info;
	return info;
}

static void
invalidate(void *info)
{
	((RkRelationInfo *) info)->valid = false;
}

static void
invalidate_relation_info(Datum arg, Oid relid)
{
	rk_cache_visit(relation_infos, relid, invalidate);
}

void
rk_relation_info_init(void)
{
	relation_infos = rk_cache_create("rowkeeper relations", 64, sizeof(RkRelationInfo));
	rk_relcache_listen(invalidate_relation_info);
}

/* ---- rows that come back ---- */

/* How many row and statement triggers deep this runs. */
int
rk_trigger_depth(void)
{
	return DatumGetInt32(pg_trigger_depth(NULL));
}

/*
 * From now until rk_restoring_end() with what this returns, the rows that the
 * caller's statements write come back as they were. Use PG_TRY / PG_FINALLY.
 */
int
rk_restoring_begin(void)
{
	int			before = restoring_depth;

	restoring_depth = rk_trigger_depth() + 1;
	return before;
}

void
rk_restoring_end(int before)
{
	restoring_depth = before;
}

/*
 * Whether the row that a trigger is fired for comes back. What a trigger of
 * such a row writes elsewhere is new, and one level deeper.
 */
bool
rk_is_restoring(void)
{
	return restoring_depth != 0 && rk_trigger_depth() == restoring_depth;
}
