-- What somebody who owns tables, or may create objects beside them, tries: to
-- run code of his own as the extension's owner or as another one, to read what
-- others deleted, to take what is theirs.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE DATABASE regress_rk_sd_attacks;
\c regress_rk_sd_attacks
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
CREATE ROLE regress_rk_mallory;
CREATE ROLE regress_rk_victim;
CREATE ROLE regress_rk_helper;
GRANT CREATE ON SCHEMA public TO regress_rk_mallory, regress_rk_victim;
CREATE SCHEMA m AUTHORIZATION regress_rk_mallory;
CREATE SCHEMA v AUTHORIZATION regress_rk_victim;
GRANT USAGE ON SCHEMA v TO regress_rk_mallory, regress_rk_helper;

-- code that runs where a column is renamed: he is the owner of his trash table
SET SESSION AUTHORIZATION regress_rk_mallory;
CREATE TABLE m.ran (what text, as_whom name);
CREATE FUNCTION m.who() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO m.ran VALUES (TG_OP, current_user); RETURN NULL; END $$;
CREATE TABLE m.t (id int PRIMARY KEY, a text);
SELECT rowkeeper.soft_delete('m.t', mode => 'trash') \g /dev/null
CREATE TRIGGER who AFTER UPDATE ON rowkeeper_trash.m__t FOR EACH STATEMENT EXECUTE FUNCTION m.who();
ALTER TABLE m.t RENAME a TO b;
RESET SESSION AUTHORIZATION;
ALTER TABLE m.t RENAME b TO c;
SELECT DISTINCT as_whom FROM m.ran;

-- a row trigger that says that the trash of another is his, made while ours are
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TABLE v.secret (id int PRIMARY KEY, s text);
SELECT rowkeeper.soft_delete('v.secret', mode => 'trash') \g /dev/null
SET SESSION AUTHORIZATION regress_rk_mallory;
CREATE TABLE m.x (id int PRIMARY KEY);
CREATE FUNCTION m.forge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	CREATE TRIGGER "!rowkeeper_changes" AFTER DELETE ON m.x FOR EACH ROW EXECUTE FUNCTION
		rowkeeper._changes_row('trash', '{"mode": "trash", "table": "v__secret", "view_schema": "m", "view_name": "nix", "cascade": true}');
	RETURN NULL;
END $$;
CREATE TRIGGER forge AFTER UPDATE OR DELETE ON rowkeeper_trash.m__t FOR EACH STATEMENT EXECUTE FUNCTION m.forge();
INSERT INTO m.t VALUES (1);
DELETE FROM m.t;
SELECT rowkeeper.soft_delete_restore('m.t', 1);
ALTER TABLE m.t RENAME c TO d;
GRANT SELECT ON m.x TO regress_rk_helper;
SELECT relowner::regrole FROM pg_class WHERE oid = 'rowkeeper_trash.v__secret'::regclass;
RESET SESSION AUTHORIZATION;
-- ... and even if there were one, by a superuser's doing, nobody's trash goes to him
ALTER EVENT TRIGGER rowkeeper_ddl_end DISABLE;
CREATE TRIGGER "!rowkeeper_changes" AFTER DELETE ON m.x FOR EACH ROW EXECUTE FUNCTION
	rowkeeper._changes_row('trash', '{"mode": "trash", "table": "v__secret", "view_schema": "m", "view_name": "nix", "cascade": true}');
ALTER EVENT TRIGGER rowkeeper_ddl_end ENABLE ALWAYS;
GRANT SELECT ON m.x TO regress_rk_mallory;
SELECT relowner::regrole, relacl FROM pg_class WHERE oid = 'rowkeeper_trash.v__secret'::regclass;
DROP TABLE m.x;

-- names that leave their quotes where SQL is built of them
SET SESSION AUTHORIZATION regress_rk_mallory;
CREATE TABLE m."/*\&*/))));ALTER ROLE regress_rk_mallory CREATEROLE--" (id int PRIMARY KEY, "m__/* " int, "x\&'" int);
CREATE TABLE m.s (x int);
SELECT rowkeeper.soft_delete('m."/*\&*/))));ALTER ROLE regress_rk_mallory CREATEROLE--"', mode => 'trash') \g /dev/null
CREATE POLICY p ON m."/*\&*/))));ALTER ROLE regress_rk_mallory CREATEROLE--" FOR SELECT USING (EXISTS
	(SELECT FROM m.s WHERE s.x = "/*\&*/))));ALTER ROLE regress_rk_mallory CREATEROLE--"."x\&'"));
SELECT polname, regexp_replace(pg_get_expr(polqual, polrelid), '\s+', ' ', 'g') AS expression FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
	WHERE c.relnamespace = 'rowkeeper_trash'::regnamespace AND c.relname LIKE 'm\_\_%--' ORDER BY 1;
SELECT rolcreaterole FROM pg_roles WHERE rolname = 'regress_rk_mallory';

-- a view of the name that his options have
CREATE TABLE m.vt (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('m.vt', mode => 'trash', view_schema => 'public', view_name => 'report') \g /dev/null
DROP VIEW public.report;
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TABLE v.data (s text);
CREATE VIEW public.report AS SELECT * FROM v.data;
SET SESSION AUTHORIZATION regress_rk_mallory;
GRANT SELECT ON m.vt TO regress_rk_helper;
SELECT relowner::regrole, relacl FROM pg_class WHERE oid = 'public.report'::regclass;
SELECT rowkeeper.soft_delete_refresh('m.vt');
SELECT rowkeeper.soft_delete_off('m.vt') \g /dev/null
SELECT relowner::regrole FROM pg_class WHERE oid = 'public.report'::regclass;

-- a view of his own in the place of one that is hidden
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TABLE v.h (id int PRIMARY KEY, s text);
SELECT rowkeeper.soft_delete('v.h', mode => 'trash') \g /dev/null
GRANT SELECT ON v.h TO regress_rk_mallory;
CREATE TABLE v.payroll (s text);
SELECT rowkeeper.soft_delete_hide_view('v.h') \g /dev/null
SET SESSION AUTHORIZATION regress_rk_mallory;
CREATE VIEW m.h1 AS SELECT NULL::bigint AS _batch, NULL::timestamptz AS _deleted_at, NULL::text AS _deleted_by, h.*,
	(SELECT count(*) FROM v.payroll) AS loot FROM v.h UNION ALL
	SELECT _batch, _deleted_at, NULL, id, s, 0 FROM rowkeeper_trash.v__h;
ALTER VIEW m.h1 RENAME TO h2;
ALTER VIEW m.h2 SET SCHEMA public;
SET SESSION AUTHORIZATION regress_rk_victim;
GRANT SELECT ON v.h TO regress_rk_helper;
SELECT relowner::regrole FROM pg_class WHERE oid = 'public.h2'::regclass;
SELECT rowkeeper._soft_delete_options('v.h') ->> 'view_name' AS view_name;
SELECT rowkeeper.soft_delete_refresh('v.h') \g /dev/null
SELECT relowner::regrole FROM pg_class WHERE oid = 'v.h_with_deleted'::regclass;

-- a table that is given to another one takes its view along, but not what is in it
RESET SESSION AUTHORIZATION;
CREATE TABLE m.gift (id int PRIMARY KEY);
ALTER TABLE m.gift OWNER TO regress_rk_mallory;
SET SESSION AUTHORIZATION regress_rk_mallory;
SELECT rowkeeper.soft_delete('m.gift', mode => 'trash') \g /dev/null
CREATE OR REPLACE VIEW m.gift_with_deleted AS
	SELECT _batch, _deleted_at, _deleted_by, (SELECT count(*)::int FROM v.payroll) AS id FROM rowkeeper_trash.m__gift, m.gift s;
ALTER VIEW m.gift_with_deleted RESET (security_invoker);
RESET SESSION AUTHORIZATION;
ALTER TABLE m.gift OWNER TO regress_rk_victim;
SELECT relname, relowner::regrole, reloptions, pg_get_viewdef(oid) LIKE '%payroll%' AS his FROM pg_class
	WHERE oid IN ('m.gift_with_deleted'::regclass, 'rowkeeper_trash.m__gift'::regclass) ORDER BY 1;

-- a policy that the trash cannot have concerns nobody who grants something else
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TABLE v.w (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('v.w', mode => 'trash') \g /dev/null
CREATE POLICY whole ON v.w USING (w IS NOT NULL);
SET SESSION AUTHORIZATION regress_rk_mallory;
BEGIN;
CREATE TABLE m.other (id int);
GRANT SELECT ON m.other TO regress_rk_helper;
CREATE POLICY p ON m.other USING (true);
DROP POLICY p ON m.other;
SELECT relation::regclass FROM pg_locks WHERE pid = pg_backend_pid() AND relation::regclass::text LIKE 'rowkeeper_trash.%';
COMMIT;
-- ... and who grants on its table has no lock on the trash either
SET SESSION AUTHORIZATION regress_rk_victim;
BEGIN;
GRANT INSERT ON v.w TO regress_rk_helper;
SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'rowkeeper_trash.v__w'::regclass AND mode = 'AccessExclusiveLock';
COMMIT;
-- it is said as soon as it can be
DROP POLICY whole ON v.w;
SELECT polname FROM pg_policy WHERE polrelid = 'rowkeeper_trash.v__w'::regclass;
-- ... also where it goes with what it needs
CREATE FUNCTION v.yes(v.w) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE POLICY everybody ON v.w USING (v.yes(w));
SELECT polname FROM pg_policy WHERE polrelid = 'rowkeeper_trash.v__w'::regclass;
DROP FUNCTION v.yes CASCADE;
SELECT polname FROM pg_policy WHERE polrelid = 'rowkeeper_trash.v__w'::regclass;

-- grants that come with a schema are grants
CREATE TABLE v.shared (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('v.shared', mode => 'trash') \g /dev/null
RESET SESSION AUTHORIZATION;
CREATE SCHEMA regress_rk_grants GRANT SELECT ON v.shared TO regress_rk_helper GRANT INSERT ON rowkeeper_trash.v__shared TO regress_rk_helper;
SELECT p, has_table_privilege('regress_rk_helper', 'rowkeeper_trash.v__shared', p) FROM unnest('{SELECT,INSERT}'::text[]) p;
SET SESSION AUTHORIZATION regress_rk_victim;

-- policies read columns, not what is in _extra
CREATE TABLE v.pol (id int PRIMARY KEY, class varchar(10));
SELECT rowkeeper.soft_delete('v.pol', mode => 'trash') \g /dev/null
ALTER TABLE v.pol ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON v.pol TO regress_rk_helper;
INSERT INTO v.pol VALUES (1, 'secret'), (2, 'open'), (3, 'open');
DELETE FROM v.pol WHERE id = 2;
SELECT rowkeeper.soft_delete_hide_view('v.pol') \g /dev/null
ALTER TABLE v.pol ALTER class TYPE text;
SELECT rowkeeper.soft_delete_refresh('v.pol') \g /dev/null
CREATE POLICY p ON v.pol FOR SELECT USING (class IS DISTINCT FROM 'secret');
DELETE FROM v.pol WHERE id <= 3;
SET SESSION AUTHORIZATION regress_rk_helper;
SELECT * FROM v.pol;
SELECT id, class, _extra FROM rowkeeper_trash.v__pol ORDER BY id;
-- code that runs where a query is planned: his trash is read as he, not as the extension's owner
SET SESSION AUTHORIZATION regress_rk_mallory;
CREATE TABLE m.planned (id int PRIMARY KEY, a text);
SELECT rowkeeper.soft_delete('m.planned', mode => 'trash') \g /dev/null
INSERT INTO m.planned VALUES (1, 'x');
DELETE FROM m.planned;
SELECT rowkeeper.soft_delete_off('m.planned') \g /dev/null
GRANT USAGE ON SCHEMA m TO PUBLIC;
GRANT INSERT ON m.ran TO PUBLIC;
TRUNCATE m.ran;
CREATE FUNCTION m.note() RETURNS text LANGUAGE plpgsql AS $$
BEGIN INSERT INTO m.ran VALUES ('plan', current_user); RETURN ''; END $$;
CREATE FUNCTION m.expression() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE noted text; BEGIN SELECT m.note() INTO noted; RETURN noted; END $$;
CREATE STATISTICS m.planned ON (m.expression() || a), id FROM rowkeeper_trash.m__planned;
SELECT rowkeeper.soft_delete('m.planned', mode => 'trash') \g /dev/null
SELECT DISTINCT * FROM m.ran;

-- what keeps a row from coming back does not show the row
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TABLE v.lk (id int PRIMARY KEY, s text);
SELECT rowkeeper.soft_delete('v.lk', mode => 'trash') \g /dev/null
INSERT INTO v.lk VALUES (1, 'secret');
DELETE FROM v.lk;
ALTER TABLE v.lk ADD CHECK (s <> 'secret');
GRANT INSERT, SELECT (id) ON v.lk TO regress_rk_helper;
SELECT conflict FROM rowkeeper.soft_delete_restore('v.lk', '1'::jsonb, dry_run => true);
SET SESSION AUTHORIZATION regress_rk_helper;
SELECT conflict FROM rowkeeper.soft_delete_restore('v.lk', '1'::jsonb, dry_run => true);
\set VERBOSITY default
SELECT rowkeeper.soft_delete_restore('v.lk', 1);
SET SESSION AUTHORIZATION regress_rk_victim;
ALTER TABLE v.lk DROP CONSTRAINT lk_s_check;
SELECT rowkeeper.soft_delete_hide_view('v.lk') \g /dev/null
ALTER TABLE v.lk ALTER s TYPE int USING 0;
SET SESSION AUTHORIZATION regress_rk_helper;
SELECT rowkeeper.soft_delete_restore('v.lk', 1);
\set VERBOSITY terse
SELECT conflict FROM rowkeeper.soft_delete_restore('v.lk', '1'::jsonb, dry_run => true);
RESET SESSION AUTHORIZATION;

-- whoever may make triggers puts none in the place of ours
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TABLE v.fired (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('v.fired') \g /dev/null
SELECT rowkeeper.audit('v.fired') \g /dev/null
CREATE FUNCTION v.nothing() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN OLD; END$$;
GRANT TRIGGER ON v.fired TO regress_rk_helper;
SET SESSION AUTHORIZATION regress_rk_helper;
SELECT format('CREATE OR REPLACE TRIGGER %I AFTER DELETE ON v.fired EXECUTE FUNCTION v.nothing()', tgname)
FROM pg_trigger WHERE tgrelid = 'v.fired'::regclass AND NOT tgisinternal ORDER BY tgname COLLATE "C" \gexec
CREATE TRIGGER "~rowkeeper_mine" AFTER DELETE ON v.fired EXECUTE FUNCTION v.nothing();
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TRIGGER mine AFTER DELETE ON v.fired EXECUTE FUNCTION v.nothing();
ALTER TRIGGER mine ON v.fired RENAME TO rowkeeper_mine;

-- rows that row security held are not opened by a table of the same name without it
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TABLE v.held (id int PRIMARY KEY, whose text);
ALTER TABLE v.held ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON v.held USING (whose = current_user);
GRANT SELECT ON v.held TO regress_rk_helper;
SELECT rowkeeper.soft_delete('v.held', mode => 'trash') \g /dev/null
INSERT INTO v.held VALUES (1, 'regress_rk_victim'), (2, 'regress_rk_helper');
DELETE FROM v.held;
DROP TABLE v.held CASCADE;
CREATE TABLE v.held (id int PRIMARY KEY, whose text);
GRANT SELECT ON v.held TO regress_rk_helper;
SELECT rowkeeper.soft_delete('v.held', mode => 'trash') \g /dev/null
SELECT rowkeeper.soft_delete_off('v.held') \g /dev/null
SET SESSION AUTHORIZATION regress_rk_helper;
SELECT id FROM rowkeeper_trash.v__held;
SELECT id FROM rowkeeper_trash.v__held_2;
-- one that has it takes them up
SET SESSION AUTHORIZATION regress_rk_victim;
DROP TABLE rowkeeper_trash.v__held_2;
ALTER TABLE v.held ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON v.held USING (whose = current_user);
SELECT rowkeeper.soft_delete('v.held', mode => 'trash') \g /dev/null
SET SESSION AUTHORIZATION regress_rk_helper;
SELECT id FROM rowkeeper_trash.v__held;
RESET SESSION AUTHORIZATION;

-- whoever owns a type makes casts of text to it: none is run, whoever calls
SET SESSION AUTHORIZATION regress_rk_mallory;
CREATE TYPE m.state AS ENUM ('a', 'b');
CREATE FUNCTION m.cast_text(text) RETURNS m.state LANGUAGE plpgsql AS $$
BEGIN RAISE 'a cast of mallory runs as %', current_user; END $$;
CREATE CAST (text AS m.state) WITH FUNCTION m.cast_text(text) AS ASSIGNMENT;
GRANT USAGE ON SCHEMA m TO regress_rk_victim;
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TABLE v.states (id int, s m.state, later text, PRIMARY KEY (id, s));
CREATE TABLE v.of_states (id int PRIMARY KEY, state_id int, s m.state,
	FOREIGN KEY (state_id, s) REFERENCES v.states ON DELETE CASCADE);
CREATE INDEX ON v.of_states (state_id, s);
INSERT INTO v.states VALUES (1, 'a', 'a'), (2, 'b', 'b'), (3, 'a', 'a');
INSERT INTO v.of_states VALUES (1, 1, 'a'), (2, 2, 'b');
SELECT rowkeeper.soft_delete('v.of_states', mode => 'trash') \g /dev/null
SELECT rowkeeper.soft_delete('v.states', mode => 'trash', view_name => 'all_states') \g /dev/null
DELETE FROM v.states;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('v.states', 1, 'a');
SELECT rowkeeper.soft_delete_hard('v.states', 2, 'b');
-- neither by a column that has such a type later, nor by one that it had
SELECT rowkeeper.soft_delete_hide_view('v.states') \g /dev/null
ALTER TABLE v.states ADD more m.state, ALTER later TYPE m.state USING 'b';
SELECT rowkeeper.soft_delete_refresh('v.states') \g /dev/null
SELECT id, s, later, more FROM v.all_states ORDER BY id;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('v.states', 3, 'a');
TABLE v.states ORDER BY id;
SELECT rowkeeper.soft_delete_off('v.states') \g /dev/null
SELECT rowkeeper.soft_delete_off('v.of_states') \g /dev/null
SELECT rowkeeper.soft_delete('v.of_states') \g /dev/null
SELECT rowkeeper.soft_delete('v.states') \g /dev/null
UPDATE v.states SET deleted_at = now() WHERE id = 1;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('v.states', 1, 'a');
UPDATE v.states SET deleted_at = now() WHERE id = 1;
SELECT rowkeeper.soft_delete_hard('v.states', 1, 'a');
RESET SESSION AUTHORIZATION;

\c contrib_regression
DROP DATABASE regress_rk_sd_attacks;
DROP ROLE regress_rk_mallory;
DROP ROLE regress_rk_victim;
DROP ROLE regress_rk_helper;
