# Deleted rows outlive what happens to the server: they are in every dump, are
# there where the extension is not, come back elsewhere, survive a crash in the
# middle of a purge, and are kept for what a subscriber's worker deletes, too.
# Stamps go on where they were.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;

my $node = new_server('kept', allows_streaming => 'logical',
	conf => "max_wal_senders = 10\nmax_replication_slots = 10\n");
my $dump = $node->basedir . '/dump';

sql($node, <<'SQL');
SET client_min_messages = warning;
CREATE ROLE app_owner;
CREATE ROLE app;
CREATE SCHEMA shop AUTHORIZATION app_owner;
GRANT USAGE ON SCHEMA shop TO app;
SET ROLE app_owner;
CREATE TYPE shop.status AS ENUM ('new', 'paid');
CREATE TABLE shop.customers (id int PRIMARY KEY, name text);
CREATE TABLE shop.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer int REFERENCES shop.customers ON DELETE CASCADE, status shop.status, doc jsonb,
	doubled int GENERATED ALWAYS AS (customer * 2) STORED);
CREATE TABLE shop.parts (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE shop.parts_north PARTITION OF shop.parts FOR VALUES IN ('north');
CREATE TABLE shop.parts_south PARTITION OF shop.parts FOR VALUES IN ('south');
CREATE TABLE shop.users (id int PRIMARY KEY, email text, "deletedAt" timestamp);
CREATE TABLE shop.logins (id int PRIMARY KEY, "user" int REFERENCES shop.users ON DELETE CASCADE);
CREATE TABLE shop.dropped (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('shop.orders', mode => 'trash', keep => '90 days');
SELECT rowkeeper.soft_delete('shop.customers', mode => 'trash');
SELECT rowkeeper.soft_delete('shop.parts', mode => 'trash', view_name => 'all_parts');
SELECT rowkeeper.soft_delete('shop.dropped', mode => 'trash');
SELECT rowkeeper.soft_delete('shop.logins');
SELECT rowkeeper.soft_delete('shop.users', deleted_at => 'deletedAt', deleted_by => 'remover');
SELECT rowkeeper.soft_delete_unique('shop.users', '{email}');
SELECT rowkeeper.stamp('shop.users', version => 'version', updated_by => 'changed_by', client_version => 'read', stale => 'error', clock => 'monotonic');
SELECT rowkeeper.stamp('shop.parts');
GRANT SELECT ON shop.orders, shop.active_users TO app;
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON shop.orders TO app USING (customer = 1);
SET app.user_id = 'alice';
INSERT INTO shop.customers SELECT i, 'c' || i FROM generate_series(1, 5) i;
INSERT INTO shop.orders (customer, status, doc) SELECT 1 + i % 5, 'new', '{"a": [1, null]}' FROM generate_series(1, 20) i;
INSERT INTO shop.parts SELECT i, CASE WHEN i % 2 = 0 THEN 'north' ELSE 'south' END, 'p' FROM generate_series(1, 10) i;
INSERT INTO shop.users SELECT i, 'u' || i FROM generate_series(1, 5) i;
INSERT INTO shop.logins SELECT i, 1 + i % 5 FROM generate_series(1, 10) i;
INSERT INTO shop.dropped VALUES (1);
UPDATE shop.users SET email = 'new' || id WHERE id = 4;
DELETE FROM shop.customers WHERE id <= 2;
DELETE FROM shop.orders WHERE id = 7;
ALTER TABLE shop.orders ADD COLUMN note text DEFAULT 'later';
DELETE FROM shop.orders WHERE id = 8;
DELETE FROM shop.parts WHERE id <= 4;
DELETE FROM shop.active_users WHERE id = 1;
DELETE FROM shop.dropped;
DROP TABLE shop.dropped CASCADE;
SELECT rowkeeper.soft_delete_restore('shop.parts', 3, 'south');
SQL

my @trash = qw(shop__orders shop__customers shop__parts shop__dropped);
my $batches = <<'SQL';
SELECT batch, deleted_at, actor, table_schema, table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY 1, 5
SQL
my $calls = "SELECT target, feature, call FROM rowkeeper.features ORDER BY target::text COLLATE \"C\", feature";
my $triggers = <<'SQL';
SELECT tgrelid::regclass, tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger
WHERE tgname ~ 'rowkeeper' ORDER BY tgrelid::regclass::text COLLATE "C", tgname
SQL
my $rights = <<'SQL';
SELECT c.oid::regclass, relkind, relowner::regrole, relacl, relrowsecurity, relreplident,
	ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid ORDER BY 1),
	ARRAY(SELECT polname || pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = c.oid ORDER BY 1),
	ARRAY(SELECT attname || ' ' || attacl::text FROM pg_attribute WHERE attrelid = c.oid AND attacl IS NOT NULL ORDER BY 1)
FROM pg_class c WHERE relnamespace = 'rowkeeper_trash'::regnamespace AND relkind NOT IN ('i', 'I')
ORDER BY relname COLLATE "C"
SQL
my $rows = join ' UNION ALL ', map { "SELECT '$_', to_jsonb(t)::text FROM rowkeeper_trash.$_ t" } @trash;
my $flagged = 'SELECT to_jsonb(t)::text FROM shop.users t UNION ALL SELECT to_jsonb(t)::text FROM shop.logins t';

cmp_ok(sql($node, "SELECT count(*) FROM ($rows) r"), '==', 2 + 8 + 2 + 3 + 1, 'there is something to dump');
cmp_ok(sql($node, "SELECT count(*) FROM rowkeeper.soft_delete_batches"), '==', 8, 'in several batches');
is(sql($node, "SELECT count(*) FROM rowkeeper.doctor() WHERE level = 'error'"), 0, 'and all is well');

sub is_same
{
	my ($database, $name) = @_;

	is(sql($node, "$rows ORDER BY 1, 2", $database), sql($node, "$rows ORDER BY 1, 2"), "$name: every deleted row");
	is(sql($node, "$flagged ORDER BY 1", $database), sql($node, "$flagged ORDER BY 1"), "$name: those that are flagged");
	is(sql($node, 'SELECT * FROM rowkeeper_trash.batches ORDER BY batch, table_name, rows', $database),
		sql($node, 'SELECT * FROM rowkeeper_trash.batches ORDER BY batch, table_name, rows'), "$name: their batches");
	is(sql($node, $rights, $database), sql($node, $rights), "$name: owner, rights, policies and indexes of the trash");
	return;
}

# What was deleted before the dump comes back, and what is deleted next is kept.
sub goes_on
{
	my ($database, $name) = @_;

	is(sql($node, $triggers, $database), sql($node, $triggers), "$name: triggers");
	is(sql($node, $calls, $database), sql($node, $calls), "$name: options");
	is(sql($node, $batches, $database), sql($node, $batches), "$name: batches as users see them");
	is(sql($node, "SELECT * FROM rowkeeper.doctor() WHERE level = 'error'", $database), '', "$name: all is well");
	foreach my $table ('shop.orders', 'shop.customers', 'shop.parts', 'shop.users', 'shop.logins')
	{
		is(sql($node, "SET ROLE app_owner; SELECT * FROM rowkeeper.soft_delete('$table')", $database),
			'', "$name: soft_delete('$table') again changes nothing");
	}
	is_sql($node, <<'SQL', <<'EXPECTED', "$name: a row and what went with it come back", $database);
SET ROLE app_owner;
SELECT table_name, count(*) FROM rowkeeper.soft_delete_restore('shop.customers', 2) GROUP BY 1 ORDER BY 1;
SELECT table_name, count(*) FROM rowkeeper.soft_delete_restore('shop.users', 1) GROUP BY 1 ORDER BY 1;
SELECT record_id, conflict FROM rowkeeper.soft_delete_restore('shop.orders', '8', true);
SQL
	customers|1
	orders|4
	logins|2
	users|1
	{"id": 8}|
EXPECTED
	is_sql($node, <<'SQL', <<'EXPECTED', "$name: batches are numbered on", $database);
SET ROLE app_owner;
SET app.user_id = 'carol';
CREATE TEMPORARY TABLE before AS SELECT max(batch) AS last FROM rowkeeper.soft_delete_batches;
DELETE FROM shop.customers WHERE id = 3;
DELETE FROM shop.active_users WHERE id = 2;
SELECT table_name, batch > last, actor, rows FROM rowkeeper.soft_delete_batches, before WHERE batch > last ORDER BY batch, 1;
SQL
	customers|t|carol|1
	orders|t|carol|3
	logins|t|carol|2
	users|t|carol|1
EXPECTED
	is_sql($node, <<'SQL', <<'EXPECTED', "$name: stamps go on, by the rules they had", $database);
SET ROLE app_owner;
SET app.user_id = 'dora';
SELECT version, changed_by FROM shop.users WHERE id = 4;
UPDATE shop.users SET email = 'newer', version = version WHERE id = 4;
SELECT version, changed_by, updated_at > now() - interval '1 day' FROM shop.users WHERE id = 4;
SQL
	2|alice
	3|dora|t
EXPECTED
	my ($code, $out, $err) =
	  $node->psql($database, "UPDATE shop.users SET email = 'x', version = 1 WHERE id = 4");
	like($err, qr/version/, "$name: a stale version is refused");
	is_sql($node, "SET ROLE app; SELECT id, customer FROM rowkeeper_trash.shop__orders ORDER BY id",
		"5|1\n10|1\n15|1\n20|1", "$name: a role reads what it may", $database);
	return;
}

sub pg
{
	my (@command) = @_;

	$node->command_ok([@command], join ' ', map { $_ =~ m{/} ? '...' : $_ } @command);
	return;
}

# ---- into another database ----

pg('pg_dump', '-Fc', '-f', "$dump.custom", 'postgres');
sql($node, 'CREATE DATABASE whole');
pg('pg_restore', '--exit-on-error', '-d', 'whole', "$dump.custom");
is_same('whole', 'whole');
goes_on('whole', 'whole');

pg('pg_dump', '-Fd', '-j2', '-f', "$dump.directory", 'postgres');
sql($node, 'CREATE DATABASE parallel');
pg('pg_restore', '--exit-on-error', '-j2', '-d', 'parallel', "$dump.directory");
is_same('parallel', 'parallel');
goes_on('parallel', 'parallel');

pg('pg_dump', '--schema-only', '-Fc', '-f', "$dump.schema", 'postgres');
pg('pg_dump', '--data-only', '-Fc', '-f', "$dump.data", 'postgres');
sql($node, 'CREATE DATABASE apart');
pg('pg_restore', '--exit-on-error', '-d', 'apart', "$dump.schema");
pg('pg_restore', '--exit-on-error', '--data-only', '--disable-triggers', '-d', 'apart', "$dump.data");
is_same('apart', 'apart');
goes_on('apart', 'apart');

# ---- where the extension is not installed ----

my ($list) = run_command([ $node->installed_command('pg_restore'), '-l', "$dump.custom" ]);
$list =~ s/^(\d+;.* EXTENSION .*rowkeeper.*)$/;$1/mg;
append_to_file("$dump.list", $list);
sql($node, 'CREATE DATABASE without');
my ($out, $err) = run_command(
	[
		$node->installed_command('pg_restore'), '-d', $node->connstr('without'), '-L', "$dump.list",
		"$dump.custom"
	]);
is(sql($node, "SELECT count(*) FROM pg_extension WHERE extname = 'rowkeeper'", 'without'), 0, 'the extension is missing');
my @errors = grep { /error: could not execute/ && !/function rowkeeper\._\w+\(.*\) does not exist/ } split /\n/, $err;
@errors = grep { !/trigger "\W?rowkeeper_\w*" for table .* does not exist/ } @errors;
@errors = grep { !/schema "rowkeeper" does not exist/ } @errors;
is(join("\n", @errors), '', 'nothing but the triggers and functions of the extension is missing');
is_same('without', 'without');
is(sql($node, 'SELECT count(*) FROM shop.orders_with_deleted WHERE _deleted_at IS NOT NULL', 'without'), 10,
	'without: the view of live and deleted rows');
sql($node, 'DELETE FROM shop.customers WHERE id = 5', 'without');
is_same('without', 'without: tables are plain tables, and');

# ... and is installed later: what was deleted before comes back.
sql($node, "SET client_min_messages = warning; CREATE EXTENSION rowkeeper CASCADE", 'without');
sql($node, <<'SQL', 'without');
SET client_min_messages = warning;
SET ROLE app_owner;
SELECT rowkeeper.soft_delete('shop.orders', mode => 'trash'), rowkeeper.soft_delete('shop.customers', mode => 'trash');
SQL
is_sql($node, <<'SQL', "customers|1\norders|4", 'without: the extension comes, and deleted rows come back', 'without');
SET ROLE app_owner;
SELECT table_name, count(*) FROM rowkeeper.soft_delete_restore('shop.customers', 2) GROUP BY 1 ORDER BY 1;
SQL

# ---- DROP EXTENSION ----

my ($code, $stdout, $stderr) = $node->psql('whole', 'DROP EXTENSION rowkeeper');
like($stderr, qr/cannot drop extension rowkeeper because other objects depend on it/, 'an extension in use is not dropped');
my $kept = sql($node, "$rows ORDER BY 1, 2", 'whole');
sql($node, 'SET client_min_messages = warning; DROP EXTENSION rowkeeper CASCADE', 'whole');
is(sql($node, "$rows ORDER BY 1, 2", 'whole'), $kept, 'dropped with CASCADE, it leaves every deleted row');
is(sql($node, 'SELECT count(*) > 0 FROM rowkeeper_trash.batches', 'whole'), 't', 'and the batches');

# ---- what does not survive a restore ----

is_sql($node, <<'SQL', '', 'columns of the trash are of types that survive');
SELECT c.oid::regclass, attname, atttypid::regtype
FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
WHERE relnamespace = 'rowkeeper_trash'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
	AND (atttypid IN ('oid'::regtype, 'oidvector'::regtype, 'xid'::regtype, 'tid'::regtype)
		OR atttypid::regtype::text LIKE 'reg%' AND atttypid NOT IN ('regclass'::regtype, 'regtype'::regtype, 'regrole'::regtype))
SQL
is_sql($node, <<'SQL', '', 'the trash and what belongs to it are no members of the extension');
SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
	AND (classid = 'pg_class'::regclass AND (SELECT relnamespace FROM pg_class WHERE oid = objid) = 'rowkeeper_trash'::regnamespace
		OR classid = 'pg_namespace'::regclass AND objid = 'rowkeeper_trash'::regnamespace)
SQL

# ---- a crash in the middle of a purge ----

sql($node, <<'SQL');
SET client_min_messages = warning;
CREATE TABLE many (id int PRIMARY KEY, v text);
CREATE TABLE flags (id int PRIMARY KEY, v text);
SELECT rowkeeper.soft_delete('many', mode => 'trash'), rowkeeper.soft_delete('flags');
INSERT INTO many SELECT i, md5(i::text) FROM generate_series(1, 1000) i;
INSERT INTO flags SELECT i, md5(i::text) FROM generate_series(1, 1000) i;
DELETE FROM many WHERE id <= 900;
DELETE FROM active_flags WHERE id <= 900;
CREATE FUNCTION test.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF OLD.id = 555 THEN
		PERFORM pg_advisory_xact_lock(42);
	END IF;
	RETURN OLD;
END $$;
CREATE TRIGGER hold BEFORE DELETE ON rowkeeper_trash.public__many FOR EACH ROW EXECUTE FUNCTION test.hold();
CREATE TRIGGER hold BEFORE DELETE ON flags FOR EACH ROW EXECUTE FUNCTION test.hold();
CREATE ROLE watcher;
SQL

my $total = 'SELECT (SELECT count(*) FROM rowkeeper_trash.public__many), (SELECT count(*) FROM flags),'
  . ' (SELECT sum(rows) FROM rowkeeper.soft_delete_batches WHERE table_name = \'many\'),'
  . ' (SELECT sum(rows) FROM rowkeeper.soft_delete_batches WHERE table_name = \'flags\')';

foreach my $table ('many', 'flags')
{
	my $holder = session($node);
	$holder->query_safe('SELECT pg_advisory_lock(42)');
	my $purge = IPC::Run::start(
		[ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', "CALL rowkeeper.soft_delete_purge('$table', '0', 100)" ],
		'>', '/dev/null', '2>', '/dev/null');
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
	  or die 'the purge does not wait';
	is_sql($node, 'SELECT task, table_name, step, steps, done, total FROM rowkeeper.progress',
		"soft_delete_purge|$table|1|1|500|900", "$table: another session sees how far it is");
	is_sql($node, 'SET ROLE watcher; SELECT count(*) FROM rowkeeper.progress', '0', "$table: a stranger does not");
	$node->stop('immediate');
	eval { $purge->finish };
	eval { $holder->quit };
	$node->start;
	is(sql($node, $total), $table eq 'many' ? '400|1000|400|900' : '0|500||400',
		"$table: what was committed is gone, the rest is there");
	is_sql($node, 'SELECT count(*) FROM rowkeeper.progress', '0', "$table: nothing is in progress");
	sql($node, "CALL rowkeeper.soft_delete_purge('$table', '0', 100)");
	is(sql($node, $total), $table eq 'many' ? '0|1000||900' : '0|100||', "$table: and the purge goes on");
	is_sql($node, 'SELECT count(*) FROM rowkeeper._progress', '0', "$table: it left nothing behind");
}

# ---- logical apply ----

my $publisher = new_server('publisher', bare => 1, allows_streaming => 'logical');
my $tables = <<'SQL';
CREATE TABLE parents (id int PRIMARY KEY, v text);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE);
CREATE TABLE flagged (id int PRIMARY KEY, v text, deleted_at timestamptz, deleted_by text, delete_batch bigint);
CREATE TABLE flagged_children (id int PRIMARY KEY, parent int REFERENCES flagged ON DELETE CASCADE,
	deleted_at timestamptz, deleted_by text, delete_batch bigint);
CREATE TABLE stamped (id int PRIMARY KEY, v text, updated_at timestamptz, version int);
SQL
sql($publisher, $tables . <<'SQL');
CREATE TABLE spread (id int, region text, v text, PRIMARY KEY (id, region));
CREATE PUBLICATION pub FOR TABLE parents, children, flagged, flagged_children, stamped, spread;
INSERT INTO parents SELECT i, 'p' FROM generate_series(1, 5) i;
INSERT INTO children SELECT i, 1 + i % 5 FROM generate_series(1, 10) i;
INSERT INTO flagged SELECT i, 'f' FROM generate_series(1, 5) i;
INSERT INTO flagged_children SELECT i, 1 + i % 5 FROM generate_series(1, 10) i;
INSERT INTO spread SELECT i, 'north', 's' FROM generate_series(1, 5) i;
INSERT INTO stamped VALUES (1, 'a', '2020-01-01', 7);
SQL
sql($node, 'CREATE DATABASE subscriber');
sql($node, $tables . <<'SQL', 'subscriber');
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
CREATE TABLE spread (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE spread_north PARTITION OF spread FOR VALUES IN ('north');
CREATE TABLE spread_south (gone int, v text, region text NOT NULL, id int NOT NULL);
ALTER TABLE spread_south DROP COLUMN gone;
ALTER TABLE spread ATTACH PARTITION spread_south FOR VALUES IN ('south');
SELECT rowkeeper.soft_delete('children', mode => 'trash'), rowkeeper.soft_delete('parents', mode => 'trash'),
	rowkeeper.soft_delete('spread', mode => 'trash'), rowkeeper.soft_delete('flagged_children'), rowkeeper.soft_delete('flagged');
SELECT rowkeeper.stamp('stamped');
SELECT rowkeeper.audit('parents'), rowkeeper.audit('spread'), rowkeeper.audit('flagged');
SQL
my $connection = $publisher->connstr . ' dbname=postgres';
sql($node, "CREATE SUBSCRIPTION sub CONNECTION '$connection' PUBLICATION pub", 'subscriber');
$node->wait_for_subscription_sync($publisher, 'sub', 'subscriber');

sub is_applied
{
	my ($script, $query, $expected, $name) = @_;

	sql($publisher, $script);
	$publisher->wait_for_catchup('sub');
	return is_sql($node, $query, $expected, $name, 'subscriber');
}

is_applied('DELETE FROM parents WHERE id = 1; DELETE FROM parents WHERE id IN (2, 3)',
	'SELECT table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY batch, 1', <<'EXPECTED', 'apply: what one transaction deletes is a batch');
	children|2
	parents|1
	children|4
	parents|2
EXPECTED
is_sql($node, "SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('parents', 1) ORDER BY 1, 2",
	qq(children|{"id": 5}\nchildren|{"id": 10}\nparents|{"id": 1}), 'apply: ... and comes back', 'subscriber');
is_applied("UPDATE spread SET region = 'south' WHERE id <= 3; DELETE FROM spread WHERE id IN (1, 5)",
	'SELECT id, region FROM rowkeeper_trash.public__spread ORDER BY 1', "1|south\n5|north", 'apply: a move is no delete');
is_applied('BEGIN; DELETE FROM spread WHERE id = 2; SAVEPOINT s; DELETE FROM spread WHERE id = 3; ROLLBACK TO s; COMMIT',
	'SELECT count(*) FROM rowkeeper_trash.public__spread', '3', 'apply: what is rolled back is not kept');

# The publisher says what is deleted, and with what stamps.
is_applied("UPDATE flagged SET deleted_at = '2024-01-01', deleted_by = 'far', delete_batch = 3 WHERE id = 1",
	'SELECT id, deleted_at IS NOT NULL, deleted_by, delete_batch FROM flagged WHERE id = 1'
	  . ' UNION ALL SELECT id, deleted_at IS NOT NULL, deleted_by, delete_batch FROM flagged_children WHERE parent = 1 ORDER BY 1',
	"1|t|far|3\n5|f||\n10|f||", 'apply: a flag is written as it comes, and cascades where it came from');
is_applied('DELETE FROM flagged WHERE id = 2', 'SELECT count(*) FROM flagged WHERE id = 2', '0',
	'apply: a delete of the publisher is not refused');
is_applied("UPDATE stamped SET v = 'b', version = 8", 'SELECT v, updated_at::date, version FROM stamped', 'b|2020-01-01|8',
	'apply: stamps are the publisher\'s');
is_applied('TRUNCATE spread; INSERT INTO parents VALUES (9, $$after$$)', 'SELECT (SELECT count(*) FROM spread), (SELECT v FROM parents WHERE id = 9)', '0|after',
	'apply: nor does a TRUNCATE stop it');
is_sql($node, "SELECT table_name, action, count(*) FROM rowkeeper.audit_log
	WHERE context ->> 'session_replication_role' = 'replica' AND action <> 'INSERT' GROUP BY 1, 2 ORDER BY 1, 2", <<'EXPECTED', 'apply: the log says the same', 'subscriber');
	flagged|DELETE|1
	flagged|SOFT DELETE|1
	parents|SOFT DELETE|3
	spread|SOFT DELETE|3
	spread|TRUNCATE|1
	spread|UPDATE|3
EXPECTED

sql($node, 'DROP SUBSCRIPTION sub', 'subscriber');
$publisher->stop;
$node->stop;
done_testing();
