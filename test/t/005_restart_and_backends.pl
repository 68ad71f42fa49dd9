# What one session remembers (plans, table descriptions, who-records, leaves of
# the log) while another changes it: the next write is logged rightly.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('backends');
my $last = 0;

# What came to the log since the last look, in order.
sub is_logged
{
	my ($columns, $expected, $name) = @_;

	is_sql($node, "SELECT $columns FROM rowkeeper.audit_log WHERE id > $last ORDER BY id", $expected, $name);
	look_away();
	return;
}

sub look_away
{
	$last = sql($node, 'SELECT coalesce(max(id), 0) FROM rowkeeper.audit_log');
	return;
}

sql($node, <<'SQL');
CREATE TABLE orders (id int PRIMARY KEY, status text, memo text);
CREATE TABLE parts (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_north PARTITION OF parts FOR VALUES IN ('north');
SELECT rowkeeper.audit('orders'), rowkeeper.audit('parts');
INSERT INTO orders VALUES (1, 'new', 'm');
INSERT INTO parts VALUES (1, 'north', 'a');
SQL

my $writer = session($node);
$writer->query_safe(<<'SQL');
SET app.user_id = 'writer';
SET plan_cache_mode = force_generic_plan;
PREPARE pay (text) AS UPDATE orders SET status = $1 WHERE id = 1;
PREPARE move (text) AS UPDATE parts SET region = $1 WHERE id = 1;
SQL
$writer->query_safe("EXECUTE pay ('paid')");
$writer->query_safe("EXECUTE pay ('sent')");
$writer->query_safe("UPDATE parts SET v = 'b' WHERE id = 1");
look_away();

# ---- the table changes ----

sql($node, "ALTER TABLE orders ADD COLUMN extra text DEFAULT 'e'");
look_away();
$writer->query_safe("EXECUTE pay ('paid')");
$writer->query_safe("UPDATE orders SET extra = 'f' WHERE id = 1");
is_logged('action, old_data, new_data', <<'EXPECTED', 'a column that another session added');
	UPDATE|{"status": "sent"}|{"status": "paid"}
	UPDATE|{"extra": "e"}|{"extra": "f"}
EXPECTED

sql($node, "ALTER TABLE orders DROP COLUMN memo; ALTER TABLE orders RENAME COLUMN extra TO more");
look_away();
$writer->query_safe("INSERT INTO orders VALUES (2, 'new', 'x')");
is_logged('action, new_data', 'INSERT|{"id": 2, "more": "x", "status": "new"}', 'one dropped, one renamed');

sql($node, "ALTER TABLE orders ALTER COLUMN more DROP DEFAULT; ALTER TABLE orders ALTER COLUMN id TYPE bigint, ALTER COLUMN more TYPE jsonb USING to_jsonb(more)");
look_away();
$writer->query_safe("INSERT INTO orders VALUES (5000000000, 'new', '{\"a\": 1}')");
is_logged('action, new_data', 'INSERT|{"id": 5000000000, "more": {"a": 1}, "status": "new"}', 'two with a new type');

sql($node, "ALTER TABLE orders RENAME TO sales");
look_away();
$writer->query_safe("UPDATE sales SET status = 'sent' WHERE id = 1");
is_logged('table_name, relation', 'sales|sales', 'a new name');
sql($node, "ALTER TABLE sales RENAME TO orders");
look_away();

# ---- how it is audited changes ----

sql($node, "SELECT rowkeeper.audit('orders', exclude => '{more}')");
look_away();
$writer->query_safe("UPDATE orders SET more = '\"g\"', status = 'new' WHERE id = 1");
is_logged('new_data', '{"status": "new"}', 'exclude');

sql($node, "SELECT rowkeeper.audit('orders', capture => 'full', exclude => '{}')");
look_away();
$writer->query_safe("EXECUTE pay ('paid')");
is_logged('new_data', '{"id": 1, "more": "g", "status": "paid"}', 'capture');
sql($node, "SELECT rowkeeper.audit('orders', capture => 'changes')");

sql($node, "SELECT rowkeeper.audit('orders', keep => '30 days')");
look_away();
$writer->query_safe("EXECUTE pay ('sent')");
is_logged("new_data, actor, (SELECT keep FROM rowkeeper_log.log JOIN rowkeeper_log.classes USING (class)
		WHERE log.id = audit_log.id)",
	'{"status": "sent"}|writer|30 days', 'keep, and with it the leaf');

sql($node, "SELECT rowkeeper.audit_off('orders')");
look_away();
$writer->query_safe("EXECUTE pay ('unseen')");
is_logged('action', '', 'audit_off');
sql($node, "SELECT rowkeeper.audit('orders')");
look_away();
$writer->query_safe("EXECUTE pay ('seen')");
is_logged('old_data, new_data', '{"status": "unseen"}|{"status": "seen"}', 'and on again');

sql($node, "DROP TABLE orders; CREATE TABLE orders (id int PRIMARY KEY, status text); INSERT INTO orders VALUES (1, 'x')");
look_away();
$writer->query_safe("EXECUTE pay ('unseen')");
is_logged('action', '', 'another table of the same name is another table');
sql($node, "SELECT rowkeeper.audit('orders')");
look_away();
$writer->query_safe("EXECUTE pay ('seen')");
is_logged('old_data, (SELECT count(DISTINCT table_id) FROM rowkeeper_log.tables WHERE table_name = $$orders$$)',
	'{"status": "unseen"}|2', 'with a history of its own');

# ---- its partitions change ----

sql($node, "CREATE TABLE parts_south PARTITION OF parts FOR VALUES IN ('south')");
look_away();
$writer->query_safe("EXECUTE move ('south')");
is_logged('action, new_data', 'UPDATE|{"region": "south"}', 'a move to a partition that another session made');

sql($node, <<'SQL');
CREATE TABLE parts_west (gone int, v text, region text NOT NULL, id int NOT NULL);
ALTER TABLE parts_west DROP COLUMN gone;
INSERT INTO parts_west VALUES ('old', 'west', 7);
ALTER TABLE parts ATTACH PARTITION parts_west FOR VALUES IN ('west');
SQL
look_away();
$writer->query_safe("EXECUTE move ('west')");
$writer->query_safe("BEGIN; DELETE FROM parts_west WHERE id = 7");
is_sql($node, "SELECT count(*) FROM rowkeeper.audit_log WHERE id > $last AND action = 'DELETE'", '0', 'not before commit');
is($writer->query_safe("SELECT count(*) FROM rowkeeper.audit_log WHERE id > $last AND action = 'DELETE'"), '1',
	'DML on a partition is in the log when the statement ends');
$writer->query_safe('COMMIT');
is_logged('action, record_id, new_data', <<'EXPECTED', 'and to one that it attached');
	UPDATE|{"id": 1, "region": "south"}|{"region": "west"}
	DELETE|{"id": 7, "region": "west"}|
EXPECTED

sql($node, "ALTER TABLE parts DETACH PARTITION parts_west");
look_away();
$writer->query_safe("UPDATE parts_west SET v = 'alone'");
is_logged('action', '', 'a detached partition is not audited');

# ---- many actors ----

sql($node, "TRUNCATE orders; INSERT INTO orders VALUES (1, 'x')");
my $begin = $last;

$writer->query_safe(<<'SQL');
DO $$ BEGIN
	FOR i IN 1..300 LOOP
		PERFORM set_config('app.user_id', 'actor' || i, false);
		INSERT INTO orders VALUES (1000 + i, 'actor' || i);
		COMMIT;
	END LOOP;
	FOR i IN REVERSE 300..1 LOOP
		PERFORM set_config('app.user_id', 'actor' || i, false);
		INSERT INTO orders VALUES (2000 + i, 'actor' || i);
		IF i % 3 = 0 THEN COMMIT; ELSIF i % 7 = 0 THEN ROLLBACK; END IF;
	END LOOP;
	COMMIT;
END $$;
SQL
$writer->query_safe(<<'SQL');
DO $$ BEGIN
	FOR i IN 1..400 LOOP
		PERFORM set_config('app.user_id', 'actor' || i, false);
		BEGIN
			INSERT INTO orders VALUES (3000 + i, 'actor' || i);
			IF i % 5 = 0 THEN RAISE EXCEPTION 'no'; END IF;
		EXCEPTION WHEN raise_exception THEN
			INSERT INTO orders VALUES (4000 + i, 'actor' || i);
		END;
	END LOOP;
END $$;
SQL
is_sql($node, <<'SQL', 't|t', 'many actors in one session: each entry has its own');
SELECT count(*) = (SELECT count(*) FROM orders WHERE status LIKE 'actor%'), bool_and(actor = new_data ->> 'status')
FROM rowkeeper.audit_log WHERE new_data ->> 'status' LIKE 'actor%'
SQL
is_complete($node, 'orders', 'replaying the log gives the table, whoever wrote', since => $begin);
look_away();

# ---- the leaf that a session remembers ----

my $leaf = sql($node, <<'SQL');
SELECT format('rowkeeper_log.log_c0_p%s', to_char(date_trunc('week', now() AT TIME ZONE 'UTC'), 'YYYYMMDD'))
SQL

sub is_whole
{
	my ($name) = @_;

	$writer->query_safe("SET app.user_id = 'writer'");
	$writer->query_safe("EXECUTE pay ('" . time . "')");
	is_logged("action, actor, record_id", 'UPDATE|writer|{"id": 1}', $name);
	return;
}

is_whole('before');
sql($node, "TRUNCATE $leaf");
is_whole('its leaf was emptied, its who-records with it');
sql($node, "VACUUM FULL $leaf");
is_whole('VACUUM FULL');
sql($node, "REINDEX TABLE $leaf");
is_whole('REINDEX');
sql($node, "REINDEX TABLE CONCURRENTLY $leaf");
is_whole('REINDEX CONCURRENTLY');
my $find_index = "SELECT relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid
	JOIN pg_am a ON a.oid = c.relam WHERE indrelid = '$leaf'::regclass AND amname = 'btree'";
my $index = sql($node, $find_index);
sql($node, "CLUSTER $leaf USING $index");
is_whole('CLUSTER');
sql($node, "CREATE INDEX ON $leaf (txid)");
is_whole('an index of one\'s own');
is_sql($node, "SET enable_seqscan = off; SET enable_bitmapscan = off;
	SELECT count(*) > 0 FROM $leaf WHERE txid = (SELECT max(txid) FROM $leaf)", 't', 'which is maintained');

sql($node, "DROP TABLE $leaf");
is_whole('a leaf that is dropped: the entry is in the overflow');
is_sql($node, 'SELECT count(*) > 0 FROM rowkeeper_log.log_overflow', 't', 'where it can be found');
is_whole('and the next one');

# The overflow's rows stay where they are until maintain() comes.
sql($node, "SELECT rowkeeper.audit('orders', capture => 'changes'); CREATE TABLE other (id int PRIMARY KEY); SELECT rowkeeper.audit('other')");
look_away();
is_sql($node, "SELECT to_regclass('$leaf') IS NOT NULL", 't', 'audit() makes the leaf again');
is_whole('and it is written to');
is_sql($node, "SELECT max(id) = $last FROM $leaf WHERE action = 'U'", 't', 'at once');

# ---- maintenance of the leaf while others write ----

my $file = $node->basedir . '/write.sql';
append_to_file($file, <<'PGBENCH');
\set k random(1, 300)
SET app.user_id = 'load:client_id';
INSERT INTO other SELECT coalesce(max(id), 0) + 1 + :client_id FROM other ON CONFLICT DO NOTHING;
BEGIN;
UPDATE orders SET status = 'load' || txid_current() WHERE id IN (1000 + :k, 1001 + :k);
DELETE FROM other WHERE id % 10 = :client_id;
COMMIT;
PGBENCH
sql($node, "TRUNCATE other");
my $load = IPC::Run::start(
	[
		$node->installed_command('pgbench'), '--no-vacuum', '--client=3', '--time=3', '--max-tries=10',
		"--file=$file", $node->connstr('postgres')
	],
	'>', \my $output, '2>', \my $errors);
my $started = time;
$index = sql($node, $find_index);
while (time - $started < 2.5)
{
	sql($node, "VACUUM FULL $leaf");
	sql($node, "REINDEX TABLE $leaf");
	sql($node, "CLUSTER $leaf USING $index");
	sql($node, "REINDEX TABLE CONCURRENTLY $leaf");
	sql($node, "VACUUM ANALYZE $leaf");
}
$load->finish;
like($errors . $output, qr/number of transactions actually processed: [1-9]/, 'others wrote meanwhile');
unlike($errors, qr/abort/, 'and none of them failed');
is_complete($node, 'other', 'VACUUM FULL, REINDEX and CLUSTER of the leaf lose nothing');
is_sql($node, "SELECT count(*) FROM rowkeeper.audit_log WHERE actor IS NULL AND id > $last", '0', 'nor who it was');
is_sql($node, "CREATE EXTENSION amcheck; SELECT bt_index_check(indexrelid, true) FROM pg_index
	JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam
	WHERE indrelid = '$leaf'::regclass AND amname = 'btree' LIMIT 1", '', 'the key index is whole');

# ---- DROP EXTENSION ----

my $entries = sql($node, 'SELECT count(*) FROM rowkeeper.audit_log');
my ($status, $out, $err) = $node->psql('postgres', 'DROP EXTENSION rowkeeper');
isnt($status, 0, 'DROP EXTENSION is refused while a table is audited');
like($err, qr/cannot drop extension rowkeeper because other objects depend on it/, 'for this reason');

sql($node, 'SET client_min_messages = warning; DROP EXTENSION rowkeeper CASCADE');
$writer->query_safe("EXECUTE pay ('unseen')");
$writer->query_safe("EXECUTE move ('north')");
is_sql($node, 'SELECT count(*) FROM rowkeeper.audit_log', $entries, 'with CASCADE the log stays, and writes go on');
is_sql($node, "SELECT bool_and(actor IS NOT NULL) FROM rowkeeper.audit_log WHERE id > $last", 't', 'readable as it was');

sql($node, "CREATE EXTENSION rowkeeper; SELECT rowkeeper.audit('orders'), rowkeeper.audit('other')");
look_away();
is_whole('the extension again: the session goes on');
is_sql($node, "SELECT count(DISTINCT table_id) FROM rowkeeper_log.tables WHERE relation = 'orders'::regclass", '1',
	'with the same history');

sql($node, 'SELECT rowkeeper.leave()');
sql($node, 'DROP EXTENSION rowkeeper');
cmp_ok(sql($node, 'SELECT count(*) FROM rowkeeper.audit_log'), '>', $entries, 'after leave() it goes without CASCADE, and the log stays');

$writer->quit;
$node->stop;
done_testing();
