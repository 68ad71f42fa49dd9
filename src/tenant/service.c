/*
 * service.c
 *
 * One account per service with exactly its verbs. What a role should have is
 * compared with what it has, in one query for each kind of object, and the
 * difference is what is run: as the caller, so the server asks him for each
 * right he gives. Nothing here sets a password.
 */
#include "tenant/protect.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_service_role);
PG_FUNCTION_INFO_V1(rowkeeper_service_columns);
PG_FUNCTION_INFO_V1(rowkeeper_service_off);

typedef struct Level
{
	const char *name;
	const char *tables;			/* privileges, as an array */
	const char *sequences;
} Level;

static const Level levels[] = {
	{"read", "{SELECT}", "{}"},
	{"write", "{DELETE,INSERT,SELECT,UPDATE}", "{USAGE}"},
	{"own", "{DELETE,INSERT,SELECT,UPDATE}", "{USAGE}"},
	{"admin", "{}", "{}"}
};

/* ---- what a call is about ---- */

typedef struct Call
{
	FunctionCallInfo fcinfo;
	char	   *role;
	const Level *level;
	Datum		schema;			/* name; 0: the tables below */
	Datum		tables;			/* oid[] */
	Datum		created_by;		/* name[], 0: owners of the tables */
} Call;

/*
 * Parameters of every query: $1 role, $2 schema, $3 tables, $4 and $5 the
 * privileges on tables and sequences, $6 created_by, $7 whether the level is
 * "own", which is of what isolates its rows only.
 */
#define CHOSEN \
	"WITH role AS (SELECT oid, rolname FROM pg_roles WHERE rolname = $1), " \
	"chosen AS (SELECT c.oid, c.relname, n.oid AS schema, n.nspname, c.relkind, c.relowner, c.relacl, " \
	"  quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name " \
	" FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace " \
	" WHERE NOT c.relispartition AND c.relkind IN ('r', 'p', 'v', 'm', 'f') " \
	"  AND CASE WHEN $3 IS NULL THEN n.nspname = $2 ELSE c.oid = ANY ($3) END " \
	"  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')) "

/* Whether what was chosen shows each tenant its rows: an isolated table, or a view with its reader's rights. */
#define IS_ISOLATED \
	"CASE c.relkind WHEN 'v' THEN coalesce((SELECT o.option_value::boolean FROM pg_class v, pg_options_to_table(v.reloptions) o " \
	"   WHERE v.oid = c.oid AND o.option_name = 'security_invoker'), false) " \
	" ELSE rowkeeper._tenant_is_intact(c.oid) AND (SELECT t.relrowsecurity FROM pg_class t WHERE t.oid = c.oid) END"

/* GRANT and REVOKE that lead from rights there are to those there should be. */
#define DIFFERENCES(objects, kind) \
	objects \
	", differences AS (SELECT o.name, " \
	"  (SELECT string_agg(w, ', ' ORDER BY w) FROM unnest(o.wanted) w WHERE w <> ALL (o.had)) AS missing, " \
	"  (SELECT string_agg(h, ', ' ORDER BY h) FROM unnest(o.had) h WHERE h <> ALL (o.wanted)) AS excess " \
	" FROM objects o) " \
	"SELECT s FROM (SELECT name, 1 AS at, format('REVOKE %s ON " kind " %s FROM %I', excess, name, $1) AS s " \
	"  FROM differences WHERE excess IS NOT NULL " \
	" UNION ALL SELECT name, 2, format('GRANT %s ON " kind " %s TO %I', missing, name, $1) " \
	"  FROM differences WHERE missing IS NOT NULL) d ORDER BY name COLLATE \"C\", at"

#define HAD(acl) \
	"ARRAY(SELECT a.privilege_type FROM role r, aclexplode(" acl ") a WHERE a.grantee = r.oid) AS had"

static const char *const on_schemas =
DIFFERENCES(CHOSEN
			", objects AS (SELECT quote_ident(n.nspname) AS name, '{USAGE}'::text[] AS wanted, " HAD("n.nspacl")
			" FROM pg_namespace n WHERE n.nspname = $2 OR n.oid IN (SELECT schema FROM chosen)) ", "SCHEMA");

/* Tables with rights on columns are service_columns()'. */
static const char *const on_tables =
DIFFERENCES(CHOSEN
			", objects AS (SELECT c.name, CASE WHEN $7 AND NOT " IS_ISOLATED " THEN '{}' "
			" WHEN c.relkind = 'm' THEN ARRAY(SELECT unnest($4) INTERSECT SELECT 'SELECT') ELSE $4 END AS wanted, "
			HAD("c.relacl")
			" FROM chosen c WHERE NOT EXISTS (SELECT FROM pg_attribute t, aclexplode(t.attacl) a, role r "
			"  WHERE t.attrelid = c.oid AND a.grantee = r.oid)) ", "TABLE");

/* Of a schema all its sequences, of tables those that they own. */
static const char *const on_sequences =
DIFFERENCES(CHOSEN
			", objects AS (SELECT quote_ident(n.nspname) || '.' || quote_ident(s.relname) AS name, $5 AS wanted, " HAD("s.relacl")
			" FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace WHERE s.relkind = 'S' "
			"  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype IN ('e', 'i')) "
			"  AND CASE WHEN $3 IS NULL THEN n.nspname = $2 ELSE EXISTS (SELECT FROM pg_depend d JOIN chosen c ON c.oid = d.refobjid "
			"   WHERE d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype = 'a') END) ", "SEQUENCE");

/* What is made later in the schema, by those who make it. */
static const char *const by_default =
CHOSEN
", creators AS (SELECT oid, rolname FROM pg_roles WHERE $2 IS NOT NULL "
"  AND CASE WHEN $6 IS NULL THEN oid IN (SELECT relowner FROM chosen UNION SELECT nspowner FROM pg_namespace WHERE nspname = $2) "
"   ELSE rolname = ANY ($6) END AND rolname <> $1), "
"kinds AS (SELECT * FROM (VALUES ('r'::\"char\", 'TABLES', CASE WHEN $7 THEN '{}' ELSE $4 END), ('S', 'SEQUENCES', $5)) k (kind, word, wanted)), "
"differences AS (SELECT c.rolname, k.word, "
"  (SELECT string_agg(w, ', ' ORDER BY w) FROM unnest(k.wanted) w WHERE w <> ALL (h.had)) AS missing, "
"  (SELECT string_agg(x, ', ' ORDER BY x) FROM unnest(h.had) x WHERE x <> ALL (k.wanted)) AS excess "
" FROM creators c CROSS JOIN kinds k CROSS JOIN LATERAL (SELECT ARRAY(SELECT a.privilege_type FROM role r, pg_default_acl d "
"   JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a "
"   WHERE a.grantee = r.oid AND n.nspname = $2 AND d.defaclrole = c.oid AND d.defaclobjtype = k.kind) AS had) h) "
"SELECT s FROM (SELECT rolname, word, 1 AS at, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I REVOKE %s ON %s FROM %I', rolname, $2, excess, word, $1) AS s "
"  FROM differences WHERE excess IS NOT NULL "
" UNION ALL SELECT rolname, word, 2, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT %s ON %s TO %I', rolname, $2, missing, word, $1) "
"  FROM differences WHERE missing IS NOT NULL) d ORDER BY rolname, word DESC, at";

/* Members of the owner own; TRUNCATE, which no policy covers, the owner loses. */
static const char *const as_admin =
CHOSEN
"SELECT s FROM (SELECT DISTINCT 1 AS at, format('GRANT %I TO %I', o.rolname, $1) AS s FROM chosen c JOIN pg_roles o ON o.oid = c.relowner, role r "
"  WHERE c.relkind IN ('r', 'p') AND o.oid <> r.oid AND NOT EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = o.oid AND m.member = r.oid) "
" UNION ALL SELECT 2, format('REVOKE TRUNCATE ON TABLE %s FROM %I', c.name, o.rolname) FROM chosen c JOIN pg_roles o ON o.oid = c.relowner "
"  WHERE c.relkind IN ('r', 'p', 'f') AND EXISTS (SELECT FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a "
"   WHERE a.grantee = c.relowner AND a.privilege_type = 'TRUNCATE')) d ORDER BY at, s COLLATE \"C\"";

static const char *const not_as_admin =
CHOSEN
"SELECT DISTINCT format('REVOKE %I FROM %I', o.rolname, $1) FROM chosen c JOIN pg_roles o ON o.oid = c.relowner, role r "
" WHERE EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = o.oid AND m.member = r.oid) ORDER BY 1";

static const char *const not_isolated =
CHOSEN
"SELECT c.name FROM chosen c WHERE c.relkind IN ('r', 'p') AND NOT " IS_ISOLATED " ORDER BY c.name COLLATE \"C\"";

/* Tables whose owner no policy holds, or can become who is not held. */
static const char *const owned_by_powerful =
CHOSEN
"SELECT c.name FROM chosen c WHERE c.relkind IN ('r', 'p') AND EXISTS (SELECT FROM rowkeeper._tenant_powers p "
"  WHERE pg_has_role(c.relowner, p.role, 'MEMBER')) ORDER BY c.name COLLATE \"C\"";

/* Owners of tables who are trusted with functions, which level "admin" hands on. */
static const char *const trusted_owners =
CHOSEN
"SELECT format('%I, which is trusted with %s', pg_get_userbyid(o.owner), string_agg(DISTINCT p.proname, ', ')) "
" FROM (SELECT DISTINCT relowner FROM chosen WHERE relkind IN ('r', 'p')) o (owner) "
" JOIN pg_proc p ON has_function_privilege(o.owner, p.oid, 'EXECUTE') AND NOT has_function_privilege(0::oid, p.oid, 'EXECUTE') "
" WHERE p.pronamespace = 'rowkeeper'::regnamespace AND p.proname IN ('tenant_set', 'user_set', 'tenant_set_signed', 'tenant_sign', 'tenant_bypass') "
" GROUP BY o.owner ORDER BY 1";

/* What makes the role one that no policy holds, or lets it become one. */
static const char *const powers_of =
"SELECT CASE WHEN p.role = r.oid OR p.power ~ '^the rights' THEN format('It has %s.', p.power) ELSE format('It can become %I, which has %s.', p.rolname, p.power) END "
" FROM rowkeeper._tenant_powers p, pg_roles r WHERE r.rolname = $1 "
" AND pg_has_role(r.oid, p.role, 'MEMBER') ORDER BY p.role <> r.oid, p.rolname COLLATE \"C\"";

/*
 * Everything that was granted to a role itself in this database, and by whom
 * where that is not the owner: only who granted something can take it away.
 */
static const char *const everything_of =
"WITH role AS (SELECT oid, rolname FROM pg_roles WHERE rolname = $1), "
"objects AS (SELECT 2 AS at, format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname) AS name, "
"   c.relowner AS owner, c.relacl AS acl FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
" UNION ALL SELECT 2, format('TABLE %I.%I', n.nspname, c.relname), c.relowner, t.attacl "
"  FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.attacl IS NOT NULL "
" UNION ALL SELECT 2, 'ROUTINE ' || oid::regprocedure, proowner, proacl FROM pg_proc WHERE proacl IS NOT NULL "
" UNION ALL SELECT 2, format('TYPE %I.%I', n.nspname, t.typname), t.typowner, t.typacl FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace "
" UNION ALL SELECT 2, format('LANGUAGE %I', lanname), lanowner, lanacl FROM pg_language "
" UNION ALL SELECT 2, format('FOREIGN DATA WRAPPER %I', fdwname), fdwowner, fdwacl FROM pg_foreign_data_wrapper "
" UNION ALL SELECT 2, format('FOREIGN SERVER %I', srvname), srvowner, srvacl FROM pg_foreign_server "
" UNION ALL SELECT 2, 'LARGE OBJECT ' || oid, lomowner, lomacl FROM pg_largeobject_metadata WHERE lomacl IS NOT NULL "
" UNION ALL SELECT 3, format('SCHEMA %I', nspname), nspowner, nspacl FROM pg_namespace "
" UNION ALL SELECT 5, format('DATABASE %I', datname), datdba, datacl FROM pg_database WHERE datname = current_database()) "
"SELECT s, grantor FROM (SELECT 1 AS at, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE ALL ON %s FROM %I', pg_get_userbyid(d.defaclrole), "
"   ' IN SCHEMA ' || quote_ident(n.nspname), CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' "
"    WHEN 'f' THEN 'ROUTINES' WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END, $1) AS s, NULL::name AS grantor "
"  FROM role r, pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace "
"  WHERE d.defaclrole <> r.oid AND EXISTS (SELECT FROM aclexplode(d.defaclacl) a WHERE a.grantee = r.oid) "
" UNION SELECT o.at, format('REVOKE ALL ON %s FROM %I%s', o.name, $1, ' GRANTED BY ' || quote_ident(g.rolname)), g.rolname "
"  FROM role r CROSS JOIN objects o CROSS JOIN aclexplode(o.acl) a LEFT JOIN pg_roles g ON g.oid = a.grantor AND a.grantor <> o.owner "
"  WHERE a.grantee = r.oid AND o.owner <> r.oid "
" UNION SELECT 4, format('REVOKE %I FROM %I%s', o.rolname, $1, ' GRANTED BY ' || quote_ident(g.rolname)), NULL FROM role r JOIN pg_auth_members m ON m.member = r.oid "
"  JOIN pg_roles o ON o.oid = m.roleid LEFT JOIN pg_roles g ON g.oid = m.grantor AND g.oid <> 10 "
"  WHERE EXISTS (SELECT FROM pg_class c WHERE c.relowner = o.oid)) d "
"ORDER BY at, s COLLATE \"C\"";

/* ---- running what a query says ---- */

static Datum
text_array(const char *literal)
{
	return OidInputFunctionCall(F_ARRAY_IN, pstrdup(literal), TEXTOID, -1);
}

static bool
is_own(const Level *level)
{
	return level != NULL && strcmp(level->name, "own") == 0;
}

/* The texts in a column of what a query gives (null: ""), in the caller's memory. */
static List *
ask_column(const Call *call, const char *sql, int column)
{
	Oid			types[7] = {NAMEOID, NAMEOID, OIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, NAMEARRAYOID, BOOLOID};
	Datum		values[7] = {
		DirectFunctionCall1(namein, CStringGetDatum(call->role)), call->schema, call->tables,
		text_array(call->level == NULL ? "{}" : call->level->tables),
		text_array(call->level == NULL ? "{}" : call->level->sequences), call->created_by,
		BoolGetDatum(is_own(call->level))
	};
	char		nulls[8] = "       ";
	MemoryContext caller = CurrentMemoryContext;
	List	   *texts = NIL;
	RkIdentity	saved;

	nulls[1] = call->schema == 0 ? 'n' : ' ';
	nulls[2] = call->tables == 0 ? 'n' : ' ';
	nulls[5] = call->created_by == 0 ? 'n' : ' ';
	rk_identity_assume(&saved, GetUserId(), false);
	SPI_connect();
	if (SPI_execute_with_args(sql, 7, types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not compare the rights of a role");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *text = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, column);
		MemoryContext old = MemoryContextSwitchTo(caller);

		texts = lappend(texts, pstrdup(text == NULL ? "" : text));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return texts;
}

static List *
ask(const Call *call, const char *sql)
{
	return ask_column(call, sql, 1);
}

/* What a REVOKE leaves was granted by another role than the owner. */
static void
refuse_others_grants(const char *role, const char *step)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the rights of role \"%s\" would not be as asked", role),
			 errdetail("This changes nothing: %s", step),
			 errhint("Only who granted a right can take it away. SELECT rowkeeper.service_off(%s) first takes away everything, as whoever granted it.",
					 quote_literal_cstr(role))));
}

static void
run_all(const Call *call, const char *sql)
{
	List	   *steps = ask(call, sql);
	ListCell   *lc;

	foreach(lc, steps)
		rk_run_step(call->fcinfo, GetUserId(), lfirst(lc));
	if (steps != NIL && (steps = ask(call, sql)) != NIL)
		refuse_others_grants(call->role, linitial(steps));
}

/* ---- the role ---- */

static const Level *
find_level(const char *name)
{
	for (int i = 0; i < lengthof(levels); i++)
		if (strcmp(levels[i].name, name) == 0)
			return &levels[i];
	rk_refuse_option("level", psprintf("\"%s\" is not a level", name), "Use 'read', 'write', 'own' or 'admin'.");
}

/* A service is no superuser, nor has it BYPASSRLS. */
static void
ensure_role(const Call *call)
{
	Oid			role = get_role_oid(call->role, true);
	bool		isnull;

	if (!OidIsValid(role))
	{
		rk_run_step(call->fcinfo, GetUserId(),
					psprintf("CREATE ROLE %s LOGIN NOBYPASSRLS", quote_identifier(call->role)));
		return;
	}
	if (superuser_arg(role))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("role \"%s\" is a superuser, which no level limits", call->role)));
	if (DatumGetBool(rk_fetch_about(GetUserId(), role, "SELECT rolbypassrls FROM pg_roles WHERE oid = $1", &isnull)))
		rk_run_step(call->fcinfo, GetUserId(),
					psprintf("ALTER ROLE %s NOBYPASSRLS", quote_identifier(call->role)));
}

static void
ensure_connect(const Call *call)
{
	Oid			role = get_role_oid(call->role, false);
	bool		isnull;

	if (!DatumGetBool(rk_fetch_about(GetUserId(), role,
									 "SELECT has_database_privilege($1, current_database(), 'CONNECT')", &isnull)))
		rk_run_step(call->fcinfo, GetUserId(),
					psprintf("GRANT CONNECT ON DATABASE %s TO %s",
							 quote_identifier(get_database_name(MyDatabaseId)), quote_identifier(call->role)));
}

static void
check_isolated(const Call *call)
{
	List	   *missing = ask(call, not_isolated);

	if (missing != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tenants in %s are not isolated, so level \"own\" would be \"write\"", (char *) linitial(missing)),
				 errhint("SELECT rowkeeper.tenant(%s) first, or name the tables.",
						 quote_literal_cstr(linitial(missing)))));
}

/* Level "admin" makes the role a member of owners: of none that no policy holds. */
static void
check_owners(const Call *call)
{
	List	   *tables = ask(call, owned_by_powerful);
	ListCell   *owner;

	if (tables != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the owner of %s is, or can become, a role that no policy holds, which level \"admin\" would hand on",
						(char *) linitial(tables)),
				 errhint("ALTER TABLE %s OWNER TO a role without such rights.", (char *) linitial(tables))));
	foreach(owner, ask(call, trusted_owners))
		ereport(WARNING,
				(errmsg("level \"admin\" makes role \"%s\" a member of %s, and hands that on",
						call->role, (char *) lfirst(owner))));
}

/* No level limits a role that no policy holds, or that can become one. */
static void
check_powers(const Call *call)
{
	List	   *powers = ask(call, powers_of);

	if (powers != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no policy holds role \"%s\", whatever its level", call->role),
				 errdetail("%s", (char *) linitial(powers)),
				 errhint("ALTER ROLE takes an attribute away, REVOKE a membership.")));
}

static void
check_not_null(FunctionCallInfo fcinfo, int count)
{
	for (int i = 0; i < count; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %d must not be null", i + 1)));
}

/*
 * rowkeeper.service_role(role name, level text, schema name, tables
 * regclass[], created_by name[]) returns SETOF text: a login role with exactly
 * the rights of its level on the tables of a schema, also on those that the
 * roles created_by (NULL: the owners of those there are) make later, or on
 * these tables only; level 'own' is of isolated tables and views with their
 * reader's rights, and of nothing made later. The role is made where it does not exist, never with a
 * password. The caller needs the right to give what is given. 22023 no such
 * level, or neither schema nor tables; 3F000 no such schema; 55000 level 'own'
 * on a table that is not isolated, 'admin' of an owner that no policy holds, a
 * role that no policy holds or that can become such a one, or that has more
 * than its level by a grant of another role than the owner.
 */
Datum
rowkeeper_service_role(PG_FUNCTION_ARGS)
{
	Call		call = {.fcinfo = fcinfo};

	rk_steps_begin(fcinfo);
	check_not_null(fcinfo, 2);
	call.role = NameStr(*PG_GETARG_NAME(0));
	call.level = find_level(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (PG_ARGISNULL(2) == PG_ARGISNULL(3))
		rk_refuse_option("schema", "either a schema or tables must be named", NULL);
	if (!PG_ARGISNULL(2))
	{
		(void) get_namespace_oid(NameStr(*PG_GETARG_NAME(2)), false);
		call.schema = PG_GETARG_DATUM(2);
	}
	else
		call.tables = PG_GETARG_DATUM(3);
	call.created_by = PG_ARGISNULL(4) ? 0 : PG_GETARG_DATUM(4);

	if (is_own(call.level))
		check_isolated(&call);
	if (strcmp(call.level->name, "admin") == 0)
		check_owners(&call);
	ensure_role(&call);
	ensure_connect(&call);
	run_all(&call, on_schemas);
	run_all(&call, on_tables);
	run_all(&call, on_sequences);
	run_all(&call, by_default);
	run_all(&call, strcmp(call.level->name, "admin") == 0 ? as_admin : not_as_admin);
	check_powers(&call);
	return (Datum) 0;
}

/*
 * Take everything away, as who granted it where the caller may act as that
 * role. What he may not is left, and told.
 */
static void
take_everything(const Call *call)
{
	List	   *steps = ask_column(call, everything_of, 1);
	List	   *grantors = ask_column(call, everything_of, 2);
	ListCell   *step;
	ListCell   *name;

	forboth(step, steps, name, grantors)
	{
		const char *grantor = lfirst(name);
		Oid			role = grantor[0] == '\0' ? GetUserId() : get_role_oid(grantor, false);

		if (has_privs_of_role(GetUserId(), role))
			rk_run_step(call->fcinfo, role, lfirst(step));
	}
	foreach(step, steps == NIL ? NIL : ask(call, everything_of))
		ereport(WARNING,
				(errmsg("role \"%s\" keeps what the caller cannot take away", call->role),
				 errhint("As who granted it: %s", (char *) lfirst(step))));
}

/*
 * rowkeeper.service_off(role name) returns SETOF text: takes away whatever was
 * granted to the role itself in this database, what tenant_role() trusts it
 * with too, and its membership in owners of tables. The role stays. Locks: as
 * tenant_role(), where it is trusted. 42704 no such role, 42501 where it is
 * trusted and the caller may not say whom to trust.
 */
Datum
rowkeeper_service_off(PG_FUNCTION_ARGS)
{
	Call		call = {.fcinfo = fcinfo};
	bool		was_trusted;

	rk_steps_begin(fcinfo);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	call.role = NameStr(*PG_GETARG_NAME(0));
	was_trusted = rk_tenant_trust_take(fcinfo, get_role_oid(call.role, false));
	take_everything(&call);
	if (was_trusted)
		rk_tenant_bypass_follow(fcinfo);
	return (Datum) 0;
}

/* ---- columns ---- */

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/* The names in an array, sorted, each once. */
static List *
sorted_names(ArrayType *array)
{
	List	   *names = rk_names_argument(array);
	List	   *different = NIL;
	ListCell   *lc;

	foreach(lc, names)
	{
		if (lfirst(lc) == NULL)
			lfirst(lc) = "";
	}
	list_sort(names, compare_names);
	foreach(lc, names)
		if (different == NIL || strcmp(llast(different), lfirst(lc)) != 0)
		different = lappend(different, lfirst(lc));
	return different;
}

/* The columns that a call names, as sorted_names() has them. Checks that they exist. */
static List *
column_names(Oid relid, ArrayType *array)
{
	List	   *names = sorted_names(array);
	ListCell   *lc;

	foreach(lc, names)
		if (get_attnum(relid, lfirst(lc)) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of %s does not exist", (char *) lfirst(lc), rk_relation_name(relid))));
	return names;
}

/* The columns on which a role has a right, as sorted_names() has them. */
static List *
granted_columns(Oid relid, Oid role, const char *privilege)
{
	Oid			types[3] = {OIDOID, OIDOID, TEXTOID};
	Datum		values[3] = {ObjectIdGetDatum(relid), ObjectIdGetDatum(role), CStringGetTextDatum(privilege)};
	bool		isnull;
	Datum		names = rk_fetch(GetUserId(),
								 "SELECT array_agg(t.attname) FROM pg_attribute t, aclexplode(t.attacl) a"
								 " WHERE t.attrelid = $1 AND a.grantee = $2 AND a.privilege_type = $3",
								 3, types, values, NULL, &isnull);

	return isnull ? NIL : sorted_names(DatumGetArrayTypeP(names));
}

static bool
equal_names(const List *a, const List *b)
{
	if (list_length(a) != list_length(b))
		return false;
	for (int i = 0; i < list_length(a); i++)
		if (strcmp(list_nth(a, i), list_nth(b, i)) != 0)
			return false;
	return true;
}

/* Names as GRANT takes them. Quoted last of all: a name may be anything. */
static char *
quoted_names(const List *names)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, names)
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", quote_identifier(lfirst(lc)));
	return list.data;
}

static void
ensure_columns(FunctionCallInfo fcinfo, Oid relid, const char *role, const char *privilege, List *wanted)
{
	Oid			grantee = get_role_oid(role, false);
	List	   *had = granted_columns(relid, grantee, privilege);

	if (equal_names(had, wanted))
		return;
	if (had != NIL)
		rk_run_step(fcinfo, GetUserId(),
					psprintf("REVOKE %s (%s) ON %s FROM %s", privilege, quoted_names(had), rk_relation_name(relid), quote_identifier(role)));
	if (wanted != NIL)
		rk_run_step(fcinfo, GetUserId(),
					psprintf("GRANT %s (%s) ON %s TO %s", privilege, quoted_names(wanted), rk_relation_name(relid), quote_identifier(role)));
	had = granted_columns(relid, grantee, privilege);
	if (!equal_names(had, wanted))
		refuse_others_grants(role, psprintf("REVOKE %s (%s) ON %s FROM %s", privilege, quoted_names(had),
											rk_relation_name(relid), quote_identifier(role)));
}

/* REVOKE of the rights on the table beside which rights on columns mean nothing, or NULL. */
static char *
revoke_of_table_rights(Oid relid, const char *role)
{
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2] = {ObjectIdGetDatum(relid), ObjectIdGetDatum(get_role_oid(role, false))};
	bool		isnull;
	Datum		rights = rk_fetch(GetUserId(),
								  "SELECT string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) FROM pg_class c, aclexplode(c.relacl) a"
								  " WHERE c.oid = $1 AND a.grantee = $2 AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE')",
								  2, types, values, NULL, &isnull);

	return isnull ? NULL : psprintf("REVOKE %s ON %s FROM %s", TextDatumGetCString(rights),
									rk_relation_name(relid), quote_identifier(role));
}

static void
revoke_table_rights(FunctionCallInfo fcinfo, Oid relid, const char *role)
{
	char	   *step = revoke_of_table_rights(relid, role);

	if (step == NULL)
		return;
	rk_run_step(fcinfo, GetUserId(), step);
	if (revoke_of_table_rights(relid, role) != NULL)
		refuse_others_grants(role, step);
}

/*
 * rowkeeper.service_columns(role name, target regclass, read name[], write
 * name[]) returns SETOF text: the role may read and write these columns of a
 * table and no others; what it had on the whole table goes, but for DELETE.
 * RETURNING and ON CONFLICT need the right to read what they name. service_role()
 * leaves such a table alone. 42703 no such column, 42704 no such role, 55000
 * where it would keep what another role than the owner granted.
 */
Datum
rowkeeper_service_columns(PG_FUNCTION_ARGS)
{
	char	   *role;
	Oid			relid;
	List	   *read;
	List	   *write;

	rk_steps_begin(fcinfo);
	check_not_null(fcinfo, 4);
	role = NameStr(*PG_GETARG_NAME(0));
	relid = PG_GETARG_OID(1);
	if (get_rel_name(relid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	(void) get_role_oid(role, false);
	read = column_names(relid, PG_GETARG_ARRAYTYPE_P(2));
	write = column_names(relid, PG_GETARG_ARRAYTYPE_P(3));
	revoke_table_rights(fcinfo, relid, role);
	ensure_columns(fcinfo, relid, role, "SELECT", read);
	ensure_columns(fcinfo, relid, role, "INSERT", write);
	ensure_columns(fcinfo, relid, role, "UPDATE", write);
	return (Datum) 0;
}
