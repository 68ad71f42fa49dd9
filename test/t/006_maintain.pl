# CALL rowkeeper.maintain() beside sessions that write and read the log.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('maintain');

sql($node, <<'SQL');
CREATE TABLE orders (id int PRIMARY KEY, status text, changed_by text);
CREATE TABLE brief (id int PRIMARY KEY, v text, changed_by text);
SELECT rowkeeper.audit('orders');
SELECT rowkeeper.audit('brief', keep => '10 days');

CREATE FUNCTION test.leaf(class int, weeks int DEFAULT 0) RETURNS text LANGUAGE sql AS
$$ SELECT format('rowkeeper_log.log_c%s_p%s', class,
	to_char(date_trunc('week', now() AT TIME ZONE 'UTC') + weeks * interval '7 days', 'YYYYMMDD')) $$;

-- The leaf of a week long ago, with entries of that week, as time would have left it.
CREATE PROCEDURE test.make_old_leaf(class int, weeks int) LANGUAGE plpgsql AS $$
DECLARE
	week timestamp := date_trunc('week', now() AT TIME ZONE 'UTC') - weeks * interval '7 days';
	leaf text := test.leaf(class, -weeks);
BEGIN
	EXECUTE format('CREATE TABLE %s (LIKE rowkeeper_log.log_overflow INCLUDING ALL)', leaf);
	EXECUTE format('INSERT INTO %s (id, changed_at, txid, who, table_id, key_hash, action, class, record_id, new_data)
		SELECT -i, %L::timestamptz + i * interval ''1 hour'', 1, 0,
			(SELECT table_id FROM rowkeeper_log.tables WHERE relation = ''brief''::regclass), i, ''I'', %s,
			jsonb_build_object(''id'', -i), jsonb_build_object(''id'', -i)
		FROM generate_series(1, 100) i', leaf, week::text || '+00', class);
	EXECUTE format('ALTER TABLE rowkeeper_log.log_c%s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
		class, leaf, week::text || '+00', (week + interval '7 days')::text || '+00');
END $$;
SQL
my $leaves = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'rowkeeper_log.log_c0'::regclass";
my $log = 'SELECT task, changed, error FROM rowkeeper.maintain_log ORDER BY ran_at, task';

# ---- nothing to do ----

sql($node, 'CALL rowkeeper.maintain()');
is_sql($node, $log, '', 'with nothing to do it leaves no trace');
my ($status, $out, $err) = $node->psql('postgres', "BEGIN; CALL rowkeeper.maintain();");
like($err, qr/rowkeeper.maintain\(\) cannot run inside a transaction block/, 'not in a transaction block');

# ---- weeks ahead ----

is_sql($node, $leaves, '9', 'this week and eight ahead');
sql($node, "DO \$\$ BEGIN EXECUTE 'DROP TABLE ' || test.leaf(0, 8) || ', ' || test.leaf(0, 3); END \$\$; CALL rowkeeper.maintain()");
is_sql($node, $leaves, '9', 'missing weeks are made');
is_sql($node, "SELECT changed, error FROM rowkeeper.maintain_log", '2|', 'and that is recorded');
is_sql($node, <<'SQL', '', 'as their neighbours are');
SELECT c.oid::regclass FROM pg_class c JOIN pg_inherits ON inhrelid = c.oid
WHERE inhparent = 'rowkeeper_log.log_c0'::regclass
	AND (relacl IS NOT NULL AND relacl <> acldefault('r', relowner) OR NOT relrowsecurity OR relreplident <> 'f'
		OR (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) <> 2)
SQL

# ---- the overflow, while others write to it ----

sql($node, "DO \$\$ BEGIN EXECUTE 'DROP TABLE ' || test.leaf(0) || ', ' || test.leaf(1); END \$\$");
my $file = $node->basedir . '/write.sql';
append_to_file($file, <<'PGBENCH');
\set k random(1, 50)
\set wait random(1, 20)
BEGIN;
SET LOCAL app.user_id = 'load:client_id';
INSERT INTO orders VALUES (:k, 'new', current_setting('app.user_id'))
	ON CONFLICT (id) DO UPDATE SET status = 'again' || txid_current(), changed_by = excluded.changed_by;
INSERT INTO brief VALUES (:k, 'new', current_setting('app.user_id'))
	ON CONFLICT (id) DO UPDATE SET v = 'again' || txid_current(), changed_by = excluded.changed_by;
\sleep :wait ms
DELETE FROM orders WHERE id = :k + 1;
COMMIT;
PGBENCH
my ($output, $errors);
my $load = IPC::Run::start(
	[
		$node->installed_command('pgbench'), '--no-vacuum', '--client=4', '--time=4', '--max-tries=10',
		"--file=$file", $node->connstr('postgres')
	],
	'>', \$output, '2>', \$errors);
sleep 0.7;
cmp_ok(sql($node, 'SELECT count(*) FROM rowkeeper_log.log_overflow'), '>', 10, 'entries without a leaf are in the overflow');
for (1 .. 5)
{
	# the leaf goes again, so that old and new who-records are in use at once
	sql($node, 'CALL rowkeeper.maintain()');
	sleep 0.3;
}
$load->finish;
unlike($errors, qr/abort/, 'no writer failed');
sql($node, 'CALL rowkeeper.maintain()');
is_sql($node, 'SELECT count(*) FROM rowkeeper_log.log_overflow', '0', 'the overflow is empty');
is_sql($node, 'SELECT count(*) FROM rowkeeper.maintain_log WHERE error IS NOT NULL', '0', 'no task failed');
is_complete($node, 'orders', 'nothing is lost, nothing doubled', changed_by => 'changed_by');
is_complete($node, 'brief', 'in no class', changed_by => 'changed_by');
is_sql($node, <<'SQL', '0', 'each entry is in the leaf of its class and week');
SELECT count(*) FROM rowkeeper_log.log l
WHERE tableoid::regclass::text <> format('rowkeeper_log.log_c%s_p%s', class,
	to_char(date_trunc('week', changed_at AT TIME ZONE 'UTC'), 'YYYYMMDD'))
SQL

# A session that wrote to the overflow before goes on after it was emptied.
my $writer = session($node);
sql($node, "DO \$\$ BEGIN EXECUTE 'DROP TABLE ' || test.leaf(0); END \$\$");
$writer->query_safe("SET app.user_id = 'writer'");
$writer->query_safe("INSERT INTO orders VALUES (1000, 'a', 'writer')");
sql($node, 'CALL rowkeeper.maintain()');
sql($node, "DO \$\$ BEGIN EXECUTE 'ALTER TABLE rowkeeper_log.log_c0 DETACH PARTITION ' || test.leaf(0); END \$\$");
$writer->query_safe("INSERT INTO orders VALUES (1001, 'a', 'writer')");
is_sql($node, "SELECT tableoid::regclass FROM rowkeeper_log.log WHERE record_id = '{\"id\": 1001}'",
	'rowkeeper_log.log_overflow', 'it writes to the overflow again');
is_sql($node, "SELECT actor FROM rowkeeper.audit_log WHERE record_id = '{\"id\": 1001}'", 'writer', 'with its name');

# ---- entries of a transaction that is not over stay until it is ----

$writer->query_safe("BEGIN");
$writer->query_safe("INSERT INTO orders VALUES (1002, 'a', 'writer')");
sql($node, "DO \$\$ BEGIN EXECUTE 'DROP TABLE ' || test.leaf(0); END \$\$; CALL rowkeeper.maintain()");
$writer->query_safe("INSERT INTO orders VALUES (1003, 'a', 'writer')");
$writer->query_safe("COMMIT");
sql($node, 'CALL rowkeeper.maintain()');
is_sql($node, "SELECT record_id, actor FROM rowkeeper.audit_log WHERE record_id ->> 'id' IN ('1001', '1002', '1003') ORDER BY id",
	"{\"id\": 1001}|writer\n{\"id\": 1002}|writer\n{\"id\": 1003}|writer", 'nothing of an open transaction is lost');
is_sql($node, 'SELECT count(*) FROM rowkeeper_log.log_overflow', '0', 'and the overflow is empty');

# ---- retention ----

sql($node, 'CALL test.make_old_leaf(1, 9); CALL test.make_old_leaf(1, 4); CALL test.make_old_leaf(1, 1); CALL test.make_old_leaf(0, 9)');
my $exists = "SELECT to_regclass(test.leaf(1, -9)) IS NOT NULL, to_regclass(test.leaf(1, -4)) IS NOT NULL,
	to_regclass(test.leaf(1, -1)) IS NOT NULL, to_regclass(test.leaf(0, -9)) IS NOT NULL";
is_sql($node, $exists, 't|t|t|t', 'leaves that are nine weeks, four weeks and one week old');
my $reader = session($node);
$reader->query_safe('BEGIN; SELECT count(*) FROM rowkeeper.audit_log');
$node->psql('postgres', "SET rowkeeper.lock_patience = '500ms'; CALL rowkeeper.maintain()");
is_sql($node, "SELECT to_regclass(test.leaf(1, -9)) IS NOT NULL, to_regclass(test.leaf(0, -9)) IS NOT NULL", 't|t',
	'a reader idle in its transaction holds them');
is_sql($node, "SELECT task, error ~ '55P03: could not lock' FROM rowkeeper.maintain_log WHERE error IS NOT NULL",
	'partitions expired|t', 'which is recorded');
$writer->query_safe("INSERT INTO orders VALUES (2000, 'a', 'writer'), (2001, 'a', 'writer')");
$writer->query_safe("INSERT INTO brief VALUES (2000, 'a', 'writer')");
is($reader->query_safe("SELECT count(*) FROM rowkeeper.audit_log WHERE record_id = '{\"id\": 2000}'"), '2',
	'writers and readers go on');
$reader->query_safe('COMMIT');
sql($node, 'CALL rowkeeper.maintain()');
is_sql($node, $exists, 'f|f|t|t', 'then the expired ones go, and no others');
is_sql($node, "SELECT count(*) FROM rowkeeper.audit_log WHERE relation = 'brief'::regclass AND id < 0", '200',
	'with their entries');
is_sql($node, "SELECT count(*) > 0 FROM rowkeeper.audit_log WHERE record_id = '{\"id\": 2000}'", 't', 'only');

# ---- a task that fails ----

# Somebody made a table where a leaf belongs; the overflow is emptied all the
# same.
sql($node, <<'SQL');
DELETE FROM rowkeeper._maintain_log;
DO $$ BEGIN
	EXECUTE 'DROP TABLE ' || test.leaf(0, 5) || ', ' || test.leaf(1);
	EXECUTE format('CREATE TABLE %s (in_the_way int)', test.leaf(0, 5));
END $$;
SQL
$writer->query_safe("INSERT INTO brief VALUES (3000, 'a', 'writer')");
sql($node, 'CALL test.make_old_leaf(1, 12); CALL rowkeeper.maintain()');
is_sql($node, <<'SQL', <<'EXPECTED', 'a task that fails is recorded and stops no other');
SELECT task, bool_or(error IS NOT NULL), sum(changed) > 0 FROM rowkeeper.maintain_log GROUP BY task ORDER BY task
SQL
	audit log: overflow|f|t
	partitions ahead|t|f
	partitions expired|f|t
EXPECTED
is_sql($node, "SELECT actor FROM rowkeeper.audit_log WHERE record_id = '{\"id\": 3000}'", 'writer', 'its entry has its name');
sql($node, "DO \$\$ BEGIN EXECUTE 'DROP TABLE ' || test.leaf(0, 5); END \$\$; CALL rowkeeper.maintain()");
is_sql($node, $leaves, '10', 'and does its work the next time');

# ---- who may ----

sql($node, "CREATE ROLE app; GRANT USAGE ON SCHEMA rowkeeper TO app");
sql($node, "DO \$\$ BEGIN EXECUTE 'DROP TABLE ' || test.leaf(0, 5); END \$\$; SET ROLE app; CALL rowkeeper.maintain()");
is_sql($node, $leaves, '9', 'another role does not maintain the log');
($status, $out, $err) = $node->psql('postgres', "SET ROLE app; CALL rowkeeper.maintain('orders')");
like($err, qr/must be owner of table orders/, 'nor a table of others');

# Two at a time.
my @both = map { $node->background_psql('postgres') } 1 .. 2;
$_->query_until(qr/^started$/m, "\\echo started\nCALL rowkeeper.maintain();\n") foreach @both;
is($_->query_safe('SELECT 1'), '1', 'two sessions at a time') foreach @both;
$_->quit foreach @both;
is_sql($node, $leaves, '10', 'do the work once');

$reader->quit;
$writer->quit;
$node->stop;
done_testing();
