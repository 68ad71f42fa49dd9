# Maintained partitions beside crashes, dumps, load, and tables that are broken.
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

my $node = new_server('partition', conf => "max_locks_per_transaction = 200\n");

sql($node, <<'SQL');
CREATE FUNCTION test.leaves(t regclass) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(inhrelid::regclass::text || CASE WHEN inhdetachpending THEN '!' ELSE '' END, ' '
		ORDER BY length(inhrelid::regclass::text), inhrelid::regclass::text)
	FROM pg_inherits WHERE inhparent = t
$$;
CREATE FUNCTION test.make(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)', name);
	PERFORM count(*) FROM rowkeeper.partition(name::regclass, 'id', '10', ahead => '55');
	EXECUTE format('INSERT INTO %I SELECT n FROM generate_series(0, 39) n', name);
	PERFORM count(*) FROM rowkeeper.partition(name::regclass, ahead => '15', keep => '20');
END $$;
SQL

sub crash
{
	$node->stop('immediate');
	$node->start;
}

sub runs
{
	my ($table) = @_;
	return sql($node, "SELECT coalesce(string_agg(error, E'\\n'), 'none') FROM rowkeeper.maintain_log
		WHERE table_name = '$table' AND error IS NOT NULL");
}

# ---- a crash at each step of retention ----

sql($node, "SELECT test.make('noted'); SELECT rowkeeper.audit('noted');
	INSERT INTO rowkeeper._partition_intents VALUES ('noted_p0', 'noted', 10, '{}', now())");
crash();
sql($node, "CALL rowkeeper.maintain('noted')");
is_sql($node, "SELECT test.leaves('noted'), count(*) FROM rowkeeper._partition_intents",
	'noted_p10 noted_p20 noted_p30 noted_p40 noted_p50|0', 'a crash after it is noted');

sql($node, "SELECT test.make('pending'); SELECT rowkeeper.audit('pending')");
{
	my $reader = session($node);

	$reader->query_safe('BEGIN; SELECT count(*) FROM pending');
	sql($node, "SET rowkeeper.lock_patience = 0; CALL rowkeeper.maintain('pending')");
	is_sql($node, "SELECT test.leaves('pending'), count(*) FROM rowkeeper._partition_intents",
		'pending_p0! pending_p10 pending_p20 pending_p30 pending_p40 pending_p50|1', 'a reader keeps the detach pending');
	like(runs('pending'), qr/^55P03: could not lock public\.pending .*Processes that have locks there now: \d+/s,
		'which is recorded, and who is in the way');
	($node->psql('postgres', "BEGIN; SELECT rowkeeper.partition_off('pending')", stderr => \my $warning));
	like($warning, qr/WARNING:  the detach of public\.pending_p0 from public\.pending is pending\nHINT:  ALTER TABLE .* FINALIZE/,
		'partition_off() says so');
	sql($node, "DELETE FROM pending WHERE id = 39; INSERT INTO pending VALUES (39)");
	$node->stop('immediate');
	eval { $reader->quit };
	$node->start;
}
sql($node, "CALL rowkeeper.maintain('pending')");
is_sql($node, "SELECT test.leaves('pending'), to_regclass('pending_p0'), count(*) FROM rowkeeper._partition_intents",
	'pending_p10 pending_p20 pending_p30 pending_p40 pending_p50||0', 'a crash while the detach is pending');
is_sql($node, "SELECT action FROM rowkeeper.audit_log WHERE table_name = 'pending' AND action IN ('DETACH', 'DROP') ORDER BY id",
	"DETACH\nDROP", 'it is in the log once');

sql($node, "SELECT test.make('detached'); SELECT rowkeeper.audit('detached');
	INSERT INTO rowkeeper._partition_intents VALUES ('detached_p0', 'detached', 10, '{}', now(), true);
	ALTER TABLE detached DETACH PARTITION detached_p0 CONCURRENTLY");
crash();
sql($node, "CALL rowkeeper.maintain('detached')");
is_sql($node, "SELECT test.leaves('detached'), to_regclass('detached_p0'), count(*) FROM rowkeeper._partition_intents",
	'detached_p10 detached_p20 detached_p30 detached_p40 detached_p50||0', 'a crash after the detach');
is_sql($node, "SELECT action FROM rowkeeper.audit_log WHERE table_name = 'detached' AND action IN ('DETACH', 'DROP') ORDER BY id",
	"DETACH\nDROP", 'it is in the log once');

# kept longer by now: it stays
sql($node, "SELECT test.make('spared');
	INSERT INTO rowkeeper._partition_intents VALUES ('spared_p0', 'spared', 10, '{}', now() - interval '2 hours');
	SELECT rowkeeper.partition('spared', keep => '0'); CALL rowkeeper.maintain('spared')");
is_sql($node, "SELECT test.leaves('spared') ~ 'spared_p0', count(*) FROM rowkeeper._partition_intents", 't|0',
	'an intent that is overtaken is forgotten');
# and so it does where the detach had begun
sql($node, "SELECT test.make('longer')");
{
	my $reader = session($node);

	$reader->query_safe('BEGIN; SELECT count(*) FROM longer');
	sql($node, "SET rowkeeper.lock_patience = 0; CALL rowkeeper.maintain('longer')");
	is_sql($node, "SELECT test.leaves('longer') ~ 'longer_p0!'", 't', 'a detach that is pending');
	$reader->quit;
}
sql($node, "SELECT rowkeeper.partition('longer', keep => '100'); CALL rowkeeper.maintain('longer')");
is_sql($node, "SELECT (SELECT count(*) FROM longer_p0), count(*) FROM rowkeeper._partition_intents", '10|0',
	'is ended, and what is kept longer by now is there');
like(runs('longer'), qr/55000: public.longer_p0 is detached, and not taken away/, 'which is recorded');
# detached by its owner: it is his
foreach my $how ('', 'concurrently')
{
	my $table = "rescued_$how";

	sql($node, "SELECT test.make('$table');
		INSERT INTO rowkeeper._partition_intents VALUES ('${table}_p0', '$table', 10, '{}', now());
		ALTER TABLE $table DETACH PARTITION ${table}_p0 $how");
	sql($node, "CALL rowkeeper.maintain('$table')");
	is_sql($node, "SELECT (SELECT count(*) FROM ${table}_p0), count(*) FROM rowkeeper._partition_intents", '10|0',
		"a partition that its owner has detached $how stays");
}
# his detach is pending: only he knows why
sql($node, "SELECT test.make('stranded')");
{
	my $reader = session($node);

	$reader->query_safe('BEGIN; SELECT count(*) FROM stranded');
	$node->psql('postgres', "SET statement_timeout = '500ms'; ALTER TABLE stranded DETACH PARTITION stranded_p0 CONCURRENTLY");
	$reader->quit;
}
sql($node, "INSERT INTO stranded VALUES (41); CALL rowkeeper.maintain('stranded')");
like(runs('stranded'), qr/^55000: the detach of public.stranded_p0 from public.stranded is pending, and maintenance has not begun it/,
	'a detach that maintenance has not begun is left to its owner');
sql($node, "ALTER TABLE stranded DETACH PARTITION stranded_p0 FINALIZE; CALL rowkeeper.maintain('stranded')");
is_sql($node, "SELECT (SELECT count(*) FROM stranded_p0), test.leaves('stranded') !~ 'p10'", '10|t', 'and then the next one goes');
# somebody else's by now: it stays
sql($node, "SELECT test.make('moved'); CREATE TABLE home (LIKE moved INCLUDING ALL) PARTITION BY RANGE (id);
	INSERT INTO rowkeeper._partition_intents VALUES ('moved_p0', 'moved', 10, '{}', now());
	ALTER TABLE moved DETACH PARTITION moved_p0; ALTER TABLE home ATTACH PARTITION moved_p0 FOR VALUES FROM (0) TO (10);
	CALL rowkeeper.maintain('moved')");
is_sql($node, "SELECT count(*) FROM home", '10', 'a partition that is another table\'s by now is left alone');

# ---- a reader idle in transaction, and writers that would notice ----

{
	my $reader = session($node);
	my $longest = 0;
	my $end = time() + 3;
	my $timer = IPC::Run::timer(60);
	my ($in, $out, $err) = ('', '', '');

	sql($node, "SELECT test.make('busy'); SELECT rowkeeper.partition('busy', ahead => '400', keep => '0')");
	sql($node, "SELECT rowkeeper.partition('busy', ahead => '900')");
	$reader->query_safe('BEGIN; SELECT count(*) FROM busy');
	sql($node, "INSERT INTO busy VALUES (300)");
	my $maintain = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "CALL rowkeeper.maintain('busy')" ],
		'>', \$out, '2>', \$err, $timer);
	my $writer = session($node);

	$writer->query_safe("SET lock_timeout = '2s'");
	for (my $i = 1000; time() < $end; $i++)
	{
		my $start = time();

		$writer->query_safe("INSERT INTO busy VALUES ($i - 990 + 40) ON CONFLICT DO NOTHING");
		$longest = time() - $start if time() - $start > $longest;
		sleep(0.004);
		last if $i > 1250;
	}
	$maintain->finish;
	is($err, '', 'partitions are made beside a reader');
	cmp_ok($longest, '<', 1, 'and no writer waits');
	is_sql($node, "SELECT count(*) >= 120 FROM pg_inherits WHERE inhparent = 'busy'::regclass", 't', 'all of them');
	$reader->quit;
	$writer->quit;
}

# ---- a foreign key to a table on which a writer is idle in transaction ----

sql($node, <<'SQL');
CREATE TABLE accounts (id int PRIMARY KEY, v int);
INSERT INTO accounts VALUES (1, 0), (2, 0);
CREATE TABLE bookings (id int PRIMARY KEY, account int REFERENCES accounts) PARTITION BY RANGE (id);
SELECT rowkeeper.partition('bookings', 'id', '10');
CALL rowkeeper.maintain('bookings');
INSERT INTO bookings VALUES (25, 1);
SQL
{
	my $idle = session($node);
	my $writer = session($node);
	my ($out, $err) = ('', '');
	my $longest = 0;

	$idle->query_safe('BEGIN; UPDATE accounts SET v = v + 1 WHERE id = 1');
	my $maintain = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "CALL rowkeeper.maintain('bookings')" ],
		'>', \$out, '2>', \$err, IPC::Run::timer(60));
	for my $i (1 .. 200)
	{
		my $start = time();

		$writer->query_safe('UPDATE accounts SET v = v + 1 WHERE id = 2');
		$longest = time() - $start if time() - $start > $longest;
		sleep(0.004);
	}
	cmp_ok($longest, '<', 0.5, 'writers of the other table wait for one attempt at most');
	is_sql($node, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'bookings'::regclass", '5', 'no attempt has succeeded');
	$idle->query_safe('COMMIT');
	$maintain->finish;
	is($err, '', 'maintenance goes on trying');
	is_sql($node, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'bookings'::regclass", '7', 'and succeeds in the end');
	$idle->quit;
	$writer->quit;
}

# and so does retention
sql($node, "INSERT INTO bookings VALUES (5, 1), (15, 1), (35, 1), (45, 1); CALL rowkeeper.maintain('bookings');
	SELECT rowkeeper.partition('bookings', keep => '30')");
{
	my $idle = session($node);
	my $writer = session($node);
	my ($out, $err) = ('', '');
	my $longest = 0;

	$idle->query_safe('BEGIN; UPDATE accounts SET v = v + 1 WHERE id = 1');
	my $maintain = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "CALL rowkeeper.maintain('bookings')" ],
		'>', \$out, '2>', \$err, IPC::Run::timer(60));
	for my $i (1 .. 200)
	{
		my $start = time();

		$writer->query_safe('UPDATE accounts SET v = v + 1 WHERE id = 2');
		$longest = time() - $start if time() - $start > $longest;
		sleep(0.004);
	}
	cmp_ok($longest, '<', 0.25, 'no writer of the other table waits long for retention');
	is_sql($node, "SELECT to_regclass('bookings_p0')", 'bookings_p0', 'which waits for the one that is idle');
	$idle->query_safe('COMMIT');
	$maintain->finish;
	is_sql($node, "SELECT to_regclass('bookings_p0')", '', 'and goes on');
	$idle->quit;
	$writer->quit;
}

# ---- who maintains his own table keeps nobody else's waiting ----

sql($node, <<'SQL');
SELECT test.make('others');
CREATE ROLE slow LOGIN;
CREATE SCHEMA slow AUTHORIZATION slow;
SET ROLE slow;
CREATE TABLE slow.own (id int) PARTITION BY RANGE (id);
SELECT rowkeeper.partition('slow.own', 'id', '10');
INSERT INTO slow.own VALUES (15);
SQL
{
	my $locker = session($node);
	my ($out, $err) = ('', '');

	$locker->query_safe('BEGIN; LOCK TABLE ONLY slow.own');
	my $maintain = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SET SESSION AUTHORIZATION slow",
			'-c', "SET rowkeeper.lock_patience = '1d'", '-c', "CALL rowkeeper.maintain('slow.own')" ],
		'>', \$out, '2>', \$err, IPC::Run::timer(60));
	ok($node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query ~ '^CALL' AND xact_start IS NOT NULL AND pid <> pg_backend_pid())"),
		'maintenance by an owner, who waits');
	sleep(0.3);
	sql($node, "SELECT rowkeeper.partition('others', keep => '20'); CALL rowkeeper.maintain('others')");
	is_sql($node, "SELECT to_regclass('others_p0')", '', 'beside that of the others');
	sql($node, "INSERT INTO others VALUES (55); CALL rowkeeper.maintain('others')");
	is_sql($node, "SELECT to_regclass('others_p60')", 'others_p60', 'which makes their partitions, too');
	$locker->query_safe('ROLLBACK');
	$maintain->finish;
	is_sql($node, "SELECT to_regclass('slow.own_p50') IS NOT NULL", 't', 'his are made in the end');
	$locker->quit;
}

# ---- an owner's code takes its own time, and not that of others ----

sql($node, <<'SQL');
SET ROLE slow;
CREATE FUNCTION slow.nap(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN true; END $$;
CREATE DOMAIN slow.key AS int CHECK (slow.nap(VALUE));
CREATE TABLE slow.many (id slow.key) PARTITION BY RANGE (id);
CREATE TABLE slow.more (id slow.key) PARTITION BY RANGE (id);
SELECT rowkeeper.partition('slow.many', 'id', '10', ahead => '5');
SELECT rowkeeper.partition('slow.more', 'id', '10', ahead => '5');
RESET ROLE;
SELECT test.make('patient');
DELETE FROM rowkeeper._maintain_log;
UPDATE rowkeeper._partition_tables SET options = jsonb_set(options, '{ahead}', '"100"') WHERE table_schema = 'slow';
INSERT INTO patient VALUES (45);
SET statement_timeout = '5min'; -- which is of the session
SET rowkeeper.owner_budget = '1s';
CALL rowkeeper.maintain();
SQL
my $of_many = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'slow.many'::regclass";
my $made = $node->safe_psql('postgres', $of_many);
cmp_ok($made, '<', 8, 'what is slow takes the time of its owner in this run');
cmp_ok($made, '>', 1, 'in which some of it is done');
is_sql($node, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'slow.more'::regclass", '1', 'for all of his tables');
is_sql($node, "SELECT table_name, split_part(error, ':', 1) FROM rowkeeper.maintain_log WHERE error IS NOT NULL ORDER BY 1",
	"many|57000\nmore|57000", 'which is recorded');
is_sql($node, "SELECT to_regclass('patient_p60')", 'patient_p60', 'others are maintained');
sql($node, "SET rowkeeper.owner_budget = '1s'; CALL rowkeeper.maintain()");
cmp_ok($node->safe_psql('postgres', $of_many), '>', $made, 'the next run goes on');
sql($node, "SET rowkeeper.owner_budget = '1s'; SET SESSION AUTHORIZATION slow; CALL rowkeeper.maintain('slow.many')");
is_sql($node, $of_many, '11', 'he himself may take as long as he likes');
sql($node, "SELECT rowkeeper.partition_off('slow.many'), rowkeeper.partition_off('slow.more')");

# ---- one broken table among twenty ----

sql($node, <<'SQL');
DELETE FROM rowkeeper._maintain_log;
CREATE ROLE poor;
CREATE SCHEMA poor_schema;
GRANT ALL ON SCHEMA poor_schema TO poor;
SELECT test.make('t' || n) FROM generate_series(1, 20) n;
SELECT rowkeeper.partition(('t' || n)::regclass, ahead => '35', keep => '0') FROM generate_series(1, 20) n;
CREATE TABLE poor_schema.trap (id int) PARTITION BY RANGE (id);
ALTER TABLE poor_schema.trap OWNER TO poor;
SET ROLE poor;
CREATE FUNCTION poor_schema.rise(int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'ALTER ROLE poor SUPERUSER';
	RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
	RETURN true;
END $$;
SELECT rowkeeper.partition('poor_schema.trap', 'id', '10', ahead => '5');
CREATE TABLE poor_schema.trap_default PARTITION OF poor_schema.trap DEFAULT;
ALTER TABLE poor_schema.trap ADD CHECK (poor_schema.rise(id));
CREATE POLICY rise ON poor_schema.trap USING (poor_schema.rise(id));
ALTER TABLE poor_schema.trap ENABLE ROW LEVEL SECURITY;
ALTER TABLE poor_schema.trap FORCE ROW LEVEL SECURITY;
INSERT INTO poor_schema.trap SELECT generate_series(0, 9);
RESET ROLE;
CREATE TABLE lost (id int) PARTITION BY RANGE (id);
ALTER TABLE lost OWNER TO poor;
GRANT CREATE ON SCHEMA public TO poor;
SELECT rowkeeper.partition('lost', 'id', '10', ahead => '15');
REVOKE CREATE ON SCHEMA public FROM poor;
INSERT INTO lost VALUES (15);
SET ROLE poor;
SELECT rowkeeper.partition('poor_schema.trap', ahead => '15');
INSERT INTO poor_schema.trap VALUES (1000);
RESET ROLE;
DELETE FROM rowkeeper._maintain_log;
-- those that are broken
CREATE TABLE t7_p80 (id int);
INSERT INTO t7 VALUES (52);
SQL
{
	my $locker = session($node);

	sql($node, "INSERT INTO t$_ VALUES (59)") for (1 .. 20);
	$locker->query_safe('BEGIN; LOCK TABLE ONLY t11');
	sql($node, "SET rowkeeper.lock_patience = '1s'; CALL rowkeeper.maintain()");
	is_sql($node, "SELECT table_name, split_part(error, ':', 1) FROM rowkeeper.maintain_log WHERE error IS NOT NULL ORDER BY 1",
		<<'OUT', 'each failure is recorded');
	lost|42501
	t11|55P03
	t7|42P07
OUT
	is_sql($node, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM (SELECT inhparent::regclass::text AS relname
			FROM pg_inherits WHERE inhparent::regclass::text ~ '^t[0-9]+\$' GROUP BY 1 HAVING count(*) < 10) x", 't11 t7',
		'and the others are maintained');
	$locker->quit;
}
is_sql($node, "SELECT test.leaves('poor_schema.trap')",
	'poor_schema.trap_p0 poor_schema.trap_p10 poor_schema.trap_p20 poor_schema.trap_default', 'beside code of the owner\'s');
is_sql($node, "SELECT rolsuper FROM pg_roles WHERE rolname = 'poor'", 'f', 'who is nothing more than before');
my ($code, $out, $err) = $node->psql('postgres', "SELECT rowkeeper.doctor_assert('error', 'public', 'partition')");
like($err, qr/maintenance failed: 42P07.*t7_p80/s, 'doctor_assert() raises');
sql($node, "DROP TABLE t7_p80; GRANT CREATE ON SCHEMA public TO poor; CALL rowkeeper.maintain()");
is_sql($node, "SELECT rowkeeper.doctor_assert('error', 'public', 'partition')", 't', 'until they are mended');

# ---- a run that has to wait ----

sub begin_maintenance
{
	my ($target) = @_;
	my $maintainer = $node->background_psql('postgres');

	$maintainer->query_until(qr/^started$/m, "\\echo started\nCALL rowkeeper.maintain($target);\n");
	return $maintainer;
}

# what it found expired is what it takes away, whatever is said meanwhile
sql($node, "SELECT test.make('counted')");
{
	my $reader = session($node);

	$reader->query_safe('BEGIN; SELECT count(*) FROM counted');
	my $maintainer = begin_maintenance("'counted'");
	$node->poll_query_until('postgres', "SELECT test.leaves('counted') ~ '_p0!'");
	sql($node, "INSERT INTO counted VALUES (55); SELECT rowkeeper.partition('counted', keep => '1')");
	$reader->quit;
	$maintainer->query_safe('SELECT 1');
	$maintainer->quit;
	like(sql($node, "SELECT test.leaves('counted')"), qr/^counted_p10 counted_p20 counted_p30 counted_p40 counted_p50/,
		'a run takes away what it counted');
	sql($node, "CALL rowkeeper.maintain('counted')");
	like(runs('counted'), qr/55000: 3 of \d+ partitions of public.counted are past what is kept/, 'the next one counts anew');
	sql($node, "SELECT rowkeeper.partition_off('counted')");
}

# a table that cannot be locked does not keep others from what they need meanwhile
sql($node, "SELECT test.make('stuck'); SELECT test.make('due'); CALL rowkeeper.maintain()");
{
	my $locker = session($node);

	sql($node, 'INSERT INTO stuck VALUES (59)');
	$locker->query_safe('BEGIN; LOCK TABLE ONLY stuck');
	my $maintainer = begin_maintenance('');
	sleep 0.5;
	sql($node, 'DROP TABLE due_p50');
	ok($node->poll_query_until('postgres', "SELECT to_regclass('due_p50') IS NOT NULL"), 'others come to their turn meanwhile');
	$locker->quit;
	$maintainer->query_safe('SELECT 1');
	$maintainer->quit;
	like(sql($node, "SELECT test.leaves('stuck')"), qr/stuck_p70/, 'and it does, once it can');
}

# ---- no worker to be had ----

sql($node, "SELECT test.make('alone')");
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
sql($node, "CALL rowkeeper.maintain('alone')");
is_sql($node, "SELECT test.leaves('alone')", 'alone_p10 alone_p20 alone_p30 alone_p40 alone_p50', 'without a worker the detach is a plain one');
($code, $out, $err) = $node->psql('postgres', "DROP TABLE alone_p50; SELECT rowkeeper.partition_ensure('alone', 52::bigint)");
like($err, qr/no worker could be started.*max_worker_processes/s, 'and partition_ensure() says what it lacks');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;

# ---- dump and restore ----

my $dump = $node->backup_dir . '/partition.dump';
sql($node, <<'SQL');
CREATE TABLE "Order Items" ("At" timestamptz) PARTITION BY RANGE ("At");
SELECT rowkeeper.partition('"Order Items"', 'At', '1 month', keep => '1 year', timezone => 'Europe/Berlin', brin => true);
INSERT INTO rowkeeper._partition_intents VALUES ('alone_p10', 'alone', 20, '{}', now());
CREATE DATABASE restored;
SQL
# A dump is of some tables, or of none; an intent is of the database that had it.
my $features = "SELECT target, options, call FROM rowkeeper.features WHERE feature = 'partition' ORDER BY target::text";
my $before = sql($node, $features);
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dump');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'restore');
is(sql($node, $features, 'restored'), $before, 'what is maintained survives it');
sql($node, "INSERT INTO alone VALUES (45); CALL rowkeeper.maintain()", 'restored');
is_sql($node, "SELECT test.leaves('alone'), (SELECT count(*) FROM rowkeeper._partition_intents)",
	'alone_p20 alone_p30 alone_p40 alone_p50 alone_p60|0', 'and is maintained there', 'restored');
is_sql($node, "SELECT rowkeeper.doctor_assert('error', 'public', 'partition')", 't', 'healthy', 'restored');

my $part = $node->backup_dir . '/part.dump';
my $rest = $node->backup_dir . '/rest.dump';
sql($node, 'CREATE DATABASE partial; CREATE DATABASE apart');
$node->command_ok([ 'pg_dump', '-Fc', '-T', 'public."Order Items"*', '-f', $part, $node->connstr('postgres') ], 'without a table');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('partial'), $part ], 'is restored');
is(sql($node, $features, 'partial'), join("\n", grep { !/Order Items/ } split(/\n/, $before)), 'as to the others');
is_sql($node, "SELECT object FROM rowkeeper.doctor(feature => 'partition') WHERE check_name = 'missing'",
	'public."Order Items"', 'and the doctor names it', 'partial');
$node->command_ok([ 'pg_dump', '-Fc', '-t', 'public."Order Items"*', '-f', $rest, $node->connstr('postgres') ], 'that table alone');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('partial'), $rest ], 'comes later');
is(sql($node, $features, 'partial'), $before, 'and is maintained as well');
$node->command_ok([ 'pg_restore', '--exit-on-error', '--schema-only', '-d', $node->connstr('apart'), $dump ], 'definitions');
$node->command_ok([ 'pg_restore', '--exit-on-error', '--data-only', '--disable-triggers', '-d', $node->connstr('apart'), $dump ],
	'and rows apart');
is(sql($node, $features, 'apart'), $before, 'are the same in the end');
sql($node, "ALTER TABLE \"Order Items\" RENAME TO items", 'apart');
is_sql($node, "SELECT call FROM rowkeeper.features WHERE target = 'items'::regclass AND feature = 'partition'",
	"SELECT rowkeeper.partition('public.items', 'At', '1 mon', keep => '1 year', on_expiry => 'drop', timezone => 'Europe/Berlin', brin => true)",
	'a rename is followed before anything else is done', 'apart');

# the extension goes
sql($node, "SELECT count(*) FROM rowkeeper.leave(); DROP EXTENSION rowkeeper", 'restored');
is_sql($node, "SELECT count(*) FROM pg_inherits WHERE inhparent = '\"Order Items\"'::regclass", '5', 'partitions stay', 'restored');

done_testing();
