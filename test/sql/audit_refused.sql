-- What cannot be audited is refused at the call, with the reason, and refused
-- again where a later command would make it so.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE EXTENSION IF NOT EXISTS file_fdw;
CREATE SCHEMA audit_refused;
SET search_path = audit_refused;
CREATE TABLE fine (id int PRIMARY KEY);
SELECT rowkeeper.audit('fine') \g /dev/null

-- at the call
SELECT rowkeeper.audit(NULL);
SELECT rowkeeper.audit('gone');
SELECT rowkeeper.audit(4294967295::oid::regclass);
CREATE TABLE keyless (id int NOT NULL UNIQUE, note text);
SELECT rowkeeper.audit('keyless');
CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY);
SELECT rowkeeper.audit('fleeting');
CREATE TEMPORARY TABLE passing (id int PRIMARY KEY);
DO $$
BEGIN
    PERFORM rowkeeper.audit('pg_temp.passing');
EXCEPTION WHEN feature_not_supported THEN
    RAISE WARNING '%', regexp_replace(SQLERRM, 'pg_temp\w*', 'pg_temp');
END $$;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE elsewhere (id int) SERVER files OPTIONS (filename '/dev/null');
SELECT rowkeeper.audit('elsewhere');
CREATE VIEW seen AS SELECT * FROM fine;
SELECT rowkeeper.audit('seen');
CREATE MATERIALIZED VIEW stored AS SELECT * FROM fine;
SELECT rowkeeper.audit('stored');
CREATE SEQUENCE numbers;
SELECT rowkeeper.audit('numbers');
SELECT rowkeeper.audit('fine_pkey');
CREATE TYPE pair AS (a int, b int);
SELECT rowkeeper.audit('pair');
CREATE ACCESS METHOD regress_rk_heap TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE other_storage (id int PRIMARY KEY) USING regress_rk_heap;
SELECT rowkeeper.audit('other_storage');
SELECT rowkeeper.audit('pg_class');
SELECT rowkeeper.audit('information_schema.sql_features');
SELECT rowkeeper.audit('rowkeeper_log.log');
SELECT rowkeeper.audit('rowkeeper_log.tables');
SELECT rowkeeper.audit('rowkeeper.audit_log');
SELECT rowkeeper.audit('rowkeeper._maintain_log');
-- keys whose equal values may look different
CREATE TABLE by_span (span interval PRIMARY KEY);
SELECT rowkeeper.audit('by_span');
CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE by_name (name text COLLATE anycase PRIMARY KEY);
SELECT rowkeeper.audit('by_name');
CREATE TABLE by_point (id int, r int4range, PRIMARY KEY (id, r));
SELECT rowkeeper.audit('by_point');
-- a partition: its root is what is audited
CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
CREATE TABLE parts_1_1 PARTITION OF parts_1 FOR VALUES FROM (0) TO (5);
SELECT rowkeeper.audit('parts_1');
SELECT rowkeeper.audit('parts_1_1');
-- a partitioned table without key, and one with an unlogged or a foreign partition
CREATE TABLE keyless_parts (id int) PARTITION BY RANGE (id);
SELECT rowkeeper.audit('keyless_parts');
CREATE UNLOGGED TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
SELECT rowkeeper.audit('parts');
DROP TABLE parts_2;
SELECT rowkeeper.audit('parts') \g /dev/null
-- not the owner
CREATE ROLE regress_rk_other;
CREATE ROLE regress_rk_member;
GRANT USAGE, CREATE ON SCHEMA audit_refused TO regress_rk_other;
GRANT ALL ON fine TO regress_rk_other;
SET ROLE regress_rk_other;
SELECT rowkeeper.audit('fine');
SELECT rowkeeper.audit_off('fine');
SELECT rowkeeper.leave('fine');
SELECT rowkeeper.audit_schema('audit_refused') \g /dev/null
CREATE TABLE mine (id int PRIMARY KEY);
SELECT rowkeeper.audit('mine') \g /dev/null
RESET ROLE;
SELECT relname FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
    WHERE tgname = '!rowkeeper_changes' AND relnamespace = 'audit_refused'::regnamespace ORDER BY 1;
-- a member of the owner may
GRANT regress_rk_other TO regress_rk_member;
GRANT USAGE ON SCHEMA audit_refused TO regress_rk_member;
SET ROLE regress_rk_member;
SELECT rowkeeper.audit('mine', capture => 'full') \g /dev/null
SELECT rowkeeper.audit_off('mine');
RESET ROLE;

-- later: what would break the promise of an audited table
DROP VIEW seen;
DROP MATERIALIZED VIEW stored;
ALTER TABLE fine DROP CONSTRAINT fine_pkey;
ALTER TABLE fine DROP COLUMN id;
ALTER TABLE fine ADD note text, DROP CONSTRAINT fine_pkey;
ALTER TABLE fine SET UNLOGGED;
ALTER TABLE fine ALTER id TYPE interval USING interval '1 day';
ALTER TABLE fine SET ACCESS METHOD regress_rk_heap;
ALTER TABLE parts DROP CONSTRAINT parts_pkey;
CREATE UNLOGGED TABLE parts_3 PARTITION OF parts FOR VALUES FROM (20) TO (30);
CREATE UNLOGGED TABLE parts_4 (id int PRIMARY KEY);
ALTER TABLE parts ATTACH PARTITION parts_4 FOR VALUES FROM (30) TO (40);
ALTER TABLE parts_1_1 SET UNLOGGED;
CREATE TABLE parts_5 PARTITION OF parts FOR VALUES FROM (40) TO (50) USING regress_rk_heap;
-- a primary key is replaced in one command
ALTER TABLE fine ADD other int GENERATED ALWAYS AS IDENTITY;
ALTER TABLE fine DROP CONSTRAINT fine_pkey, ADD PRIMARY KEY (other);
INSERT INTO fine VALUES (7);
SELECT action, record_id, new_data FROM rowkeeper.audit_log
    WHERE table_schema = 'audit_refused' AND action = 'INSERT' ORDER BY id;
-- none of the refused commands had an effect
SELECT relname, relpersistence FROM pg_class c JOIN pg_am a ON a.oid = relam AND amname = 'heap'
    WHERE relname IN ('fine', 'parts_1_1') AND relnamespace = 'audit_refused'::regnamespace ORDER BY 1;
SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'parts'::regclass;

-- Our functions are nobody's to attach or to call.
SET ROLE regress_rk_other;
CREATE TABLE forged (id int PRIMARY KEY);
CREATE TRIGGER "!rowkeeper_changes" AFTER INSERT ON forged FOR EACH ROW EXECUTE FUNCTION rowkeeper._changes_row('audit', '{}');
CREATE TRIGGER rowkeeper_changes_flush AFTER INSERT ON forged FOR EACH STATEMENT EXECUTE FUNCTION rowkeeper._changes_flush();
RESET ROLE;
SELECT rowkeeper._changes_row();
SELECT rowkeeper._changes_flush();
CREATE TRIGGER early BEFORE INSERT ON forged FOR EACH ROW EXECUTE FUNCTION rowkeeper._changes_row();
INSERT INTO forged VALUES (1);
DROP TRIGGER early ON forged;
CREATE TRIGGER "!rowkeeper_changes" AFTER INSERT ON forged FOR EACH ROW EXECUTE FUNCTION rowkeeper._changes_row('audit', '{}');
INSERT INTO forged VALUES (2);

SET client_min_messages = error;
DROP SCHEMA audit_refused CASCADE;
DROP ACCESS METHOD regress_rk_heap CASCADE;
DROP EXTENSION file_fdw CASCADE;
DROP ROLE regress_rk_member, regress_rk_other;
