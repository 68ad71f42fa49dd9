# The worker: shared_preload_libraries = 'rowkeeper' maintains every database
# that it is told to, and is in nobody's way.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('worker', allows_streaming => 1, conf => <<'CONF');
shared_preload_libraries = 'rowkeeper'
rowkeeper.worker_interval = 1s
restart_after_crash = on
CONF

# Something to do, in each run anew: rows that are to be purged at once.
sub make_work
{
	my ($database) = @_;

	sql($node, <<'SQL', $database);
CREATE TABLE orders (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('orders', keep => '1 day');
SQL
	return;
}

sub add_work
{
	my ($database) = @_;

	sql($node, "INSERT INTO orders SELECT coalesce(max(id), 0) + 1 FROM orders;
		UPDATE orders SET deleted_at = pg_catalog.now() - interval '2 days'", $database);
	return;
}

sub is_maintained
{
	my ($database, $name) = @_;

	add_work($database);
	return ok($node->poll_query_until($database, 'SELECT count(*) = 0 FROM orders'), $name);
}

sub is_not_maintained
{
	my ($database, $name) = @_;

	add_work($database);
	sleep 2.5;
	return is_sql($node, 'SELECT count(*) > 0 FROM orders', 't', $name, $database);
}

sub configure
{
	my ($name, $value) = @_;

	$node->append_conf('postgresql.conf', "$name = $value");
	$node->reload;
	# what began before the change is still done
	sleep 1;
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity
		WHERE backend_type ~ '^rowkeeper' AND backend_type <> 'rowkeeper launcher'");
	return;
}

sub launcher_pid
{
	return sql($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'rowkeeper launcher'");
}

# ---- every database with the extension ----

make_work('postgres');
is_maintained('postgres', 'what is due is done');
is_sql($node, "SELECT DISTINCT task, table_name, error FROM rowkeeper.maintain_log WHERE task = 'soft_delete_purge'", 'soft_delete_purge|orders|', 'and recorded');

sql($node, 'CREATE DATABASE shop');
sql($node, 'CREATE DATABASE empty');
sql($node, 'CREATE DATABASE "Old Shop"');
for my $database ('shop', 'Old Shop')
{
	RowkeeperTest::install_extension($node, $database);
	make_work($database);
}
is_maintained('shop', 'a second database');
is_maintained('Old Shop', 'and one with a name of its own');

sql($node, 'ALTER DATABASE shop SET default_transaction_read_only = on');
sql($node, "SET default_transaction_read_only = off; INSERT INTO orders VALUES (1000);
	UPDATE orders SET deleted_at = pg_catalog.now() - interval '2 days'", 'shop');
ok($node->poll_query_until('shop', 'SELECT count(*) = 0 FROM orders'), 'one whose sessions only read by default');
sql($node, 'ALTER DATABASE shop RESET default_transaction_read_only');

# who sessions are is the database's owner's to set, but not who the worker is
{
	sql($node, "CREATE ROLE dbo; ALTER DATABASE shop SET session_authorization = 'dbo'; ALTER DATABASE shop SET role = 'dbo'");
	local $ENV{PGOPTIONS} = '-c session_authorization=postgres -c role=none';
	is_maintained('shop', 'one whose owner has set who sessions in it are');
	sql($node, 'ALTER DATABASE shop RESET session_authorization; ALTER DATABASE shop RESET role; DROP ROLE dbo');
}

sql($node, "UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'rowkeeper'", 'Old Shop');
sleep 1.5;
is_not_maintained('Old Shop', 'not one whose extension is of another version than the library');
is_maintained('shop', 'which is in no other\'s way');

# ---- the list ----

configure('rowkeeper.worker_databases', "'\"Old Shop\", shop, gone'");
is_maintained('shop', 'databases that are listed, after a reload');
is_not_maintained('postgres', 'and no others');
configure('rowkeeper.worker_interval', "'1h'");
is_not_maintained('shop', 'the interval, too');
add_work('postgres');
configure('rowkeeper.worker_databases', "'postgres'");
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM orders'), 'a reload begins a round, with the new list');
configure('rowkeeper.worker_databases', "'a b'");
is_sql($node, 'SHOW rowkeeper.worker_databases', 'postgres', 'one that is no list is refused');
configure('rowkeeper.worker_databases', "''");
configure('rowkeeper.worker_interval', "'1s'");
is_maintained('shop', 'all again');

# ---- nobody stays ----

for my $try (1 .. 5)
{
	my $started = time;

	sql($node, 'CREATE DATABASE brief');
	RowkeeperTest::install_extension($node, 'brief');
	sleep 0.3 * $try;
	sql($node, 'DROP DATABASE brief');
	cmp_ok(time - $started, '<', 0.3 * $try + 4, 'a database can be dropped');
}
is_sql($node, "SELECT datname FROM pg_stat_activity WHERE backend_type = 'rowkeeper launcher'", '',
	'the launcher is connected to none');

# ---- whose rights ----

# The owner of a table that is maintained gains none, nor does the owner of a
# database by what he sets for its sessions.
sql($node, <<'SQL');
CREATE ROLE tenant LOGIN;
CREATE DATABASE theirs OWNER tenant;
SQL
RowkeeperTest::install_extension($node, 'theirs');
sql($node, <<'SQL', 'theirs');
CREATE TABLE public.seen (what text, who name, session name, superuser text);
GRANT ALL ON public.seen TO PUBLIC;
GRANT CREATE ON SCHEMA public TO tenant;
SET SESSION AUTHORIZATION tenant;
CREATE FUNCTION public.escape() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		RESET ROLE;
		RESET SESSION AUTHORIZATION;
		SET ROLE NONE;
	EXCEPTION WHEN OTHERS THEN NULL;
	END;
	INSERT INTO public.seen VALUES (TG_ARGV[0], current_user, session_user,
		(SELECT rolsuper FROM pg_roles WHERE rolname = current_user));
	RETURN OLD;
END $$;
CREATE TABLE public.orders (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('public.orders', keep => '1 day');
CREATE TRIGGER escape BEFORE DELETE ON public.orders FOR EACH ROW EXECUTE FUNCTION public.escape('at once');
CREATE CONSTRAINT TRIGGER later AFTER DELETE ON public.orders DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION public.escape('at commit');
-- what would stand in for the server's own, if it were found first
CREATE SCHEMA evil;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO public.seen VALUES ('now', current_user); RETURN pg_catalog.now(); END$$;
CREATE FUNCTION evil.unnest(oid[], tid[]) RETURNS TABLE (t oid, i tid) LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO public.seen VALUES ('unnest', current_user); RETURN QUERY SELECT * FROM pg_catalog.unnest($1, $2); END$$;
ALTER DATABASE theirs SET search_path = evil, pg_catalog, public;
ALTER DATABASE theirs SET role = 'tenant';
SQL
is_maintained('theirs', 'a database of a tenant');
is_sql($node, "SELECT DISTINCT what, who, superuser FROM public.seen ORDER BY 1", <<'EXPECTED', 'whose code runs as he', 'theirs');
	at commit|tenant|false
	at once|tenant|false
EXPECTED
sql($node, "ALTER DATABASE theirs RESET role");

# ---- it comes back ----

my $before = launcher_pid();
sql($node, "SELECT pg_terminate_backend($before)");
ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity
	WHERE backend_type = 'rowkeeper launcher' AND pid <> $before"), 'a launcher that was terminated is there again');
is_maintained('postgres', 'and works');

sql($node, <<'SQL');
CREATE TABLE gate (closed boolean);
INSERT INTO gate VALUES (true);
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	WHILE (SELECT closed FROM public.gate) LOOP
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN OLD;
END $$;
CREATE TRIGGER wait BEFORE DELETE ON orders FOR EACH ROW EXECUTE FUNCTION wait();
SQL
my $at_work = "SELECT DISTINCT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
	WHERE backend_type = 'rowkeeper maintenance' AND relation = 'orders'::regclass AND mode = 'RowExclusiveLock'";
add_work('postgres');
$node->poll_query_until('postgres', "SELECT EXISTS ($at_work)");
sql($node, "SELECT pg_terminate_backend(($at_work))");
sql($node, 'UPDATE gate SET closed = false');
is_maintained('postgres', 'one that was terminated at work is followed by another');

sql($node, 'UPDATE gate SET closed = true');
add_work('postgres');
$node->poll_query_until('postgres', "SELECT EXISTS ($at_work)");
kill 'KILL', sql($node, $at_work);
ok($node->poll_query_until('postgres', 'UPDATE gate SET closed = false RETURNING true', "t\nUPDATE 1"), 'one is killed');
is_maintained('postgres', 'and is followed by another after the server has begun anew');

# one database's does not end
sql($node, <<'SQL', 'shop');
CREATE TABLE gate (closed boolean);
INSERT INTO gate VALUES (true);
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	WHILE (SELECT closed FROM public.gate) LOOP
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN OLD;
END $$;
CREATE TRIGGER wait BEFORE DELETE ON orders FOR EACH ROW EXECUTE FUNCTION wait();
SQL
add_work('shop');
$node->poll_query_until('shop', "SELECT EXISTS ($at_work)");
is_maintained('postgres', 'a database whose maintenance does not end keeps no other waiting');
is_sql($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rowkeeper maintenance' AND datname = 'shop'", '1',
	'and has one process');
sql($node, 'UPDATE gate SET closed = false', 'shop');
is_maintained('shop', 'until it ends');

# ---- a standby ----

$node->backup('copy');
my $primary = $node;
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;
sleep 1.5;
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'rowkeeper%'"), '0',
	'a standby has no worker');
$primary->stop;
$standby->promote;
$node = $standby;
ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'rowkeeper launcher'"),
	'when it is promoted, it has');
is_maintained('postgres', 'which works');
$node->stop;
$node = $primary;

# ---- no room ----

$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
$node->start;
ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'rowkeeper launcher'"),
	'where no slot for workers is left, the server starts');
ok($node->wait_for_log(qr/rowkeeper maintains nothing: no worker is free/), 'and its log says so');
my ($status, $out, $err) = $node->psql('postgres', 'CALL rowkeeper.maintain()');
is($status, 0, 'maintain() can still be called');
$node->stop;

done_testing();
