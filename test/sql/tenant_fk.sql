-- Foreign keys with the tenant in them.
\set VERBOSITY terse
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
RESET client_min_messages;
CREATE SCHEMA tenant_fk;
CREATE ROLE tenant_fk_owner;
GRANT ALL ON SCHEMA tenant_fk TO tenant_fk_owner;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_fk_owner', 'set');
SET search_path = tenant_fk;
SET ROLE tenant_fk_owner;
CREATE TABLE orders (id int PRIMARY KEY, tenant_id int);
CREATE TABLE lines (id int PRIMARY KEY, tenant_id int, order_id int REFERENCES orders ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE notes (tenant_id int, order_id int CONSTRAINT "Of Order" REFERENCES orders ON DELETE SET NULL);
INSERT INTO orders VALUES (1, 1), (2, 2);
INSERT INTO lines VALUES (10, 1, 1), (20, 2, 2), (30, 1, 2), (31, 1, 2), (40, 1, NULL);
INSERT INTO notes VALUES (1, 1), (2, 2), (2, NULL);
SELECT rowkeeper.tenant_fk('lines', 'orders');
SELECT count(*) FROM rowkeeper.tenant('orders');
SELECT rowkeeper.tenant_fk('lines', 'orders');
SELECT count(*) FROM rowkeeper.tenant('lines');
SELECT count(*) FROM rowkeeper.tenant('notes');
-- the owner, without a claim, sees no row; what we count is what there is
SELECT rowkeeper.tenant_fk('lines', 'orders');
-- what the owner's own validation says of the same rows
BEGIN;
SET LOCAL rowkeeper.tenant_strict = off;
ALTER TABLE orders ADD UNIQUE (tenant_id, id);
ALTER TABLE lines ADD CONSTRAINT own FOREIGN KEY (tenant_id, order_id) REFERENCES orders (tenant_id, id) NOT VALID;
ALTER TABLE lines VALIDATE CONSTRAINT own;
ROLLBACK;
RESET ROLE;
DELETE FROM lines WHERE id IN (30, 31);
SET ROLE tenant_fk_owner;
SELECT rowkeeper.tenant_fk('lines', 'orders');
SELECT rowkeeper.tenant_fk('lines', 'orders');
SELECT rowkeeper.tenant_fk('notes', 'orders');
SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint WHERE conrelid IN ('lines'::regclass, 'notes'::regclass) AND contype = 'f' ORDER BY conname COLLATE "C";
-- another tenant's order
BEGIN;
SELECT rowkeeper.tenant_set(1);
INSERT INTO notes (order_id) VALUES (2);
ROLLBACK;
BEGIN;
SELECT rowkeeper.tenant_set(1);
INSERT INTO notes (order_id) VALUES (1);
-- a cleared key keeps the tenant
DELETE FROM orders;
SELECT * FROM notes;
COMMIT;
-- a large child: not valid first, then validated
CREATE TABLE parts (tenant_id int NOT NULL, order_id int REFERENCES orders);
CREATE INDEX ON parts (tenant_id);
INSERT INTO parts VALUES (2, 2), (2, 2), (2, 2);
SELECT count(*) FROM rowkeeper.tenant('parts');
SET rowkeeper.inline_rows = 2;
SELECT rowkeeper.tenant_fk('parts', 'orders');
SELECT check_name, detail, remedy FROM rowkeeper.doctor('tenant_fk', 'tenant') WHERE check_name = 'foreign_key' AND object ~ 'parts' ORDER BY detail;
SELECT rowkeeper.tenant_fk('parts', 'orders');
SELECT conname, convalidated FROM pg_constraint WHERE conrelid = 'parts'::regclass AND contype = 'f';
SELECT check_name, detail FROM rowkeeper.doctor('tenant_fk', 'tenant') WHERE check_name = 'foreign_key';
-- nothing is found of a key that is not enforced, which 18 has
CREATE TABLE loose (tenant_id int, id int PRIMARY KEY);
CREATE TABLE loose_parts (tenant_id int, id int PRIMARY KEY, loose int);
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('loose');
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('loose_parts');
SELECT current_setting('server_version_num')::int >= 180000 AS unenforced \gset
\if :unenforced
ALTER TABLE loose_parts ADD FOREIGN KEY (loose) REFERENCES loose NOT ENFORCED;
\endif
SELECT detail FROM rowkeeper.doctor('tenant_fk', 'tenant') WHERE check_name = 'foreign_key' AND object ~ 'loose';
-- a large parent without the key: what to run first
CREATE TABLE big (id int PRIMARY KEY, tenant_id int NOT NULL);
CREATE INDEX ON big (tenant_id);
INSERT INTO big VALUES (1, 1), (2, 1), (3, 1);
CREATE TABLE small (tenant_id int NOT NULL, big int REFERENCES big);
SELECT count(*) FROM rowkeeper.tenant('big');
SELECT count(*) FROM rowkeeper.tenant('small');
\set VERBOSITY default
SELECT rowkeeper.tenant_fk('small', 'big');
\set VERBOSITY terse
RESET rowkeeper.inline_rows;
-- partitioned
CREATE TABLE events (tenant_id int, big int REFERENCES big, at date) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO events VALUES (1, 1, '2026-05-05'), (2, 1, '2026-05-06');
SELECT count(*) FROM rowkeeper.tenant('events');
SELECT rowkeeper.tenant_fk('events', 'big');
RESET ROLE;
DELETE FROM events WHERE tenant_id = 2;
SET ROLE tenant_fk_owner;
SELECT rowkeeper.tenant_fk('events', 'big');
-- refused
CREATE TABLE odd (tenant_id int NOT NULL, big int REFERENCES big ON UPDATE SET NULL);
SELECT count(*) FROM rowkeeper.tenant('odd');
SELECT rowkeeper.tenant_fk('odd', 'big');
SELECT rowkeeper.tenant_fk('big', 'small');
SELECT rowkeeper.tenant_fk(NULL, 'small');
RESET ROLE;
CREATE TABLE others (tenant_id int);
SET ROLE tenant_fk_owner;
SELECT rowkeeper.tenant_fk('big', 'others');
-- a key with the tenant that does something else is no substitute
ALTER TABLE big ADD UNIQUE (tenant_id, id);
CREATE TABLE cascading (tenant_id int NOT NULL, big int REFERENCES big ON DELETE CASCADE,
	FOREIGN KEY (tenant_id, big) REFERENCES big (tenant_id, id));
CREATE TABLE clearing (tenant_id int NOT NULL, big int REFERENCES big ON DELETE SET NULL DEFERRABLE,
	FOREIGN KEY (big, tenant_id) REFERENCES big (id, tenant_id) ON DELETE SET NULL (big) DEFERRABLE);
SELECT count(*) FROM rowkeeper.tenant('cascading');
SELECT count(*) FROM rowkeeper.tenant('clearing');
\set VERBOSITY default
SELECT rowkeeper.tenant_fk('cascading', 'big');
\set VERBOSITY terse
ALTER TABLE cascading DROP CONSTRAINT cascading_tenant_id_big_fkey;
SELECT rowkeeper.tenant_fk('cascading', 'big');
SELECT rowkeeper.tenant_fk('clearing', 'big');
-- MATCH FULL of several columns would be less
CREATE TABLE pairs (a int, b int, tenant_id int NOT NULL, PRIMARY KEY (a, b));
CREATE TABLE full_pairs (tenant_id int NOT NULL, a int, b int, FOREIGN KEY (a, b) REFERENCES pairs MATCH FULL);
SELECT count(*) FROM rowkeeper.tenant('pairs');
SELECT count(*) FROM rowkeeper.tenant('full_pairs');
\set VERBOSITY default
SELECT rowkeeper.tenant_fk('full_pairs', 'pairs');
-- rows without a tenant: nothing would check them
CREATE TABLE shared (id int PRIMARY KEY, tenant_id int);
CREATE TABLE of_shared (tenant_id int NOT NULL, id int REFERENCES shared, big int REFERENCES big);
SELECT count(*) FROM rowkeeper.tenant('shared', shared => true);
SELECT count(*) FROM rowkeeper.tenant('of_shared');
SELECT rowkeeper.tenant_fk('of_shared', 'shared');
SELECT count(*) FROM rowkeeper.tenant('of_shared', shared => true);
SELECT rowkeeper.tenant_fk('of_shared', 'big');
SELECT object, detail, remedy FROM rowkeeper.doctor('tenant_fk', 'tenant') WHERE check_name = 'foreign_key' AND object ~ 'shared' ORDER BY detail;
-- two owners: each sees of the other's table what a tenant sees
RESET ROLE;
CREATE ROLE tenant_fk_other;
CREATE TABLE of_other (tenant_id int NOT NULL, big int REFERENCES big);
INSERT INTO of_other VALUES (2, 1);
ALTER TABLE of_other OWNER TO tenant_fk_other;
GRANT ALL ON SCHEMA tenant_fk TO tenant_fk_other;
GRANT SELECT, REFERENCES ON big TO tenant_fk_other;
SELECT count(*) FROM rowkeeper.tenant('of_other');
SELECT rowkeeper.tenant_fk('of_other', 'big');
\set VERBOSITY terse
GRANT tenant_fk_other TO tenant_fk_owner;
SELECT rowkeeper.tenant_fk('of_other', 'big');
REVOKE tenant_fk_other FROM tenant_fk_owner;
GRANT tenant_fk_owner TO tenant_fk_other;
SELECT rowkeeper.tenant_fk('of_other', 'big');
UPDATE of_other SET tenant_id = 1;
SELECT rowkeeper.tenant_fk('of_other', 'big');
SET client_min_messages = warning;
DROP SCHEMA tenant_fk CASCADE;
DROP ROLE tenant_fk_other;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_fk_owner', 'none');
DROP ROLE tenant_fk_owner;
