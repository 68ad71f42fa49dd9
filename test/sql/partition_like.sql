-- A new partition is as its table is: what CREATE TABLE LIKE leaves out, too.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA partition_like;
SET search_path = partition_like;
CREATE ROLE regress_rk_owner;
CREATE ROLE regress_rk_reader;
CREATE ROLE regress_rk_tenant;
GRANT CREATE, USAGE ON SCHEMA partition_like TO regress_rk_owner;
GRANT USAGE ON SCHEMA partition_like TO regress_rk_reader, regress_rk_tenant;
ALTER DEFAULT PRIVILEGES FOR ROLE regress_rk_owner IN SCHEMA partition_like GRANT ALL ON TABLES TO PUBLIC;
SET ROLE regress_rk_owner;
CREATE FUNCTION doubled(int) RETURNS int IMMUTABLE LANGUAGE sql RETURN $1 * 2;
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.note := 'trigger'; RETURN NEW; END$$;
CREATE TABLE tenants (id int PRIMARY KEY);
CREATE TABLE places (
    id int NOT NULL,
    gone int,
    tenant int NOT NULL REFERENCES tenants,
    "Full Name" text DEFAULT 'nobody' COLLATE "C",
    price int CHECK (price >= 0),
    twice int GENERATED ALWAYS AS (price * 2) STORED,
    note text,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
ALTER TABLE places DROP gone;
ALTER TABLE places ALTER note SET STORAGE EXTERNAL;
ALTER TABLE places ALTER tenant SET STATISTICS 321;
ALTER TABLE places ALTER tenant SET (n_distinct = 50, n_distinct_inherited = 60);
CREATE INDEX by_double ON places (doubled(price), tenant);
ALTER INDEX by_double ALTER COLUMN 1 SET STATISTICS 123;
CREATE UNIQUE INDEX by_place ON places (id, tenant);
ALTER TABLE places REPLICA IDENTITY USING INDEX by_place;
CREATE STATISTICS together (ndistinct) ON tenant, price FROM places;
ALTER STATISTICS together SET STATISTICS 77;
COMMENT ON TABLE places IS 'where things are';
COMMENT ON COLUMN places.note IS 'a note';
CREATE TRIGGER noted BEFORE INSERT ON places FOR EACH ROW EXECUTE FUNCTION noted();
ALTER TABLE places DISABLE TRIGGER noted;
ALTER TABLE places ENABLE ALWAYS TRIGGER noted;
REVOKE ALL ON places FROM PUBLIC;
REVOKE TRUNCATE ON places FROM regress_rk_owner;
GRANT SELECT ON places TO regress_rk_reader WITH GRANT OPTION;
GRANT INSERT ON places TO regress_rk_tenant;
GRANT SELECT (id, "Full Name"), UPDATE ("Full Name") ON places TO regress_rk_tenant;
ALTER TABLE places ENABLE ROW LEVEL SECURITY;
ALTER TABLE places FORCE ROW LEVEL SECURITY;
CREATE POLICY tenancy ON places USING (tenant = current_setting('app.tenant')::int);
CREATE POLICY "Only Known" ON places AS RESTRICTIVE FOR INSERT TO regress_rk_tenant, regress_rk_reader
    WITH CHECK (EXISTS (SELECT FROM tenants t WHERE t.id = places.tenant AND places."Full Name" <> ''));
INSERT INTO tenants VALUES (1), (2);
-- the only partition there is says what a partitioned table cannot say
CREATE UNLOGGED TABLE places_p0 PARTITION OF places FOR VALUES FROM (0) TO (10)
    WITH (fillfactor = 70, autovacuum_enabled = off, toast.autovacuum_enabled = off);
RESET ROLE;
ALTER TABLE places SET TABLESPACE pg_default;
RESET client_min_messages;

-- foreign keys: it is only registered
SET ROLE regress_rk_owner;
SELECT rowkeeper.partition('places', 'id', '10');
SELECT rowkeeper.partition_plan('places') LIMIT 2;
RESET ROLE;
CALL rowkeeper.maintain('places');
SELECT table_name, task, changed, error FROM rowkeeper.maintain_log WHERE table_schema = 'partition_like';

SELECT c.relname, c.relowner::regrole, c.relpersistence, c.reloptions, t.reloptions AS toast, c.relreplident, c.relrowsecurity, c.relforcerowsecurity
FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = 'places_p10'::regclass;
\d places_p10
SELECT obj_description('places_p10'::regclass), col_description('places_p10'::regclass, 7);
-- rights exactly those of the table, whatever default privileges say
SELECT grantee, string_agg(privilege_type || CASE is_grantable WHEN 'YES' THEN '*' ELSE '' END, ' ' ORDER BY privilege_type COLLATE "C")
FROM information_schema.table_privileges WHERE table_name = 'places_p10' GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM (
    SELECT grantee, privilege_type, is_grantable FROM pg_class, aclexplode(relacl) WHERE oid = 'places'::regclass
    EXCEPT ALL SELECT grantee, privilege_type, is_grantable FROM pg_class, aclexplode(relacl) WHERE oid = 'places_p10'::regclass) x;
SELECT attname, attacl FROM pg_attribute WHERE attrelid = 'places_p10'::regclass AND attacl IS NOT NULL ORDER BY attnum;
SELECT attname, coalesce(attstattarget, -1) AS target, ARRAY(SELECT o FROM unnest(attoptions) o WHERE o ~ '^n_') AS options FROM pg_attribute
WHERE attrelid = 'places_p10'::regclass AND attname = 'tenant';
SELECT stxstattarget FROM pg_statistic_ext WHERE stxrelid = 'places_p10'::regclass;
SELECT attname, attstattarget FROM pg_attribute
WHERE attrelid = (SELECT indexrelid FROM pg_index WHERE indrelid = 'places_p10'::regclass AND indexprs IS NOT NULL) AND attnum = 1;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'places_p10'::regclass AND NOT tgisinternal;
-- through the leaf as through the table
SET app.tenant = 1;
SET ROLE regress_rk_owner;
INSERT INTO places (id, tenant, price) VALUES (10, 1, 1), (11, 1, 2);
SET app.tenant = 2;
INSERT INTO places (id, tenant, price) VALUES (12, 2, 3);
SELECT id, tenant, "Full Name", twice, note FROM places ORDER BY 1;
SELECT id, tenant, "Full Name", twice, note FROM places_p10 ORDER BY 1;
SET ROLE regress_rk_tenant;
SELECT id, "Full Name" FROM places_p10;
SELECT note FROM places_p10;
INSERT INTO places (id, tenant, price) VALUES (13, 2, 3);
INSERT INTO places_p10 (id, tenant, price, "Full Name") VALUES (14, 2, 3, '');
RESET ROLE;
INSERT INTO places (id, tenant) VALUES (15, 3);
-- no difference is left, but of the partition that was made by hand
SELECT drift FROM rowkeeper.partition_status WHERE table_name = 'places';

-- partitions of partitions: as those of the newest one
CREATE TABLE regions (at int, region text, PRIMARY KEY (at, region)) PARTITION BY RANGE (at);
CREATE TABLE regions_p0 PARTITION OF regions FOR VALUES FROM (0) TO (10) PARTITION BY LIST (region);
CREATE TABLE regions_p0_eu PARTITION OF regions_p0 FOR VALUES IN ('eu', 'it''s') WITH (fillfactor = 50);
CREATE TABLE "regions_p0_The Rest" PARTITION OF regions_p0 DEFAULT PARTITION BY HASH (region);
CREATE TABLE regions_p0_h0 PARTITION OF "regions_p0_The Rest" FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE odd_name PARTITION OF "regions_p0_The Rest" FOR VALUES WITH (MODULUS 2, REMAINDER 1);
ALTER TABLE regions ENABLE ROW LEVEL SECURITY;
ALTER TABLE regions REPLICA IDENTITY USING INDEX regions_pkey;
SELECT rowkeeper.partition('regions', ahead => '15');
SELECT relid, parentrelid, pg_get_expr(relpartbound, oid) AS bound, reloptions, relrowsecurity, relreplident
FROM pg_partition_tree('regions_p10') JOIN pg_class ON oid = relid ORDER BY relid::regclass::text COLLATE "C";
INSERT INTO regions SELECT 12, 'r' || n FROM generate_series(1, 20) n;
INSERT INTO regions VALUES (12, 'eu'), (12, 'it''s');
SELECT count(*), tableoid::regclass::text ~ '_eu$' AS eu FROM regions GROUP BY 2 ORDER BY 2;

-- not partitions by the key itself, whose bounds are of their own period
CREATE TABLE months (id int) PARTITION BY RANGE (id);
CREATE TABLE months_p0 PARTITION OF months FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
CREATE TABLE months_p0_a PARTITION OF months_p0 FOR VALUES FROM (0) TO (5);
CREATE TABLE months_p0_b PARTITION OF months_p0 FOR VALUES FROM (5) TO (10);
SELECT count(*) FROM rowkeeper.partition('months', ahead => '15');
INSERT INTO months VALUES (1), (11);
SELECT tableoid::regclass, id FROM months ORDER BY id;

-- numbers of an identity column come from the table's sequence
CREATE TABLE numbered (id int, n int GENERATED ALWAYS AS IDENTITY) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('numbered', 'id', '10');
INSERT INTO numbered VALUES (1), (11), (21);
SELECT * FROM numbered ORDER BY 1;

-- with a BRIN index on the key, once
CREATE TABLE scanned (id int) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('scanned', 'id', '10', ahead => '5', brin => true);
SELECT indexdef FROM pg_indexes WHERE tablename ~ '^scanned' ORDER BY 1;
CREATE TABLE scanned_too (id int) PARTITION BY RANGE (id);
CREATE INDEX ON scanned_too USING brin (id);
SELECT count(*) FROM rowkeeper.partition('scanned_too', 'id', '10', ahead => '5', brin => true);
SELECT indexdef FROM pg_indexes WHERE tablename ~ '^scanned_too_p' ORDER BY 1;

-- by the access method of the table, which has one from 17 on
CREATE ACCESS METHOD partition_like_heap TYPE TABLE HANDLER heap_tableam_handler;
SELECT CASE WHEN current_setting('server_version_num')::int >= 170000 THEN 'USING partition_like_heap' ELSE '' END AS using \gset
CREATE TABLE stored (id int) PARTITION BY RANGE (id) :using;
SELECT count(*) FROM rowkeeper.partition('stored', 'id', '10', ahead => '5');
SELECT DISTINCT amname = CASE :'using' WHEN '' THEN 'heap' ELSE 'partition_like_heap' END AS as_the_table
    FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid JOIN pg_am a ON a.oid = c.relam WHERE inhparent = 'stored'::regclass;
DROP TABLE stored;
DROP ACCESS METHOD partition_like_heap;

-- in another schema
CREATE SCHEMA partition_elsewhere;
CREATE TABLE spread (id int) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('spread', 'id', '10', ahead => '5', partition_schema => 'partition_elsewhere');
SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'spread'::regclass;

SET client_min_messages = warning;
DELETE FROM rowkeeper._maintain_log WHERE table_schema = 'partition_like';
DROP SCHEMA partition_like, partition_elsewhere CASCADE;
DROP OWNED BY regress_rk_owner, regress_rk_reader, regress_rk_tenant;
DROP ROLE regress_rk_owner, regress_rk_reader, regress_rk_tenant;
