# A dump holds the whole audit: restored beside the extension it goes on, and
# restored where the extension is missing it can still be read.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;

my $node = new_server('dump');
my $dump = $node->basedir . '/dump';

sql($node, <<'SQL');
CREATE ROLE app;
CREATE ROLE app_owner;
CREATE SCHEMA shop AUTHORIZATION app_owner;
SET ROLE app_owner;
CREATE TYPE shop.status AS ENUM ('new', 'paid');
CREATE TABLE shop.customers (id int PRIMARY KEY, name text, password text);
CREATE TABLE shop.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer int REFERENCES shop.customers ON DELETE CASCADE DEFERRABLE, status shop.status, doc jsonb,
	doubled int GENERATED ALWAYS AS (customer * 2) STORED);
CREATE TABLE shop.parts (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE shop.parts_north PARTITION OF shop.parts FOR VALUES IN ('north');
CREATE TABLE shop.parts_more PARTITION OF shop.parts FOR VALUES IN ('east', 'west') PARTITION BY LIST (region);
CREATE TABLE shop.parts_east PARTITION OF shop.parts_more FOR VALUES IN ('east');
CREATE TABLE shop.parts_west PARTITION OF shop.parts_more FOR VALUES IN ('west');
CREATE TABLE shop.local (id int PRIMARY KEY);
CREATE TABLE shop.brief (id int PRIMARY KEY);
CREATE TABLE shop.gone (id int PRIMARY KEY);
SELECT rowkeeper.audit('shop.customers', exclude => '{password}', keep => '90 days');
SELECT rowkeeper.audit('shop.orders', capture => 'full');
SELECT rowkeeper.audit('shop.parts');
SELECT rowkeeper.audit('shop.local', replica => false);
SELECT rowkeeper.audit('shop.brief', keep => '10 days');
SELECT rowkeeper.audit('shop.gone');
GRANT USAGE ON SCHEMA shop TO app;
GRANT SELECT ON shop.orders TO app;
SET app.user_id = 'alice';
INSERT INTO shop.customers VALUES (1, 'a', 'secret'), (2, 'b', 'secret'), (3, 'c', 'secret');
INSERT INTO shop.orders (customer, status, doc) SELECT 1 + i % 3, 'new', '{"a": [1, null]}' FROM generate_series(1, 9) i;
UPDATE shop.orders SET status = 'paid' WHERE id = 2;
DELETE FROM shop.customers WHERE id = 3;
INSERT INTO shop.parts VALUES (1, 'north', 'a'), (2, 'east', 'b');
UPDATE shop.parts SET region = 'west' WHERE id = 1;
INSERT INTO shop.local VALUES (1);
INSERT INTO shop.brief VALUES (1);
INSERT INTO shop.gone VALUES (1);
ALTER TABLE shop.gone RENAME TO gone_soon;
DROP TABLE shop.gone_soon;
ALTER TABLE shop.local RENAME TO localized;
RESET ROLE;
SQL

# Some entries in the overflow, too, from another actor.
sql($node, <<'SQL');
DO $$ BEGIN EXECUTE format('DROP TABLE rowkeeper_log.log_c%s_p%s',
	(SELECT class FROM rowkeeper_log.classes WHERE keep = '10 days'),
	to_char(date_trunc('week', now() AT TIME ZONE 'UTC'), 'YYYYMMDD')); END $$;
SET ROLE app_owner;
SET app.user_id = 'bob';
INSERT INTO shop.brief VALUES (2), (3);
SELECT rowkeeper.audit_off('shop.brief');
UPDATE shop.orders SET doc = '[]';
SQL
is(sql($node, "SELECT count(*) > 2 FROM rowkeeper_log.log_overflow"), 't', 'there are entries in the overflow');

my $whole_log = <<'SQL';
SELECT id, changed_at, txid, table_schema, table_name, relation, action, record_id, old_data, new_data,
	changed_fields, actor, actor_source, db_user, db_role, client_addr, application_name, context, tenant
FROM rowkeeper.audit_log
SQL
my $triggers = <<'SQL';
SELECT tgrelid::regclass, tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger
WHERE tgname LIKE '%rowkeeper%' ORDER BY tgrelid::regclass::text COLLATE "C", tgname
SQL
my $rights = <<'SQL';
SELECT c.oid::regclass, relkind, relowner::regrole, relacl, relrowsecurity, relreplident,
	ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid ORDER BY 1)
FROM pg_class c WHERE relnamespace = 'rowkeeper_log'::regnamespace AND relkind NOT IN ('i', 'I')
ORDER BY relname COLLATE "C"
SQL
my $dictionary = 'SELECT * FROM rowkeeper_log.tables ORDER BY table_id, from_id';
my $notes = 'SELECT * FROM rowkeeper_log.partitions ORDER BY relation::text COLLATE "C"';
my $last = sql($node, 'SELECT max(id) FROM rowkeeper.audit_log');
my $entries = sql($node, 'SELECT count(*) FROM rowkeeper.audit_log');
my $before = sql($node, "$whole_log ORDER BY id");

cmp_ok($entries, '>', 20, 'there is something to dump');
is(sql($node, "SELECT count(*) FROM rowkeeper.audit_log WHERE actor IS NULL"), 0, 'with who did it');
is(sql($node, "SELECT count(DISTINCT table_name) > 4 AND count(*) FILTER (WHERE relation IS NULL) > 0 FROM rowkeeper.audit_log"),
	't', 'of several tables, one of them dropped');

# The log in the other database is the one that was dumped, and tells the rest.
sub is_same_log
{
	my ($database, $name) = @_;

	is(sql($node, "$whole_log WHERE id <= $last ORDER BY id", $database), $before, "$name: every entry");
	is(sql($node, $dictionary, $database), sql($node, $dictionary), "$name: names over time");
	is(sql($node, $notes, $database), sql($node, $notes), "$name: notes on partitions");
	is(sql($node, $rights, $database), sql($node, $rights), "$name: rights, indexes and row security of the log");
	return;
}

# It goes on where it left off.
sub goes_on
{
	my ($database, $name) = @_;

	is(sql($node, $triggers, $database), sql($node, $triggers), "$name: options and triggers");
	is(sql($node, "SELECT id, action, table_name FROM rowkeeper.audit_log WHERE id > $last AND action <> 'ALTER' ORDER BY id", $database),
		'', "$name: the restore itself is no change of rows");
	sql($node, <<'SQL', $database);
SET ROLE app_owner;
SET app.user_id = 'carol';
UPDATE shop.orders SET status = 'paid' WHERE id = 1;
UPDATE shop.customers SET name = 'aa', password = 'x' WHERE id = 1;
INSERT INTO shop.parts VALUES (9, 'west', 'later');
UPDATE shop.parts SET region = 'north' WHERE id = 9;
SQL
	is_sql($node, <<"SQL", <<'EXPECTED', "$name: what comes next", $database);
SELECT table_name, action, record_id, old_data, new_data ->> 'status', new_data ->> 'region', actor
FROM rowkeeper.audit_log WHERE id > $last AND action <> 'ALTER' ORDER BY id
SQL
	orders|UPDATE|{"id": 1}|{"id": 1, "doc": [], "status": "new", "doubled": 4, "customer": 2}|paid||carol
	customers|UPDATE|{"id": 1}|{"name": "a"}|||carol
	parts|INSERT|{"id": 9, "region": "west"}|||west|carol
	parts|UPDATE|{"id": 9, "region": "west"}|{"region": "west"}||north|carol
EXPECTED
	is_sql($node, "SELECT count(*) FROM (SELECT table_name FROM rowkeeper_log.tables WHERE to_id IS NULL
		AND relation IS NOT NULL GROUP BY 1 HAVING count(*) > 1) twice", '0', "$name: under the same table ids", $database);
	foreach my $table ('shop.customers', 'shop.orders', 'shop.parts', 'shop.localized')
	{
		is(sql($node, "SET ROLE app_owner; SELECT * FROM rowkeeper.audit('$table')", $database),
			'', "$name: audit('$table') again changes nothing");
	}
	is_complete($node, 'shop.parts', "$name: replaying the log gives the table", database => $database);
	is_sql($node, "SET ROLE app; SELECT count(DISTINCT table_name), max(table_name) FROM rowkeeper.audit_log",
		'1|orders', "$name: a role reads what it may", $database);
	return;
}

sub pg
{
	my (@command) = @_;

	# one that fails is to tell what it said
	$node->command_checks_all([@command], 0, [], [qr/^$/], join ' ', map { $_ =~ m{/} ? '...' : $_ } @command);
	return;
}

# ---- into another database ----

pg('pg_dump', '-Fc', '-f', "$dump.custom", 'postgres');
sql($node, 'CREATE DATABASE whole');
pg('pg_restore', '--exit-on-error', '-d', 'whole', "$dump.custom");
is_same_log('whole', 'whole');
goes_on('whole', 'whole');

pg('pg_dump', '-Fd', '-j2', '-f', "$dump.directory", 'postgres');
sql($node, 'CREATE DATABASE parallel');
pg('pg_restore', '--exit-on-error', '-j2', '-d', 'parallel', "$dump.directory");
is_same_log('parallel', 'parallel');
goes_on('parallel', 'parallel');

# Its workers may create a trigger before the primary key, or before that of a
# partitioned table is complete.
my ($order) = run_command([ $node->installed_command('pg_restore'), '-l', "$dump.custom" ]);
my @order = split /\n/, $order;
my @early = grep { / TRIGGER shop / } @order;
my ($post_data) = grep { $order[$_] =~ / CONSTRAINT / } 0 .. $#order;
@order = ((grep { !/ TRIGGER shop / } @order[ 0 .. $post_data - 1 ]), @early, grep { !/ TRIGGER shop / } @order[ $post_data .. $#order ]);
append_to_file("$dump.early", join("\n", @order) . "\n");
cmp_ok(scalar(@early), '>', 5, 'there are triggers to restore early');
sql($node, 'CREATE DATABASE early');
pg('pg_restore', '--exit-on-error', '-L', "$dump.early", '-d', 'early', "$dump.custom");
is_same_log('early', 'early');
goes_on('early', 'early');

# ---- schema and data apart ----

pg('pg_dump', '--schema-only', '-Fc', '-f', "$dump.schema", 'postgres');
pg('pg_dump', '--data-only', '-Fc', '-f', "$dump.data", 'postgres');
sql($node, 'CREATE DATABASE apart');
pg('pg_restore', '--exit-on-error', '-d', 'apart', "$dump.schema");
is(sql($node, 'SELECT count(*) FROM rowkeeper.audit_log', 'apart'), 0, 'the schema alone has no entries');
pg('pg_restore', '--exit-on-error', '--data-only', '--disable-triggers', '-d', 'apart', "$dump.data");
is_same_log('apart', 'apart');
goes_on('apart', 'apart');

# Data over live triggers would be logged beside the log that it brings along.
sql($node, 'CREATE DATABASE refused');
pg('pg_restore', '--exit-on-error', '-d', 'refused', "$dump.schema");
my ($out, $err) = run_command(
	[
		$node->installed_command('pg_restore'), '-d', $node->connstr('refused'), '--exit-on-error', '--data-only',
		"$dump.data"
	]);
like($err, qr/the audit log is being restored|the audit log does not know it/, 'data over live triggers fails and says why');
is(sql($node, "SELECT count(*) FROM rowkeeper_log.log WHERE txid NOT IN (SELECT txid FROM rowkeeper_log.log WHERE id <= $last)", 'refused'),
	0, 'and writes nothing of its own');

# ---- where the extension is not installed ----

my ($list) = run_command([ $node->installed_command('pg_restore'), '-l', "$dump.custom" ]);
$list =~ s/^(\d+;.* EXTENSION .*rowkeeper.*)$/;$1/mg;
unlike($list, qr/^\d.*EXTENSION - rowkeeper/m, 'a server that does not have the extension');
append_to_file("$dump.list", $list);
sql($node, 'CREATE DATABASE without');
($out, $err) = run_command(
	[
		$node->installed_command('pg_restore'), '-d', $node->connstr('without'), '-L', "$dump.list",
		"$dump.custom"
	]);
is(sql($node, "SELECT count(*) FROM pg_extension WHERE extname = 'rowkeeper'", 'without'), 0, 'the extension is missing');
my @errors = grep { /error: could not execute/ && !/function rowkeeper\._changes_(row|flush)\(\) does not exist/ }
  split /\n/, $err;
@errors = grep { !/trigger "!?rowkeeper_changes\w*" for table .* does not exist/ } @errors;
@errors = grep { !/relation "rowkeeper\._\w+" does not exist/ } @errors;    # rows of the extension's own tables
is(join("\n", @errors), '', 'nothing but the triggers, functions and tables of the extension is missing');
is_same_log('without', 'without');
sql($node, 'GRANT USAGE ON SCHEMA rowkeeper TO app', 'without');    # came with the extension
is_sql($node, "SET ROLE app; SELECT count(DISTINCT table_name), max(table_name) FROM rowkeeper.audit_log",
	'1|orders', 'without: a role reads what it may', 'without');
sql($node, "UPDATE shop.orders SET status = 'paid'; DELETE FROM shop.parts; DROP TABLE shop.parts", 'without');
is(sql($node, 'SELECT count(*) FROM rowkeeper.audit_log', 'without'), $entries, 'without: tables are plain tables');

# ... and is installed later
sql($node, "SET client_min_messages = warning; CREATE EXTENSION rowkeeper CASCADE; SELECT rowkeeper.audit('shop.orders')",
	'without');
sql($node, "UPDATE shop.orders SET status = 'new' WHERE id = 1", 'without');
is_sql($node, "SELECT table_name, new_data ->> 'status' FROM rowkeeper.audit_log WHERE id > $last AND action = 'UPDATE'",
	'orders|new', 'without: the extension comes, and the history goes on', 'without');

# ---- what pg_upgrade refuses, and what does not survive a restore ----

is_sql($node, <<'SQL', '', 'registry columns are of types that survive');
SELECT c.oid::regclass, attname, atttypid::regtype
FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
WHERE relnamespace IN ('rowkeeper'::regnamespace, 'rowkeeper_log'::regnamespace)
	AND relkind IN ('r', 'p', 'm') AND attnum > 0 AND NOT attisdropped
	AND (atttypid IN ('oid'::regtype, 'oidvector'::regtype, 'xid'::regtype, 'tid'::regtype)
		OR atttypid::regtype::text LIKE 'reg%' AND atttypid NOT IN ('regclass'::regtype, 'regtype'::regtype, 'regrole'::regtype))
	AND NOT EXISTS (SELECT FROM pg_attribute h WHERE h.attrelid = c.oid AND h.attname = 'home')	-- read in its own database only
SQL
is_sql($node, <<'SQL', '', 'the log and what belongs to it are no members of the extension');
SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
	AND (classid = 'pg_class'::regclass AND (SELECT relnamespace FROM pg_class WHERE oid = objid) = 'rowkeeper_log'::regnamespace
		OR classid = 'pg_class'::regclass AND objid = 'rowkeeper.audit_log'::regclass
		OR classid = 'pg_namespace'::regclass AND objid = 'rowkeeper_log'::regnamespace)
SQL

$node->stop;
done_testing();
