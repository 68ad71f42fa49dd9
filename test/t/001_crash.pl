# A server that is killed under load: every committed change is in the log, and
# no other one is.
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

use constant { WRITERS => 5, LOAD_SECONDS => 1.5 };

my $node = new_server('crash', conf => "checkpoint_timeout = 30s\nshared_buffers = 16MB\n");

sql($node, <<'SQL');
CREATE TABLE accounts (id bigint PRIMARY KEY, kind text NOT NULL, amount numeric(12,2), note text, changed_by text);
CREATE TABLE lines (tenant_id int, no int, region text, qty int, changed_by text,
	PRIMARY KEY (tenant_id, no, region)) PARTITION BY LIST (region);
CREATE TABLE lines_north PARTITION OF lines FOR VALUES IN ('north');
CREATE TABLE lines_south (changed_by text, qty int, region text NOT NULL, no int NOT NULL, tenant_id int NOT NULL);
ALTER TABLE lines ATTACH PARTITION lines_south FOR VALUES IN ('south');
CREATE SEQUENCE fresh START 100000;
INSERT INTO accounts SELECT i, 'old', i, repeat('x', 3000), 'nobody' FROM generate_series(1, 100) i;
TRUNCATE accounts;
SELECT rowkeeper.audit('accounts', keep => '90 days');
SELECT rowkeeper.audit('lines', capture => 'full');
CREATE TRIGGER witness AFTER INSERT OR UPDATE OR DELETE ON accounts
	FOR EACH ROW EXECUTE FUNCTION test.witness('id');
SET app.user_id = 'nobody';
INSERT INTO accounts SELECT i, 'old', i, repeat('x', 3000), 'nobody' FROM generate_series(1, 100) i;
INSERT INTO lines SELECT i % 7, i, CASE WHEN i % 2 = 0 THEN 'north' ELSE 'south' END, 1, 'nobody'
	FROM generate_series(1, 100) i;
SQL

# One transaction of a writer. Deadlocks and failures are part of the load.
my $script = <<'PGBENCH';
\set k random(1, 100)
\set other random(1, 100)
\set kind random(1, 10)
BEGIN;
SET LOCAL app.user_id = 'writer:client_id';
\if :kind <= 2
INSERT INTO accounts VALUES (nextval('fresh'), 'new', :k, 'n', current_setting('app.user_id')),
	(:k, 'again', :k, 'm', current_setting('app.user_id'))
	ON CONFLICT (id) DO UPDATE SET amount = accounts.amount + 1, changed_by = excluded.changed_by;
\elif :kind <= 4
UPDATE accounts SET amount = amount + 1, changed_by = current_setting('app.user_id') WHERE id = :k;
SAVEPOINT a;
UPDATE accounts SET kind = 'never', changed_by = current_setting('app.user_id') WHERE id IN (:k, :other);
INSERT INTO lines VALUES (9, nextval('fresh'), 'north', 0, 'never');
ROLLBACK TO a;
SAVEPOINT b;
UPDATE accounts SET kind = 'kept', changed_by = current_setting('app.user_id') WHERE id IN (:k, :other);
RELEASE b;
\elif :kind = 5
UPDATE accounts SET id = nextval('fresh'), changed_by = current_setting('app.user_id') WHERE id = :k;
\elif :kind = 6
DELETE FROM accounts WHERE id = :k OR id = (SELECT max(id) FROM accounts);
\elif :kind = 7
UPDATE lines SET region = CASE region WHEN 'north' THEN 'south' ELSE 'north' END,
	changed_by = current_setting('app.user_id') WHERE no BETWEEN :k AND :k + 5;
\elif :kind = 8
UPDATE lines SET no = nextval('fresh'), region = 'south', changed_by = current_setting('app.user_id') WHERE no = :k;
INSERT INTO lines VALUES (1, :k, 'north', :other, current_setting('app.user_id')) ON CONFLICT DO NOTHING;
\elif :kind = 9
UPDATE accounts SET note = note || 'y', changed_by = current_setting('app.user_id') WHERE id BETWEEN :k AND :k + 20;
UPDATE accounts SET amount = 0, changed_by = current_setting('app.user_id') WHERE id = :other;
\else
INSERT INTO accounts SELECT nextval('fresh'), 'gone', 0, 'n', current_setting('app.user_id') FROM generate_series(1, 50);
DELETE FROM lines WHERE no = :other;
\endif
\if :kind = 10
ROLLBACK;
\else
COMMIT;
\endif
PGBENCH
my $file = $node->basedir . '/writer.sql';
append_to_file($file, $script);

sub start_load
{
	my $seed = shift;

	return IPC::Run::start(
		[
			$node->installed_command('pgbench'), '--no-vacuum', "--client=" . WRITERS,
			'--time=20', '--max-tries=1', "--random-seed=$seed", "--file=$file",
			$node->connstr('postgres') . ' application_name=load'
		],
		'>', $node->basedir . '/pgbench.out', '2>', $node->basedir . '/pgbench.err');
}

sub server_processes
{
	my $postmaster = shift;

	return map { (split)[0] } grep { (split)[1] == $postmaster } `ps -e -o pid=,ppid=`;
}

sub postmaster_pid
{
	return (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
}

# Wait until none of the processes runs. One that nobody has reaped yet (in a
# container whose first process does not, or not at once) still has its number,
# and the lock files that name it would keep the server from starting.
sub wait_for_death
{
	my @pids = @_;

	for (1 .. 200)
	{
		my $running = grep { /^[^Z]/ } split /\n/, `ps -o stat= -p @{[join ',', @pids]}`;
		last unless $running;
		sleep 0.05;
	}
	unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	return;
}

# Every process dies at the same moment, as when the machine loses power.
sub kill_everything
{
	my $postmaster = postmaster_pid();
	my @children = server_processes($postmaster);

	kill 'KILL', $postmaster, @children;
	$node->kill9;    # tells the test library
	wait_for_death($postmaster, @children);
	$node->start;
}

# The postmaster alone dies; its children see it and leave.
sub kill_postmaster
{
	my $postmaster = postmaster_pid();
	my @children = server_processes($postmaster);

	$node->kill9;
	wait_for_death($postmaster, @children);
	$node->start;
}

# One backend dies; the postmaster restarts all the others.
sub kill_backend
{
	my $pid = sql($node, "SELECT pid FROM pg_stat_activity WHERE application_name = 'load' LIMIT 1");

	kill 'KILL', $pid;
	sleep 0.2;
	$node->poll_query_until('postgres', 'SELECT true');
}

sub stop_immediately
{
	$node->stop('immediate');
	$node->start;
}

sql($node, 'ALTER SYSTEM SET restart_after_crash = on; SELECT pg_reload_conf()');

my @ways = (
	[ 'stop -m immediate', \&stop_immediately ],
	[ 'kill -9 of every process', \&kill_everything ],
	[ 'kill -9 of one backend', \&kill_backend ],
	[ 'kill -9 of the postmaster', \&kill_postmaster ]);

my $seed = 1;
my $entries = 0;
foreach my $way (@ways)
{
	my ($name, $crash) = @$way;
	my $load = start_load($seed++);

	# what sessions remember of the tables becomes invalid all the time
	my $until = time + LOAD_SECONDS;
	while (time < $until)
	{
		sql($node, 'ALTER TABLE lines_north SET (fillfactor = 90); ALTER TABLE lines_south SET (fillfactor = 90);'
			  . ' ANALYZE lines, accounts');
	}
	$crash->();
	eval { $load->finish };

	my $now = sql($node, "SELECT count(*) FROM rowkeeper.audit_log");
	cmp_ok($now, '>', $entries + 100, "$name: there was a load to interrupt");
	$entries = $now;

	is_complete($node, 'accounts', "$name: replaying the log gives the table", changed_by => 'changed_by');
	is_complete($node, 'lines', "$name: replaying the log gives the partitioned table", changed_by => 'changed_by');
	is(sql($node, "SELECT * FROM test.contradictions('accounts') LIMIT 10"), '',
		"$name: each change is logged once, in its transaction");
}

is_sql($node, <<'SQL', 't|t|0', 'the load was of every kind, and what was rolled back is nowhere');
SELECT bool_or(record_id ->> 'id' <> coalesce(new_data ->> 'id', record_id ->> 'id')),
	bool_or(action = 'UPDATE' AND relation = 'lines'::regclass AND changed_fields @> '{region}'),
	count(*) FILTER (WHERE new_data ->> 'kind' IN ('never', 'gone') OR new_data ->> 'changed_by' = 'never')
FROM rowkeeper.audit_log
SQL

$node->stop;
done_testing();
