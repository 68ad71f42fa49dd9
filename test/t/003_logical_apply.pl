# A subscriber's audited tables: what the apply worker changes is in the log
# exactly once. The worker fires no statement triggers and moves rows between
# partitions in its own way.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;

my $publisher = new_server('publisher', bare => 1, allows_streaming => 'logical',
	conf => "logical_decoding_work_mem = 64kB\nmax_wal_senders = 20\nmax_replication_slots = 20\n");
my $subscriber = new_server('subscriber', allows_streaming => 'logical',
	conf => "max_logical_replication_workers = 12\nmax_worker_processes = 20\n");
my $version = server_version($publisher);

my $tables = <<'SQL';
CREATE TABLE plain (id int PRIMARY KEY, v text, big text);
CREATE TABLE quiet (id int PRIMARY KEY, v text);
CREATE TABLE unaudited (id int PRIMARY KEY, v text);
SQL

# "spread" is partitioned at the subscriber only, "both" differently at each.
sql($publisher, $tables . <<'SQL');
CREATE TABLE spread (id int, region text, v text, PRIMARY KEY (id, region));
CREATE TABLE both_sides (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY RANGE (id);
CREATE TABLE both_low PARTITION OF both_sides FOR VALUES FROM (0) TO (100);
CREATE TABLE both_high PARTITION OF both_sides FOR VALUES FROM (100) TO (1000);
CREATE PUBLICATION pub FOR TABLE plain, quiet, unaudited, spread, both_sides
	WITH (publish_via_partition_root = true);
INSERT INTO plain SELECT i, 'first', repeat('x', 10000) FROM generate_series(1, 3) i;
INSERT INTO spread VALUES (1, 'north', 'first'), (2, 'south', 'first');
INSERT INTO both_sides VALUES (1, 'north', 'first'), (101, 'south', 'first');
SQL

sql($subscriber, $tables . <<'SQL');
CREATE TABLE spread (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE spread_north PARTITION OF spread FOR VALUES IN ('north');
CREATE TABLE spread_south (gone int, v text, region text NOT NULL, id int NOT NULL);
ALTER TABLE spread_south DROP COLUMN gone;
ALTER TABLE spread ATTACH PARTITION spread_south FOR VALUES IN ('south');
CREATE TABLE both_sides (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE both_north PARTITION OF both_sides FOR VALUES IN ('north');
CREATE TABLE both_south PARTITION OF both_sides FOR VALUES IN ('south');
SELECT rowkeeper.audit('plain'), rowkeeper.audit('spread'), rowkeeper.audit('both_sides');
SELECT rowkeeper.audit('quiet', replica => false);
CREATE VIEW test.log AS
	SELECT id, table_name, action, record_id, old_data, new_data, changed_fields, txid, actor, actor_source,
		db_user, db_role, context, dense_rank() OVER (ORDER BY txid) AS transaction
	FROM rowkeeper.audit_log WHERE context ->> 'session_replication_role' = 'replica';
SQL

# Not streaming = parallel: the servers of 17 and 18 warn of an unclosed
# relation for each row that fires any AFTER ROW trigger of a partition, and a
# parallel worker waits for ever once the queue for its warnings is full.
my $connection = $publisher->connstr . ' dbname=postgres';
sql($subscriber, "CREATE SUBSCRIPTION sub CONNECTION '$connection' PUBLICATION pub WITH (streaming = on)");
$subscriber->wait_for_subscription_sync($publisher, 'sub');

# ---- rows that were there before ----

is_sql($subscriber, <<'SQL', <<'EXPECTED', 'the initial copy is logged');
SELECT table_name, action, record_id, new_data ->> 'v' FROM test.log ORDER BY table_name, record_id
SQL
	both_sides|INSERT|{"id": 1, "region": "north"}|first
	both_sides|INSERT|{"id": 101, "region": "south"}|first
	plain|INSERT|{"id": 1}|first
	plain|INSERT|{"id": 2}|first
	plain|INSERT|{"id": 3}|first
	spread|INSERT|{"id": 1, "region": "north"}|first
	spread|INSERT|{"id": 2, "region": "south"}|first
EXPECTED

my $seen = 0;

# What the script at the publisher leaves in the subscriber's log, in order.
sub is_applied
{
	my ($script, $columns, $expected, $name) = @_;

	$seen = sql($subscriber, 'SELECT coalesce(max(id), 0) FROM rowkeeper.audit_log');
	sql($publisher, $script);
	$publisher->wait_for_catchup('sub');
	return is_sql($subscriber, "SELECT $columns FROM test.log WHERE id > $seen ORDER BY id", $expected, $name);
}

# ---- plain tables ----

is_applied(
	"INSERT INTO plain VALUES (10, 'new', 'x'); UPDATE plain SET v = 'changed' WHERE id = 10;"
	  . "DELETE FROM plain WHERE id = 10",
	'table_name, action, record_id, old_data, new_data', <<'EXPECTED', 'INSERT, UPDATE, DELETE');
	plain|INSERT|{"id": 10}||{"v": "new", "id": 10, "big": "x"}
	plain|UPDATE|{"id": 10}|{"v": "new"}|{"v": "changed"}
	plain|DELETE|{"id": 10}|{"v": "changed", "id": 10, "big": "x"}|
EXPECTED

is_applied("UPDATE plain SET v = 'second' WHERE id = 1",
	'action, old_data, new_data', 'UPDATE|{"v": "first"}|{"v": "second"}',
	'a value stored out of line that the publisher did not send is unchanged');

is_applied("UPDATE plain SET v = v WHERE id = 1", 'action', '', 'an update that changes nothing adds nothing');

is_applied("UPDATE plain SET id = 20 WHERE id = 2",
	'action, record_id, old_data, new_data', 'UPDATE|{"id": 2}|{"id": 2}|{"id": 20}',
	'a changed key is one UPDATE under the old key');

is_applied(
	"BEGIN; INSERT INTO plain VALUES (11, 'a', ''); SAVEPOINT s; INSERT INTO plain VALUES (12, 'b', '');"
	  . " ROLLBACK TO s; INSERT INTO plain VALUES (13, 'c', ''); DELETE FROM plain WHERE id = 11; COMMIT",
	'action, record_id, transaction - min(transaction) OVER ()', <<'EXPECTED', 'what is rolled back is not there');
	INSERT|{"id": 11}|0
	INSERT|{"id": 13}|0
	DELETE|{"id": 11}|0
EXPECTED

is_applied("BEGIN; DELETE FROM plain WHERE id = 13; INSERT INTO plain VALUES (13, 'again', ''); COMMIT",
	'action, record_id', <<'EXPECTED', 'DELETE and INSERT of one key stay two changes');
	DELETE|{"id": 13}
	INSERT|{"id": 13}
EXPECTED

is_applied("UPDATE unaudited SET v = ''; INSERT INTO unaudited VALUES (1, 'x')", 'action', '',
	'a table that is not audited adds nothing');

# ---- partitioned tables ----

is_applied(
	"UPDATE spread SET v = 'stays' WHERE id = 1; UPDATE spread SET region = 'south', v = 'moved' WHERE id = 1;"
	  . "UPDATE spread SET region = 'north' WHERE id = 1; DELETE FROM spread WHERE id = 1",
	'action, record_id, old_data, new_data', <<'EXPECTED', 'a move between the partitions of the subscriber is one UPDATE');
	UPDATE|{"id": 1, "region": "north"}|{"v": "first"}|{"v": "stays"}
	UPDATE|{"id": 1, "region": "north"}|{"v": "stays", "region": "north"}|{"v": "moved", "region": "south"}
	UPDATE|{"id": 1, "region": "south"}|{"region": "south"}|{"region": "north"}
	DELETE|{"id": 1, "region": "north"}|{"v": "moved", "id": 1, "region": "north"}|
EXPECTED

is_applied(
	"INSERT INTO spread SELECT i, 'north', 'many' FROM generate_series(30, 34) i;"
	  . "UPDATE spread SET region = 'south', id = id + 10 WHERE v = 'many'",
	'action, record_id, new_data', <<'EXPECTED', 'many moves, with changed keys, in one transaction');
	INSERT|{"id": 30, "region": "north"}|{"v": "many", "id": 30, "region": "north"}
	INSERT|{"id": 31, "region": "north"}|{"v": "many", "id": 31, "region": "north"}
	INSERT|{"id": 32, "region": "north"}|{"v": "many", "id": 32, "region": "north"}
	INSERT|{"id": 33, "region": "north"}|{"v": "many", "id": 33, "region": "north"}
	INSERT|{"id": 34, "region": "north"}|{"v": "many", "id": 34, "region": "north"}
	UPDATE|{"id": 30, "region": "north"}|{"id": 40, "region": "south"}
	UPDATE|{"id": 31, "region": "north"}|{"id": 41, "region": "south"}
	UPDATE|{"id": 32, "region": "north"}|{"id": 42, "region": "south"}
	UPDATE|{"id": 33, "region": "north"}|{"id": 43, "region": "south"}
	UPDATE|{"id": 34, "region": "north"}|{"id": 44, "region": "south"}
EXPECTED

is_applied(
	"BEGIN; DELETE FROM spread WHERE id = 40; INSERT INTO spread VALUES (40, 'north', 'anew'); COMMIT",
	'action, record_id', <<'EXPECTED', 'DELETE from one partition and INSERT into another are two changes');
	DELETE|{"id": 40, "region": "south"}
	INSERT|{"id": 40, "region": "north"}
EXPECTED

is_applied("UPDATE both_sides SET region = 'south', v = 'moved' WHERE id = 1",
	'action, record_id, new_data', 'UPDATE|{"id": 1, "region": "north"}|{"v": "moved", "region": "south"}',
	'a move at the subscriber only');

# The publisher itself sends this one as a DELETE and an INSERT.
is_applied("UPDATE both_sides SET id = 102 WHERE id = 1",
	'action, record_id', <<'EXPECTED', 'a move at the publisher arrives as DELETE and INSERT');
	DELETE|{"id": 1, "region": "south"}
	INSERT|{"id": 102, "region": "south"}
EXPECTED

# ---- TRUNCATE ----

is_applied("TRUNCATE plain", 'table_name, action, record_id, context', <<'EXPECTED', 'TRUNCATE');
	plain|TRUNCATE||{"session_replication_role": "replica"}
EXPECTED

is_applied("TRUNCATE spread, both_sides", 'table_name, action, context ? $$partition$$', <<'EXPECTED', 'TRUNCATE of partitioned tables is one entry each');
	spread|TRUNCATE|f
	both_sides|TRUNCATE|f
EXPECTED

# ---- who ----

my $owner = sql($subscriber, 'SELECT current_user');
is_sql($subscriber,
	"SELECT DISTINCT actor, actor_source, db_user, db_role FROM test.log",
	"$owner|session|$owner|$owner", 'the subscription\'s owner acts');

# ---- large transactions ----

is_applied(<<'SQL',
BEGIN;
INSERT INTO spread SELECT i, CASE WHEN i % 2 = 0 THEN 'north' ELSE 'south' END, md5(i::text) FROM generate_series(1000, 3999) i;
SAVEPOINT a;
INSERT INTO spread SELECT i, 'north', md5(i::text) FROM generate_series(5000, 6999) i;
ROLLBACK TO a;
UPDATE spread SET region = 'north' WHERE region = 'south' AND id BETWEEN 1000 AND 2999;
SAVEPOINT b;
DELETE FROM spread WHERE id < 1500;
RELEASE b;
COMMIT;
SQL
	"string_agg(DISTINCT action, ','), count(*), count(DISTINCT record_id), count(DISTINCT txid) FROM test.log"
	  . " WHERE id > (SELECT max(id) FROM rowkeeper.audit_log WHERE action = 'TRUNCATE') --",
	'DELETE,INSERT,UPDATE|4500|3250|1', 'a large transaction, sent while it runs');

# The same by a parallel worker, where the server has one: it runs the
# publisher's subtransactions as its own.
my $streaming = $version >= 16 ? 'parallel' : 'on';
sql($publisher, 'CREATE TABLE streamed (id int PRIMARY KEY, v text); CREATE PUBLICATION pub3 FOR TABLE streamed');
sql($subscriber, "CREATE TABLE streamed (id int PRIMARY KEY, v text); SELECT rowkeeper.audit('streamed')");
sql($subscriber, "CREATE SUBSCRIPTION sub3 CONNECTION '$connection' PUBLICATION pub3 WITH (streaming = $streaming)");
$subscriber->wait_for_subscription_sync($publisher, 'sub3');
sql($publisher, <<'SQL');
BEGIN;
INSERT INTO streamed SELECT i, md5(i::text) FROM generate_series(1, 3000) i;
SAVEPOINT a;
INSERT INTO streamed SELECT i, md5(i::text) FROM generate_series(5000, 6999) i;
ROLLBACK TO a;
UPDATE streamed SET v = 'changed' WHERE id <= 2000;
SAVEPOINT b;
DELETE FROM streamed WHERE id <= 500;
RELEASE b;
COMMIT;
BEGIN;
UPDATE streamed SET v = md5(v) || repeat('x', 20);
ROLLBACK;
SQL
$publisher->wait_for_catchup('sub3');
is_sql($subscriber, "SELECT action, count(*), count(DISTINCT record_id), count(DISTINCT txid) FROM test.log
	WHERE table_name = 'streamed' GROUP BY 1 ORDER BY 1", <<'EXPECTED', 'the same by a parallel worker');
	DELETE|500|500|1
	INSERT|3000|3000|1
	UPDATE|2000|2000|1
EXPECTED

foreach my $table ('plain', 'spread', 'streamed')
{
	is_complete($subscriber, $table, "replaying the log gives \"$table\"");
}

# ---- beside other sessions ----

# The worker changes row 1, then waits; a session changes row 2; then the
# worker changes row 2. The ids of a row's entries are in the order of its
# changes, though the worker began first.
sql($publisher, "INSERT INTO plain VALUES (1, 'first', ''), (2, 'first', '')");
sql($subscriber, <<'SQL');
CREATE FUNCTION test.wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock(42);
	RETURN NULL;
END $$;
CREATE TRIGGER zz_wait AFTER UPDATE ON plain FOR EACH ROW WHEN (NEW.v = 'wait') EXECUTE FUNCTION test.wait();
ALTER TABLE plain ENABLE REPLICA TRIGGER zz_wait;
SQL
$publisher->wait_for_catchup('sub');
my $between = session($subscriber);
$between->query_safe('SELECT pg_advisory_lock(42)');
sql($publisher, "BEGIN; UPDATE plain SET v = 'wait' WHERE id = 1; UPDATE plain SET v = 'last' WHERE id = 2; COMMIT");
$subscriber->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
  or die 'the worker does not wait';
$between->query_safe("UPDATE plain SET v = 'between' WHERE id = 2");
$between->query_safe('SELECT pg_advisory_unlock(42)');
$between->quit;
$publisher->wait_for_catchup('sub');
is_sql($subscriber, "SELECT old_data ->> 'v', new_data ->> 'v' FROM rowkeeper.audit_log
	WHERE table_name = 'plain' AND action = 'UPDATE' AND record_id = '{\"id\": 2}' ORDER BY id DESC LIMIT 2",
	"between|last\nfirst|between", 'the worker\'s entries of a row are in order with those of others');
sql($subscriber, 'DROP TRIGGER zz_wait ON plain');

# A trigger of the subscriber's own writes to another audited table.
sql($subscriber, <<'SQL');
CREATE TABLE derived (id int PRIMARY KEY, v text);
SELECT rowkeeper.audit('derived');
CREATE FUNCTION test.derive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.id % 2 = 0 THEN
		INSERT INTO public.derived VALUES (NEW.id, NEW.region)
			ON CONFLICT (id) DO UPDATE SET v = excluded.v;
	ELSE
		BEGIN
			INSERT INTO public.derived VALUES (NEW.id, NEW.region);
			RAISE EXCEPTION 'no';
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER derive AFTER INSERT ON spread FOR EACH ROW EXECUTE FUNCTION test.derive();
ALTER TABLE spread ENABLE ALWAYS TRIGGER derive;
SQL
is_applied(
	"INSERT INTO spread VALUES (1, 'north', ''), (2, 'south', ''), (3, 'south', '');"
	  . "UPDATE spread SET region = 'south' WHERE id = 1; UPDATE spread SET region = 'north' WHERE id = 2",
	'table_name, action, record_id', <<'EXPECTED', 'a trigger that writes elsewhere, also within a move');
	spread|INSERT|{"id": 1, "region": "north"}
	spread|INSERT|{"id": 2, "region": "south"}
	derived|INSERT|{"id": 2}
	spread|INSERT|{"id": 3, "region": "south"}
	spread|UPDATE|{"id": 1, "region": "north"}
	spread|UPDATE|{"id": 2, "region": "south"}
	derived|UPDATE|{"id": 2}
EXPECTED

# ---- two-phase ----

sql($publisher, 'CREATE TABLE twice (id int PRIMARY KEY, v text); CREATE PUBLICATION pub2 FOR TABLE twice');
sql($subscriber, "CREATE TABLE twice (id int PRIMARY KEY, v text); SELECT rowkeeper.audit('twice')");
sql($subscriber, "CREATE SUBSCRIPTION sub2 CONNECTION '$connection' PUBLICATION pub2 WITH (two_phase = true)");
$subscriber->wait_for_subscription_sync($publisher, 'sub2');
$subscriber->poll_query_until('postgres',
	"SELECT subtwophasestate = 'e' FROM pg_subscription WHERE subname = 'sub2'") or die 'two-phase is not on';

sql($publisher, <<'SQL');
BEGIN; INSERT INTO twice VALUES (1, 'kept'); PREPARE TRANSACTION 'kept';
BEGIN; INSERT INTO twice VALUES (2, 'undone'); PREPARE TRANSACTION 'undone';
SQL
$publisher->wait_for_catchup('sub2');
is_sql($subscriber, "SELECT (SELECT count(*) FROM pg_prepared_xacts), count(*) FROM test.log WHERE table_name = 'twice'",
	'2|0', 'a prepared transaction is not in the log');
sql($publisher, "ROLLBACK PREPARED 'undone'; INSERT INTO twice VALUES (3, 'plain'); COMMIT PREPARED 'kept'");
$publisher->wait_for_catchup('sub2');
is_sql($subscriber, "SELECT action, record_id, actor FROM test.log WHERE table_name = 'twice' ORDER BY record_id",
	"INSERT|{\"id\": 1}|$owner\nINSERT|{\"id\": 3}|$owner", 'a committed one is, and who did it');

# ---- replica => false ----

is_applied(
	"INSERT INTO quiet VALUES (1, 'a'); UPDATE quiet SET v = 'b'; DELETE FROM quiet; TRUNCATE quiet",
	'action', '', 'replica => false: what the worker does is not logged');
is(sql($subscriber, 'INSERT INTO quiet VALUES (7, $$local$$); SELECT action, record_id FROM rowkeeper.audit_log WHERE table_name = $$quiet$$'),
	'INSERT|{"id": 7}', 'what sessions of the subscriber do is');
sql($subscriber, "SELECT rowkeeper.audit('quiet', replica => true)");
is_applied("INSERT INTO quiet VALUES (8, 'a')", 'action, record_id', 'INSERT|{"id": 8}',
	'replica => true: from then on it is');

sql($subscriber, 'DROP SUBSCRIPTION sub');
sql($subscriber, 'DROP SUBSCRIPTION sub2');
sql($subscriber, 'DROP SUBSCRIPTION sub3');
$subscriber->stop;
$publisher->stop;
done_testing();
