/*
 * deleted.h
 *
 * Deleted rows wherever they are kept, for restore and purge: a store is the
 * trash table, or in flag mode the table itself.
 */
#ifndef RK_DELETED_H
#define RK_DELETED_H

#include "soft_delete/soft_delete.h"

#include "executor/spi.h"
#include "storage/itemptr.h"
#include "utils/hsearch.h"

typedef struct RkStore
{
	Oid			root;
	Oid			relid;			/* trash table, or the root itself */
	Oid			owner;
	char	   *rel;			/* as SQL */
	bool		trash;
	char	   *batch;			/* the column of the batch, quoted */
	char	   *deleted_at;		/* that of the time, quoted */
	RkSoftDeleteOptions *options;
	RkRowKey   *key;
	List	   *rows;			/* of RkDeletedRow */
	List	   *plans;			/* restore_rows.c's */
	bool		held;			/* what policies hide from the caller is not
								 * there for him */
	bool		by_key;			/* and he may read columns only */
	bool		key_shown;		/* restore.c: whoever asks may read all keys */
	bool		placed;			/* while stores are put in order */
} RkStore;

typedef struct RkDeletedRow
{
	struct
	{
		Oid			tableoid;	/* flag: of the partition */
		ItemPointerData tid;
	}			place;			/* hash key */
	RkStore    *store;
	ItemPointerData tid;		/* of its newest version */
	int64		batch;			/* 0: without */
	Jsonb	   *record_id;
	char	   *conflict;
	bool		child;			/* its parent is in the set */
} RkDeletedRow;

/* Whom row security holds in what is found. */
typedef enum RkHolding
{
	RK_HOLDS_NOBODY,
	RK_HOLDS_CLAIMS,			/* an owner who acts for a tenant */
	RK_HOLDS_CALLER
} RkHolding;

/* Rows, each once, with the stores that they are in. */
typedef struct RkDeletedSet
{
	RkHolding	holding;
	List	   *stores;
	HTAB	   *places;
	MemoryContext context;
	bool		(*may_lock) (const RkStore *store); /* NULL: whoever asks may */
} RkDeletedSet;

/* deleted.c */
extern RkDeletedSet *rk_deleted_set_create(RkHolding holding);
extern RkStore *rk_deleted_store(RkDeletedSet *set, Oid root);
extern RkStore *rk_deleted_open_store(RkDeletedSet *set, Oid root);
extern char *rk_deleted_condition(const RkStore *store, const char *alias);
extern char *rk_deleted_column(const RkStore *store, const char *alias, const char *name);
extern char *rk_deleted_record_id(const RkStore *store, const char *alias);
extern char *rk_deleted_key_condition(const RkStore *store, const char *alias);
extern List *rk_deleted_collect(RkDeletedSet *set, RkStore *store, const char *sql, int nargs,
								Oid *types, Datum *values, bool child);
extern void rk_deleted_note_gone(const RkStore *store, List *rows);
extern const char *rk_deleted_lock(const RkDeletedSet *set, const RkStore *store, const char *alias);
extern Datum rk_deleted_keys(const RkStore *parent, const RkLink *link, List *rows, bool *none);
extern char *rk_deleted_refers(const RkStore *kept, const RkLink *link);
extern List *rk_deleted_children(RkDeletedSet *set, const RkStore *parent, RkStore *child,
								 const RkLink *link, List *rows, int64 batch);
extern void rk_deleted_forget(RkDeletedSet *set, RkStore *store);
extern void rk_deleted_places(List *rows, Datum *tableoids, Datum *tids);
extern void rk_deleted_find_children(RkDeletedSet *set, List *rows, int64 batch);
extern void rk_deleted_order(RkDeletedSet *set);

/* last_deleted.c: the row deleted last under a key, and how it was searched for */
typedef struct RkLastDeleted
{
	RkStore    *store;
	int			nargs;			/* of the key; one more says where it is */
	Oid			types[INDEX_MAX_KEYS + 1];
	Datum		values[INDEX_MAX_KEYS + 1];
	char	   *order;
	RkDeletedRow *row;			/* found and locked */
} RkLastDeleted;

extern RkLastDeleted *rk_last_deleted_lock(RkDeletedSet *set, RkStore *store, char **key);
extern void rk_last_deleted_check(RkLastDeleted *search);

/* restore_rows.c */
extern void rk_restore_rows(RkDeletedSet *set, RkStore *store, List *rows, bool fire_triggers);
extern void rk_restore_all(void *set);	/* an RkDeletedSet: for rk_attempt() */
extern void rk_restore_remove_kept(RkDeletedSet *set);

/* removal.c; both return how many rows went */
extern int64 rk_remove_rows(const RkStore *store, List *rows);
extern int64 rk_remove_with_children(RkDeletedSet *set, RkStore *store, List *rows);

#endif							/* RK_DELETED_H */
