-- What a role that owns tables can try against soft delete and those who
-- maintain it: his code runs as he, and nobody's rows are lost by it.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE ROLE regress_rk_thief;
CREATE ROLE regress_rk_victim;
CREATE DATABASE regress_rk_attacks_flag;
GRANT CREATE ON DATABASE regress_rk_attacks_flag TO regress_rk_thief;
\c regress_rk_attacks_flag
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
CREATE SCHEMA v AUTHORIZATION regress_rk_victim;
CREATE SCHEMA m AUTHORIZATION regress_rk_thief;
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TABLE v.secret (id int PRIMARY KEY, s text);
SELECT rowkeeper.soft_delete('v.secret', mode => 'trash') \g /dev/null

-- our row trigger, made by himself: over CREATE SCHEMA as little as otherwise
SET SESSION AUTHORIZATION regress_rk_thief;
CREATE SCHEMA m2 CREATE TABLE x (id int PRIMARY KEY)
    CREATE TRIGGER "!rowkeeper_changes" AFTER DELETE ON x FOR EACH ROW
    EXECUTE FUNCTION rowkeeper._changes_row('trash', '{"mode": "trash", "table": "v__secret"}');
CREATE SCHEMA m2 CREATE TABLE x (id int PRIMARY KEY)
    CREATE TRIGGER rowkeeper_soft_delete AFTER UPDATE ON x FOR EACH ROW
    EXECUTE FUNCTION rowkeeper._soft_delete_row('{"mode": "flag"}');

-- nor from a trigger that fires while rowkeeper works on a table of his
CREATE TABLE m.x (id int PRIMARY KEY);
CREATE FUNCTION m.forge() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
    CREATE TRIGGER "!rowkeeper_changes" AFTER DELETE ON m.x FOR EACH ROW
        EXECUTE FUNCTION rowkeeper._changes_row('trash', '{"mode": "trash", "table": "v__secret"}');
    RETURN NULL;
END$$;
CREATE TABLE m.w (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('m.w', mode => 'trash') \g /dev/null
INSERT INTO m.w VALUES (1), (2);
DELETE FROM m.w WHERE id = 1;
CREATE TRIGGER e AFTER DELETE ON rowkeeper_trash.m__w EXECUTE FUNCTION m.forge();
SELECT rowkeeper.soft_delete_restore('m.w', 1);
SELECT rowkeeper.soft_delete_hard('m.w', 1);
CALL rowkeeper.soft_delete_purge('m.w', '0');
CREATE TRIGGER e AFTER DELETE ON m.w EXECUTE FUNCTION m.forge();
SELECT rowkeeper.soft_delete_hard('m.w', 2);
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'm.x'::regclass;

-- maintain() by a superuser: deferred triggers run as the owner, who can leave
-- nothing behind in the session
CREATE TABLE m.old (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('m.old', keep => '1 day') \g /dev/null
INSERT INTO m.old VALUES (1), (2);
UPDATE m.old SET deleted_at = now() - interval '3 days';
CREATE FUNCTION m.who() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
    RAISE WARNING '% as %', TG_NAME, current_user;
    BEGIN
        CREATE TEMP TABLE pg_class (i int);
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE WARNING '%', SQLERRM;
    END;
    RETURN NULL;
END$$;
CREATE CONSTRAINT TRIGGER late AFTER DELETE ON m.old DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION m.who();
CREATE TRIGGER early AFTER DELETE ON m.old EXECUTE FUNCTION m.who();
RESET SESSION AUTHORIZATION;
CALL rowkeeper.maintain();
SELECT id FROM m.old;
INSERT INTO m.old VALUES (3), (4);
BEGIN;
SELECT rowkeeper.soft_delete_hard('m.old', 3);
COMMIT;
UPDATE m.old SET deleted_at = now();
CALL rowkeeper.soft_delete_purge('m.old', '0');

-- triggers find what is in the session's search_path, as with a DELETE of one's own
SET SESSION AUTHORIZATION regress_rk_thief;
DROP TRIGGER early ON m.old;
DROP TRIGGER late ON m.old;
SET search_path = m;
CREATE TABLE seen (id int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO seen VALUES (OLD.id); RETURN NULL; END$$;
CREATE TRIGGER note AFTER DELETE ON old FOR EACH ROW EXECUTE FUNCTION note();
INSERT INTO old VALUES (5), (6);
DELETE FROM active_old WHERE id = 5;
CALL rowkeeper.soft_delete_purge('old', '0');
SELECT rowkeeper.soft_delete_hard('old', 6);
SELECT * FROM seen;
-- where an operator of his stands before the server's, it is not ours
CREATE FUNCTION always(tid, tid) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR = (FUNCTION = always, LEFTARG = tid, RIGHTARG = tid);
INSERT INTO old VALUES (7), (8);
SET search_path = m, pg_catalog;
SELECT rowkeeper.soft_delete_hard('old', 7);
SELECT id FROM old;
DROP OPERATOR = (tid, tid);
RESET search_path;

-- another's batch in his row: it is not restored with that
RESET SESSION AUTHORIZATION;
CREATE TABLE good (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('good') \g /dev/null
INSERT INTO good VALUES (1);
DELETE FROM active_good;
SELECT delete_batch AS foreign_batch FROM good \gset
SET SESSION AUTHORIZATION regress_rk_thief;
CREATE TABLE m.bait (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('m.bait') \g /dev/null
INSERT INTO m.bait VALUES (1);
UPDATE m.bait SET deleted_at = now(), delete_batch = :foreign_batch;
SELECT delete_batch <> :foreign_batch AS own FROM m.bait;
CREATE FUNCTION m.stick() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.delete_batch := TG_ARGV[0]; RETURN NEW; END$$;
CREATE TRIGGER stick BEFORE UPDATE ON m.bait FOR EACH ROW EXECUTE FUNCTION m.stick(:foreign_batch);
INSERT INTO m.bait VALUES (2), (3);
UPDATE m.bait SET deleted_at = now() WHERE id = 2;
DELETE FROM m.active_bait;
RESET SESSION AUTHORIZATION;
SELECT table_name, rows FROM rowkeeper.soft_delete_batches WHERE batch = :foreign_batch;
SELECT table_name FROM rowkeeper.soft_delete_restore_batch(:foreign_batch);

-- a view of somebody else's that has the name: neither taken nor dropped
GRANT CREATE ON SCHEMA public TO regress_rk_thief;
SET SESSION AUTHORIZATION regress_rk_thief;
CREATE TABLE m.av (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('m.av', view_schema => 'public', view_name => 'av_live') \g /dev/null
DROP VIEW public.av_live;
RESET SESSION AUTHORIZATION;
CREATE VIEW public.av_live AS SELECT id FROM m.av WHERE id > 0;
SET SESSION AUTHORIZATION regress_rk_thief;
SELECT * FROM rowkeeper.soft_delete_hide_view('m.av');
SELECT step FROM rowkeeper.soft_delete('m.av', view_schema => 'm') step WHERE step LIKE 'ALTER VIEW%';
RESET SESSION AUTHORIZATION;
SELECT rowkeeper.soft_delete('m.av', view_name => 'other') \g /dev/null
SELECT rowkeeper.soft_delete_off('m.av') \g /dev/null
SELECT viewowner = current_user AS mine FROM pg_views WHERE schemaname = 'public' AND viewname = 'av_live';
-- his view over another's table does not become that table's
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TABLE v.h (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('v.h') \g /dev/null
GRANT USAGE ON SCHEMA v TO regress_rk_thief;
SET SESSION AUTHORIZATION regress_rk_thief;
CREATE TABLE m.h (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('m.h') \g /dev/null
SET SESSION AUTHORIZATION regress_rk_victim;
DROP VIEW v.active_h;
SET SESSION AUTHORIZATION regress_rk_thief;
CREATE OR REPLACE VIEW m.active_h WITH (security_invoker = true) AS SELECT * FROM v.h WHERE deleted_at IS NULL;
ALTER VIEW m.active_h RENAME TO mine;
SELECT rowkeeper._soft_delete_options('v.h') ->> 'view_name' AS still;

-- what they cannot know: a superuser's table has a view of a superuser's, and no other
RESET SESSION AUTHORIZATION;
CREATE TABLE public.boss (id int PRIMARY KEY, deleted_at timestamptz);
SET SESSION AUTHORIZATION regress_rk_thief;
CREATE VIEW public.active_boss AS SELECT * FROM public.boss WHERE deleted_at IS NULL;
RESET SESSION AUTHORIZATION;
SELECT rowkeeper.soft_delete('public.boss');
DROP VIEW public.active_boss;
SELECT rowkeeper.soft_delete('public.boss') \g /dev/null
DROP VIEW public.active_boss;
SET SESSION AUTHORIZATION regress_rk_thief;
CREATE OR REPLACE VIEW m.mine WITH (security_invoker = true) AS SELECT * FROM public.boss WHERE deleted_at IS NULL;
ALTER VIEW m.mine RENAME TO yours;
SELECT rowkeeper._soft_delete_options('public.boss') ->> 'view_name' AS still;
RESET SESSION AUTHORIZATION;
SELECT rowkeeper.soft_delete('public.boss') \g /dev/null
-- a table that is given away takes its view along
ALTER TABLE public.boss OWNER TO regress_rk_victim;
SELECT viewowner FROM pg_views WHERE viewname = 'active_boss';
CREATE RULE r AS ON INSERT TO public.active_boss DO INSTEAD NOTHING;
ALTER TABLE public.boss OWNER TO regress_rk_thief;
SELECT viewowner FROM pg_views WHERE viewname = 'active_boss';
SELECT level, detail, remedy FROM rowkeeper.doctor() WHERE check_name = 'view' AND object = 'public.boss';

-- another's batch in a row that is deleted already, and then noted as his
SET SESSION AUTHORIZATION regress_rk_victim;
CREATE TABLE v.good (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('v.good') \g /dev/null
INSERT INTO v.good VALUES (1);
DELETE FROM v.active_good;
SELECT delete_batch AS foreign_batch FROM v.good \gset
SET SESSION AUTHORIZATION regress_rk_thief;
CREATE TABLE m.later (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('m.later') \g /dev/null
INSERT INTO m.later VALUES (1), (2);
DELETE FROM m.active_later;
UPDATE m.later SET delete_batch = :foreign_batch;
UPDATE m.later SET deleted_at = NULL WHERE id = 1;
CREATE TABLE m.kept (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('m.kept', mode => 'trash') \g /dev/null
INSERT INTO rowkeeper_trash.m__kept (_batch, _deleted_at, id) VALUES (:foreign_batch, now(), 1), (:foreign_batch, now(), 2);
SELECT rowkeeper.soft_delete_hard('m.kept', 1);
RESET SESSION AUTHORIZATION;
SELECT table_name FROM rowkeeper.soft_delete_restore_batch(:foreign_batch);

-- what a query calls as it is planned leaves nothing behind for maintain()'s commit, nor runs as another
GRANT REFERENCES ON v.good TO regress_rk_thief;
UPDATE v.good SET deleted_at = now() - interval '3 days';
SELECT rowkeeper.soft_delete('v.good', keep => '1 day') \g /dev/null
GRANT USAGE ON SCHEMA m TO PUBLIC;
SET SESSION AUTHORIZATION regress_rk_thief;
CREATE TABLE m.trap (what text, as_whom name DEFAULT current_user);
GRANT INSERT ON m.trap TO PUBLIC;
CREATE FUNCTION m.late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO m.trap VALUES ('late'); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON m.trap DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.what = 'plan') EXECUTE FUNCTION m.late();
CREATE FUNCTION m.spring() RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO m.trap VALUES ('plan'); RETURN ''; EXCEPTION WHEN OTHERS THEN RETURN ''; END$$;
CREATE FUNCTION m.expression() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$DECLARE noted text; BEGIN SELECT m.spring() INTO noted; RETURN noted; END$$;
CREATE TABLE m.child (id int PRIMARY KEY, g int REFERENCES v.good ON DELETE CASCADE);
CREATE STATISTICS m.child ON (m.expression() || g::text), id FROM m.child;
CREATE STATISTICS m.old ON (m.expression() || deleted_by), id FROM m.old;
DROP TRIGGER note ON m.old;
UPDATE m.old SET deleted_at = now() - interval '3 days';
TRUNCATE m.trap;
RESET SESSION AUTHORIZATION;
CALL rowkeeper.maintain();
SELECT DISTINCT what, as_whom FROM m.trap ORDER BY 1, 2;
SELECT count(*) FROM v.good;
DROP STATISTICS m.old;
SELECT count(*) FROM m.old;

-- row security that a table's owner has forced on himself is not foreign keys'
SET SESSION AUTHORIZATION regress_rk_thief;
CREATE TABLE m.par (id int PRIMARY KEY);
CREATE TABLE m.chi (id int PRIMARY KEY, p int REFERENCES m.par ON DELETE CASCADE);
CREATE TABLE m.res (id int PRIMARY KEY, p int REFERENCES m.par);
SELECT rowkeeper.soft_delete('m.chi') \g /dev/null
SELECT rowkeeper.soft_delete('m.par') \g /dev/null
INSERT INTO m.par VALUES (1), (2), (3);
INSERT INTO m.chi VALUES (1, 1), (2, 1);
INSERT INTO m.res VALUES (2, 2);
ALTER TABLE m.chi ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE m.res ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY one ON m.chi USING (id = 1) WITH CHECK (true);
DELETE FROM m.active_par WHERE id = 1;
DELETE FROM m.active_par WHERE id = 2;
ALTER TABLE m.chi NO FORCE ROW LEVEL SECURITY;
SELECT id, deleted_at IS NOT NULL AS deleted FROM m.chi ORDER BY id;
DELETE FROM m.active_par WHERE id = 3;
ALTER TABLE m.par ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY one ON m.par USING (id = 2);
INSERT INTO m.chi VALUES (3, 3);

-- the batch's column is of another type: an error, no more
CREATE TABLE m.odd (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('m.odd') \g /dev/null
INSERT INTO m.odd VALUES (1);
SELECT rowkeeper.soft_delete_hide_view('m.odd') \g /dev/null
ALTER TABLE m.odd ALTER delete_batch TYPE text;
SELECT rowkeeper.soft_delete_refresh('m.odd') \g /dev/null
DELETE FROM m.active_odd;
UPDATE m.odd SET deleted_at = now();
SELECT rowkeeper.soft_delete_restore('m.odd', 1);
CALL rowkeeper.soft_delete_purge('m.odd', '0');

RESET SESSION AUTHORIZATION;
\c contrib_regression
DROP DATABASE regress_rk_attacks_flag;
DROP ROLE regress_rk_thief; DROP ROLE regress_rk_victim;
