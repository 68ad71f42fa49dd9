-- Tenant isolation of partitioned tables: every partition, whoever makes it.
\set VERBOSITY terse
\pset format unaligned
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA tenant_parts;
CREATE ROLE tenant_parts_owner;
CREATE ROLE tenant_parts_app;
GRANT ALL ON SCHEMA tenant_parts TO tenant_parts_owner;
GRANT USAGE ON SCHEMA tenant_parts TO tenant_parts_app;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_parts_app', 'set');
RESET client_min_messages;
SET search_path = tenant_parts;
ALTER DEFAULT PRIVILEGES IN SCHEMA tenant_parts GRANT SELECT ON TABLES TO tenant_parts_app;

SET ROLE tenant_parts_owner;
ALTER DEFAULT PRIVILEGES IN SCHEMA tenant_parts GRANT SELECT ON TABLES TO tenant_parts_app;
CREATE TABLE events (id int, tenant_id int, at date) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY HASH (tenant_id);
CREATE TABLE events_2a PARTITION OF events_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE events_2b PARTITION OF events_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO events SELECT i, i % 2, date '2026-01-01' + i FROM generate_series(1, 50) i;
SELECT step FROM rowkeeper.tenant('events') step WHERE step !~ 'TRIGGER';
SELECT rowkeeper.tenant('events');
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
	(SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid) AS policies
FROM pg_class c WHERE relnamespace = 'tenant_parts'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1;
SELECT rowkeeper.tenant('events_1');
SELECT rowkeeper.tenant_off('events_1');

-- later partitions: made, attached, attached with partitions of their own
CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
CREATE TABLE events_4 (id int NOT NULL, tenant_id int NOT NULL, at date NOT NULL);
INSERT INTO events_4 VALUES (900, 1, '2026-04-02'), (901, 0, '2026-04-02');
ALTER TABLE events ATTACH PARTITION events_4 FOR VALUES FROM ('2026-04-01') TO ('2026-05-01');
CREATE TABLE events_5 (id int NOT NULL, tenant_id int NOT NULL, at date NOT NULL) PARTITION BY LIST (tenant_id);
CREATE TABLE events_5a PARTITION OF events_5 DEFAULT;
ALTER TABLE events ATTACH PARTITION events_5 FOR VALUES FROM ('2026-05-01') TO ('2026-06-01');
CREATE TABLE events_5b PARTITION OF events_5 FOR VALUES IN (7);
RESET ROLE;
CREATE SCHEMA tenant_parts_more AUTHORIZATION tenant_parts_owner CREATE TABLE events_6 PARTITION OF tenant_parts.events FOR VALUES FROM ('2026-06-01') TO ('2026-07-01');
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
	(SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid) AS policies,
	(SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = c.oid) AS "default"
FROM pg_class c WHERE relname ~ '^events_[3456]' AND relkind IN ('r', 'p') ORDER BY 1;
SELECT rowkeeper.tenant('events');
CREATE EXTENSION postgres_fdw;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;
CREATE FOREIGN TABLE events_7 PARTITION OF events FOR VALUES FROM ('2026-07-01') TO ('2026-08-01') SERVER elsewhere;
DROP EXTENSION postgres_fdw CASCADE;

-- the partitions read directly, and the tree
SET ROLE tenant_parts_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT tableoid::regclass, count(*), min(tenant_id), max(tenant_id) FROM events GROUP BY 1 ORDER BY 1;
SELECT count(*) FILTER (WHERE tenant_id <> 1) AS foreign_rows, count(*) FROM events_1;
SELECT count(*) FILTER (WHERE tenant_id <> 1) AS foreign_rows, count(*) FROM events_2;
SELECT count(*) FILTER (WHERE tenant_id <> 1) AS foreign_rows, count(*) FROM events_2a;
SELECT count(*) FILTER (WHERE tenant_id <> 1) AS foreign_rows, count(*) FROM events_4;
SELECT rowkeeper.tenant_set(7);
-- pruned by the claim
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_indexscan = off;
EXPLAIN (COSTS off) SELECT * FROM events_5;
COMMIT;
RESET ROLE;
-- a partition does not leave alone
SELECT rowkeeper.leave('events_1');
-- a detached partition stays isolated
ALTER TABLE events DETACH PARTITION events_4;
SELECT rowkeeper.tenant('events_4');
SELECT target FROM rowkeeper.features WHERE feature = 'tenant' ORDER BY target::text;
-- a column renamed is followed everywhere
ALTER TABLE events RENAME tenant_id TO account;
SELECT rowkeeper.tenant('events');
SELECT DISTINCT convert_from(substring(t.tgargs, 1, octet_length(t.tgargs) - 1), 'UTF8')::jsonb ->> 'tenant'
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relname ~ '^events_[1235]' AND tgname = 'rowkeeper_tenant';
-- a large one: an index on each partition first
CREATE TABLE big (tenant_id int NOT NULL, at date) PARTITION BY RANGE (at);
CREATE TABLE big_1 PARTITION OF big FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE big_2 PARTITION OF big FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
INSERT INTO big VALUES (1, '2026-05-05'), (1, '2027-05-05');
SET rowkeeper.inline_rows = 1;
\set VERBOSITY default
SELECT rowkeeper.tenant('big');
\set VERBOSITY terse
RESET rowkeeper.inline_rows;
-- hash partitions are pruned by the claim, an order by the rest of an index is kept
CREATE TABLE hashed (tenant_id int, at date) PARTITION BY HASH (tenant_id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE hashed_2 PARTITION OF hashed FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE hashed_3 PARTITION OF hashed FOR VALUES WITH (MODULUS 4, REMAINDER 3);
SELECT count(*) > 20 FROM rowkeeper.tenant('hashed');
CREATE TABLE ordered (tenant_id int NOT NULL, at date);
CREATE INDEX ON ordered (tenant_id, at);
INSERT INTO ordered SELECT i % 10, date '2026-01-01' + i FROM generate_series(1, 1000) i;
SELECT count(*) FROM rowkeeper.tenant('ordered');
GRANT SELECT ON hashed, ordered TO tenant_parts_app;
ANALYZE ordered;
CREATE FUNCTION pg_temp.estimate(query text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan; RETURN plan -> 0 -> 'Plan' ->> 'Plan Rows'; END$$;
SET ROLE tenant_parts_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_indexscan = off;
EXPLAIN (COSTS off) SELECT * FROM hashed;
SET LOCAL enable_indexscan = on;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_indexonlyscan = off;
EXPLAIN (COSTS off) SELECT * FROM ordered ORDER BY at LIMIT 10;
-- and the estimate is that of the comparison alone
SELECT pg_temp.estimate('SELECT * FROM ordered') BETWEEN 80 AND 120;
COMMIT;
RESET ROLE;
-- off, everywhere
SELECT count(*) > 20 FROM rowkeeper.tenant_off('events');
SELECT count(*) FROM pg_policy p JOIN pg_class c ON c.oid = polrelid WHERE relname ~ '^events' AND relname <> 'events_4';
SELECT c.relname FROM pg_class c WHERE relname ~ '^events' AND (relrowsecurity OR relforcerowsecurity);
-- leave: the isolation stays, by settings that an application sets itself
SELECT rowkeeper.leave('events_4');
SET ROLE tenant_parts_app;
SELECT count(*) FROM events_4;
SET app.tenant_id = '1';
SELECT count(*), min(tenant_id) FROM events_4;
RESET ROLE;

SET client_min_messages = warning;
DROP SCHEMA tenant_parts, tenant_parts_more CASCADE;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_parts_app', 'none');
DROP ROLE tenant_parts_owner, tenant_parts_app;
