/*
 * options.c
 *
 * What stamp() was told of a table: a text an option, kept as JSON in the
 * only argument of the table's trigger. There it survives dump and restore,
 * reaches every partition, and each change of it invalidates what is cached
 * of the table.
 */
#include "stamp/stamp.h"

#include "utils/builtins.h"

const char *const rk_stamp_option_names[RK_STAMP_OPTION_COUNT] = {
	"updated_at", "version", "created_at", "created_by", "updated_by",
	"on_noop", "client_value", "clock", "stale", "client_version", "sqlstate"
};

/* Where an option has words: all of them, the default first. */
static const char *const words[RK_STAMP_OPTION_COUNT][4] = {
	[RK_ON_NOOP] = {"unchanged", "suppress", "bump"},
	[RK_CLIENT_VALUE] = {"override", "respect", "error"},
	[RK_CLOCK] = {"transaction", "wall", "monotonic"},
	[RK_STALE] = {"off", "error", "skip"},
	[RK_CLIENT_VERSION] = {"either", "read", "next"},
};

/* What a table has the first time, but for its version column. */
RkStampOptions *
rk_stamp_options_default(void)
{
	RkStampOptions *options = palloc0(sizeof(RkStampOptions));

	options->value[RK_UPDATED_AT] = "updated_at";
	for (int i = RK_STAMP_COUNT; i < RK_STAMP_OPTION_COUNT; i++)
		options->value[i] = (char *) words[i][0];
	options->value[RK_SQLSTATE] = "40001";
	return options;
}

/* Read the options that a trigger carries; an absent one has its default. */
RkStampOptions *
rk_stamp_options_parse(const char *json)
{
	RkStampOptions *options = rk_stamp_options_default();
	Jsonb	   *stored = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));

	for (int i = 0; i < RK_STAMP_OPTION_COUNT; i++)
	{
		const char *name = rk_stamp_option_names[i];
		JsonbValue	value;

		if (!JB_ROOT_IS_OBJECT(stored) ||
			getKeyJsonValueFromContainer(&stored->root, name, strlen(name), &value) == NULL)
			continue;
		if (value.type == jbvString)
			options->value[i] = pnstrdup(value.val.string.val, value.val.string.len);
		else if (value.type == jbvNull && i < RK_STAMP_COUNT)
			options->value[i] = NULL;
	}
	rk_stamp_options_check(options);
	return options;
}

/* The options as a trigger carries them; equal options are equal text. */
char *
rk_stamp_options_format(const RkStampOptions *options)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < RK_STAMP_OPTION_COUNT; i++)
	{
		rk_option_push_text(&state, rk_stamp_option_names[i], options->value[i]);
	}
	return rk_options_text(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

bool
rk_stamp_options_equal(const RkStampOptions *a, const RkStampOptions *b)
{
	return strcmp(rk_stamp_options_format(a), rk_stamp_options_format(b)) == 0;
}

static void
check_sqlstate(const char *value)
{
	if (strlen(value) != 5 || strspn(value, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 5)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"sqlstate\": \"%s\" is not an SQLSTATE", value),
				 errhint("Five digits or upper-case letters, such as 40001 or PT409.")));
	if (strncmp(value, "00", 2) == 0 || strncmp(value, "01", 2) == 0 || strncmp(value, "02", 2) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"sqlstate\": \"%s\" is not the code of an error", value)));
}

/* The value of an option that is no column, checked; raises 22023. */
char *
rk_stamp_check_word(RkStampOption option, const char *value)
{
	const char *const *known = words[option];

	if (option == RK_SQLSTATE)
	{
		check_sqlstate(value);
		return pstrdup(value);
	}
	for (int i = 0; known[i] != NULL; i++)
		if (strcmp(known[i], value) == 0)
			return (char *) known[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\": \"%s\" is not one of its values",
					rk_stamp_option_names[option], value),
			 errhint("Use '%s', '%s' or '%s'.", known[0], known[1], known[2])));
}

static bool
is_word(const RkStampOptions *options, RkStampOption option, const char *word)
{
	return strcmp(options->value[option], word) == 0;
}

/* Raise where options make no sense, each alone or together. */
void
rk_stamp_options_check(const RkStampOptions *options)
{
	bool		any = false;

	for (int i = 0; i < RK_STAMP_COUNT; i++)
	{
		any |= options->value[i] != NULL;
		for (int j = 0; j < i; j++)
			if (options->value[i] != NULL && options->value[j] != NULL &&
				strcmp(options->value[i], options->value[j]) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("options \"%s\" and \"%s\" name the same column \"%s\"",
								rk_stamp_option_names[j], rk_stamp_option_names[i],
								options->value[i])));
	}
	if (!any)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no column is left to stamp"),
				 errhint("rowkeeper.stamp_off() takes the stamps away.")));
	for (int i = RK_STAMP_COUNT; i < RK_STAMP_OPTION_COUNT; i++)
		(void) rk_stamp_check_word(i, options->value[i]);

	if (is_word(options, RK_STALE, "off"))
		return;
	if (options->value[RK_VERSION] == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"stale\": the table is stamped without a version"),
				 errhint("Name its column, version => 'version', or do without: stale => 'off'.")));
	if (is_word(options, RK_CLIENT_VERSION, "either"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"stale\": whether clients send the version they read or the next one must be said"),
				 errhint("Use client_version => 'read' or, as object-relational mappers send it, 'next'.")));
}
