/*
 * cache.c
 *
 * What a session remembers of tables and other objects: hash tables by OID,
 * and who is told when a relation has changed.
 */
#include "rowkeeper.h"

#include "utils/inval.h"
#include "utils/memutils.h"

#define MAX_RELCACHE_LISTENERS 12

/*
 * A cache whose entries begin with their OID. Entries are never removed: what is
 * no longer true of one is for its owner to mark. It lives as long as the
 * session, as the module is never unloaded.
 */
HTAB *
rk_cache_create(const char *name, int expected, Size entry_size)
{
	HASHCTL		control = {
		.keysize = sizeof(Oid),
		.entrysize = entry_size,
		.hcxt = TopMemoryContext
	};

	return hash_create(name, expected, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Do something with the entry of this OID, where there is one; InvalidOid: with all. */
void
rk_cache_visit(HTAB *cache, Oid oid, void (*visit) (void *entry))
{
	HASH_SEQ_STATUS scan;
	void	   *entry;

	if (OidIsValid(oid))
	{
		entry = hash_search(cache, &oid, HASH_FIND, NULL);
		if (entry != NULL)
			visit(entry);
		return;
	}
	hash_seq_init(&scan, cache);
	while ((entry = hash_seq_search(&scan)) != NULL)
		visit(entry);
}

/*
 * The server has room for ten relcache callbacks in a process, and takes up to
 * five of them itself (in a worker that applies changes), so ours is one.
 */
static void (*relcache_listeners[MAX_RELCACHE_LISTENERS]) (Datum arg, Oid relid);
static int	relcache_listener_count = 0;

static void
tell_relcache_listeners(Datum arg, Oid relid)
{
	for (int i = 0; i < relcache_listener_count; i++)
		relcache_listeners[i] (arg, relid);
}

/* As CacheRegisterRelcacheCallback(); called once each, at load. */
void
rk_relcache_listen(void (*callback) (Datum arg, Oid relid))
{
	if (relcache_listener_count == MAX_RELCACHE_LISTENERS)
		elog(ERROR, "too many relcache listeners");
	if (relcache_listener_count == 0)
		CacheRegisterRelcacheCallback(tell_relcache_listeners, (Datum) 0);
	relcache_listeners[relcache_listener_count++] = callback;
}
