# What the TAP tests share: servers with the extension, and the proof that the
# log is complete: replay() rebuilds a table from its entries, step by step,
# and compares the result with the table.
package RowkeeperTest;

use strict;
use warnings;
use Exporter 'import';
use Time::HiRes qw(usleep);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(new_server server_version install_witness sql is_sql
  replay is_complete session end_nap);

# A server of one's own, with the extension in database "postgres".
sub new_server
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(
		allows_streaming => $options{allows_streaming} || 0,
		extra => [ '--encoding=UTF8', '--locale=C' ]);
	$node->append_conf('postgresql.conf', <<'CONF');
max_connections = 40
max_prepared_transactions = 10
deadlock_timeout = 20ms
autovacuum_naptime = 1s
log_statement = none
CONF
	$node->append_conf('postgresql.conf', $options{conf}) if defined $options{conf};
	$node->start;
	install_extension($node, 'postgres') unless $options{bare};
	return $node;
}

sub install_extension
{
	my ($node, $database) = @_;

	sql($node, 'SET client_min_messages = warning; CREATE EXTENSION rowkeeper CASCADE', $database);
	install_witness($node, $database);
}

sub server_version
{
	my ($node) = @_;

	return int($node->safe_psql('postgres', 'SHOW server_version_num') / 10000);
}

# The result of a script, as text; any error ends the test.
sub sql
{
	my ($node, $script, $database) = @_;

	return $node->safe_psql($database || 'postgres', $script);
}

sub is_sql
{
	my ($node, $script, $expected, $name, $database) = @_;
	my $actual = sql($node, $script, $database);

	$expected =~ s/^\t+//mg;
	chomp $expected;
	return is($actual, $expected, $name);
}

# A session that stays open; an error of a query ends the test.
sub session
{
	my ($node, %options) = @_;
	my $session = $node->background_psql($options{database} || 'postgres');

	$session->query_safe('SET client_min_messages = warning');
	return $session;
}

# Cancel or terminate a call that naps, again and again, where a test stops it: between
# two naps it would not be seen to. Then its session ends.
sub end_nap
{
	my ($node, $call, $way) = @_;

	$node->poll_query_until('postgres', "SELECT count(pg_${way}_backend(pid)) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
	  or die 'nobody naps';
	eval { $call->quit };
	return;
}

# test.replay() and its means, in the database; nothing of it is the product.
sub install_witness
{
	my ($node, $database) = @_;

	sql($node, <<'SQL', $database);
SET check_function_bodies = off;
CREATE SCHEMA test;

-- The rows of a table as the log writes them.
CREATE FUNCTION test.rows(target regclass) RETURNS SETOF jsonb
LANGUAGE plpgsql SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres'
SET bytea_output = 'hex' SET extra_float_digits = 1 AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT to_jsonb(t) FROM %s t', target);
END $$;

CREATE FUNCTION test.key_of(data jsonb, key text[]) RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_object_agg(k, data -> k) FROM unnest(key) k $$;

-- Apply all entries in the order of their ids to an empty table. Each one must
-- fit what came before: its old values are the present ones. What does not
-- fit, and where the end differs from the table itself, is returned.
-- changed_by: the column that says who wrote a row, compared with the actor;
-- since: the entry that left the table empty.
CREATE FUNCTION test.replay(target regclass, changed_by text DEFAULT NULL, since bigint DEFAULT 0)
RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	e record;
	found_row jsonb;
	new_row jsonb;
	key text[] := ARRAY(SELECT a.attname::text FROM pg_index i
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
		WHERE i.indrelid = target AND i.indisprimary);
BEGIN
	DROP TABLE IF EXISTS replayed;
	CREATE TEMPORARY TABLE replayed (key jsonb PRIMARY KEY, data jsonb);
	FOR e IN SELECT * FROM rowkeeper.audit_log WHERE relation = target AND id > since ORDER BY id LOOP
		found_row := NULL;
		new_row := NULL;
		IF e.actor IS NULL OR e.db_user IS NULL THEN
			RETURN NEXT format('%s %s of %s: nobody did it', e.id, e.action, e.record_id);
		END IF;
		IF e.action = 'TRUNCATE' THEN
			DELETE FROM replayed;
		END IF;
		CONTINUE WHEN e.action NOT IN ('INSERT', 'UPDATE', 'DELETE');
		IF e.action <> 'INSERT' THEN
			DELETE FROM replayed r WHERE r.key = e.record_id RETURNING data INTO found_row;
			IF found_row IS NULL THEN
				RETURN NEXT format('%s %s of %s: there is no such row', e.id, e.action, e.record_id);
				CONTINUE;
			ELSIF e.action = 'DELETE' AND found_row <> e.old_data
				OR e.action = 'UPDATE' AND NOT found_row @> e.old_data THEN
				RETURN NEXT format('%s %s of %s: is %s, not %s', e.id, e.action, e.record_id, found_row, e.old_data);
			END IF;
		END IF;
		IF e.action <> 'DELETE' THEN
			new_row := coalesce(found_row, '{}') || e.new_data;
			IF new_row ->> changed_by <> e.actor THEN
				RETURN NEXT format('%s %s of %s: actor is %s', e.id, e.action, new_row, e.actor);
			END IF;
			BEGIN
				INSERT INTO replayed VALUES (test.key_of(new_row, key), new_row);
			EXCEPTION WHEN unique_violation THEN
				RETURN NEXT format('%s %s of %s: the row is there already', e.id, e.action, new_row);
			END;
		END IF;
	END LOOP;

	RETURN QUERY
		SELECT format('at the end the log has %s, the table %s', r.data, t.data)
		FROM replayed r FULL JOIN test.rows(target) AS t(data) ON t.data = r.data
		WHERE r.data IS NULL OR t.data IS NULL;
END $$;

-- An independent witness: a trigger that notes each change, and goes with the
-- transaction as the log does.
CREATE TABLE test.witnessed (txid bigint, relation regclass, action text, key jsonb);
CREATE FUNCTION test.witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'UPDATE' AND OLD IS NOT DISTINCT FROM NEW THEN
		RETURN NULL;
	END IF;
	INSERT INTO test.witnessed VALUES (pg_current_xact_id()::text::bigint, TG_RELID, TG_OP,
		test.key_of(to_jsonb(CASE WHEN TG_OP = 'INSERT' THEN NEW ELSE OLD END), TG_ARGV));
	RETURN NULL;
END $$;

-- Where witness and log differ, in number or in transaction.
CREATE FUNCTION test.contradictions(target regclass) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format('%s of %s in %s: %s times seen, %s times logged', action, key, txid, seen, logged)
	FROM (SELECT txid, action, key, count(*) AS seen FROM test.witnessed
			WHERE relation = target GROUP BY 1, 2, 3) w
		FULL JOIN (SELECT txid, action, record_id AS key, count(*) AS logged FROM rowkeeper.audit_log
			WHERE relation = target AND action IN ('INSERT', 'UPDATE', 'DELETE') GROUP BY 1, 2, 3) l
		USING (txid, action, key)
	WHERE seen IS DISTINCT FROM logged
$$;
SQL
}

# What is wrong with the log of a table; an empty text: nothing.
sub replay
{
	my ($node, $table, %options) = @_;
	my $changed_by = defined $options{changed_by} ? "'$options{changed_by}'" : 'NULL';

	my $since = $options{since} || 0;

	return sql($node,
		"SET client_min_messages = warning; SELECT * FROM test.replay('$table', $changed_by, $since) LIMIT 10",
		$options{database});
}

# The log of a table tells its whole story.
sub is_complete
{
	my ($node, $table, $name, %options) = @_;

	return is(replay($node, $table, %options), '', $name);
}

1;
