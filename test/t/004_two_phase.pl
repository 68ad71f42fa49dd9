# Two-phase commit: a prepared transaction's entries come and go with it, also
# over a restart, and nobody else's entries depend on what it wrote.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;

my $node = new_server('two_phase');

sql($node, <<'SQL');
CREATE TABLE orders (id int PRIMARY KEY, status text);
CREATE TABLE parts (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_north PARTITION OF parts FOR VALUES IN ('north');
CREATE TABLE parts_south PARTITION OF parts FOR VALUES IN ('south');
SELECT rowkeeper.audit('orders'), rowkeeper.audit('parts');
CREATE VIEW test.log AS
	SELECT id, table_name, action, record_id, new_data, actor, actor_source, context FROM rowkeeper.audit_log;
INSERT INTO parts VALUES (1, 'north', 'a');
SQL

# ---- prepared, restarted, committed or rolled back ----

sql($node, <<'SQL');
SET app.user_id = 'alice';
BEGIN;
SELECT rowkeeper.set_context('alice', '{"ticket": 1}');
INSERT INTO orders VALUES (1, 'new');
SAVEPOINT a;
INSERT INTO orders VALUES (100, 'never');
ROLLBACK TO a;
UPDATE orders SET status = 'paid' WHERE id = 1;
UPDATE parts SET region = 'south' WHERE id = 1;
PREPARE TRANSACTION 'kept';
SQL
sql($node, <<'SQL');
SET app.user_id = 'bob';
BEGIN; INSERT INTO orders VALUES (2, 'undone'); PREPARE TRANSACTION 'undone';
SQL

is_sql($node, "SELECT count(*) FROM test.log WHERE table_name = 'orders'", '0',
	'what is prepared is not in the log');
sql($node, "SET app.user_id = 'carol'; INSERT INTO orders VALUES (3, 'meanwhile')");
$node->restart;
is_sql($node, "SELECT record_id, actor FROM test.log WHERE table_name = 'orders'", '{"id": 3}|carol',
	'nor after a restart');
sql($node, "COMMIT PREPARED 'kept'; ROLLBACK PREPARED 'undone'");
is_sql($node, <<'SQL', <<'EXPECTED', 'what is committed is, with who did it');
SELECT table_name, action, record_id, new_data, actor, actor_source, context
FROM test.log WHERE actor = 'alice' OR actor = 'bob' OR actor IS NULL ORDER BY id
SQL
	orders|INSERT|{"id": 1}|{"id": 1, "status": "new"}|alice|context|{"ticket": 1}
	orders|UPDATE|{"id": 1}|{"status": "paid"}|alice|context|{"ticket": 1}
	parts|UPDATE|{"id": 1, "region": "north"}|{"region": "south"}|alice|context|{"ticket": 1}
EXPECTED

# ---- the same backend goes on ----

# Who acts is recorded once and referred to again. A record that a prepared
# transaction wrote is nobody's to refer to: it may be rolled back.
my $session = session($node);
$session->query_safe("SET app.user_id = 'dora'");
$session->query_safe("BEGIN; INSERT INTO orders VALUES (10, 'prepared'); PREPARE TRANSACTION 'dora'");
$session->query_safe("INSERT INTO orders VALUES (11, 'after')");
$session->query_safe("BEGIN; INSERT INTO orders VALUES (12, 'after'); COMMIT");
is_sql($node, "SELECT record_id, actor FROM test.log WHERE record_id ->> 'id' IN ('11', '12') ORDER BY id",
	"{\"id\": 11}|dora\n{\"id\": 12}|dora", 'entries after a PREPARE have their own who-record');
$session->query_safe("ROLLBACK PREPARED 'dora'");
is_sql($node, "SELECT record_id, actor FROM test.log WHERE record_id ->> 'id' IN ('10', '11', '12') ORDER BY id",
	"{\"id\": 11}|dora\n{\"id\": 12}|dora", 'which stays when the prepared transaction is rolled back');

$session->query_safe("BEGIN; INSERT INTO orders VALUES (13, 'prepared'); PREPARE TRANSACTION 'dora'");
$session->query_safe("BEGIN; INSERT INTO orders VALUES (14, 'rolled back'); ROLLBACK");
$session->query_safe("COMMIT PREPARED 'dora'");
$session->query_safe("INSERT INTO orders VALUES (15, 'after')");
is_sql($node, "SELECT record_id, actor FROM test.log WHERE record_id ->> 'id' IN ('13', '14', '15') ORDER BY id",
	"{\"id\": 13}|dora\n{\"id\": 15}|dora", 'a prepared transaction may refer to an earlier one\'s');

# set_context() ends with the transaction that is prepared
$session->query_safe("BEGIN; SELECT rowkeeper.set_context('emil'); INSERT INTO orders VALUES (16, 'x'); PREPARE TRANSACTION 'emil'");
$session->query_safe("INSERT INTO orders VALUES (17, 'x')");
$session->query_safe("COMMIT PREPARED 'emil'");
is_sql($node, "SELECT record_id, actor FROM test.log WHERE record_id ->> 'id' IN ('16', '17') ORDER BY record_id",
	"{\"id\": 16}|emil\n{\"id\": 17}|dora", 'set_context ends at PREPARE');

# ---- a row changed after its prepared change ----

# ids were drawn under the row's lock, which the prepared transaction still
# holds, so a later change has a later id
$session->query_safe("BEGIN; UPDATE orders SET status = 'first' WHERE id = 11; PREPARE TRANSACTION 'row'");
my $waiting = session($node);
$waiting->query_until(qr/^started$/m, <<'SQL');
\echo started
UPDATE orders SET status = 'second' WHERE id = 11;
SQL
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
$session->query_safe("COMMIT PREPARED 'row'");
$waiting->query_safe('SELECT 1');
$waiting->quit;
is_sql($node, "SELECT new_data ->> 'status' FROM test.log WHERE record_id = '{\"id\": 11}' ORDER BY id",
	"after\nfirst\nsecond", 'the order of a row\'s changes');

# ---- DDL and audit() themselves ----

$session->query_safe(<<'SQL');
BEGIN;
CREATE TABLE fresh (id int PRIMARY KEY, v text);
INSERT INTO fresh VALUES (1, 'before');
SELECT rowkeeper.audit('fresh', keep => '30 days');
INSERT INTO fresh VALUES (2, 'after');
PREPARE TRANSACTION 'fresh';
SQL
$node->restart;
sql($node, "COMMIT PREPARED 'fresh'; UPDATE fresh SET v = 'later'");
is_sql($node, "SELECT action, record_id FROM test.log WHERE table_name = 'fresh' ORDER BY id",
	"INSERT|{\"id\": 2}\nUPDATE|{\"id\": 1}\nUPDATE|{\"id\": 2}", 'audit() in a prepared transaction');

sql($node, "BEGIN; SELECT rowkeeper.audit_off('fresh'); PREPARE TRANSACTION 'off'; ROLLBACK PREPARED 'off';"
	  . "INSERT INTO fresh VALUES (3, 'still')");
is_sql($node, "SELECT count(*) FROM test.log WHERE table_name = 'fresh' AND record_id ->> 'id' = '3'", '1',
	'audit_off() in one that is rolled back');

foreach my $table ('orders', 'parts')
{
	is_complete($node, $table, "replaying the log gives \"$table\"");
}
$node->stop;
done_testing();
