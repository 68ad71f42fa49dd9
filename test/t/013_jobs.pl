# Jobs beside restarts, crashes, dumps and a lack of workers, on a server that
# does not preload the extension: later() needs no worker of ours.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('jobs');

sql($node, <<'SQL');
CREATE ROLE migrator LOGIN;
GRANT CREATE ON SCHEMA public TO migrator;
SET ROLE migrator;
CREATE TABLE orders (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('orders');
-- a purge that takes its time: each row waits for a turnstile
CREATE TABLE turnstile (open boolean);
INSERT INTO turnstile VALUES (false);
CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	WHILE NOT (SELECT open FROM public.turnstile) LOOP
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN OLD;
END $$;
CREATE TRIGGER pass BEFORE DELETE ON orders FOR EACH ROW EXECUTE FUNCTION pass();
SQL

sub close_turnstile { return sql($node, 'UPDATE turnstile SET open = false') }
sub open_turnstile { return sql($node, 'UPDATE turnstile SET open = true') }

sub add_rows
{
	return sql($node, "INSERT INTO orders SELECT coalesce(max(id), 0) + 1 FROM orders;
		UPDATE orders SET deleted_at = now() - interval '1 day'");
}

# Queue a purge; its id.
sub queue
{
	return sql($node, "SET SESSION AUTHORIZATION migrator;
		SELECT rowkeeper.later(\$\$CALL rowkeeper.soft_delete_purge('orders', '1 hour', batch_size => 1)\$\$)");
}

sub becomes
{
	my ($job, $state, $name) = @_;

	return ok($node->poll_query_until('postgres', "SELECT state = '$state' FROM rowkeeper.jobs WHERE id = $job"), $name);
}

# ---- while it runs ----

add_rows();
my $job = queue();
becomes($job, 'running', 'a job begins without anybody\'s doing');
ok($node->poll_query_until('postgres', "SELECT progress = 'soft_delete_purge of orders: step 1 of 1, 0 of 1'
	FROM rowkeeper.jobs WHERE id = $job"), 'and says how far it is');
is_sql($node, "SELECT usename, application_name FROM pg_stat_activity WHERE backend_type = 'rowkeeper job'",
	"migrator|rowkeeper job $job", 'it is a session of the role');
my $second = queue();
sql($node, 'CALL rowkeeper.maintain()');
is_sql($node, "SELECT state FROM rowkeeper.jobs ORDER BY id", "running\nqueued", 'the role\'s next one waits');
my $others = sql($node, "SELECT rowkeeper.later('CALL rowkeeper.maintain()')");
becomes($others, 'done', 'another role\'s does not');
my ($status, $out, $err) = $node->psql('postgres', "SELECT rowkeeper.job_require($job)");
like($err, qr/job $job is not done but running/, 'what builds on it has to wait');
open_turnstile();
becomes($job, 'done', 'it is done');
becomes($second, 'done', 'and the next one after it');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'rowkeeper job'"), 'nobody stays');

# ---- cancelled ----

close_turnstile();
add_rows();
$job = queue();
becomes($job, 'running', 'another one');
sql($node, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'rowkeeper job'");
becomes($job, 'failed', 'a job that is cancelled has failed');
is_sql($node, "SELECT error FROM rowkeeper.jobs WHERE id = $job", '57014: canceling statement due to user request', 'and says why');

# ---- terminated: it goes on, where its procedure can ----

$job = queue();
becomes($job, 'running', 'another one');
sql($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'rowkeeper job'");
becomes($job, 'interrupted', 'a job whose process has gone');
open_turnstile();
sql($node, 'CALL rowkeeper.maintain()');
becomes($job, 'done', 'is run again by maintain()');
is_sql($node, 'SELECT count(*) FROM orders', '0', 'to its end');

close_turnstile();
add_rows();
$job = queue();
becomes($job, 'running', 'another one');
$second = queue();
sql($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'rowkeeper job'");
becomes($job, 'interrupted', 'and interrupted');
open_turnstile();
my $third = queue();
becomes($third, 'done', 'the next call of later() does, too');
is_sql($node, "SELECT state FROM rowkeeper.jobs WHERE id IN ($job, $second, $third)", "done\ndone\ndone", 'in the order in which they were queued');

# ---- a restart, a crash ----

close_turnstile();
add_rows();
$job = queue();
becomes($job, 'running', 'another one');
$node->restart;
becomes($job, 'interrupted', 'after a restart');
sql($node, 'CALL rowkeeper.maintain()');
becomes($job, 'running', 'it runs again');
$node->stop('immediate');
$node->start;
sql($node, 'CALL rowkeeper.maintain()');
becomes($job, 'running', 'after a crash, too');
open_turnstile();
becomes($job, 'done', 'it is done');
is_sql($node, "SELECT attempts FROM rowkeeper._jobs WHERE id = $job", '3', 'at the third attempt');

# ---- prepared transactions ----

$job = sql($node, "BEGIN; SELECT rowkeeper.later('CALL rowkeeper.maintain()'); PREPARE TRANSACTION 'p'");
is_sql($node, "SELECT count(*) FROM rowkeeper.jobs WHERE id = $job", '0', 'a job of a prepared transaction is not there yet');
sql($node, "COMMIT PREPARED 'p'");
sleep 0.2;
is_sql($node, "SELECT state FROM rowkeeper.jobs WHERE id = $job", 'queued', 'and waits when it is');
sql($node, 'CALL rowkeeper.maintain()');
becomes($job, 'done', 'until maintain() comes');

# ---- rights ----

sql($node, <<'SQL');
CREATE ROLE owner NOLOGIN;
CREATE ROLE guest LOGIN;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
GRANT CREATE ON SCHEMA public TO owner;
SQL
$job = sql($node, "SET ROLE owner; CREATE TABLE things (id int PRIMARY KEY);
	SELECT rowkeeper.soft_delete('things') \\g /dev/null
	INSERT INTO things (id, deleted_at) VALUES (1, now() - interval '1 day');
	SELECT rowkeeper.later(\$\$CALL rowkeeper.soft_delete_purge('things', '1 hour')\$\$)");
becomes($job, 'done', 'a role that can neither log in nor connect');
is_sql($node, 'SELECT count(*) FROM things', '0', 'has its job done');
$job = sql($node, "SET ROLE owner; SELECT rowkeeper.later(\$\$CALL rowkeeper.soft_delete_purge('public.orders', '1 hour')\$\$)");
becomes($job, 'failed', 'with its own rights');
is_sql($node, "SELECT error FROM rowkeeper.jobs WHERE id = $job", '42501: must be owner of table orders', 'and no more');

# ---- no worker, a copy, a dump ----

$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
$job = queue();
sleep 0.2;
is_sql($node, "SELECT state FROM rowkeeper.jobs WHERE id = $job", 'queued', 'where no worker can be started, a job waits');
sql($node, 'CALL rowkeeper.maintain()');
is_sql($node, "SELECT state, starts FROM rowkeeper._jobs WHERE id = $job", 'queued|0', 'as long as need be');

sql($node, 'CREATE DATABASE copied TEMPLATE postgres', 'template1');
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ $node->installed_command('pg_dump'), '-d', $node->connstr('postgres'), '-f', $dump ], 'a dump');
sql($node, 'CREATE DATABASE restored');
$node->command_ok([ $node->installed_command('psql'), '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ],
	'is restored');

$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
sql($node, 'CALL rowkeeper.maintain()', $_) for 'restored', 'copied', 'postgres';
becomes($job, 'done', 'the job runs where it was queued');
is_sql($node, "SELECT state, error FROM rowkeeper.jobs WHERE id = $job",
	'failed|it was queued in another database, of which this is a copy', 'not in a copy', 'copied');
is_sql($node, "SELECT state FROM rowkeeper.jobs WHERE id = $third", 'done', 'which knows what was done', 'copied');
is_sql($node, 'SELECT count(*) FROM rowkeeper.jobs', '0', 'nor where a dump is restored', 'restored');

$node->stop;
done_testing();
