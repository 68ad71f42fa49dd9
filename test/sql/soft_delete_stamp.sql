-- Stamps, soft delete and audit on one table, in both modes: they name the same
-- actor, a delete and a restore are one change each, and a row that comes back is
-- the row that went.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA sd_stamp;
SET search_path = sd_stamp;
\pset format unaligned

-- f_: flag, t_: trash; a parent, its children, and a partitioned table that
-- references the parent as well
CREATE FUNCTION make(p text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE %1$I (id int PRIMARY KEY, name text)', p || '_orders');
	EXECUTE format('CREATE TABLE %1$I (id int PRIMARY KEY, o int REFERENCES %2$I ON DELETE CASCADE)', p || '_lines', p || '_orders');
	EXECUTE format('CREATE TABLE %1$I (day int, id int, o int REFERENCES %2$I ON DELETE CASCADE, PRIMARY KEY (day, id)) PARTITION BY RANGE (day)', p || '_days', p || '_orders');
	EXECUTE format('CREATE TABLE %1$I PARTITION OF %2$I FOR VALUES FROM (0) TO (10)', p || '_days_1', p || '_days');
	-- another layout
	EXECUTE format('CREATE TABLE %1$I (gone int, o int, id int NOT NULL, day int NOT NULL)', p || '_days_2');
	EXECUTE format('ALTER TABLE %1$I DROP COLUMN gone', p || '_days_2');
	EXECUTE format('ALTER TABLE %2$I ATTACH PARTITION %1$I FOR VALUES FROM (10) TO (20)', p || '_days_2', p || '_days');
	PERFORM rowkeeper.audit(t::regclass), rowkeeper.soft_delete(t::regclass, mode => CASE p WHEN 't' THEN 'trash' ELSE 'flag' END),
		rowkeeper.stamp(t::regclass, version => 'version', created_at => 'created_at', created_by => 'created_by', updated_by => 'updated_by')
		FROM unnest(ARRAY[p || '_lines', p || '_days', p || '_orders']) t;
END$$;
SELECT make('f'), make('t') \g /dev/null
\set mark 'SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log'
\set log 'SELECT table_name, action, record_id, actor, changed_fields FROM rowkeeper.audit_log WHERE table_schema = ''sd_stamp'' AND id > :seen ORDER BY table_name COLLATE "C", record_id::text COLLATE "C", id'
\set flag 'SELECT r.t, r.id, r.version, r.created_by, r.created_at = n.created_at AS created_then, r.updated_by, r.updated_at = n.updated_at AS updated_then, r.deleted_at = r.updated_at AS deleted_with_it, r.deleted_by, r.delete_batch IS NOT NULL AS batch FROM (SELECT ''orders'' AS t, id, version, created_at, created_by, updated_at, updated_by, deleted_at, deleted_by, delete_batch FROM f_orders UNION ALL SELECT ''lines'', id, version, created_at, created_by, updated_at, updated_by, deleted_at, deleted_by, delete_batch FROM f_lines UNION ALL SELECT ''days'', id, version, created_at, created_by, updated_at, updated_by, deleted_at, deleted_by, delete_batch FROM f_days) r JOIN noted n USING (t, id) ORDER BY 1 DESC, 2'
\set trash 'SELECT r.t, r.id, r.version, r.created_by, r.created_at = n.created_at AS created_then, r.updated_by, r.updated_at = n.updated_at AS updated_then, r._deleted_by, r._batch IS NOT NULL AS batch FROM (SELECT ''orders'' AS t, id, version, created_at, created_by, updated_at, updated_by, _deleted_by, _batch FROM t_orders_with_deleted UNION ALL SELECT ''lines'', id, version, created_at, created_by, updated_at, updated_by, _deleted_by, _batch FROM t_lines_with_deleted UNION ALL SELECT ''days'', id, version, created_at, created_by, updated_at, updated_by, _deleted_by, _batch FROM t_days_with_deleted) r JOIN noted n USING (t, id) ORDER BY 1 DESC, 2'

-- ann makes the rows, bob changes the first order
SET app.user_id = 'ann';
INSERT INTO f_orders VALUES (1, 'a'), (2, 'a'); INSERT INTO t_orders VALUES (1, 'a'), (2, 'a');
INSERT INTO f_lines VALUES (1, 1), (2, 2); INSERT INTO t_lines VALUES (1, 1), (2, 2);
INSERT INTO f_days VALUES (1, 1, 1), (11, 2, 1), (2, 3, 2); INSERT INTO t_days VALUES (1, 1, 1), (11, 2, 1), (2, 3, 2);
SET app.user_id = 'bob';
UPDATE f_orders SET name = 'b' WHERE id = 1; UPDATE t_orders SET name = 'b' WHERE id = 1;
CREATE TABLE noted AS
	SELECT 'orders' AS t, id, created_at, updated_at FROM f_orders UNION ALL
	SELECT 'lines', id, created_at, updated_at FROM f_lines UNION ALL
	SELECT 'days', id, created_at, updated_at FROM f_days;

-- flag: carol deletes an order, and it takes its lines and days along
SET app.user_id = 'carol';
:mark \gset
DELETE FROM active_f_orders WHERE id = 1 RETURNING id;
:flag;
:log;
-- dave brings it back, with them
SET app.user_id = 'dave';
:mark \gset
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('f_orders', 1) ORDER BY 1, 2;
:flag;
:log;
-- a mapper deletes by UPDATE, and sends the version that it wants to see
SET app.user_id = 'carol';
:mark \gset
UPDATE f_orders SET deleted_at = now(), version = version + 1 WHERE id = 2 RETURNING version;
:log;
SET app.user_id = 'dave';
:mark \gset
UPDATE f_orders SET deleted_at = NULL WHERE id = 2 RETURNING version;
SELECT id, version, updated_by, deleted_by, delete_batch FROM f_orders WHERE id = 2;
:log;
-- a whole batch
SET app.user_id = 'carol';
UPDATE f_lines SET deleted_at = NULL;
UPDATE f_days SET deleted_at = NULL;
DELETE FROM active_f_orders;
SELECT max(batch) AS batch FROM rowkeeper.soft_delete_batches WHERE table_schema = 'sd_stamp' \gset
SET app.user_id = 'dave';
:mark \gset
SELECT table_name, count(*) FROM rowkeeper.soft_delete_restore_batch(:batch) GROUP BY 1 ORDER BY 1;
:flag;
:log;
-- partitions by themselves; a row that moves meanwhile was created when it was
SET app.user_id = 'carol';
:mark \gset
DELETE FROM active_f_days WHERE id = 2;
UPDATE f_days SET deleted_at = now() WHERE id = 3;
UPDATE f_days SET day = 15 WHERE id = 3;
SET app.user_id = 'dave';
SELECT record_id FROM rowkeeper.soft_delete_restore('f_days', 15, 3);
SELECT record_id FROM rowkeeper.soft_delete_restore('f_days', 11, 2);
:flag;
:log;

-- trash: the stamps are as bob and ann left them, in the trash and after it
UPDATE noted n SET created_at = r.created_at, updated_at = r.updated_at FROM (
	SELECT 'orders' AS t, id, created_at, updated_at FROM t_orders UNION ALL
	SELECT 'lines', id, created_at, updated_at FROM t_lines UNION ALL
	SELECT 'days', id, created_at, updated_at FROM t_days) r WHERE n.t = r.t AND n.id = r.id;
SET app.user_id = 'carol';
:mark \gset
DELETE FROM t_orders WHERE id = 1 RETURNING id;
:trash;
:log;
SET app.user_id = 'dave';
:mark \gset
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('t_orders', 1) ORDER BY 1, 2;
:trash;
:log;
SET app.user_id = 'carol';
DELETE FROM t_orders;
SELECT max(batch) AS batch FROM rowkeeper.soft_delete_batches WHERE table_schema = 'sd_stamp' \gset
SET app.user_id = 'dave';
:mark \gset
SELECT table_name, count(*) FROM rowkeeper.soft_delete_restore_batch(:batch) GROUP BY 1 ORDER BY 1;
:trash;
:log;
SET app.user_id = 'carol';
:mark \gset
DELETE FROM t_days_2 WHERE id = 2;
SET app.user_id = 'dave';
SELECT record_id FROM rowkeeper.soft_delete_restore('t_days', 11, 2);
SELECT id, version, created_by, updated_by FROM t_days WHERE id = 2;
:log;
-- stamped after the delete: what the row had no stamp for, the restore gives it
CREATE TABLE plain (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('plain', mode => 'trash') \g /dev/null
INSERT INTO plain VALUES (1);
DELETE FROM plain;
SELECT rowkeeper.stamp('plain', version => 'version', created_by => 'created_by', updated_by => 'updated_by') \g /dev/null
SELECT record_id FROM rowkeeper.soft_delete_restore('plain', 1);
SELECT id, version, created_by, updated_by, updated_at <= now() AS stamped FROM plain;
-- a stale version does not delete: nothing is in the batches, nothing in the log
SELECT rowkeeper.stamp('f_orders', client_version => 'next', stale => 'error') \g /dev/null
:mark \gset
UPDATE f_orders SET deleted_at = now(), version = 2 WHERE id = 1;
SELECT rowkeeper.stamp('f_orders', stale => 'skip') \g /dev/null
UPDATE f_orders SET deleted_at = now(), version = 2 WHERE id = 1;
SELECT count(*) FROM active_f_orders;
:log;
-- the strictest options of stamp() let deletes and restores pass: through the
-- view, by UPDATE, MERGE and ON CONFLICT, out of the trash
SELECT rowkeeper.stamp(t, client_value => 'error', stale => 'error', client_version => 'next', clock => 'monotonic', on_noop => 'suppress')
	FROM unnest('{f_orders,t_orders}'::regclass[]) t \g /dev/null
CREATE TABLE version_was AS SELECT id, version FROM f_orders;
:mark \gset
DELETE FROM active_f_orders WHERE id = 1;
MERGE INTO f_orders f USING (VALUES (2)) s (id) ON f.id = s.id WHEN MATCHED THEN UPDATE SET deleted_at = now();
SELECT record_id FROM rowkeeper.soft_delete_restore('f_orders', 1) WHERE table_name = 'f_orders';
INSERT INTO f_orders (id, name) VALUES (2, 'c') ON CONFLICT (id) DO UPDATE SET deleted_at = NULL, name = excluded.name;
SELECT f.id, f.name, f.version - v.version AS bumps, f.deleted_by, f.delete_batch FROM f_orders f JOIN version_was v USING (id) ORDER BY id;
DELETE FROM t_orders WHERE id = 1;
SELECT record_id FROM rowkeeper.soft_delete_restore('t_orders', 1) WHERE table_name = 't_orders';
SELECT id, name, version FROM t_orders ORDER BY id;
SELECT table_name, action, record_id FROM rowkeeper.audit_log WHERE table_name IN ('f_orders', 't_orders') AND id > :seen ORDER BY id;
SELECT record_id FROM rowkeeper.soft_delete_restore_batch((SELECT max(batch) FROM rowkeeper.soft_delete_batches WHERE table_schema = 'sd_stamp')) ORDER BY 1;
-- nothing is left that could be restored, and nothing was deleted for good
SELECT table_name, rows FROM rowkeeper.soft_delete_batches WHERE table_schema = 'sd_stamp';
SELECT count(*) FROM rowkeeper.audit_log WHERE table_schema = 'sd_stamp' AND action = 'DELETE';
SELECT check_name, detail FROM rowkeeper.doctor('sd_stamp') WHERE level <> 'info';

RESET app.user_id;
SELECT rowkeeper.soft_delete_off(t) FROM unnest('{t_orders,t_lines,t_days,plain}'::regclass[]) t \g /dev/null
DROP SCHEMA sd_stamp CASCADE;
DROP TABLE rowkeeper_trash.sd_stamp__t_orders, rowkeeper_trash.sd_stamp__t_lines, rowkeeper_trash.sd_stamp__t_days, rowkeeper_trash.sd_stamp__plain;
