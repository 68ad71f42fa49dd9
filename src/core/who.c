/*
 * who.c
 *
 * Who changes data, and why. An RkWho is the answer at one moment; equal
 * answers are one object ("interned"), so that users compare pointers and can
 * attach what they know of one, such as the who-record it was written to.
 * Interned objects live for the session; when many have gathered they are all
 * dropped at the end of a transaction and rk_who_generation moves on.
 *
 * The actor is the first there is of: the user that a token names,
 * set_context() of this transaction, the user that was claimed, the settings
 * that rowkeeper.actor_settings lists, the session user.
 * set_context() is undone by ROLLBACK TO: a stack of what was said, tagged
 * with the subtransaction that said it.
 */
#include "rowkeeper.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#define MAX_INTERNED 256		/* kept beyond a transaction */
#define WHO_BUCKETS 1024		/* a bulk load may have a context for each row */

typedef struct SaidContext
{
	struct SaidContext *previous;
	SubTransactionId subid;
	char	   *actor;			/* NULL: only the context was given */
	Jsonb	   *context;		/* NULL: only the actor was given */
} SaidContext;

typedef struct InternedWho
{
	slist_node	node;
	RkWho		who;
} InternedWho;

uint64		rk_who_generation = 0;
RkWhoClaim	rk_who_claim = NULL;

static SaidContext *said = NULL;	/* innermost; in TopTransactionContext */

static MemoryContext who_context = NULL;
static slist_head interned[WHO_BUCKETS];	/* by hash; all zero: empty */
static int	interned_count = 0;
static const RkWho *last_who = NULL;

static char *parsed_settings = NULL;	/* the text that setting_names was
										 * made of */
static List *setting_names = NIL;

PG_FUNCTION_INFO_V1(rowkeeper_set_context);
PG_FUNCTION_INFO_V1(rowkeeper_actor);

/* The names in rowkeeper.actor_settings, parsed again only when it changed. */
static List *
actor_setting_names(void)
{
	if (parsed_settings == NULL || strcmp(parsed_settings, rk_actor_settings) != 0)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);	/* a setting's value
																		 * lives as long */
		char	   *text = pstrdup(rk_actor_settings);
		char	   *raw = pstrdup(rk_actor_settings);
		List	   *names = NIL;

		if (!SplitGUCList(raw, ',', &names))
			names = NIL;
		list_free(setting_names);	/* the old names' text stays: a few bytes
									 * a change of this setting */
		setting_names = names;
		if (parsed_settings)
			pfree(parsed_settings);
		parsed_settings = text;

		MemoryContextSwitchTo(old);
	}
	return setting_names;
}

/* The actor that applications already set in a custom setting, or NULL. */
static const char *
actor_of_settings(void)
{
	ListCell   *lc;

	foreach(lc, actor_setting_names())
	{
		char	   *name = lfirst(lc);
		const char *value;

		/* only what applications set: never a setting that is kept from them */
		if (strchr(name, '.') == NULL ||
			(GetConfigOptionFlags(name, true) & GUC_SUPERUSER_ONLY) != 0)
			continue;
		value = GetConfigOption(name, true, false);

		if (value != NULL && value[0] != '\0')
			return value;
	}
	return NULL;
}

static const char *
said_actor(void)
{
	for (SaidContext *s = said; s != NULL; s = s->previous)
		if (s->actor != NULL && s->actor[0] != '\0')
			return s->actor;
	return NULL;
}

static Jsonb *
said_context(void)
{
	return said == NULL ? NULL : said->context;
}

/*
 * The actor and where it comes from; NULL actor: the session user. What a
 * token says nobody can say otherwise.
 */
static const char *
find_actor(const char **source)
{
	const char *actor;
	bool		is_signed = false;
	const char *claim = rk_who_claim == NULL ? NULL : rk_who_claim(&is_signed);

	if (claim != NULL && is_signed)
	{
		*source = "token";
		return claim;
	}
	if ((actor = said_actor()) != NULL)
		*source = "context";
	else if ((actor = claim) != NULL)
		*source = "claim";
	else if ((actor = actor_of_settings()) != NULL)
		*source = "setting";
	else
		*source = "session";
	return actor;
}

static uint32
hash_text(uint32 hash, const char *text)
{
	return text == NULL ? hash_combine(hash, 1)
		: hash_combine(hash, hash_bytes((const unsigned char *) text, strlen(text)));
}

static uint32
hash_who(const RkWho *who)
{
	uint32		hash = hash_combine((uint32) who->session_user, (uint32) who->role);

	hash = hash_text(hash, who->actor);
	hash = hash_text(hash, who->actor_source);
	hash = hash_text(hash, who->application_name);
	hash = hash_combine(hash, who->replica);
	if (who->context != NULL)
		hash = hash_combine(hash, hash_bytes((const unsigned char *) who->context,
											 VARSIZE(who->context)));
	return hash;
}

static bool
equal_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool
equal_who(const RkWho *a, const RkWho *b)
{
	return a->session_user == b->session_user &&
		a->role == b->role &&
		a->replica == b->replica &&
		equal_text(a->actor, b->actor) &&
		strcmp(a->actor_source, b->actor_source) == 0 &&
		strcmp(a->application_name, b->application_name) == 0 &&
		(a->context == b->context ||
		 (a->context != NULL && b->context != NULL &&
		  VARSIZE(a->context) == VARSIZE(b->context) &&
		  memcmp(a->context, b->context, VARSIZE(a->context)) == 0));
}

static const RkWho *
intern_who(const RkWho *who)
{
	slist_iter	iter;
	InternedWho *new;
	MemoryContext old;
	uint32		hash = hash_who(who);
	slist_head *bucket = &interned[hash % WHO_BUCKETS];

	slist_foreach(iter, bucket)
	{
		InternedWho *known = slist_container(InternedWho, node, iter.cur);

		if (known->who.hash == hash && equal_who(&known->who, who))
			return &known->who;
	}

	if (who_context == NULL)
		who_context = AllocSetContextCreate(TopMemoryContext, "rowkeeper who",
											ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(who_context);
	new = palloc(sizeof(InternedWho));
	new->who = *who;
	new->who.hash = hash;
	if (who->actor != NULL)
		new->who.actor = pstrdup(who->actor);
	new->who.application_name = pstrdup(who->application_name);
	if (who->context != NULL)
	{
		new->who.context = palloc(VARSIZE(who->context));
		memcpy(new->who.context, who->context, VARSIZE(who->context));
	}
	MemoryContextSwitchTo(old);

	slist_push_head(bucket, &new->node);
	interned_count++;
	return &new->who;
}

/*
 * Who acts now. The result is interned and stays until the transaction ends.
 * Identity is read from the session, never from GetUserId(): in a trigger
 * that may be the owner of a SECURITY DEFINER function or of a child table.
 */
const RkWho *
rk_who_current(void)
{
	RkWho		who;

	who.actor = find_actor(&who.actor_source);
	who.session_user = GetSessionUserId();
	who.role = GetOuterUserId();
	who.application_name = application_name ? application_name : "";
	who.context = said_context();
	who.replica = SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA;
	who.hash = 0;

	if (last_who == NULL || !equal_who(last_who, &who))
		last_who = intern_who(&who);
	return last_who;
}

/*
 * Whether what is set for the transaction lasts beyond the call: in a
 * transaction block, or in a function whose caller goes on.
 */
bool
rk_is_within_transaction(void)
{
	return IsTransactionBlock() || SPI_unregister_relation("") != SPI_ERROR_UNCONNECTED;
}

/*
 * rowkeeper.set_context(actor text | bigint | uuid, context jsonb DEFAULT NULL)
 * returns text: the actor in force.
 *
 * Says who acts and why until the transaction ends; a NULL argument leaves
 * what was said before. Anybody may call it: it is a statement of the
 * application's, recorded as such (actor_source "context") beside the
 * database user, who cannot be changed this way. No locks. Warns where it can
 * have no effect (called directly outside a transaction block).
 */
Datum
rowkeeper_set_context(PG_FUNCTION_ARGS)
{
	SaidContext *new;
	MemoryContext old;
	const char *source;
	const char *actor;

	if (!rk_is_within_transaction())
		ereport(WARNING,
				(errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
				 errmsg("set_context holds for the current transaction only, which ends with this statement"),
				 errhint("Call it after BEGIN.")));

	old = MemoryContextSwitchTo(TopTransactionContext);
	new = palloc0(sizeof(SaidContext));
	new->subid = GetCurrentSubTransactionId();
	new->context = said_context();
	if (!PG_ARGISNULL(0))
	{
		Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);
		Oid			output;
		bool		isvarlena;

		getTypeOutputInfo(OidIsValid(type) ? type : TEXTOID, &output, &isvarlena);
		new->actor = OidOutputFunctionCall(output, PG_GETARG_DATUM(0));
	}
	if (!PG_ARGISNULL(1))
		new->context = (Jsonb *) PG_DETOAST_DATUM_COPY(PG_GETARG_DATUM(1));
	MemoryContextSwitchTo(old);

	if (new->context != NULL && !JB_ROOT_IS_OBJECT(new->context))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("context must be a JSON object"),
				 errhint("For example '{\"ticket\": \"4711\"}'.")));
	new->previous = said;
	said = new;

	actor = find_actor(&source);
	PG_RETURN_TEXT_P(cstring_to_text(actor != NULL ? actor :
									 GetUserNameFromId(GetSessionUserId(), false)));
}

/*
 * rowkeeper.actor() returns text: who acts now, as the audit log and the
 * stamps record it. No locks, no privileges.
 */
Datum
rowkeeper_actor(PG_FUNCTION_ARGS)
{
	const char *source;
	const char *actor = find_actor(&source);

	PG_RETURN_TEXT_P(cstring_to_text(actor != NULL ? actor :
									 GetUserNameFromId(GetSessionUserId(), false)));
}

static void
end_transaction(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;

	said = NULL;				/* its memory went with the transaction */
	if (interned_count > MAX_INTERNED)
	{
		MemoryContextReset(who_context);
		memset(interned, 0, sizeof(interned));
		interned_count = 0;
		last_who = NULL;
		rk_who_generation++;
	}
}

static void
end_subtransaction(SubXactEvent event, SubTransactionId subid,
				   SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (said != NULL && said->subid == subid)
			said = said->previous;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (SaidContext *s = said; s != NULL && s->subid == subid; s = s->previous)
			s->subid = parent;
}

void
rk_who_init(void)
{
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
}
