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
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

static HTAB *relation_infos = NULL;
static const RkChangeConsumer *consumers[RK_MAX_CONSUMERS];
static int	consumer_count = 0;
static const RkMeaning *meaning = NULL;

bool		rk_soft_delete_restoring = false;

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

/* What a change means to the user; what it is, where nobody says more. */
RkChangeKind
rk_meaning_of(const RkChange *change)
{
	return change->info->meaning == NULL ? change->kind
		: meaning->classify(change->info->meaning, change);
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
invalidate_relation_info(Datum arg, Oid relid)
{
	if (OidIsValid(relid))
	{
		RkRelationInfo *info = hash_search(relation_infos, &relid, HASH_FIND, NULL);

		if (info != NULL)
			info->valid = false;
	}
	else
	{
		HASH_SEQ_STATUS scan;
		RkRelationInfo *info;

		hash_seq_init(&scan, relation_infos);
		while ((info = hash_seq_search(&scan)) != NULL)
			info->valid = false;
	}
}

void
rk_relation_info_init(void)
{
	HASHCTL		control = {
		.keysize = sizeof(Oid),
		.entrysize = sizeof(RkRelationInfo),
		.hcxt = TopMemoryContext	/* the module is never unloaded */
	};

	relation_infos = hash_create("rowkeeper relations", 64, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(invalidate_relation_info, (Datum) 0);
}
