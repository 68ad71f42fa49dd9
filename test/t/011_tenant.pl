# Tenant isolation where it takes more than one session: what a connection, a
# configuration file, a stored setting, a dump, another session's view of this
# one and a connection pooler can do to a claim.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;

my $node = new_server('tenant', conf => "shared_preload_libraries = 'pg_stat_statements'\n");

sql($node, <<'SQL');
CREATE EXTENSION pg_stat_statements;
CREATE ROLE migrator LOGIN;
CREATE ROLE app LOGIN;
CREATE ROLE eve LOGIN;
CREATE SCHEMA shop AUTHORIZATION migrator;
GRANT USAGE ON SCHEMA shop TO app, eve;
SELECT rowkeeper.tenant_role('app', 'set');
SELECT rowkeeper.tenant_role('eve', 'signed');
SELECT rowkeeper.tenant_role('app', 'signed');
SELECT rowkeeper.tenant_key_add('k1', repeat('s', 32)::bytea);
SET SESSION AUTHORIZATION migrator;
CREATE TABLE shop.orders (tenant_id int, id int, item text, PRIMARY KEY (tenant_id, id));
INSERT INTO shop.orders SELECT 1 + i % 2, i, CASE i % 2 WHEN 1 THEN 'SECRET' ELSE 'mine' END FROM generate_series(1, 6) i;
CREATE TABLE shop.lines (tenant_id int NOT NULL, no int) PARTITION BY LIST (no);
CREATE TABLE shop.lines_1 PARTITION OF shop.lines FOR VALUES IN (1);
INSERT INTO shop.lines VALUES (1, 1), (2, 1);
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.orders, shop.lines, shop.lines_1 TO app, eve;
SELECT rowkeeper.tenant('shop.orders');
SELECT rowkeeper.tenant('shop.lines');
SQL

my $token = sql($node, "SELECT rowkeeper.tenant_sign(1, 'eve', '10 min')");
my $short = sql($node, "SELECT rowkeeper.tenant_sign(1, 'eve', '50 s')");

# What a login of this role gets from a script: output, or the error's first line.
sub as
{
	my ($role, $script, %options) = @_;
	my ($status, $out, $err) = $node->psql($options{database} || 'postgres', $script,
		extra_params => [ '-U', $role, '-v', 'VERBOSITY=terse' ]);

	$err =~ s/^psql:<stdin>:\d+: //mg;
	$err =~ s/^WARNING.*\n//mg;
	$err =~ s/\n.*//s;
	return $status == 0 ? $out : $err;
}

my $none = 'ERROR:  no tenant is set in this transaction';
my $all = 'SELECT count(*) FROM shop.orders';

# ---- the connection, and what is stored ----

{
	local $ENV{PGOPTIONS} = '-c rowkeeper.tenant=2';
	is(as('eve', $all), $none, 'a claim in PGOPTIONS is none');
	local $ENV{PGOPTIONS} = '-c rowkeeper.bypass=x -c rowkeeper.tenant_strict=off';
	is(as('eve', $all), '0', 'nor a bypass');
	local $ENV{PGOPTIONS} = "-c rowkeeper.token=$short";
	is(as('eve', $all), $none, 'nor a token');
}
# in sessions that have not loaded the library, a superuser can store anything
sql($node, "ALTER ROLE eve SET rowkeeper.tenant = '2'");
is(as('eve', $all), $none, 'a claim stored for a role is none');
is(sql($node, "SELECT check_name, object, remedy FROM rowkeeper.doctor(NULL, 'tenant') WHERE level = 'error'"),
	'forged_setting|ROLE eve|ALTER ROLE eve RESET rowkeeper.tenant', 'and the doctor finds it');
sql($node, 'ALTER ROLE eve RESET rowkeeper.tenant');
sql($node, "ALTER DATABASE postgres SET rowkeeper.bypass = 'x'");
is(as('eve', $all), $none, 'a bypass stored for the database is none');
sql($node, 'ALTER DATABASE postgres RESET rowkeeper.bypass');
unlike(as('eve', "ALTER ROLE eve SET rowkeeper.tenant = '2'"), qr/^$/, 'and who is no superuser cannot store it');
is(sql($node, "SELECT count(*) FROM rowkeeper.doctor(NULL, 'tenant') WHERE level = 'error'"), '0',
	'with that the doctor is content');
like(as('eve', 'SET SESSION AUTHORIZATION app'), qr/permission denied to set session authorization/,
	'nobody becomes somebody else');

# ---- a configuration file ----

$node->append_conf('postgresql.conf', "rowkeeper.tenant = '2'\nrowkeeper.bypass = 'x'\n");
$node->reload;
is(as('eve', $all), $none, 'a claim in the configuration file is none');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_stat_statements, rowkeeper'\n");
$node->restart;
is(as('eve', $all), $none, 'nor is it with the library preloaded');
is(as('eve', "SET rowkeeper.tenant = '2'; $all"), 'ERROR:  setting "rowkeeper.tenant" cannot be set directly',
	'which then refuses from the start');
is(as('app', "BEGIN; SELECT rowkeeper.tenant_set(1) \\g /dev/null\n$all"), '3', 'and works');
$node->append_conf('postgresql.conf',
	"rowkeeper.tenant = ''\nrowkeeper.bypass = ''\nshared_preload_libraries = 'pg_stat_statements'\n");
$node->restart;

# ---- what others see of a token ----

my $eve = $node->background_psql('postgres', extra_params => [ '-U', 'eve' ], on_error_stop => 0);
$eve->query_safe('SELECT rowkeeper._bypassing()');	# what comes before the library is loaded is not masked
$eve->query_safe('BEGIN');
$eve->query_safe("SET LOCAL rowkeeper.token = '$short'");
is($eve->query_safe($all), '3', 'a token in a SET works');
$eve->query_safe("SET LOCAL rowkeeper.token = '$short'");
is(as('eve', "SELECT query FROM pg_stat_activity WHERE state = 'idle in transaction'"),
	"SET rowkeeper.token = '...'", 'and another session of the role does not see it');
$eve->query_safe('COMMIT');
as('eve', "BEGIN; SELECT rowkeeper.tenant_set_signed('$token')");
is(sql($node, "SELECT count(*) FROM pg_stat_statements WHERE query ~ 'tenant_set_signed' AND query ~ 'eyJ'"), '0',
	'nor does pg_stat_statements keep one that is a parameter');
isnt(sql($node, "SELECT count(*) FROM rowkeeper.doctor(NULL, 'tenant') WHERE check_name = 'logged_tokens'"), '0',
	'one in a SET it may, which the doctor says');

# ---- tokens that an application makes, as the documentation has it ----

my %makers = (
	PyJWT => [ 'python3', '-c', <<'PY' ],
import jwt, time
secret = "s" * 32
print(jwt.encode({"tenant": "1", "sub": "alice", "aud": "postgres", "exp": int(time.time()) + 300},
                 secret, algorithm="HS256", headers={"kid": "k1"}))
PY
	jsonwebtoken => [ 'node', '-e', <<'JS' ]);
const secret = 's'.repeat(32)
console.log(require('jsonwebtoken').sign({ tenant: '1', sub: 'alice' }, secret,
  { algorithm: 'HS256', keyid: 'k1', audience: 'postgres', expiresIn: '5m' }))
JS
for my $maker (sort keys %makers)
{
	my ($made, $err) = ('', '');

	SKIP:
	{
		skip "no $maker", 1
			unless eval { IPC::Run::run($makers{$maker}, '>', \$made, '2>', \$err) } && $made =~ /^eyJ/;
		chomp $made;
		is(as('eve', "BEGIN; SELECT rowkeeper.tenant_set_signed('$made'), rowkeeper.user_text()"), '1|alice',
			"a token made by $maker");
	}
}

# ---- keys come and go while sessions are open ----

$eve->query_safe('BEGIN');
is($eve->query_safe("SELECT rowkeeper.tenant_set_signed('$token')"), '1', 'a token');
$eve->query_safe('COMMIT');
sql($node, "SELECT rowkeeper.tenant_key_add('k2', repeat('t', 32)::bytea)");
my $newer = sql($node, "SELECT rowkeeper.tenant_sign(1, 'eve', '10 min')");
$eve->query_safe('BEGIN');
is($eve->query_safe("SELECT rowkeeper.tenant_set_signed('$newer')"), '1', 'one of a new key, in an old session');
is($eve->query_safe("SELECT rowkeeper.tenant_set_signed('$token')"), '1', 'and one of the old key');
$eve->query_safe('COMMIT');
sql($node, "SELECT rowkeeper.tenant_key_drop('k1')");
$eve->query_safe('BEGIN');
is($eve->query_safe("SELECT rowkeeper.tenant_set_signed('$newer')"), '1', 'the new one works on');
$eve->query("SELECT rowkeeper.tenant_set_signed('$token')");
like($eve->{stderr}, qr/the token is not valid/, 'the old one does not, once its key is dropped');
$eve->quit;
like(slurp_file($node->logfile), qr/a token was refused: its key is not known/, 'the server\'s log says why');

# ---- dump and restore ----

my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'a dump');
$node->command_fails([ 'pg_dump', '-U', 'app', '-t', 'shop.orders', '-f', "$dump.app", $node->connstr('postgres') ],
	'by who is held to isolation there is none');
sql($node, 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), '--exit-on-error', $dump ], 'restored');
is(sql($node, "SELECT target, healthy FROM rowkeeper.features WHERE feature = 'tenant' ORDER BY target::text COLLATE \"C\"", 'restored'),
	"shop.lines|t\nshop.orders|t", 'the tables are isolated');
is(sql($node, "SELECT count(*) FROM rowkeeper.tenant('shop.orders')", 'restored'), '0', 'with nothing to do');
is(sql($node, "SELECT count(*) FROM rowkeeper.tenant('shop.lines')", 'restored'), '0', 'nor on partitions');
is(sql($node, 'SELECT count(*) FROM rowkeeper._token_key', 'restored'), '0', 'the keys are not in the dump');
is(sql($node, 'SELECT count(*) FROM shop.orders', 'restored'), '6', 'the rows are');
is(as('app', "BEGIN; SELECT rowkeeper.tenant_set(1) \\g /dev/null\n$all", database => 'restored'), '3',
	'and who was trusted is');
is(as('eve', $all, database => 'restored'), $none, 'and who was not is not');

# in any order, as parallel workers have it; a later partition is protected too
sql($node, 'CREATE DATABASE parallel');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('parallel'), '-j', '4', '--exit-on-error', $dump ],
	'restored by parallel workers');
is(sql($node, "SELECT count(*) FROM rowkeeper.doctor(NULL, 'tenant') WHERE level = 'error'", 'parallel'), '0',
	'the doctor is content');
sql($node, 'CREATE TABLE shop.lines_2 PARTITION OF shop.lines FOR VALUES IN (2);
	INSERT INTO shop.lines VALUES (1, 2), (2, 2); GRANT SELECT ON shop.lines_2 TO app', 'parallel');
is(as('app', "BEGIN; SELECT rowkeeper.tenant_set(1) \\g /dev/null\nSELECT tenant_id, count(*) FROM shop.lines_2 GROUP BY 1",
	database => 'parallel'), '1|1', 'a partition made later is isolated');
# one partition of a dump under a root that is there and protected
sql($node, 'ALTER TABLE shop.lines DETACH PARTITION shop.lines_1; DROP TABLE shop.lines_1', 'parallel');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('parallel'), '--section=pre-data', '-n', 'shop', '-t', 'lines_1', $dump ],
	'one partition restored');
sql($node, 'SET check_function_bodies = off; SET row_security = off;
	ALTER TABLE ONLY shop.lines ATTACH PARTITION shop.lines_1 FOR VALUES IN (1)', 'parallel');
is(sql($node, "SELECT relrowsecurity, (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid) FROM pg_class c WHERE oid = 'shop.lines_1'::regclass", 'parallel'),
	't|2', 'is protected while a dump is loaded, too');

# ---- internal work under FORCE, as an owner without a claim ----

is(as('migrator', $all), $none, 'the owner without a claim sees nothing');
is(as('migrator', "CREATE TABLE shop.half (tenant_id int); INSERT INTO shop.half VALUES (1), (NULL);
	ALTER TABLE shop.half ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.half FORCE ROW LEVEL SECURITY;
	SELECT rowkeeper.tenant('shop.half')"),
	'ERROR:  shop.half is not ready for its tenants', 'but what we look at is what there is');

# ---- a connection pooler ----

my $pidfile = $node->basedir . '/pgbouncer.pid';

END
{
	kill 'TERM', slurp_file($pidfile) if defined $pidfile && -e $pidfile;
}

SKIP:
{
	my $pgbouncer = (grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin')[0];
	skip 'no pgbouncer', 4 unless defined $pgbouncer;

	my $dir = $node->basedir;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	append_to_file("$dir/users", join('', map { "\"$_\" \"\"\n" } qw(app eve)));
	append_to_file("$dir/pgbouncer.ini", sprintf(<<'INI', $node->host, $node->port, $node->host, $port, ($dir) x 3));
[databases]
* = host=%s port=%s
[pgbouncer]
unix_socket_dir = %s
listen_addr =
listen_port = %s
auth_type = trust
auth_file = %s/users
logfile = %s/pgbouncer.log
pidfile = %s/pgbouncer.pid
pool_mode = transaction
default_pool_size = 1
INI
	system_or_bail($pgbouncer, '-d', '-q', "$dir/pgbouncer.ini");

	my @clients = map {
		$node->background_psql('postgres', on_error_stop => 0,
			extra_params => [ '-d', sprintf('host=%s port=%s dbname=postgres user=app', $node->host, $port) ])
	} 1 .. 2;
	my ($one, $two) = @clients;
	$one->query_safe('BEGIN');
	$one->query_safe('SELECT rowkeeper.tenant_set(1)');
	is($one->query_safe('SELECT min(tenant_id), max(tenant_id), count(*) FROM shop.orders'), '1|1|3', 'through a pooler');
	$one->query_safe('COMMIT');
	$two->query("SELECT count(*) FROM shop.orders");
	like($two->{stderr}, qr/no tenant is set/, 'the next client of the connection has no claim');
	$two->{stderr} = '';
	$one->query("SET rowkeeper.token = '" . sql($node, "SELECT rowkeeper.tenant_sign(1, NULL, '50 s')") . "'");
	$two->query("SELECT count(*) FROM shop.orders");
	like($two->{stderr}, qr/no tenant is set/, 'nor one that was planted by a session\'s SET');
	$two->{stderr} = '';
	$two->query_safe('BEGIN');
	$two->query_safe('SELECT rowkeeper.tenant_set(2)');
	is($two->query_safe('SELECT min(tenant_id), max(tenant_id), count(*) FROM shop.orders'), '2|2|3', 'it has its own');
	$two->query_safe('COMMIT');
	$_->quit for @clients;
}

$node->stop;
done_testing();
