/*
 * settings.c
 *
 * The settings (GUCs) that features share, and the start of core/. Each
 * setting's second description says what a reader of pg_settings needs.
 */
#include "rowkeeper.h"

#include "utils/guc.h"

char	   *rk_actor_settings;
int			rk_inline_rows = 100000;
bool		rk_audit_capture = true;
bool		rk_own_statement = false;
int			rk_lock_budget = 40;
int			rk_lock_patience = 600000;
int			rk_owner_budget = 300000;

static void
define_settings(void)
{
	DefineCustomStringVariable("rowkeeper.actor_settings",
							   "Settings that name the actor, the first non-empty one counts.",
							   "A list such as \"app.user_id, app.current_user_id\": what applications set already.",
							   &rk_actor_settings,
							   "app.user_id, app.current_user_id",
							   PGC_USERSET,
							   GUC_LIST_INPUT,
							   NULL, NULL, NULL);

	DefineCustomIntVariable("rowkeeper.inline_rows",
							"Estimated rows above which no call scans, validates or builds an index in a table.",
							"Such a call fails and lists the statements to run first.",
							&rk_inline_rows,
							100000, 0, INT_MAX,
							PGC_USERSET,
							0,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("rowkeeper.audit_capture",
							 "Whether changes of audited tables are logged.",
							 "Off leaves a gap, which the log records as an event and audit_coverage shows.",
							 &rk_audit_capture,
							 true,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("rowkeeper.lock_budget",
							"How long one attempt of maintenance waits for locks, all of them together.",
							"So long others may have to wait behind it.",
							&rk_lock_budget,
							40, 4, 60000,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("rowkeeper.lock_patience",
							"How long maintenance makes attempts at a table that is locked.",
							"After that it is a failure, and the next run tries again.",
							&rk_lock_patience,
							600000, 0, INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("rowkeeper.owner_budget",
							"How long one run of maintenance works on partitions of one owner, if he did not call it.",
							"What is left waits for the next run.",
							&rk_owner_budget,
							300000, 1, INT_MAX,
							PGC_SUSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("rowkeeper.own_statement",
							 "Set while the extension runs a statement of its own.",
							 NULL,
							 &rk_own_statement,
							 false,
							 PGC_INTERNAL,
							 GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							 NULL, NULL, NULL);
}

void
rk_core_init(void)
{
	define_settings();
	rk_who_init();
	rk_relation_info_init();
	rk_changes_init();
	rk_jobs_init();
}
