-- Partitions that are made later have what their table has: audit, stamps, soft
-- delete in both modes and the isolation of tenants do their job there as well.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA partition_together;
SET search_path = partition_together;
\pset null '(null)'
CREATE TABLE flagged (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE trashed (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
SELECT rowkeeper.audit('flagged') \g /dev/null
SELECT rowkeeper.stamp('flagged', version => 'version') \g /dev/null
SELECT rowkeeper.soft_delete('flagged') \g /dev/null
SELECT rowkeeper.partition('flagged', 'id', '10', keep => '20') \g /dev/null
SELECT rowkeeper.partition('trashed', 'id', '10', ahead => '15') \g /dev/null
SELECT rowkeeper.stamp('trashed', version => 'version') \g /dev/null
SELECT rowkeeper.soft_delete('trashed', mode => 'trash') \g /dev/null
SELECT rowkeeper.audit('trashed') \g /dev/null
INSERT INTO flagged VALUES (1, 'old'), (35, 'a');
INSERT INTO trashed VALUES (1, 'old'), (15, 'a');
CALL rowkeeper.maintain('flagged');
CALL rowkeeper.maintain('trashed');
CALL rowkeeper.maintain('trashed');
SELECT table_name, task, changed, error FROM rowkeeper.maintain_log WHERE table_schema = 'partition_together' ORDER BY ran_at;
SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log \gset

-- rows of partitions that maintenance made
INSERT INTO flagged (id, v) VALUES (55, 'new'), (62, 'new');
UPDATE flagged SET v = 'newer' WHERE id = 55;
UPDATE flagged SET id = 71 WHERE id = 62;
DELETE FROM active_flagged WHERE id = 55;
SELECT id, v, version, deleted_at IS NOT NULL AS deleted FROM flagged WHERE id > 40 ORDER BY 1;
INSERT INTO trashed (id, v) VALUES (16, 'new'), (22, 'new');
DELETE FROM trashed WHERE id = 22;
SELECT id, v, version FROM trashed_with_deleted WHERE id > 15 ORDER BY 1;
SELECT table_name, action, record_id, old_data - '{updated_at,deleted_at,delete_batch,deleted_by}'::text[] AS old, new_data - '{updated_at,deleted_at,delete_batch,deleted_by}'::text[] AS new
FROM rowkeeper.audit_log WHERE id > :seen ORDER BY id;
SELECT relname, array_agg(tgname || ' ' || tgenabled::text ORDER BY tgname COLLATE "C") FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
WHERE relname IN ('flagged_p70', 'trashed_p20') AND NOT tgisinternal GROUP BY 1 ORDER BY 1;

-- retention: the rows go, the log says so
CALL rowkeeper.maintain('flagged');
SELECT action, count(*) FROM rowkeeper.audit_log WHERE id > :seen AND table_name = 'flagged' GROUP BY 1 ORDER BY 1;
SELECT min(id) FROM flagged;
SELECT feature, check_name, object, detail FROM rowkeeper.doctor('partition_together') WHERE check_name NOT IN ('unique', 'hot');

-- leave(): every feature goes, partitions and rows stay
SELECT count(*) > 0 AS left FROM rowkeeper.leave('flagged');
SELECT count(*) > 0 AS left FROM rowkeeper.leave('trashed');
SELECT feature FROM rowkeeper.features WHERE target IN ('flagged'::regclass, 'trashed'::regclass);
SELECT count(*) FROM pg_inherits WHERE inhparent = 'flagged'::regclass;
INSERT INTO flagged (id) VALUES (72);

-- a migration: everything in one transaction
BEGIN;
CREATE TABLE accounts (id int PRIMARY KEY);
CREATE TABLE bookings (id int PRIMARY KEY, account int REFERENCES accounts) PARTITION BY RANGE (id);
SELECT rowkeeper.partition('bookings', 'id', '10', ahead => '15') \g /dev/null
SELECT rowkeeper.audit('bookings') \g /dev/null
SELECT rowkeeper.stamp('bookings') \g /dev/null
SELECT rowkeeper.soft_delete('bookings') \g /dev/null
INSERT INTO accounts VALUES (1);
INSERT INTO bookings (id, account) VALUES (1, 1), (11, 1);
SELECT rowkeeper.partition('bookings', ahead => '25') \g /dev/null
COMMIT;
SELECT relid FROM pg_partition_tree('bookings') WHERE isleaf ORDER BY relid::regclass::text COLLATE "C";
CALL rowkeeper.maintain('bookings');
SELECT relid FROM pg_partition_tree('bookings') WHERE isleaf ORDER BY relid::regclass::text COLLATE "C";

-- all five on one table: a tenant who looks straight into a new partition sees
-- his own rows there
CREATE ROLE partition_together_owner;
CREATE ROLE partition_together_app;
CREATE SCHEMA partition_together_old AUTHORIZATION partition_together_owner;
GRANT ALL ON SCHEMA partition_together TO partition_together_owner;
GRANT USAGE ON SCHEMA partition_together, partition_together_old TO partition_together_app;
SELECT rowkeeper.tenant_role('partition_together_app', 'set') \g /dev/null
SET ROLE partition_together_owner;
CREATE TABLE purchases (id int PRIMARY KEY, tenant_id int, v text) PARTITION BY RANGE (id);
CREATE TABLE purchases_first PARTITION OF purchases FOR VALUES FROM (0) TO (10) PARTITION BY HASH (id);
CREATE TABLE purchases_first_a PARTITION OF purchases_first FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE purchases_first_b PARTITION OF purchases_first FOR VALUES WITH (MODULUS 2, REMAINDER 1);
GRANT SELECT, INSERT, UPDATE, DELETE ON purchases TO partition_together_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA partition_together GRANT ALL ON TABLES TO partition_together_app;
ALTER TABLE purchases ENABLE ROW LEVEL SECURITY;
CREATE POLICY open ON purchases FOR SELECT USING (v IS DISTINCT FROM 'secret');
SELECT rowkeeper.tenant('purchases') \g /dev/null
SELECT rowkeeper.soft_delete('purchases') \g /dev/null
SELECT rowkeeper.audit('purchases') \g /dev/null
SELECT rowkeeper.stamp('purchases', version => 'version') \g /dev/null
SELECT rowkeeper.partition('purchases', keep => '15', on_expiry => 'archive', archive_schema => 'partition_together_old', ahead => '25');
-- isolated before it is attached, with the flags that its table had
SELECT c.relname, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
	(SELECT array_agg(polname ORDER BY polname) FROM pg_policy p WHERE p.polrelid = c.oid) AS policies,
	rowkeeper._tenant_options(c.oid) ->> 'was_enabled' AS was_enabled, rowkeeper._tenant_is_intact(c.oid) AS intact
FROM pg_class c WHERE c.relnamespace = 'partition_together'::regnamespace AND c.relname ~ '^purchases' AND c.relkind IN ('r', 'p') ORDER BY 1;
SET ROLE partition_together_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
INSERT INTO purchases (id, v) VALUES (1, 'a'), (11, 'b'), (21, 'c');
COMMIT;
BEGIN;
SELECT rowkeeper.tenant_set(2);
INSERT INTO purchases (id, v) VALUES (2, 'd'), (3, 'e'), (12, 'f'), (22, 'secret');
COMMIT;
RESET ROLE;
CALL rowkeeper.maintain('purchases');
SET ROLE partition_together_app;
BEGIN;
SELECT rowkeeper.tenant_set(2);
INSERT INTO purchases (id, v) VALUES (31, 'g'), (32, 'h');
DELETE FROM active_purchases WHERE id IN (2, 32);
SELECT id, tenant_id, v, version, deleted_at IS NOT NULL AS deleted FROM purchases_p30 ORDER BY id;
COMMIT;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT (SELECT count(*) FROM purchases_p30) AS all_of_p30, (SELECT count(*) FROM purchases_p30_a) + (SELECT count(*) FROM purchases_p30_b) AS its_leaves,
	(SELECT array_agg(id) FROM purchases_p20) AS own_in_p20;
UPDATE purchases_p30_a SET v = 'mine';
UPDATE purchases_p30_b SET v = 'mine';
INSERT INTO purchases_p30 (id, tenant_id) VALUES (33, 2);
ROLLBACK;
SELECT count(*) FROM purchases_p30_b;
TRUNCATE purchases_p30_b;
RESET ROLE;

-- what is archived is a table of its own, with all that was below it, and its
-- tenants are isolated still
SELECT * FROM rowkeeper.partition_plan('purchases') WHERE partition_plan ~ 'first';
CALL rowkeeper.maintain('purchases');
SELECT task, changed, error FROM rowkeeper.maintain_log WHERE table_name = 'purchases' ORDER BY ran_at;
SELECT c.oid::regclass AS archived, c.relrowsecurity AND c.relforcerowsecurity AS forced, rowkeeper._tenant_is_intact(c.oid) AS intact,
	ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = c.oid ORDER BY 1) AS triggers
FROM pg_class c WHERE c.relnamespace = 'partition_together_old'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1;
SET ROLE partition_together_owner;
GRANT SELECT ON ALL TABLES IN SCHEMA partition_together_old TO partition_together_app;
SET ROLE partition_together_app;
SELECT count(*) FROM partition_together_old.purchases_first;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT id, tenant_id, v FROM partition_together_old.purchases_first;
SELECT count(*) FROM partition_together_old.purchases_first_a WHERE tenant_id <> 1;
SELECT count(*) FROM partition_together_old.purchases_first_b WHERE tenant_id <> 1;
SELECT rowkeeper.tenant_set(2);
SELECT id, tenant_id, v, deleted_at IS NOT NULL AS deleted FROM partition_together_old.purchases_first ORDER BY id;
SELECT id, v FROM active_purchases ORDER BY id;
COMMIT;
RESET ROLE;
SELECT feature, target FROM rowkeeper.features WHERE target IN ('purchases'::regclass, 'partition_together_old.purchases_first'::regclass) ORDER BY feature, target::text COLLATE "C";
SELECT feature, check_name, object FROM rowkeeper.doctor() WHERE object ~ 'partition_together' AND level = 'error' ORDER BY 1, 2, 3;
SELECT count(*) > 0 AS left FROM rowkeeper.leave('partition_together_old.purchases_first');
SELECT polrelid::regclass, array_agg(polname ORDER BY polname) FROM pg_policy WHERE polrelid::regclass::text ~ '_old\.' GROUP BY 1 ORDER BY 1;

-- isolation taken away: partitions that maintenance made are as the table was
SET ROLE partition_together_owner;
SELECT count(*) > 0 AS off FROM rowkeeper.tenant_off('purchases');
SELECT c.relname, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
	(SELECT array_agg(polname ORDER BY polname) FROM pg_policy p WHERE p.polrelid = c.oid) AS policies
FROM pg_class c WHERE c.relname ~ '^purchases(_p30.*)?$' AND c.relkind IN ('r', 'p') ORDER BY 1;

-- a trash: what is in it is the tenants', also where its partition has gone
CREATE TABLE letters (id int PRIMARY KEY, tenant_id int, v text) PARTITION BY RANGE (id);
REVOKE TRUNCATE, REFERENCES, TRIGGER ON letters FROM partition_together_app;
SELECT rowkeeper.partition('letters', 'id', '10', keep => '20', ahead => '25') \g /dev/null
SELECT rowkeeper.soft_delete('letters', mode => 'trash') \g /dev/null
SELECT rowkeeper.tenant('letters') \g /dev/null
SELECT rowkeeper.audit('letters') \g /dev/null
SET ROLE partition_together_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
INSERT INTO letters (id) VALUES (1), (2), (25);
DELETE FROM letters WHERE id = 1;
SELECT rowkeeper.tenant_set(2);
INSERT INTO letters (id) VALUES (3), (28);
DELETE FROM letters WHERE id = 3;
COMMIT;
RESET ROLE;
CALL rowkeeper.maintain('letters');
SET ROLE partition_together_app;
BEGIN;
SELECT rowkeeper.tenant_set(2);
INSERT INTO letters (id) VALUES (31), (42);
DELETE FROM letters WHERE id = 42;
COMMIT;
RESET ROLE;
CALL rowkeeper.maintain('letters');
SELECT task, changed, error FROM rowkeeper.maintain_log WHERE table_name = 'letters' ORDER BY ran_at;
SET ROLE partition_together_app;
BEGIN;
SELECT rowkeeper.tenant_set(2);
SELECT tableoid::regclass, id FROM letters ORDER BY id;
SELECT id, tenant_id, _deleted_at IS NOT NULL AS deleted FROM letters_with_deleted ORDER BY id;
SELECT action, record_id, tenant FROM rowkeeper.audit_log WHERE table_name = 'letters' ORDER BY id;
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('letters', 42);
SELECT count(*) FROM letters_p40;
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('letters', '{"id": 3}', dry_run => true);
SELECT rowkeeper.soft_delete_restore('letters', 1);
ROLLBACK;
RESET ROLE;
SELECT action, record_id, tenant FROM rowkeeper.audit_log WHERE table_name = 'letters' AND action NOT IN ('ALTER', 'ATTACH') ORDER BY id;

-- how many rows a default partition has is not told to who acts for one tenant
CREATE TABLE letters_rest PARTITION OF letters DEFAULT;
INSERT INTO letters (id, tenant_id) VALUES (1000, 1), (1001, 2);
GRANT EXECUTE ON FUNCTION rowkeeper.tenant_set(bigint) TO partition_together_owner;
SET ROLE partition_together_owner;
SELECT default_rows FROM rowkeeper.partition_status WHERE table_name = 'letters';
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT default_rows FROM rowkeeper.partition_status WHERE table_name = 'letters';
COMMIT;
RESET ROLE;

DELETE FROM rowkeeper._maintain_log WHERE table_schema = 'partition_together';
SELECT count(*) FROM rowkeeper.tenant_role('partition_together_app', 'none');
SELECT count(*) FROM rowkeeper.tenant_role('partition_together_owner', 'none');
DROP OWNED BY partition_together_app;
DROP OWNED BY partition_together_owner CASCADE;
DROP SCHEMA partition_together CASCADE;
DROP ROLE partition_together_owner, partition_together_app;
