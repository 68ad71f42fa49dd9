# The five features on one partitioned table, switched on in twenty different
# orders: each does its job, on the partitions that are there and on those that
# maintenance makes later, after a restart, and in a copy that was restored
# from a dump.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;

my $node = new_server('together');

my %calls = (
	audit => "audit('items')",
	partition => "partition('items', 'id', '10', ahead => '15', keep => '40')",
	soft_delete => "soft_delete('items')",
	stamp => "stamp('items', version => 'version', updated_by => 'updated_by')",
	tenant => "tenant('items')");

sub permutations
{
	my (@words) = @_;

	return ([]) unless @words;
	return map { my $i = $_; map { [ $words[$i], @$_ ] } permutations(@words[ grep { $_ != $i } 0 .. $#words ]) } 0 .. $#words;
}

my @all = permutations(sort keys %calls);
my @orders = map { { name => "in the order @{$all[$_]}", schema => "o$_", calls => $all[$_] } }
  grep { $_ % 6 == int($_ / 6) % 6 } 0 .. $#all;

sub migration
{
	my ($order) = @_;

	return join '', map { "SELECT * FROM rowkeeper.$calls{$_};\n" } @{ $order->{calls} };
}

# What a login of this role gets from a script, in the order's schema.
sub as
{
	my ($role, $order, $script, $database) = @_;
	my (undef, $out, $err) = $node->psql($database || 'postgres',
		"SET client_min_messages = warning; SET search_path = $order->{schema};\n$script",
		extra_params => [ '-U', $role, '-v', 'VERBOSITY=terse' ]);

	$err =~ s/^psql:<stdin>:\d+: //mg;
	return $err eq '' ? $out : "$out\n$err";
}

# An application of two tenants writes rows of these ids, and looks at them.
sub use_table
{
	my ($order, $id, $database) = @_;
	my $next = $id + 1;
	my $leaf = 'items_p' . 10 * int($id / 10);

	return as('app', $order, <<"SQL", $database);
BEGIN;
SET LOCAL app.user_id = 'alice';
SELECT rowkeeper.tenant_set(1) \\g /dev/null
INSERT INTO items (id, v) VALUES ($id, 'a'), ($next, 'b');
UPDATE items SET v = 'c' WHERE id = $id;
DELETE FROM active_items WHERE id = $next;
SELECT id - $id, tenant_id, v, version, updated_by, updated_at IS NOT NULL, deleted_at IS NOT NULL
FROM items WHERE id >= $id ORDER BY id;
COMMIT;
BEGIN;
SELECT rowkeeper.tenant_set(2) \\g /dev/null
SELECT 'of others', (SELECT count(*) FROM items), (SELECT count(*) FROM active_items), (SELECT count(*) FROM $leaf);
UPDATE $leaf SET v = 'stolen';
COMMIT;
\\set ON_ERROR_STOP 0
BEGIN;
SELECT rowkeeper.tenant_set(2) \\g /dev/null
INSERT INTO items (id, tenant_id) VALUES ($id, 1);
ROLLBACK;
BEGIN;
SELECT rowkeeper.tenant_set(2) \\g /dev/null
INSERT INTO $leaf (id, tenant_id) VALUES ($id, 1);
ROLLBACK;
BEGIN;
SELECT rowkeeper.tenant_set(1) \\g /dev/null
DELETE FROM items WHERE id = $id;
ROLLBACK;
SQL
}

my $used = <<'EXPECTED';
0|1|c|2|alice|t|f
1|1|b|2|alice|t|t
of others|0|0|0
EXPECTED

# What the log has of that.
sub logged
{
	my ($order, $id, $database) = @_;

	return sql($node, <<"SQL", $database);
SELECT action, (record_id ->> 'id')::int - $id, actor, tenant, new_data ->> 'v' FROM rowkeeper.audit_log
WHERE table_schema = '$order->{schema}' AND table_name = 'items' AND (record_id ->> 'id')::int IN ($id, $id + 1) ORDER BY id
SQL
}

my $logged = <<'EXPECTED';
INSERT|0|alice|1|a
INSERT|1|alice|1|b
UPDATE|0|alice|1|c
SOFT DELETE|1|alice|1|
EXPECTED
chomp $logged;

# Each feature does its job for rows of these ids.
sub is_kept
{
	my ($order, $id, $when, $database) = @_;
	my $out = use_table($order, $id, $database);
	my ($rows, $errors) = $out =~ /\A(.*of others\|\d+\|\d+\|\d+\n?)(.*)\z/s;

	chomp $rows;
	is("$rows\n", $used, "$order->{name}, $when: stamps, soft delete, tenants");
	is(scalar(() = $errors =~ /violates row-level security policy/g), 2, "$order->{name}, $when: nobody writes for another tenant")
	  or diag($errors);
	like($errors, qr/soft/, "$order->{name}, $when: a plain DELETE is refused") or diag($errors);
	is(logged($order, $id, $database), $logged, "$order->{name}, $when: audit");
	return;
}

sub maintain
{
	my ($database) = @_;

	sql($node, 'CALL rowkeeper.maintain()', $database);
	is(sql($node, 'SELECT * FROM rowkeeper.maintain_log WHERE error IS NOT NULL', $database), '', 'maintenance fails nowhere');
	return;
}

# ---- twenty migrations ----

sql($node, <<'SQL');
CREATE ROLE migrator LOGIN;
CREATE ROLE app LOGIN;
SELECT rowkeeper.tenant_role('app', 'set');
SQL

cmp_ok(scalar(@orders), '>=', 20, 'twenty orders');
foreach my $order (@orders)
{
	sql($node, "CREATE SCHEMA $order->{schema} AUTHORIZATION migrator; GRANT USAGE ON SCHEMA $order->{schema} TO app");
	as('migrator', $order, <<'SQL');
CREATE TABLE items (id int PRIMARY KEY, tenant_id int NOT NULL, v text) PARTITION BY RANGE (id);
GRANT SELECT, INSERT, UPDATE, DELETE ON items TO app;
SQL
	unlike(as('migrator', $order, 'BEGIN; ' . migration($order) . 'COMMIT'), qr/ERROR/, "$order->{name}: a migration in one transaction");
	as('migrator', $order, 'GRANT SELECT, INSERT, UPDATE, DELETE ON active_items TO app');
	is(as('migrator', $order, migration($order)), '', "$order->{name}: again, nothing is done");
	is_kept($order, 3, 'at first');
	as('app', $order, 'BEGIN; SELECT rowkeeper.tenant_set(1); INSERT INTO items (id) VALUES (15); COMMIT');
}
maintain();
is_kept($_, 23, 'on a new partition') foreach @orders;
is(sql($node, "SELECT * FROM rowkeeper.doctor() WHERE level = 'error'"), '', 'the doctor is content');
is(sql($node, 'SELECT * FROM rowkeeper.features WHERE NOT healthy'), '', 'every feature is healthy');

# ---- one migration, for an empty database and for a full one ----

my $switch_on = <<'SQL';
BEGIN;
SELECT count(*) FROM rowkeeper.audit('events') \g /dev/null
SELECT count(*) FROM rowkeeper.stamp('events', version => 'version') \g /dev/null
SELECT count(*) FROM rowkeeper.soft_delete('events') \g /dev/null
SELECT count(*) FROM rowkeeper.tenant('events') \g /dev/null
SELECT count(*) FROM rowkeeper.partition('events', 'at', '1 month') \g /dev/null
COMMIT;
SQL
my $with_hints = "\\set VERBOSITY default\n";
my ($few, $many) = map { { schema => $_ } } 'few', 'many';

foreach my $size ($few, $many)
{
	sql($node, "CREATE SCHEMA $size->{schema} AUTHORIZATION migrator");
	as('migrator', $size, 'CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id int NOT NULL,
		at timestamptz NOT NULL DEFAULT now(), v text)');
}
as('migrator', $many, "INSERT INTO events (tenant_id, at) SELECT i % 3, now() - i * interval '1 second' FROM generate_series(1, 1000000) i");
is(as('migrator', $few, $switch_on), '', 'a migration of an empty database');
like(as('migrator', $many, $with_hints . $switch_on), qr/Run first, then call again:\nCREATE INDEX CONCURRENTLY ON many.events \(tenant_id\);/,
	'of one with a million rows says what to run first');
as('migrator', $many, 'CREATE INDEX CONCURRENTLY ON many.events (tenant_id)');
like(as('migrator', $many, $with_hints . $switch_on), qr/CALL rowkeeper.partition_convert\('many.events', 'at', '1 month'\)/, 'and next');
is(as('migrator', $many, "CALL rowkeeper.partition_convert('many.events', 'at', '1 month')"), '', 'that is done');
is(as('migrator', $many, $switch_on), '', 'and then it runs');
foreach my $size ($few, $many)
{
	is(sql($node, "SELECT string_agg(feature, ' ' ORDER BY feature) FROM rowkeeper.features
			WHERE target = '$size->{schema}.events'::regclass AND healthy"),
		'audit partition soft_delete stamp tenant', "$size->{schema}: the five are on");
}
is(sql($node, 'SELECT count(*) FROM many.events'), '1000000', 'every row is there');
sql($node, 'DROP TABLE many.events CASCADE');

# ---- after a restart ----

$node->restart;
is_kept($_, 26, 'after a restart') foreach @orders;
maintain();

# ---- in a copy ----

my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
sql($node, 'CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), $dump ], 'pg_restore');
is(sql($node, "SELECT * FROM rowkeeper.doctor() WHERE level = 'error'", 'copy'), '', 'the doctor is content with the copy');
foreach my $order (@orders)
{
	is(as('migrator', $order, migration($order), 'copy'), '', "$order->{name}, in a copy: the migration again, nothing is done");
	is_kept($order, 28, 'in a copy', 'copy');
}
maintain('copy');
is_kept($_, 36, 'on a partition made in a copy', 'copy') foreach @orders;

# ---- a partition that is no longer kept ----

foreach my $order (@orders)
{
	as('app', $order, 'BEGIN; SELECT rowkeeper.tenant_set(1); INSERT INTO items (id) VALUES (38); COMMIT');
}
maintain();
foreach my $order (@orders)
{
	as('app', $order, 'BEGIN; SELECT rowkeeper.tenant_set(1); INSERT INTO items (id) VALUES (52); COMMIT');
}
maintain();
foreach my $order (@orders)
{
	is(sql($node, "SELECT to_regclass('$order->{schema}.items_p0') IS NULL"), 't', "$order->{name}: the oldest partition is gone");
	is(sql($node, <<"SQL"), 'DETACH DROP', "$order->{name}: and has left its events");
SELECT string_agg(action, ' ' ORDER BY id) FROM rowkeeper.audit_log
WHERE table_schema = '$order->{schema}' AND action IN ('DETACH', 'DROP')
SQL
}

# ---- without us ----

foreach my $order (@orders)
{
	as('migrator', $order, "SELECT rowkeeper.leave('items')");
	is(as('migrator', $order, "SELECT feature FROM rowkeeper.features WHERE target = 'items'::regclass"), '', "$order->{name}: every feature is gone");
}
sql($node, 'SET client_min_messages = warning; DROP EXTENSION rowkeeper CASCADE');
foreach my $order (@orders)
{
	is(as('migrator', $order, "SET app.tenant_id = '1'; SELECT count(*) > 0 FROM items"), 't', "$order->{name}: its rows are there");
}
cmp_ok(sql($node, 'SELECT count(*) FROM rowkeeper_log.log'), '>', 100, 'and so is the log');

done_testing();
