# Deletes, restores and inserts at random over four tables that refer to each
# other, by four sessions at once, at each isolation level, in both modes. A
# witness of the test's own sees by triggers what goes and what comes back. No
# reference may dangle, and what a restore brings back must be exactly what was
# deleted together and is not back yet, value for value.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RowkeeperTest;
use Test::More;

my $sequences = $ENV{ROWKEEPER_SEQUENCES} || 400;    # of three steps, at each level, in each mode
my $node = new_server('random');

sub set_up
{
	my ($mode) = @_;
	my $gone = $mode eq 'flag' ? 'AND p.deleted_at IS NULL' : '';
	my $live = $mode eq 'flag' ? 'c.deleted_at IS NULL AND' : '';

	sql($node, <<"SQL");
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS r CASCADE;
CREATE SCHEMA r;
SET search_path = r;
CREATE TABLE a (id int PRIMARY KEY, v text NOT NULL);
CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE, v text NOT NULL);
CREATE TABLE c (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE,
	b int REFERENCES b ON DELETE CASCADE, up int REFERENCES c ON DELETE CASCADE, v text NOT NULL);
CREATE TABLE d (id int PRIMARY KEY, b int REFERENCES b ON DELETE NO ACTION,
	c int REFERENCES c ON DELETE CASCADE, v text NOT NULL);
SELECT rowkeeper.soft_delete('d', mode => '$mode'), rowkeeper.soft_delete('c', mode => '$mode'),
	rowkeeper.soft_delete('b', mode => '$mode'), rowkeeper.soft_delete('a', mode => '$mode');

-- what went in one statement, and is not back yet
CREATE TABLE gone (op bigint, tab text, id int, data jsonb, batch bigint, at timestamptz);
CREATE INDEX ON gone (op);
CREATE TABLE failures (what text);
CREATE TABLE done (op text);
CREATE SEQUENCE ops;
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql SET search_path = r AS \$\$
BEGIN
	INSERT INTO gone SELECT current_setting('test.op')::bigint, TG_TABLE_NAME, OLD.id,
		to_jsonb(OLD) - '{deleted_at,deleted_by,delete_batch}'::text[];
	RETURN NULL;
END \$\$;
SQL
	foreach my $table (qw(a b c d))
	{
		my $event = $mode eq 'flag'
		  ? "UPDATE ON r.$table FOR EACH ROW WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL)"
		  : "DELETE ON r.$table FOR EACH ROW";
		sql($node, "CREATE TRIGGER witness AFTER $event EXECUTE FUNCTION r.witness()");
	}
	my $from = $mode eq 'flag' ? 'active_' : '';
	sql($node, <<"SQL");
SET client_min_messages = warning;
CREATE FUNCTION r.pick(n int) RETURNS int LANGUAGE sql AS 'SELECT 1 + (random() * (n - 1))::int';

CREATE FUNCTION r.put(tab text) RETURNS void LANGUAGE plpgsql SET search_path = r AS \$\$
DECLARE v text := md5(random()::text);
BEGIN
	CASE tab
		WHEN 'a' THEN INSERT INTO a VALUES (pick(12), v);
		WHEN 'b' THEN INSERT INTO b VALUES (pick(24), pick(12), v);
		WHEN 'c' THEN INSERT INTO c VALUES (pick(48), pick(12), pick(24), nullif(pick(48) % 60, 0), v);
		ELSE INSERT INTO d VALUES (pick(48), pick(24), pick(48), v);
	END CASE;
END \$\$;

-- Delete a row, and remember what went with it under the batch it got.
CREATE FUNCTION r.take(tab text) RETURNS void LANGUAGE plpgsql SET search_path = r AS \$\$
DECLARE this_op bigint := nextval('ops');
BEGIN
	PERFORM set_config('test.op', this_op::text, true);
	EXECUTE format('DELETE FROM %I WHERE id = (SELECT id FROM %I ORDER BY random() LIMIT 1)', '$from' || tab, '$from' || tab);
	UPDATE gone SET (batch, at) = (SELECT x.batch, x.at FROM r.batches() x WHERE x.tab = gone.tab AND x.id = gone.id
		ORDER BY x.at DESC LIMIT 1)
	WHERE op = this_op;
	IF (SELECT count(DISTINCT batch) + count(*) FILTER (WHERE batch IS NULL) FROM gone WHERE op = this_op) > 1 THEN
		INSERT INTO failures VALUES ('one statement has several batches');
	END IF;
END \$\$;

-- What came back must be "expected", and be as it was.
CREATE FUNCTION r.check_restored(expected jsonb, restored jsonb, exactly boolean) RETURNS void LANGUAGE plpgsql
SET search_path = r AS \$\$
DECLARE e jsonb; gone jsonb; now_there jsonb;
BEGIN
	IF exactly AND (SELECT jsonb_agg(x ORDER BY x) FROM jsonb_array_elements(restored) x)
			IS DISTINCT FROM (SELECT jsonb_agg(x - 'data' ORDER BY x - 'data') FROM jsonb_array_elements(expected) x) THEN
		INSERT INTO failures VALUES (format('deleted %s, restored %s', expected, restored));
	END IF;
	FOR e IN SELECT x FROM jsonb_array_elements(restored) x LOOP
		SELECT x -> 'data' INTO gone FROM jsonb_array_elements(expected) x WHERE x - 'data' = e;
		IF gone IS NULL THEN
			INSERT INTO failures VALUES (format('restored %s, which is not of %s', e, expected));
			CONTINUE;
		END IF;
		-- a transaction's snapshot may still see a row of this key that another one has deleted since
		EXECUTE format('SELECT jsonb_agg(to_jsonb(t) - ''{deleted_at,deleted_by,delete_batch}''::text[]) FROM r.%I t WHERE id = %s',
			'$from' || (e ->> 'tab'), e ->> 'id') INTO now_there;
		IF NOT coalesce(now_there @> jsonb_build_array(gone), false)
			OR jsonb_array_length(now_there) > (CASE current_setting('transaction_isolation') WHEN 'read committed' THEN 1 ELSE 2 END) THEN
			INSERT INTO failures VALUES (format('%s came back as %s, not as %s', e, now_there, gone));
		END IF;
	END LOOP;
END \$\$;

CREATE FUNCTION r.expected(of_batch bigint) RETURNS jsonb LANGUAGE sql SET search_path = r AS
\$\$ SELECT coalesce(jsonb_agg(jsonb_build_object('tab', tab, 'id', id, 'data', data)), '[]') FROM gone WHERE batch = of_batch \$\$;

CREATE FUNCTION r.bring_batch() RETURNS void LANGUAGE plpgsql SET search_path = r AS \$\$
DECLARE which bigint; expected jsonb; restored jsonb;
BEGIN
	SELECT batch INTO which FROM gone ORDER BY random() LIMIT 1 FOR UPDATE;
	IF which IS NULL THEN RETURN; END IF;
	PERFORM FROM gone WHERE batch = which FOR UPDATE;
	expected := r.expected(which);
	SELECT jsonb_agg(jsonb_build_object('tab', table_name, 'id', record_id -> 'id')) INTO restored
	FROM rowkeeper.soft_delete_restore_batch(which);
	PERFORM r.check_restored(expected, restored, true);
	DELETE FROM gone WHERE batch = which;
END \$\$;

CREATE FUNCTION r.bring_row() RETURNS void LANGUAGE plpgsql SET search_path = r AS \$\$
DECLARE one gone; expected jsonb; restored jsonb;
BEGIN
	SELECT * INTO one FROM gone g WHERE NOT EXISTS (SELECT FROM gone l WHERE l.tab = g.tab AND l.id = g.id AND l.at > g.at)
	ORDER BY random() LIMIT 1;
	IF one.batch IS NULL THEN RETURN; END IF;
	SELECT jsonb_agg(jsonb_build_object('tab', table_name, 'id', record_id -> 'id')) INTO restored
	FROM rowkeeper.soft_delete_restore('r.' || one.tab, one.id);
	-- another session may have restored it and deleted it again meanwhile
	SELECT batch INTO one.batch FROM gone g WHERE g.tab = one.tab AND g.id = one.id ORDER BY at DESC LIMIT 1;
	PERFORM FROM gone WHERE batch = one.batch FOR UPDATE;
	expected := r.expected(one.batch);
	PERFORM r.check_restored(expected, restored, false);
	DELETE FROM gone g USING jsonb_array_elements(restored) x
	WHERE g.batch = one.batch AND g.tab = x ->> 'tab' AND g.id = (x ->> 'id')::int;
END \$\$;

-- One step. What the tables refuse is undone and forgotten.
CREATE FUNCTION r.step() RETURNS void LANGUAGE plpgsql SET search_path = r AS \$\$
DECLARE what int := (random() * 9)::int; tab text := substr('abcd', pick(4), 1); op text;
BEGIN
	op := CASE WHEN what < 5 THEN 'insert' WHEN what < 7 THEN 'delete' WHEN what < 8 THEN 'restore row' ELSE 'restore batch' END;
	BEGIN
		IF what < 5 THEN PERFORM r.put(tab);
		ELSIF what < 7 THEN PERFORM r.take(tab);
		ELSIF what < 8 THEN PERFORM r.bring_row();
		ELSE PERFORM r.bring_batch();
		END IF;
		INSERT INTO done VALUES (op);
	EXCEPTION
		WHEN integrity_constraint_violation OR no_data_found OR deadlock_detected THEN NULL;
		WHEN transaction_rollback THEN RAISE;
		WHEN OTHERS THEN
			IF current_setting('transaction_isolation') = 'serializable' AND sqlstate LIKE '40%' THEN RAISE; END IF;
			INSERT INTO failures VALUES (sqlstate || ' ' || sqlerrm);
	END;
END \$\$;

CREATE FUNCTION r.dangling() RETURNS TABLE (what text, n bigint) LANGUAGE sql SET search_path = r AS \$\$
	SELECT 'b.a', count(*) FROM b c WHERE $live a IS NOT NULL AND NOT EXISTS (SELECT FROM a p WHERE p.id = c.a $gone)
	UNION ALL SELECT 'c.a', count(*) FROM c WHERE $live a IS NOT NULL AND NOT EXISTS (SELECT FROM a p WHERE p.id = c.a $gone)
	UNION ALL SELECT 'c.b', count(*) FROM c WHERE $live b IS NOT NULL AND NOT EXISTS (SELECT FROM b p WHERE p.id = c.b $gone)
	UNION ALL SELECT 'c.up', count(*) FROM c WHERE $live up IS NOT NULL AND NOT EXISTS (SELECT FROM c p WHERE p.id = c.up $gone)
	UNION ALL SELECT 'd.b', count(*) FROM d c WHERE $live b IS NOT NULL AND NOT EXISTS (SELECT FROM b p WHERE p.id = c.b $gone)
	UNION ALL SELECT 'd.c', count(*) FROM d c WHERE $live c.c IS NOT NULL AND NOT EXISTS (SELECT FROM c p WHERE p.id = c.c $gone) \$\$;
SQL
	my $batches = join ' UNION ALL ', map {
		$mode eq 'flag'
		  ? "SELECT '$_', id, delete_batch, deleted_at FROM r.$_ WHERE deleted_at IS NOT NULL"
		  : "SELECT '$_', id, _batch, _deleted_at FROM rowkeeper_trash.r__$_"
	} qw(a b c d);
	sql($node, "SET check_function_bodies = off;"
		. " CREATE OR REPLACE FUNCTION r.batches() RETURNS TABLE (tab text, id int, batch bigint, at timestamptz)"
		. " LANGUAGE sql AS \$\$ $batches \$\$");
	return;
}

my $script = $node->basedir . '/step.sql';
append_to_file($script, "SELECT r.step(), r.step(), r.step();\n");

foreach my $mode (split / /, $ENV{ROWKEEPER_MODES} || 'trash flag')
{
	foreach my $level ('read committed', 'repeatable read', 'serializable')
	{
		set_up($mode);
		local $ENV{PGOPTIONS} = "-c default_transaction_isolation=" . ($level =~ s/ /\\ /r);
		my ($out, $err);
		my $ok = IPC::Run::run(
			[ 'pgbench', '-n', '-c', '4', '-j', '2', '-t', int($sequences / 4), '--max-tries=200',
				'-f', $script, '-h', $node->host, '-p', $node->port, 'postgres' ],
			'>', \$out, '2>', \$err);
		ok($ok && $out =~ /number of transactions actually processed/ && $err !~ /aborted/,
			"$mode, $level: all sequences ran") or diag($out, $err);
		is(sql($node, "SELECT what FROM r.failures LIMIT 5"), '', "$mode, $level: what was deleted together came back together");
		is(sql($node, "SELECT * FROM r.dangling() WHERE n > 0"), '', "$mode, $level: no reference dangles");
		is(sql($node, "SELECT count(*) FROM (SELECT tab, id, batch FROM r.gone EXCEPT SELECT tab, id, batch FROM r.batches()) x"),
			'0', "$mode, $level: what is gone is kept");
		is(sql($node, "SELECT count(*) FROM (SELECT tab, id, batch FROM r.batches() EXCEPT SELECT tab, id, batch FROM r.gone) x"),
			'0', "$mode, $level: what is kept is gone");
		is(sql($node, "SELECT coalesce(sum(rows), 0) FROM rowkeeper.soft_delete_batches WHERE table_schema = 'r'"),
			sql($node, "SELECT count(*) FROM r.batches()"), "$mode, $level: batches know how many rows they have");
		my $done = sql($node, "SELECT count(DISTINCT op) FROM r.done");
		is($done, '4', "$mode, $level: all kinds of steps succeeded at times");
		note(sql($node, "SELECT string_agg(op || ' ' || n, ', ') FROM (SELECT op, count(*) AS n FROM r.done GROUP BY 1 ORDER BY 1) x"));
		sql($node, 'SET client_min_messages = warning; SELECT rowkeeper.leave(); DROP SCHEMA rowkeeper_trash CASCADE');
	}
}

$node->stop;
done_testing();
