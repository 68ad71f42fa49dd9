-- A wide partition is divided while it is in use
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA partition_split;
SET search_path = partition_split;
SET timezone = 'UTC';
CREATE VIEW tree AS
SELECT c.relname::text AS name, p.relname::text AS under, pg_get_expr(c.relpartbound, c.oid) AS bound
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
WHERE c.relnamespace = 'partition_split'::regnamespace AND c.relkind IN ('r', 'p');

-- converted and divided by one call; its partitions are under <table>_hist
CREATE TABLE measures (id bigint PRIMARY KEY, v text, twice bigint GENERATED ALWAYS AS (id * 2) STORED);
CREATE INDEX ON measures (v);
INSERT INTO measures (id, v) SELECT n, 'v' || n FROM generate_series(12, 58) n;
CALL rowkeeper.partition_convert('measures', 'id', '10', split => true);
SELECT name, under, bound FROM tree WHERE name ~ '^measures' ORDER BY name COLLATE "C";
SELECT tableoid::regclass, count(*), min(id), max(id), sum(twice) FROM measures GROUP BY 1 ORDER BY 3;
SELECT partitions, covered_until, gap_from, drift, next_action FROM rowkeeper.partition_status WHERE table_schema = 'partition_split';
SELECT * FROM rowkeeper.doctor('partition_split');
SELECT count(*) FROM rowkeeper.partition_plan('measures');
-- again: nothing is left to divide
SET client_min_messages = notice;
CALL rowkeeper.partition_convert('measures', split => true);
SET client_min_messages = warning;

-- retention takes them one by one, and in the end what they were under
SELECT rowkeeper.partition('measures', keep => '30');
SELECT * FROM rowkeeper.partition_plan('measures');
CALL rowkeeper.maintain('measures');
SELECT name, under, bound FROM tree WHERE name ~ '^measures' ORDER BY name COLLATE "C";
INSERT INTO measures (id) VALUES (61), (71), (81), (91);
SELECT rowkeeper.partition_ensure('measures', 101::bigint);
INSERT INTO measures (id) VALUES (101);
CALL rowkeeper.maintain('measures', force => true);
SELECT name, under FROM tree WHERE name ~ '^measures' ORDER BY name COLLATE "C";

-- a partition that its owner has dropped is made again where it was
CREATE TABLE holes (id int PRIMARY KEY);
INSERT INTO holes SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('holes', 'id', '10', split => true);
DROP TABLE holes_p20;
SELECT rowkeeper.partition_ensure('holes', 25::bigint);
INSERT INTO holes VALUES (25);
SELECT name, under, bound FROM tree WHERE name = 'holes_p20';

-- everything follows: owner, rights, row security that holds the owner, foreign
-- keys (deferred, too), identity, what was dropped, odd names, toasted values
CREATE ROLE partition_split_owner;
CREATE ROLE partition_split_writer;
GRANT USAGE, CREATE ON SCHEMA partition_split TO partition_split_owner;
GRANT USAGE ON SCHEMA partition_split TO partition_split_writer;
SET ROLE partition_split_owner;
CREATE TABLE kinds (id int PRIMARY KEY);
INSERT INTO kinds SELECT generate_series(1, 5);
CREATE FUNCTION is_good(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN length(shorten($1)) < 50000; END $$;
CREATE FUNCTION shorten(text) RETURNS text IMMUTABLE LANGUAGE sql RETURN $1;
CREATE TABLE "Order Lines" (gone int, "Id" bigint GENERATED ALWAYS AS IDENTITY, at date, kind int REFERENCES kinds DEFERRABLE INITIALLY DEFERRED,
	second int REFERENCES kinds ON DELETE CASCADE, body text CHECK (is_good(body)), PRIMARY KEY ("Id"));
ALTER TABLE "Order Lines" DROP gone;
INSERT INTO "Order Lines" (at, kind, second, body)
SELECT '2020-01-01'::date + n, n % 4 + 1, 5 - n % 3, CASE n % 50 WHEN 0 THEN (SELECT string_agg(md5(g::text), '') FROM generate_series(n, n + 200) g) ELSE 'b' || n END
FROM generate_series(0, 150) n;
ALTER TABLE "Order Lines" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY even ON "Order Lines" USING ("Id" % 2 = 0);
GRANT SELECT, INSERT ON "Order Lines" TO partition_split_writer;
CALL rowkeeper.partition_convert('"Order Lines"', 'at', '3 months', ahead => '3 months');
RESET ROLE;
CREATE TABLE rows_before AS TABLE "Order Lines";
SELECT count(*) FROM rows_before;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('"Order Lines"', split => true);
RESET ROLE;
SELECT count(*) FROM (SELECT * FROM rows_before EXCEPT SELECT * FROM "Order Lines") x;
SELECT count(*) FROM "Order Lines";
SELECT c.relname, c.relowner::regrole, c.relrowsecurity, c.relforcerowsecurity,
	c.relacl::text = (SELECT r.relacl::text FROM pg_class r WHERE r.oid = '"Order Lines"'::regclass) AS same_rights,
	(SELECT string_agg(conname || CASE WHEN condeferred THEN ' deferred' ELSE '' END, ', ' ORDER BY conname COLLATE "C")
		FROM pg_constraint k WHERE k.conrelid = c.oid AND contype <> 'n') AS constraints
FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE c.relnamespace = 'partition_split'::regnamespace AND c.relname ~ '^Order Lines_(hist|p202001)' AND c.relkind IN ('r', 'p') ORDER BY 1;
SELECT * FROM rowkeeper.doctor('partition_split');
DELETE FROM kinds WHERE id = 5;
SELECT count(*), count(*) FILTER (WHERE second = 5) FROM "Order Lines";

-- written to while it is divided: whose rights the writer has does not matter
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.step = coalesce(current_setting('partition_split.stop', true), '4')::int THEN
		RAISE 'the split ends here' USING ERRCODE = 'operator_intervention';
	END IF;
	RETURN NEW;
END $$;
SET ROLE partition_split_owner;
CREATE TABLE written (LIKE "Order Lines" INCLUDING ALL);
ALTER TABLE written ADD UNIQUE ("Id", at, kind);
ALTER TABLE written ADD FOREIGN KEY (kind) REFERENCES kinds DEFERRABLE INITIALLY DEFERRED;
INSERT INTO written OVERRIDING SYSTEM VALUE SELECT * FROM "Order Lines" WHERE "Id" % 10 = 0;
ALTER TABLE written ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY even ON written USING ("Id" % 2 = 0);
CREATE POLICY all_in ON written FOR INSERT WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON written TO partition_split_writer;
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	-- a row that has not had its turn yet
	UPDATE written SET body = 'again' WHERE "Id" = NEW."Id" + 10;
	RETURN NULL;
END $$;
CALL rowkeeper.partition_convert('written', 'at', '3 months');
CREATE TRIGGER a_first AFTER UPDATE ON written FOR EACH ROW WHEN (NEW.body = 'first') EXECUTE FUNCTION again();
RESET ROLE;
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('written', split => true);
SELECT check_name, detail, remedy FROM rowkeeper.doctor('partition_split');
CREATE FUNCTION same() RETURNS text SECURITY DEFINER LANGUAGE sql BEGIN ATOMIC
	SELECT concat_ws(', ', (SELECT count(*) FROM written WHERE at < '2026-01-01'), (SELECT count(*) FROM written_hist),
		(SELECT count(*) FROM ((SELECT * FROM written WHERE at < '2026-01-01') EXCEPT TABLE written_hist) x));
END;
RESET ROLE;
ALTER FUNCTION same() OWNER TO CURRENT_USER;
SELECT same();
SET ROLE partition_split_writer;
INSERT INTO written (at, kind, second, body) SELECT '2020-02-02', 1, 1, string_agg(md5(g::text), '') FROM generate_series(1, 300) g;
-- (the name of the partition in the message is of today)
\set VERBOSITY sqlstate
INSERT INTO written (at, kind, second, body) VALUES ('2020-02-02', 1, 1, repeat('x', 3000)), ('2019-02-02', 9, 1, 'no such kind');
BEGIN;
INSERT INTO written (at, kind, second, body) VALUES ('2020-02-02', 9, 1, 'deferred'), ('2020-02-02', 1, 1, repeat('x', 3000));
DELETE FROM written WHERE kind = 9;
UPDATE written SET kind = 1 WHERE kind = 9;
COMMIT;
\set VERBOSITY terse
BEGIN;
INSERT INTO written (at, kind, second, body) VALUES ('2020-02-02', 9, 1, 'deferred');
RESET ROLE;
UPDATE written SET kind = 1 WHERE kind = 9;
COMMIT;
SET ROLE partition_split_writer;
UPDATE written SET at = at + 100, body = body || 'moved' WHERE "Id" IN (20, 30);
UPDATE written SET body = 'first' WHERE "Id" IN (40, 50, 60);
DELETE FROM written WHERE "Id" = 70;
BEGIN;
DELETE FROM written WHERE "Id" = 80;
SAVEPOINT a;
UPDATE written SET body = 'undone';
ROLLBACK TO a;
COMMIT;
RESET ROLE;
SELECT same();
SELECT "Id", at, left(body, 10) FROM written_hist WHERE "Id" BETWEEN 20 AND 70 ORDER BY 1;
DELETE FROM kinds WHERE id = 4;
SELECT same();
SET session_replication_role = replica;
UPDATE written SET body = 'replica' WHERE "Id" = 90;
RESET session_replication_role;
SELECT same();
-- nobody else has that trigger
SET ROLE partition_split_owner;
CREATE TABLE another (id int);
CREATE TRIGGER mine AFTER INSERT ON another FOR EACH ROW EXECUTE FUNCTION rowkeeper._partition_split_apply();
RESET ROLE;
DROP TRIGGER stop ON rowkeeper._progress;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('written');
RESET ROLE;
SELECT count(*) FROM written;
SELECT same();
SELECT * FROM rowkeeper.doctor('partition_split');

-- TRUNCATE, and giving up
CREATE TABLE emptied (id int PRIMARY KEY, v text);
INSERT INTO emptied SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('emptied', 'id', '10');
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
CALL rowkeeper.partition_convert('emptied', split => true);
SELECT count(*) FROM emptied_hist;
TRUNCATE emptied;
INSERT INTO emptied VALUES (3), (13);
SELECT * FROM emptied_hist;
SELECT rowkeeper.partition_off('emptied');
SELECT to_regclass('emptied_hist'), (SELECT count(*) FROM pg_trigger WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('emptied'))) AS triggers;
DROP TRIGGER stop ON rowkeeper._progress;

-- audit, stamps, soft delete and tenants go on, and know nothing of the copy
SELECT rowkeeper.tenant_role('partition_split_writer', 'set') \g /dev/null
SET ROLE partition_split_owner;
CREATE TABLE orders (id int PRIMARY KEY, v text, tenant_id bigint NOT NULL DEFAULT 1);
CREATE TABLE flagged (id int PRIMARY KEY, v text);
CREATE TABLE trashed (id int PRIMARY KEY, v text);
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO partition_split_writer;
SELECT rowkeeper.audit('orders') \g /dev/null
SELECT rowkeeper.stamp('orders', version => 'version') \g /dev/null
SELECT rowkeeper.tenant('orders') \g /dev/null
SELECT rowkeeper.soft_delete('flagged') \g /dev/null
SELECT rowkeeper.audit('flagged') \g /dev/null
SELECT rowkeeper.soft_delete('trashed', mode => 'trash') \g /dev/null
RESET ROLE;
INSERT INTO orders (id, v, tenant_id) SELECT n, 'v', n % 3 FROM generate_series(1, 45) n;
INSERT INTO flagged SELECT n FROM generate_series(1, 45) n;
INSERT INTO trashed SELECT n FROM generate_series(1, 45) n;
CREATE FUNCTION counts() RETURNS TABLE (name text, rows bigint, copied bigint, different bigint) LANGUAGE plpgsql AS $$
BEGIN
	FOREACH name IN ARRAY '{orders,flagged,trashed}'::text[] LOOP
		EXECUTE format('SELECT count(*) FROM %I', name) INTO rows;
		EXECUTE format('SELECT count(*) FROM %I', name || '_hist') INTO copied;
		EXECUTE format('SELECT count(*) FROM (TABLE %I EXCEPT TABLE %I) x', name, name || '_hist') INTO different;
		RETURN NEXT;
	END LOOP;
END $$;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('orders', 'id', '10');
CALL rowkeeper.partition_convert('flagged', 'id', '10');
CALL rowkeeper.partition_convert('trashed', 'id', '10');
RESET ROLE;
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log \gset
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('orders', split => true);
CALL rowkeeper.partition_convert('flagged', split => true);
CALL rowkeeper.partition_convert('trashed', split => true);
SET ROLE partition_split_writer;
BEGIN;
SELECT rowkeeper.tenant_set('2') \g /dev/null
SELECT count(*) FROM orders;
UPDATE orders SET v = 'mine', id = id + 10 WHERE id = 44;
DELETE FROM orders WHERE id < 10;
INSERT INTO orders (id, v, tenant_id) VALUES (2, 'new', 2);
COMMIT;
RESET ROLE;
DELETE FROM active_flagged WHERE id = 2;
DELETE FROM flagged WHERE id = 3;
DELETE FROM trashed WHERE id = 2;
SELECT record_id, conflict FROM rowkeeper.soft_delete_restore('flagged', 2);
DELETE FROM trashed WHERE id = 3;
SELECT record_id, conflict FROM rowkeeper.soft_delete_restore('trashed', 2);
SELECT * FROM counts();
SELECT id, v, version FROM orders_hist WHERE v <> 'v' ORDER BY id;
DROP TRIGGER stop ON rowkeeper._progress;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('orders');
CALL rowkeeper.partition_convert('flagged');
CALL rowkeeper.partition_convert('trashed');
RESET ROLE;
SELECT table_name, action, record_id FROM rowkeeper.audit_log WHERE id > :seen AND record_id IS NOT NULL ORDER BY id;
SELECT table_name, action, count(*) FROM rowkeeper.audit_log WHERE id > :seen AND record_id IS NULL GROUP BY 1, 2 ORDER BY 1, 2;
SELECT * FROM counts();
SELECT feature, check_name, level, object, detail FROM rowkeeper.doctor('partition_split') WHERE level <> 'info';
SET ROLE partition_split_writer;
BEGIN;
SELECT rowkeeper.tenant_set('2') \g /dev/null
SELECT count(*) FROM orders;
UPDATE orders SET v = 'after' WHERE id = 2;
ROLLBACK;
RESET ROLE;
UPDATE orders SET v = 'after' WHERE id = 2;
SELECT v, version, tableoid::regclass FROM orders WHERE id = 2;
SELECT action, new_data ->> 'v' AS v FROM rowkeeper.audit_log WHERE table_name = 'orders' ORDER BY id DESC LIMIT 1;
DELETE FROM active_flagged WHERE id = 4;
DELETE FROM trashed WHERE id = 4;
SELECT id, deleted_at IS NOT NULL AS deleted FROM flagged WHERE id < 5 ORDER BY 1;
SELECT id, _deleted_at IS NOT NULL AS deleted FROM trashed_with_deleted WHERE id < 5 ORDER BY 1;
SELECT record_id, conflict FROM rowkeeper.soft_delete_restore('trashed', 4);

-- what protects the table's rows protects the copy: nobody but the owner has a
-- part in it before it is the table's, and then as the table is by then; who may read
-- all tables may read it, where no row security holds him: his backup does not fail
CREATE ROLE partition_split_eve;
CREATE ROLE partition_split_backup;
GRANT pg_read_all_data TO partition_split_backup;
GRANT USAGE ON SCHEMA partition_split TO partition_split_eve;
SET ROLE partition_split_owner;
CREATE TABLE guarded (id int PRIMARY KEY, v text, tenant_id bigint NOT NULL DEFAULT 1);
INSERT INTO guarded SELECT generate_series(1, 45);
GRANT SELECT, INSERT ON guarded TO partition_split_eve;
GRANT SELECT (id), UPDATE (v) ON guarded TO PUBLIC;
CALL rowkeeper.partition_convert('guarded', 'id', '10');
RESET ROLE;
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('guarded', split => true);
RESET ROLE;
SELECT relname, (SELECT string_agg(DISTINCT grantee::regrole::text, ', ') FROM aclexplode(coalesce(relacl, acldefault('r', relowner)))) AS grantees, (SELECT string_agg(attacl::text, ' ') FROM pg_attribute a WHERE a.attrelid = c.oid) AS columns
FROM pg_class c WHERE relname IN ('guarded_hist', 'guarded_p10') ORDER BY 1;
SET ROLE partition_split_eve;
INSERT INTO guarded VALUES (0, 'x');
SELECT * FROM guarded_hist WHERE id < 1;
SET ROLE partition_split_backup;
SET row_security = off;
SELECT * FROM guarded_hist WHERE id < 1;
RESET row_security;
SET ROLE partition_split_owner;
REVOKE INSERT ON guarded FROM partition_split_eve;
CREATE POLICY one ON guarded USING (id % 2 = 0);
SELECT rowkeeper.tenant('guarded') \g /dev/null
RESET ROLE;
SELECT detail FROM rowkeeper.doctor('partition_split') WHERE check_name = 'split' AND level = 'error';
-- the name of the old one is nobody's, and who writes to it writes to what is about to be dropped
SET partition_split.stop = 7;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('guarded');
RESET ROLE;
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
	(SELECT string_agg(DISTINCT grantee::regrole::text, ', ') FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner)))) AS grantees,
	(SELECT string_agg(polname, ', ' ORDER BY polname COLLATE "C") FROM pg_policy y WHERE y.polrelid = c.oid) AS policies
FROM pg_class c WHERE c.relname IN ('guarded_hist', 'guarded_p10') ORDER BY 1;
INSERT INTO guarded_before_p60 VALUES (-1, 'x');
SELECT count(*) FROM guarded_before_p60;
INSERT INTO guarded_before_p60_divided VALUES (-1, 'x');
TRUNCATE guarded_before_p60_divided;
SELECT check_name, detail FROM rowkeeper.doctor('partition_split') WHERE check_name = 'split';
DROP TRIGGER stop ON rowkeeper._progress;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('guarded');
RESET ROLE;
SELECT to_regclass('guarded_before_p60_divided'), count(*) FROM guarded;
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
	(SELECT string_agg(DISTINCT grantee::regrole::text, ', ') FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner)))) AS grantees,
	(SELECT string_agg(polname, ', ' ORDER BY polname COLLATE "C") FROM pg_policy y WHERE y.polrelid = c.oid) AS policies
FROM pg_class c WHERE c.relname IN ('guarded_hist', 'guarded_p10') ORDER BY 1;
SELECT check_name, level, detail FROM rowkeeper.doctor('partition_split') WHERE check_name = 'drift';
SELECT rowkeeper.partition_off('guarded') \g /dev/null
DROP TABLE guarded;

-- what refuses the rights or policies of the new partitions fails nothing: they stay
-- closed, as doctor() says; what comes in between does not keep them closed
CREATE TABLE granted (id int PRIMARY KEY, v text);
INSERT INTO granted SELECT generate_series(1, 45);
GRANT SELECT ON granted TO partition_split_eve;
CALL rowkeeper.partition_convert('granted', 'id', '10');
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass('partition_split.granted_hist')) THEN
		RAISE 'no grants';
	END IF;
END $$;
CREATE EVENT TRIGGER no_grants ON ddl_command_start WHEN TAG IN ('GRANT') EXECUTE FUNCTION refuse();
CALL rowkeeper.partition_convert('granted', split => true);
DROP EVENT TRIGGER no_grants;
SELECT count(*) FROM rowkeeper._partition_splits;
CREATE SCHEMA partition_split_hidden;
CREATE FUNCTION partition_split_hidden.who() RETURNS text STABLE LANGUAGE sql RETURN current_user;
GRANT USAGE ON SCHEMA partition_split_hidden TO partition_split_eve;
SET ROLE partition_split_owner;
CREATE TABLE hidden (id int PRIMARY KEY, v text);
INSERT INTO hidden SELECT n, 'partition_split_eve' FROM generate_series(1, 45) n;
CALL rowkeeper.partition_convert('hidden', 'id', '10');
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
RESET ROLE;
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET partition_split.stop = 6;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('hidden', split => true);
RESET ROLE;
DROP TRIGGER stop ON rowkeeper._progress;
CREATE POLICY own ON hidden USING (v = partition_split_hidden.who());
CREATE POLICY rowkeeper_split ON hidden AS RESTRICTIVE USING (id > 0);
GRANT SELECT ON hidden TO partition_split_eve;
CALL rowkeeper.partition_convert('hidden');
DROP POLICY rowkeeper_split ON hidden;
CALL rowkeeper.partition_convert('hidden');
SELECT count(*) FROM rowkeeper._partition_splits;
SET ROLE partition_split_eve;
SELECT count(*) FROM hidden;
SELECT count(*) FROM hidden_hist;
RESET ROLE;
SELECT detail FROM rowkeeper.doctor('partition_split') WHERE check_name = 'drift';
SELECT remedy FROM rowkeeper.doctor('partition_split') WHERE check_name = 'drift' \gexec
SELECT remedy FROM rowkeeper.doctor('partition_split') WHERE check_name = 'drift' \gexec
SET ROLE partition_split_eve;
SELECT count(*) FROM hidden_hist;
RESET ROLE;
SELECT count(*) FROM rowkeeper.doctor('partition_split') WHERE check_name = 'drift';
DROP TABLE hidden;
DROP SCHEMA partition_split_hidden CASCADE;
CREATE TABLE many (id int PRIMARY KEY, v text);
INSERT INTO many SELECT generate_series(1, 45);
GRANT SELECT ON many TO partition_split_eve;
CALL rowkeeper.partition_convert('many', 'id', '2');
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET partition_split.stop = 7;
CALL rowkeeper.partition_convert('many', split => true);
DROP TRIGGER stop ON rowkeeper._progress;
SELECT rowkeeper.partition('many', keep => '40') \g /dev/null
ALTER TABLE many ENABLE ROW LEVEL SECURITY;
CREATE POLICY odd ON many USING (id % 2 = 1);
CALL rowkeeper.maintain('many');
SELECT count(*), count(*) FILTER (WHERE has_table_privilege('partition_split_eve', relid, 'SELECT')) AS opened FROM pg_partition_tree('many_hist');
CALL rowkeeper.partition_convert('many');
SELECT root, count(*) = count(*) FILTER (WHERE has_table_privilege('partition_split_eve', p.relid, 'SELECT')) AS opened,
	(SELECT count(*) FROM pg_policy WHERE polname = 'rowkeeper_split') AS closed
FROM (VALUES ('granted_hist'), ('many_hist')) v (root), pg_partition_tree(root) p GROUP BY root ORDER BY root;
SELECT count(*) FROM pg_partition_tree('many_hist') p JOIN pg_class c ON c.oid = p.relid JOIN pg_policy y ON y.polrelid = c.oid WHERE c.relrowsecurity AND y.polname = 'odd';
CALL rowkeeper.maintain('many');
SELECT count(*) FROM pg_partition_tree('many_hist');
DROP TABLE granted, many;
DROP FUNCTION refuse();
-- users' code runs as who writes, whatever his session has made of it, and never as the
-- owner: of CHECKs, indexes, operators, domains, ranges, statistics, foreign keys
CREATE SCHEMA partition_split_eve AUTHORIZATION partition_split_eve;
CREATE TABLE ran (what text, who text);
CREATE FUNCTION note(text) RETURNS void LANGUAGE sql AS $$ INSERT INTO partition_split.ran VALUES ($1, current_user) $$;
CREATE FUNCTION witness(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM partition_split.note($1);
	RETURN $1;
END $$;
GRANT INSERT ON ran TO PUBLIC;
SET ROLE partition_split_owner;
CREATE DOMAIN code AS text;
CREATE FUNCTION is_right(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ DECLARE c code; BEGIN c := $1; RETURN c <> 'bad'; END $$;
CREATE FUNCTION initial(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT partition_split.witness(left($1, 1))';
CREATE FUNCTION other_text(text, text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN partition_split.witness($1) <> $2; END $$;
CREATE FUNCTION distance(int, int) RETURNS float8 IMMUTABLE LANGUAGE sql AS $$ SELECT length(partition_split.witness('distance')) * ($1 - $2)::float8 $$;
CREATE OPERATOR !== (LEFTARG = text, RIGHTARG = text, FUNCTION = other_text, NEGATOR = ===);
CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq, NEGATOR = !==);
CREATE TYPE int_span AS RANGE (subtype = int, subtype_diff = distance);
CREATE DOMAIN good AS text CHECK (is_right(VALUE));
CREATE DOMAIN better AS text CHECK (VALUE::good IS NOT NULL);
CREATE TYPE mode AS ENUM ('on', 'off');
CREATE FUNCTION number_of(mode) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN length(partition_split.witness(enum_out($1)::text)); END $$;
CREATE CAST (mode AS int) WITH FUNCTION number_of(mode) AS IMPLICIT;
-- its owner is who reads it for the foreign key
RESET ROLE;
CREATE TABLE modes (number int PRIMARY KEY);
INSERT INTO modes VALUES (2), (3);
ALTER TABLE modes OWNER TO partition_split_writer;
GRANT REFERENCES ON modes TO partition_split_owner;
SET ROLE partition_split_owner;
CREATE TABLE coded (id int PRIMARY KEY, v text CHECK (is_right(v)) CHECK (initial(v) = 'v') CHECK (v::better IS NOT NULL),
	w text CHECK (NOT w === 'bad'), m mode DEFAULT 'on' REFERENCES modes);
CREATE INDEX ON coded (initial(w));
CREATE INDEX ON coded USING gist (int_span(id, id + 5));
CREATE STATISTICS coded_parts ON (v || initial('x')), w FROM coded;
INSERT INTO coded SELECT n, 'v' || n, 'w' || n FROM generate_series(1, 45) n;
GRANT SELECT, INSERT, UPDATE, DELETE ON coded TO partition_split_eve;
CALL rowkeeper.partition_convert('coded', 'id', '10');
RESET ROLE;
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET partition_split.stop = 4;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('coded', split => true);
RESET ROLE;
DROP TRIGGER stop ON rowkeeper._progress;
TRUNCATE ran;
\c -
SET ROLE partition_split_eve;
CREATE DOMAIN partition_split_eve.code AS text CHECK (partition_split.witness(concat('code ', VALUE)) IS NOT NULL);
SET search_path = partition_split_eve, partition_split;
INSERT INTO coded SELECT n, 'v' || n, 'w' || n, 'off' FROM generate_series(-700, -1) n;
UPDATE coded SET v = v || 'x', m = 'off' WHERE id BETWEEN 1 AND 5;
UPDATE coded SET id = 50 WHERE id = -100;
DELETE FROM coded WHERE id BETWEEN -80 AND -70;
RESET ROLE;
\c -
SET search_path = partition_split;
SET client_min_messages = warning;
SELECT who, bool_or(what ~ '^code') AS hers, bool_or(what = 'distance') AS of_range, bool_or(what = 'off') AS of_cast,
	bool_or(what ~ '^w.') AS of_operator, bool_or(what = 'v') AS of_column, bool_or(what = 'x') AS of_statistics FROM ran GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM ((SELECT * FROM coded WHERE id < 60) EXCEPT TABLE coded_hist) x;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('coded');
RESET ROLE;
SELECT count(*), to_regclass('coded_hist') FROM coded;
-- but for generated columns, which would be computed by who changes others
CREATE TABLE computed (id int PRIMARY KEY, v text, made text GENERATED ALWAYS AS (initial(v)) STORED);
INSERT INTO computed SELECT generate_series(1, 45), 'v';
CALL rowkeeper.partition_convert('computed', 'id', '10');
CALL rowkeeper.partition_convert('computed', split => true);
ALTER TABLE computed DROP made, ADD made boolean GENERATED ALWAYS AS (NOT v === 'bad') STORED;
CALL rowkeeper.partition_convert('computed', split => true);
ALTER TABLE computed DROP made, ADD made int GENERATED ALWAYS AS (length(v::better)) STORED;
CALL rowkeeper.partition_convert('computed', split => true);
ALTER TABLE computed DROP made, ADD made int GENERATED ALWAYS AS (length(v)) STORED;
CALL rowkeeper.partition_convert('computed', split => true);
DROP TABLE computed;
DROP TABLE coded, modes;
DROP CAST (mode AS int);
DROP SCHEMA partition_split_eve CASCADE;
DROP TYPE int_span;
DROP OPERATOR === (text, text);
DROP OPERATOR !== (text, text);
DROP DOMAIN better, good, code;
DROP FUNCTION is_right(text), initial(text), other_text(text, text), distance(int, int), number_of(mode), witness(text), note(text);
DROP TYPE mode;
DROP TABLE ran;
-- keys of any length; composite ones
CREATE TABLE chars (code char(8), bits bit(12), at int, PRIMARY KEY (code, bits, at));
INSERT INTO chars SELECT 'a' || n, n::bit(12), n % 45 FROM generate_series(1, 700) n;
CALL rowkeeper.partition_convert('chars', 'at', '10', split => true);
SELECT tableoid::regclass, count(*) FROM chars GROUP BY 1 ORDER BY tableoid::regclass::text COLLATE "C";

-- what becomes of names and owners meanwhile
CREATE SCHEMA partition_split_moving;
CREATE TABLE partition_split_moving.named (id int PRIMARY KEY, v text);
INSERT INTO partition_split_moving.named SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('partition_split_moving.named', 'id', '10');
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET partition_split.stop = 4;
CALL rowkeeper.partition_convert('partition_split_moving.named', split => true);
UPDATE partition_split_moving.named SET v = 'planned' WHERE id = 5;
ALTER SCHEMA partition_split_moving RENAME TO partition_split_moved;
UPDATE partition_split_moved.named SET v = 'by another name' WHERE id = 5;
SELECT * FROM partition_split_moved.named_hist WHERE id = 5;
ALTER TABLE partition_split_moved.named RENAME TO renamed;
ALTER TABLE partition_split_moved.named_hist RENAME TO other;
UPDATE partition_split_moved.renamed SET v = 'again' WHERE id = 5;
SELECT * FROM partition_split_moved.other WHERE id = 5;
-- a new owner has it begun anew
ALTER TABLE partition_split_moved.renamed OWNER TO partition_split_owner;
SELECT format('ALTER TABLE %s OWNER TO partition_split_owner', relid) FROM pg_partition_tree('partition_split_moved.renamed') WHERE level > 0 \gexec
GRANT USAGE, CREATE ON SCHEMA partition_split_moved TO partition_split_owner;
SET partition_split.stop = 0;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('partition_split_moved.renamed');
RESET ROLE;
SELECT relname, relowner::regrole FROM pg_class WHERE relname ~ '^(renamed_hist|other|named_before_p60|p10)$';
SELECT count(*), max(v) FROM partition_split_moved.renamed;
-- with the table goes the half of a split
CREATE TABLE dropped (id int PRIMARY KEY);
INSERT INTO dropped SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('dropped', 'id', '10');
SET partition_split.stop = 4;
CALL rowkeeper.partition_convert('dropped', split => true);
DROP TABLE dropped;
SELECT count(*) FROM pg_class WHERE relname ~ '^dropped';
CREATE TABLE dropped (id int PRIMARY KEY);
INSERT INTO dropped SELECT generate_series(1, 45);
SET partition_split.stop = 0;
CALL rowkeeper.partition_convert('dropped', 'id', '10');
SET partition_split.stop = 7;
CALL rowkeeper.partition_convert('dropped', split => true);
DROP TABLE dropped;
SELECT count(*) FROM pg_class WHERE relname ~ '^dropped';
SELECT count(*) FROM rowkeeper._partition_splits;
DROP TRIGGER stop ON rowkeeper._progress;
-- whatever transactions of the session are like by default
CREATE TABLE sessions (id int, at int, v text, PRIMARY KEY (id, at));
CREATE UNIQUE INDEX sessions_identity ON sessions (at, id);
ALTER TABLE sessions REPLICA IDENTITY USING INDEX sessions_identity;
INSERT INTO sessions SELECT n, n FROM generate_series(1, 45) n;
CALL rowkeeper.partition_convert('sessions', 'at', '10');
SET default_transaction_read_only = on;
SET default_transaction_isolation = 'serializable';
CALL rowkeeper.partition_convert('sessions', split => true);
RESET default_transaction_isolation;
RESET default_transaction_read_only;
SELECT count(*) FILTER (WHERE i.indisreplident) AS identities, count(DISTINCT i.indrelid) AS partitions
FROM pg_partition_tree('sessions') p JOIN pg_index i ON i.indrelid = p.relid;

-- what is written is not lost where the table is altered meanwhile, and altered
-- back: the copy is as it was, and so is the table, but for that
CREATE TABLE marked (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
INSERT INTO marked SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('marked', 'id', '10');
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET partition_split.stop = 6;
CALL rowkeeper.partition_convert('marked', split => true);
-- what is rolled back leaves nothing
BEGIN;
GRANT SELECT (v) ON marked TO partition_split_writer;
UPDATE marked SET v = 1 WHERE id = 1;
ROLLBACK;
DELETE FROM marked WHERE id = 7;
UPDATE marked SET v = 1000 WHERE id = 8;
INSERT INTO marked VALUES (46, 1);
SELECT count(*), sum(v) FROM marked_hist;
BEGIN;
SAVEPOINT a;
GRANT SELECT (v) ON marked TO partition_split_writer;
DELETE FROM marked WHERE id = 9;
ROLLBACK TO a;
DELETE FROM marked WHERE id = 9;
COMMIT;
SELECT count(*), sum(v), (SELECT count(*) FROM rowkeeper._partition_split_misses) AS misses FROM marked_hist;
-- a mark is rolled back with what was written, and is enough for all that is
-- rolled back with it; one that is committed is for everybody
ALTER TABLE marked_before_p60 OWNER TO partition_split_owner;
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
DELETE FROM marked WHERE id = 10;
RELEASE b;
ROLLBACK TO a;
SELECT count(*) AS misses FROM rowkeeper._partition_split_misses;
SAVEPOINT c;
DELETE FROM marked WHERE id IN (11, 12);
RELEASE c;
DELETE FROM marked WHERE id = 13;
SAVEPOINT d;
UPDATE marked SET v = 1 WHERE id = 14;
RELEASE d;
COMMIT;
INSERT INTO marked VALUES (47, 1);
ALTER TABLE marked_before_p60 OWNER TO CURRENT_USER;
SELECT count(*), sum(v), (SELECT count(*) FROM rowkeeper._partition_split_misses) AS misses FROM marked_hist;
SELECT count(*), sum(v) FROM marked;
DROP TRIGGER stop ON rowkeeper._progress;
CALL rowkeeper.partition_convert('marked');
SELECT count(*), sum(v), (SELECT count(*) FROM rowkeeper._partition_split_misses) AS misses FROM marked;

-- TRUNCATE, and triggers that were off
CREATE TABLE marked2 (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
INSERT INTO marked2 SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('marked2', 'id', '10');
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
CALL rowkeeper.partition_convert('marked2', split => true);
ALTER TABLE marked2_before_p60 OWNER TO partition_split_owner;
TRUNCATE marked2;
ALTER TABLE marked2_before_p60 OWNER TO CURRENT_USER;
SELECT count(*), (SELECT count(*) FROM rowkeeper._partition_split_misses) AS misses FROM marked2_hist;
DROP TRIGGER stop ON rowkeeper._progress;
SELECT rowkeeper.partition_off('marked2') \g /dev/null
SELECT count(*) FROM rowkeeper._partition_split_misses;
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
INSERT INTO marked2 SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('marked2', split => true);
ALTER TABLE marked2_before_p60 DISABLE TRIGGER "!rowkeeper_split";
DELETE FROM marked2 WHERE id = 7;
ALTER TABLE marked2_before_p60 ENABLE ALWAYS TRIGGER "!rowkeeper_split";
DROP TRIGGER stop ON rowkeeper._progress;
CALL rowkeeper.partition_convert('marked2');
SELECT count(*) FROM marked2;

-- rows that are not copied yet are not by who changes them; keys that move, and
-- rows that a trigger changes before their turn, are where they belong
CREATE TABLE moving (id int, at int, code text, PRIMARY KEY (id, at), UNIQUE (code, at));
INSERT INTO moving SELECT n, n % 45, 'c' || n FROM generate_series(90, 1, -1) n;
CALL rowkeeper.partition_convert('moving', 'at', '10');
CREATE FUNCTION partner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE moving SET code = code || '!' WHERE id = NEW.id + 1;
	RETURN NULL;
END $$;
CREATE TRIGGER partner AFTER INSERT ON moving FOR EACH ROW EXECUTE FUNCTION partner();
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET partition_split.stop = 3;
CALL rowkeeper.partition_convert('moving', split => true);
UPDATE moving SET code = code || '?' WHERE id = 5;
INSERT INTO moving VALUES (101, 1, 'one'), (102, 2, 'two');
SELECT * FROM moving_hist ORDER BY id;
SET partition_split.stop = 4;
CALL rowkeeper.partition_convert('moving');
UPDATE moving SET id = id + 45;
INSERT INTO moving VALUES (201, 1, '201'), (202, 2, '202');
SELECT count(*), (SELECT count(*) FROM (TABLE moving EXCEPT TABLE moving_hist) x) AS missing, (SELECT count(*) FROM moving_hist) AS copied FROM moving;
WITH d AS (DELETE FROM moving WHERE id = 50 RETURNING *) INSERT INTO moving SELECT 1000, at, code || 'new' FROM d;
UPDATE moving SET id = CASE id WHEN 60 THEN 61 ELSE 60 END, at = 3 WHERE id IN (60, 61) AND at IN (15, 16);
DELETE FROM moving WHERE id BETWEEN 51 AND 59;
DROP TRIGGER stop ON rowkeeper._progress;
CALL rowkeeper.partition_convert('moving');
SELECT count(*), count(DISTINCT code) FROM moving;
DROP TABLE moving;

-- casts of somebody's type run nothing
CREATE TYPE state AS ENUM ('a', 'b', 'c');
CREATE TABLE cast_key (id int, s state, v text, PRIMARY KEY (id, s));
INSERT INTO cast_key SELECT n, 'b' FROM generate_series(1, 45) n;
CREATE FUNCTION steal(state) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'runs as %', current_user; RETURN enum_out($1); END $$;
CREATE FUNCTION steal(text) RETURNS state LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'runs as %', current_user; RETURN enum_in(textout($1), 'state'::regtype); END $$;
CREATE CAST (state AS text) WITH FUNCTION steal(state);
CREATE CAST (text AS state) WITH FUNCTION steal(text);
CALL rowkeeper.partition_convert('cast_key', 'id', '10', split => true);
SELECT s, count(*) FROM cast_key WHERE tableoid <> 'cast_key'::regclass GROUP BY 1;
DROP TABLE cast_key;

-- rights of his own that the owner revokes meanwhile fail the split, and no writer;
-- so does what fails for a row
SET ROLE partition_split_owner;
CREATE TABLE revoked (id int PRIMARY KEY, v text);
INSERT INTO revoked SELECT generate_series(1, 45);
GRANT SELECT, INSERT, UPDATE ON revoked TO partition_split_writer;
CALL rowkeeper.partition_convert('revoked', 'id', '10');
RESET ROLE;
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET partition_split.stop = 6;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('revoked', split => true);
REVOKE INSERT, UPDATE ON revoked FROM partition_split_owner;
SET ROLE partition_split_writer;
INSERT INTO revoked VALUES (46);
RESET ROLE;
REVOKE INSERT ON revoked_hist FROM partition_split_owner;
SET ROLE partition_split_writer;
INSERT INTO revoked VALUES (47);
UPDATE revoked SET v = 'x' WHERE id = 7;
RESET ROLE;
GRANT INSERT ON revoked_hist TO partition_split_owner;
DROP TRIGGER stop ON rowkeeper._progress;
SET ROLE partition_split_owner;
CALL rowkeeper.partition_convert('revoked');
RESET ROLE;
SELECT to_regclass('revoked_hist'), (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'revoked_before_p60'::regclass) AS triggers, count(*) FROM revoked;
DROP TABLE revoked;
CREATE FUNCTION is_mine(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$ SELECT $1 < coalesce(nullif(current_setting('partition_split.most', true), ''), '100')::int $$;
CREATE TABLE fails (id int PRIMARY KEY CHECK (is_mine(id)));
INSERT INTO fails SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('fails', 'id', '10');
SET partition_split.most = 20;
CALL rowkeeper.partition_convert('fails', split => true);
RESET partition_split.most;
SELECT to_regclass('fails_hist'), (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'fails_before_p60'::regclass) AS triggers, count(*) FROM fails;
CALL rowkeeper.partition_convert('fails', split => true);
SELECT to_regclass('fails_hist'), count(*) FROM fails;
-- a generated column that is another one by now
CREATE TEXT SEARCH CONFIGURATION words (COPY = simple);
CREATE TABLE generated (id int PRIMARY KEY, v text DEFAULT 'running', w tsvector GENERATED ALWAYS AS (to_tsvector('partition_split.words', v)) STORED);
INSERT INTO generated SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('generated', 'id', '10');
ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR asciiword WITH english_stem;
\set VERBOSITY default
CALL rowkeeper.partition_convert('generated', split => true);
\set VERBOSITY terse
UPDATE generated SET v = v;
CALL rowkeeper.partition_convert('generated', split => true);
SELECT to_regclass('generated_hist'), w, count(*) FROM generated GROUP BY w;

-- once it is done, the old one has no part in foreign keys; partition_off() drops
-- it, and does what the swap leaves for later where there are many partitions
CREATE TABLE parents (id int PRIMARY KEY);
INSERT INTO parents SELECT generate_series(1, 9);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents, other int REFERENCES parents ON DELETE CASCADE, body text);
INSERT INTO children SELECT n, n % 3 + 1, n % 3 + 4, (SELECT string_agg(md5(g::text), '') FROM generate_series(n, n + 200) g) FROM generate_series(1, 70) n;
CREATE INDEX ON children (parent);
CALL rowkeeper.partition_convert('children', 'id', '1');
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET partition_split.stop = 7;
CALL rowkeeper.partition_convert('children', split => true);
SELECT partition::regclass AS old FROM rowkeeper._partition_splits \gset
SELECT count(*) FROM :old;
BEGIN;
DELETE FROM rowkeeper._partition_splits;
SELECT check_name, object, detail, remedy FROM rowkeeper.doctor('partition_split') WHERE check_name = 'split' AND object ~ 'children' ORDER BY object COLLATE "C";
ROLLBACK;
DELETE FROM children WHERE parent = 1;
DELETE FROM parents WHERE id IN (1, 5);
SELECT count(*), sum(length(body)) FROM children;
\set VERBOSITY sqlstate
INSERT INTO :old VALUES (-1);
\set VERBOSITY terse
DROP TRIGGER stop ON rowkeeper._progress;
SELECT rowkeeper.partition_off('children') \g /dev/null
SELECT to_regclass(:'old'), (SELECT count(*) FROM rowkeeper._partition_splits) AS splits,
	(SELECT count(*) FROM pg_constraint WHERE conname = 'rowkeeper_split') AS checks;
DROP TABLE children, parents;

-- between its steps: other options have it begun anew; triggers that a dump has
-- brought along are made anew
CREATE TABLE options (id int PRIMARY KEY);
INSERT INTO options SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('options', 'id', '10');
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET partition_split.stop = 2;
CALL rowkeeper.partition_convert('options', split => true);
DROP TRIGGER stop ON rowkeeper._progress;
SELECT rowkeeper.partition('options', every => '25') \g /dev/null
CREATE TRIGGER "!rowkeeper_split" AFTER INSERT ON options_before_p60 FOR EACH ROW EXECUTE FUNCTION rowkeeper._partition_split_apply();
CREATE TRIGGER "!rowkeeper_split_truncate" AFTER TRUNCATE ON options_before_p60 EXECUTE FUNCTION rowkeeper._partition_split_apply();
BEGIN;
DELETE FROM rowkeeper._partition_splits;
SELECT check_name, object, detail, remedy FROM rowkeeper.doctor('partition_split') WHERE check_name = 'split';
ROLLBACK;
CALL rowkeeper.partition_convert('options');
SELECT name, under, bound FROM tree WHERE name ~ '^options' AND under ~ 'hist' ORDER BY name COLLATE "C";

-- who writes locks what he writes to, and not all there is
CREATE TABLE locks (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
INSERT INTO locks SELECT generate_series(1, 195);
CALL rowkeeper.partition_convert('locks', 'id', '10');
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
SET partition_split.stop = 6;
CALL rowkeeper.partition_convert('locks', split => true);
CREATE FUNCTION write_some() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN 1 .. 7 LOOP
		UPDATE locks SET v = v + 1 WHERE id = 25;
		DELETE FROM locks WHERE id = n;
		UPDATE locks SET id = n WHERE id = 10 + n;
	END LOOP;
	RETURN (SELECT string_agg(DISTINCT relation::regclass::text, ' ' ORDER BY relation::regclass::text)
		FROM pg_locks WHERE pid = pg_backend_pid() AND relation IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'locks_hist'::regclass));
END $$;
BEGIN;
SELECT write_some();
ROLLBACK;
SET plan_cache_mode = force_generic_plan;
BEGIN;
UPDATE locks SET v = v + 1 WHERE id = 25;
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'locks_hist'::regclass);
ROLLBACK;
RESET plan_cache_mode;
-- what its owner takes from the copy is there again once it is written
DELETE FROM locks_hist WHERE id = 25;
UPDATE locks SET v = 7 WHERE id = 25;
SELECT * FROM locks_hist WHERE id = 25;
-- anybody's view of the partition is in the way, and nothing is lost by it
SELECT history::oid AS copy, partition::text AS wide FROM rowkeeper._partition_splits \gset
SET ROLE partition_split_eve;
CREATE TEMP VIEW in_the_way AS SELECT 1 FROM :wide;
RESET ROLE;
DROP TRIGGER stop ON rowkeeper._progress;
\set VERBOSITY sqlstate
CALL rowkeeper.partition_convert('locks');
\set VERBOSITY terse
-- retention has no part in it until it is divided
SELECT rowkeeper.partition('locks', keep => '10', ahead => '100') \g /dev/null
INSERT INTO locks VALUES (295);
SELECT count(*) FROM rowkeeper.partition_plan('locks') WHERE strpos(partition_plan, :'wide') > 0;
SELECT rowkeeper.partition('locks', keep => '0') \g /dev/null
-- a publication of everything has the copy, too
SET client_min_messages = error;
CREATE PUBLICATION partition_split FOR ALL TABLES;
SET client_min_messages = warning;
SELECT check_name, level, detail, remedy FROM rowkeeper.doctor('partition_split') WHERE object ~ 'locks';
DROP PUBLICATION partition_split;
DROP VIEW pg_temp.in_the_way;
CALL rowkeeper.partition_convert('locks');
SELECT :copy = 'locks_hist'::regclass AS went_on, count(*), sum(v) FROM locks;
-- nor is a view of the copy in the way of giving it up
DROP TABLE locks;
CREATE TABLE locks (id int PRIMARY KEY);
INSERT INTO locks SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('locks', 'id', '10');
CREATE TRIGGER stop BEFORE UPDATE ON rowkeeper._progress FOR EACH ROW EXECUTE FUNCTION stop();
CALL rowkeeper.partition_convert('locks', split => true);
DROP TRIGGER stop ON rowkeeper._progress;
SET ROLE partition_split_eve;
CREATE TEMP VIEW in_the_way AS SELECT 1 FROM locks_hist;
RESET ROLE;
SELECT rowkeeper.partition_off('locks') \g /dev/null
SELECT count(*) AS triggers, (SELECT count(*) FROM rowkeeper._partition_splits) AS splits
FROM pg_trigger WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('locks')) AND tgname ~ 'rowkeeper_split';
INSERT INTO locks VALUES (46);
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor('partition_split') WHERE object ~ 'locks';
DROP VIEW pg_temp.in_the_way;
DROP TABLE locks, locks_hist;

-- what is refused
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT generate_series(1, 45);
CREATE TABLE plain (id int);
CALL rowkeeper.partition_convert('t', 'id', '10');
BEGIN;
CALL rowkeeper.partition_convert('t', split => true);
ROLLBACK;
SET client_min_messages = error;
CREATE PUBLICATION partition_split FOR ALL TABLES;
CALL rowkeeper.partition_convert('t', split => true);
DROP PUBLICATION partition_split;
CREATE PUBLICATION partition_split FOR TABLES IN SCHEMA partition_split;
CALL rowkeeper.partition_convert('t', split => true);
DROP PUBLICATION partition_split;
SET client_min_messages = warning;
SET client_min_messages = error;
CREATE PUBLICATION partition_split FOR TABLE t;
CALL rowkeeper.partition_convert('t', split => true);
DROP PUBLICATION partition_split;
SET client_min_messages = warning;
CREATE TABLE referencing (id int REFERENCES t);
\set VERBOSITY default
CALL rowkeeper.partition_convert('t', split => true);
\set VERBOSITY terse
DROP TABLE referencing;
ALTER TABLE t_before_p60 ADD CONSTRAINT alone CHECK (id > -100);
CALL rowkeeper.partition_convert('t', split => true);
ALTER TABLE t_before_p60 DROP CONSTRAINT alone;
ALTER TABLE t ADD CONSTRAINT rowkeeper_split CHECK (id > -100);
CALL rowkeeper.partition_convert('t', split => true);
ALTER TABLE t DROP CONSTRAINT rowkeeper_split;
CREATE TRIGGER everywhere BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
ALTER TABLE t_before_p60 DISABLE TRIGGER everywhere;
CALL rowkeeper.partition_convert('t', split => true);
DROP TRIGGER everywhere ON t;
CREATE VIEW v AS SELECT * FROM t_before_p60;
CALL rowkeeper.partition_convert('t', split => true);
DROP VIEW v;
CREATE INDEX alone ON t_before_p60 (v);
CALL rowkeeper.partition_convert('t', split => true);
DROP INDEX alone;
CREATE TRIGGER alone BEFORE UPDATE ON t_before_p60 FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CALL rowkeeper.partition_convert('t', split => true);
DROP TRIGGER alone ON t_before_p60;
CREATE TABLE t_default PARTITION OF t DEFAULT;
CALL rowkeeper.partition_convert('t', split => true);
DROP TABLE t_default;
CREATE TABLE t_hist (id int);
CALL rowkeeper.partition_convert('t', split => true);
DROP TABLE t_hist;
CREATE TABLE keyless (id int);
INSERT INTO keyless SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('keyless', 'id', '10', split => true);
CREATE TABLE many (id int PRIMARY KEY);
INSERT INTO many VALUES (1), (1000000);
CALL rowkeeper.partition_convert('many', 'id', '10', split => true);
-- what would fail writers, or the copy, is refused
CREATE TABLE ref_unique (id int PRIMARY KEY, pos int, UNIQUE (id, pos) DEFERRABLE);
CREATE TABLE ref_valid (id int PRIMARY KEY);
CREATE TABLE ref_user (id int PRIMARY KEY, who name CHECK (who = current_user));
CREATE TABLE ref_now (id int PRIMARY KEY, at timestamptz CHECK (at <= now()));
CREATE TABLE ref_parent (id int PRIMARY KEY);
CREATE TABLE ref_trigger (id int PRIMARY KEY, parent int REFERENCES ref_parent);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER "A_first" AFTER INSERT ON ref_trigger FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TABLE ref_event (id int PRIMARY KEY);
CREATE TABLE ref_oldest (id bigint PRIMARY KEY);
CREATE TABLE ref_age (at timestamp PRIMARY KEY);
INSERT INTO ref_oldest VALUES ((-9223372036854775808)::bigint), (45);
INSERT INTO ref_age VALUES ('4713-01-01 BC'), ('2020-01-01');
INSERT INTO ref_unique SELECT generate_series(1, 45);
INSERT INTO ref_valid SELECT generate_series(1, 45);
INSERT INTO ref_user SELECT generate_series(1, 45);
INSERT INTO ref_now SELECT generate_series(1, 45);
INSERT INTO ref_trigger SELECT generate_series(1, 45);
INSERT INTO ref_event SELECT generate_series(1, 45);
CALL rowkeeper.partition_convert('ref_unique', 'id', '10', split => true);
CALL rowkeeper.partition_convert('ref_valid', 'id', '10');
ALTER TABLE ref_valid ADD CONSTRAINT small CHECK (id < 40) NOT VALID;
CALL rowkeeper.partition_convert('ref_valid', split => true);
CALL rowkeeper.partition_convert('ref_user', 'id', '10', split => true);
CALL rowkeeper.partition_convert('ref_now', 'id', '10', split => true);
CALL rowkeeper.partition_convert('ref_trigger', 'id', '10', split => true);
ALTER TRIGGER "A_first" ON ref_trigger RENAME TO a_first;
CALL rowkeeper.partition_convert('ref_trigger', split => true);
CALL rowkeeper.partition_convert('ref_oldest', 'id', '10', split => true);
\set VERBOSITY sqlstate
CALL rowkeeper.partition_convert('ref_age', 'at', '1 month', split => true);
\set VERBOSITY terse
CALL rowkeeper.partition_convert('ref_event', 'id', '10');
CREATE FUNCTION put_trigger() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN
	FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' AND object_identity ~ 'ref_event' LOOP
		EXECUTE format('CREATE TRIGGER lg AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION partition_split.nothing()', r.object_identity);
	END LOOP;
END $$;
CREATE EVENT TRIGGER partition_split_event ON ddl_command_end WHEN tag IN ('CREATE TABLE') EXECUTE FUNCTION put_trigger();
CALL rowkeeper.partition_convert('ref_event', split => true);
DROP EVENT TRIGGER partition_split_event;
CALL rowkeeper.partition_convert('ref_event', split => true);
SELECT name FROM tree WHERE name ~ '^ref_.*hist' ORDER BY name COLLATE "C";

SELECT name, under FROM tree WHERE name ~ '^t_' ORDER BY name COLLATE "C";
SELECT count(*) FROM rowkeeper._partition_splits;

SELECT rowkeeper.tenant_role('partition_split_writer', 'none') \g /dev/null
DROP SCHEMA partition_split, partition_split_moved CASCADE;
DROP OWNED BY partition_split_owner, partition_split_writer, partition_split_eve, partition_split_backup;
DROP ROLE partition_split_owner, partition_split_writer, partition_split_eve, partition_split_backup;
