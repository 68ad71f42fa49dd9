/*
 * options.c
 *
 * What audit() was told of a table, kept as JSON in the arguments of the row
 * trigger: it survives dump and restore, reaches every partition, and each
 * change of it invalidates what is cached of the table.
 */
#include "audit/audit.h"

#include "utils/builtins.h"

/* Read the options that a row trigger carries. */
RkAuditOptions *
rk_audit_options_parse(Jsonb *stored)
{
	RkAuditOptions *options = palloc0(sizeof(RkAuditOptions));
	char	   *capture = rk_option_text(stored, "capture");

	options->full = capture != NULL && strcmp(capture, "full") == 0;
	options->exclude = rk_option_names(stored, "exclude");
	options->keep = rk_option_text(stored, "keep");
	options->tenant = rk_option_text(stored, "tenant");
	options->replica = rk_option_boolean(stored, "replica", true);
	return options;
}

/* The options as a row trigger carries them; equal options are equal text. */
char *
rk_audit_options_format(const RkAuditOptions *options)
{
	JsonbParseState *state = NULL;
	ListCell   *lc;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	rk_option_push_text(&state, "capture", options->full ? "full" : "changes");
	rk_option_push(&state, WJB_KEY, "exclude");
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	foreach(lc, options->exclude)
		rk_option_push(&state, WJB_ELEM, lfirst(lc));
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	rk_option_push_text(&state, "keep", options->keep);
	rk_option_push_text(&state, "tenant", options->tenant);
	rk_option_push_boolean(&state, "replica", options->replica);
	return rk_options_text(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* The options of an audited table; NULL where it is not audited. */
RkAuditOptions *
rk_audit_options_of(Oid root)
{
	Jsonb	   *stored = rk_changes_options(root, "audit");

	return stored == NULL ? NULL : rk_audit_options_parse(stored);
}

bool
rk_audit_excludes(const RkAuditOptions *options, const char *column)
{
	ListCell   *lc;

	foreach(lc, options->exclude)
		if (strcmp(lfirst(lc), column) == 0)
		return true;
	return false;
}
