-- Partitions that are made later have what their table has: audit, stamps and
-- soft delete in both modes do their job there as well.
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

DELETE FROM rowkeeper._maintain_log WHERE table_schema = 'partition_together';
DROP SCHEMA partition_together CASCADE;
