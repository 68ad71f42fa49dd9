# Roles as a real set-up has them: a superuser installs the extension once, the
# tables' owner migrates without being one, the application only writes.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;

my $node = new_server('privileges');
my $superuser = sql($node, 'SELECT current_user');

# Default privileges as generous as they come.
sql($node, <<'SQL');
CREATE ROLE migrator LOGIN;
CREATE ROLE app LOGIN;
CREATE ROLE reader LOGIN;
CREATE ROLE outsider LOGIN;
CREATE SCHEMA shop AUTHORIZATION migrator;
GRANT CREATE ON SCHEMA public TO outsider;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO app, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO app, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO app, PUBLIC;
SQL

# What a login of this role gets from a script: output, or the error.
sub as
{
	my ($role, $script) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "SET client_min_messages = warning; $script",
		extra_params => [ '-U', $role ]);

	$err =~ s/^psql:<stdin>:\d+: //;
	$err =~ s/\n.*//s;
	return $status == 0 ? $out : $err;
}

# ---- the migration ----

my $migration = <<'SQL';
BEGIN;
CREATE TABLE IF NOT EXISTS shop.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, status text, owner_name text);
CREATE TABLE IF NOT EXISTS shop.lines (order_id bigint REFERENCES shop.orders ON DELETE CASCADE, no int, qty int,
	PRIMARY KEY (order_id, no)) PARTITION BY LIST (no);
CREATE TABLE IF NOT EXISTS shop.lines_1 PARTITION OF shop.lines FOR VALUES IN (1, 2, 3);
CREATE TABLE IF NOT EXISTS shop.lines_2 PARTITION OF shop.lines DEFAULT;
INSERT INTO shop.orders (status) SELECT 'seed' WHERE NOT EXISTS (SELECT FROM shop.orders);
SELECT rowkeeper.audit('shop.orders', keep => '1 year');
SELECT rowkeeper.audit('shop.lines');
GRANT USAGE ON SCHEMA shop TO app, reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.orders, shop.lines TO app;
GRANT SELECT ON shop.orders TO reader;
COMMIT;
SQL
like(as('migrator', $migration), qr/created the audit log in schema rowkeeper_log/,
	'a migration of a role that is no superuser');
is(as('migrator', $migration), '', 'the same again does nothing');

my $owner = "SELECT string_agg(DISTINCT relowner::regrole::text, ',') FROM pg_class WHERE relnamespace = 'rowkeeper_log'::regnamespace";
is(sql($node, $owner), $superuser, 'the log belongs to the extension\'s owner');

# ---- the application ----

is(as('app', <<'SQL'), '', 'the application writes');
SET app.user_id = 'alice';
INSERT INTO shop.orders (status) VALUES ('new'), ('new'), ('new');
INSERT INTO shop.lines SELECT id, n, 1 FROM shop.orders, generate_series(1, 5) n;
UPDATE shop.orders SET status = 'paid' WHERE id = 2;
UPDATE shop.lines SET no = 10 WHERE order_id = 2 AND no = 1;
DELETE FROM shop.orders WHERE id = 3;
SQL
is(as('app', "SELECT DISTINCT actor, db_user, db_role FROM rowkeeper.audit_log WHERE action NOT IN ('ALTER')"),
	'alice|app|app', 'and is named, also in what a foreign key cascades');
is(as('app', "SELECT action, count(*) FROM rowkeeper.audit_log WHERE table_name = 'lines' GROUP BY 1 ORDER BY 1"),
	"DELETE|5\nINSERT|20\nUPDATE|1", 'it reads what it may read of the tables');

# Through a function of the owner's it is still the application.
as('migrator', <<'SQL');
CREATE FUNCTION shop.pay(wanted bigint) RETURNS void LANGUAGE sql SECURITY DEFINER
	AS $$ UPDATE shop.orders SET status = 'by function' WHERE id = wanted $$;
SQL
as('app', "SET app.user_id = 'bob'; SELECT shop.pay(1)");
is(as('app', "SELECT actor, db_user, db_role FROM rowkeeper.audit_log WHERE new_data ->> 'status' = 'by function'"),
	'bob|app|app', 'within SECURITY DEFINER, too');

# ---- what it may not ----

is_sql($node, <<'SQL', '', 'nobody else has any right on anything of the log');
SELECT role, c.oid::regclass
FROM pg_class c, unnest(ARRAY['app', 'migrator', 'reader', 'outsider']::name[]) role
WHERE relnamespace = 'rowkeeper_log'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
	AND (has_table_privilege(role, c.oid, 'SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER')
		OR relkind <> 'S' AND has_any_column_privilege(role, c.oid, 'SELECT,INSERT,UPDATE,REFERENCES')
		OR relkind = 'S' AND has_sequence_privilege(role, c.oid, 'USAGE,SELECT,UPDATE')
		OR pg_has_role(role, relowner, 'USAGE'))
SQL
is_sql($node, "SELECT has_schema_privilege('app', 'rowkeeper_log', 'USAGE,CREATE')", 'f', 'nor on its schema');

my $leaf = sql($node, "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'rowkeeper_log.log_c0'::regclass LIMIT 1");
foreach my $attempt (
	[ 'app', "DELETE FROM $leaf", qr/permission denied for schema rowkeeper_log/ ],
	[ 'app', "INSERT INTO rowkeeper_log.log SELECT * FROM rowkeeper_log.log", qr/permission denied/ ],
	[ 'app', "SELECT setval('rowkeeper_log.log_id', 1)", qr/permission denied/ ],
	[ 'app', "SELECT * FROM rowkeeper_log.entries", qr/permission denied/ ],
	[ 'app', "UPDATE rowkeeper.audit_log SET actor = 'x'", qr/permission denied|cannot update view/ ],
	[ 'app', "SELECT rowkeeper.actor(); SET rowkeeper.audit_capture = off", qr/permission denied to set parameter/ ],
	[ 'app', "SELECT rowkeeper.audit_off('shop.orders')", qr/must be owner of table orders/ ],
	[ 'app', "SELECT rowkeeper.audit('shop.orders', exclude => '{status}')", qr/must be owner of table orders/ ],
	[ 'app', "SELECT rowkeeper.leave()", qr/must be owner/ ],
	[ 'app', "ALTER TABLE shop.orders DISABLE TRIGGER ALL", qr/must be owner of table orders/ ],
	[ 'app', "SET session_replication_role = replica", qr/permission denied to set parameter/ ],
	[ 'migrator', "DROP TABLE $leaf", qr/permission denied|must be owner/ ],
	[ 'migrator', "SELECT rowkeeper.actor(); SET rowkeeper.audit_capture = off", qr/permission denied to set parameter/ ],
	[ 'migrator', "ALTER ROLE migrator SET rowkeeper.audit_capture = off", qr/permission denied to set parameter/ ],
	[ 'migrator', "DROP EXTENSION rowkeeper CASCADE", qr/must be owner of extension rowkeeper/ ],
	[ 'outsider', "SELECT rowkeeper.audit('shop.orders')", qr/must be owner of table orders|permission denied for schema/ ],
	[ 'outsider', "CREATE TABLE public.fake (id int PRIMARY KEY); CREATE TRIGGER t AFTER INSERT ON public.fake"
		. " FOR EACH ROW EXECUTE FUNCTION rowkeeper._changes_row('audit', '{}')", qr/is reserved: its name or its function is rowkeeper's/ ],
	[ 'outsider', "SELECT count(*) FROM rowkeeper.audit_log", qr/^0$/ ],
	[ 'reader', "SELECT count(*) FROM rowkeeper.audit_log WHERE table_name <> 'orders'", qr/^0$/ ],
	[ 'reader', "SELECT count(*) > 4 FROM rowkeeper.audit_log", qr/^t$/ ])
{
	my ($role, $script, $expected) = @$attempt;

	like(as($role, $script), $expected, "$role: $script");
}

# Before the session has loaded the module it takes any name for a setting.
as('app', "SET rowkeeper.audit_capture = off; INSERT INTO shop.orders (status) VALUES ('switched off')");
is_sql($node, "SELECT actor FROM rowkeeper.audit_log WHERE new_data ->> 'status' = 'switched off'", 'app',
	'the switch that it set too early is none');

# Trust that was given since is not for an update to take.
sql($node, "SELECT rowkeeper.tenant_role('app', 'set')");
sql($node, 'SELECT rowkeeper._reset_privileges()');
is_sql($node, "SELECT has_function_privilege('app', 'rowkeeper.tenant_set(bigint)', 'EXECUTE')", 't',
	'an update script leaves to roles what tenant_role() gave them');
sql($node, "SELECT rowkeeper.tenant_role('app', 'none')");

# What everybody may execute only looks. The row functions, for which the server
# asks whoever adds a partition, do something only for a trigger: creating one
# is refused, or (_stamp) it stamps the rows of its own table.
is_sql($node, <<'SQL', "rowkeeper._changes_row()\nrowkeeper._soft_delete_guard()\nrowkeeper._soft_delete_row()\nrowkeeper._stamp()\nrowkeeper._tenant_truncate()", 'private functions that do something are nobody\'s');
SELECT p.oid::regprocedure FROM pg_proc p
WHERE pronamespace = 'rowkeeper'::regnamespace AND proname LIKE '\_%' AND provolatile = 'v' AND has_function_privilege('outsider', p.oid, 'EXECUTE')
ORDER BY p.oid::regprocedure::text
SQL

# ---- under row security ----

as('migrator', <<'SQL');
CREATE POLICY own ON shop.orders USING (owner_name = current_user) WITH CHECK (true);
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
SQL
is(as('reader', "SELECT count(*) FROM rowkeeper.audit_log"), '0', 'row security of the table closes its log');
cmp_ok(as('migrator', "SELECT count(*) FROM rowkeeper.audit_log WHERE table_name = 'orders'"), '>', 4, 'but to its owner');
as('app', "INSERT INTO shop.orders (status, owner_name) VALUES ('hidden', 'somebody')");
is_sql($node, "SELECT db_user FROM rowkeeper.audit_log WHERE new_data ->> 'status' = 'hidden'", 'app',
	'what the writer cannot see himself is logged');
as('migrator', "ALTER TABLE shop.orders FORCE ROW LEVEL SECURITY");
as('migrator', "INSERT INTO shop.orders (status, owner_name) VALUES ('forced', 'somebody')");
is_sql($node, "SELECT db_user FROM rowkeeper.audit_log WHERE new_data ->> 'status' = 'forced'", 'migrator',
	'also under FORCE ROW LEVEL SECURITY');

# ---- a search_path full of traps ----

# Functions and operators that shadow the server's, and fail.
sql($node, <<'SQL');
CREATE SCHEMA evil AUTHORIZATION migrator;
GRANT USAGE ON SCHEMA evil TO app;
CREATE FUNCTION test.catch(what text) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'caught in %', what; END $$;
GRANT USAGE ON SCHEMA test TO PUBLIC;
SQL
as('migrator', <<'SQL');
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('now'); END $$;
CREATE FUNCTION evil.max(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('max'); END $$;
CREATE FUNCTION evil.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('format'); END $$;
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('clock'); END $$;
CREATE FUNCTION evil.date_trunc(text, timestamptz, text) RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('date_trunc'); END $$;
CREATE FUNCTION evil.pg_event_trigger_ddl_commands() RETURNS SETOF record LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('ddl'); END $$;
CREATE FUNCTION evil.eq(oid, oid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('oid ='); END $$;
CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('text ='); END $$;
CREATE FUNCTION evil.eq(name, name) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('name ='); END $$;
CREATE FUNCTION evil.eq(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('int ='); END $$;
CREATE FUNCTION evil.eq("char", "char") RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('char ='); END $$;
CREATE FUNCTION evil.eq(regclass, oid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM test.catch('regclass ='); END $$;
CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.eq);
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.eq);
CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.eq);
CREATE OPERATOR evil.= (LEFTARG = "char", RIGHTARG = "char", FUNCTION = evil.eq);
CREATE OPERATOR evil.= (LEFTARG = regclass, RIGHTARG = oid, FUNCTION = evil.eq);
SQL
my $trapped = 'SET search_path = evil, pg_catalog, shop';
is(as('migrator', "$trapped; CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t SET SCHEMA shop; SELECT count(*) > 0 FROM rowkeeper.audit('t', keep => '40 days')"),
	't', 'audit() steps into none of them');
is(as('migrator', "$trapped; GRANT ALL ON t TO app; ALTER TABLE t ADD COLUMN w int; ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t"),
	'', 'nor do the event triggers');
is(as('app', "$trapped; BEGIN; SELECT rowkeeper.set_context('eve', '{}') IS NULL; INSERT INTO t VALUES (1, 'a'), (2, 'b'); UPDATE t SET v = 'c'; DELETE FROM t; TRUNCATE t; COMMIT"),
	'f', 'nor does capture');
is(as('app', "$trapped; SELECT count(*) FROM rowkeeper.audit_history('t', 1)"), '3', 'nor does history');
is(as('app', "$trapped; SELECT count(*) > 2 FROM rowkeeper.audit_log"), 't', 'nor the log');
is(as('app', "$trapped; SELECT count(*) > 0 FROM rowkeeper.audit_coverage"), 't', 'nor coverage');
is(sql($node, "$trapped; CALL rowkeeper.maintain(); SELECT count(*) >= 0 FROM rowkeeper.doctor()"), 't', 'nor maintenance');
is(as('migrator', "$trapped; SELECT count(*) > 0 FROM rowkeeper.audit_off('t')"), 't', 'nor audit_off()');
is(as('migrator', "$trapped; DROP TABLE t"), '', 'nor DROP TABLE');
is_sql($node, "SELECT error FROM rowkeeper.maintain_log WHERE error IS NOT NULL", '', 'and maintenance had no error');

$node->stop;
done_testing();
