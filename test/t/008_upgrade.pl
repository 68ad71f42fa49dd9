# pg_upgrade takes the audit along.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;

my $old = new_server('old');
sql($old, <<'SQL');
CREATE TABLE orders (id int PRIMARY KEY, status text);
CREATE TABLE parts (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_north PARTITION OF parts FOR VALUES IN ('north');
CREATE TABLE parts_south PARTITION OF parts FOR VALUES IN ('south');
CREATE TABLE gone (id int PRIMARY KEY);
SELECT rowkeeper.audit('orders', keep => '90 days', capture => 'full'), rowkeeper.audit('parts'), rowkeeper.audit('gone');
SET app.user_id = 'alice';
INSERT INTO orders SELECT i, 'new' FROM generate_series(1, 200) i;
UPDATE orders SET status = 'paid' WHERE id = 2;
INSERT INTO parts VALUES (1, 'north', 'a');
UPDATE parts SET region = 'south';
INSERT INTO gone VALUES (1);
DROP TABLE gone;
SQL
my $log = "SELECT * FROM rowkeeper.audit_log ORDER BY id";
my $triggers = "SELECT tgrelid::regclass, tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2";
my $events = "SELECT evtname, evtenabled FROM pg_event_trigger ORDER BY 1";
my $before = sql($old, $log);
my $triggers_before = sql($old, $triggers);
my $events_before = sql($old, $events);
my $last = sql($old, 'SELECT max(id) FROM rowkeeper.audit_log');
$old->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init(extra => [ '--encoding=UTF8', '--locale=C' ]);

my $bindir = $new->config_data('--bindir');
my @upgrade = (
	'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bindir, '-B', $bindir,
	'-s', $new->host, '-p', $old->port, '-P', $new->port);
chdir ${PostgreSQL::Test::Utils::tmp_check} or die;
command_ok([ @upgrade, '--check' ], 'pg_upgrade --check finds nothing');
command_ok(\@upgrade, 'pg_upgrade');
$new->start;

is(sql($new, $log), $before, 'the log is the same');
is(sql($new, $triggers), $triggers_before, 'triggers and options are the same');
is(sql($new, $events), $events_before, 'the event triggers are ALWAYS on');
is(sql($new, "SELECT rowkeeper.audit('orders'); SELECT rowkeeper.audit('parts')"), '', 'audit() again changes nothing');
sql($new, "SET app.user_id = 'bob'; UPDATE orders SET status = 'sent' WHERE id = 2; UPDATE parts SET region = 'north'; ALTER TABLE orders ADD COLUMN more int");
is_sql($new, <<"SQL", <<'EXPECTED', 'it goes on');
SELECT table_name, action, record_id, old_data, new_data, actor FROM rowkeeper.audit_log WHERE id > $last ORDER BY id
SQL
	orders|UPDATE|{"id": 2}|{"id": 2, "status": "paid"}|{"id": 2, "status": "sent"}|bob
	parts|UPDATE|{"id": 1, "region": "south"}|{"region": "south"}|{"region": "north"}|bob
	orders|ALTER||||bob
EXPECTED
is_complete($new, 'parts', 'replaying the log gives the table');
sql($new, 'CALL rowkeeper.maintain()');
is_sql($new, 'SELECT count(*) FROM rowkeeper.maintain_log WHERE error IS NOT NULL', '0', 'maintenance works');

$new->stop;
done_testing();
