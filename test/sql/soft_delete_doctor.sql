-- What the doctor finds of soft delete, each thing broken and mended by what it
-- says itself; and that it finds nothing where nothing is wrong. What a remedy
-- does in detail is shown elsewhere.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA sd_doctor;
SET search_path = sd_doctor;
\pset format unaligned
\set findings 'SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor(''sd_doctor'', ''soft_delete'') ORDER BY check_name, object, detail COLLATE "C"'
\set remedies 'SELECT DISTINCT remedy FROM rowkeeper.doctor(''sd_doctor'', ''soft_delete'') WHERE remedy IS NOT NULL ORDER BY remedy'
\set unseen 'ALTER EVENT TRIGGER rowkeeper_ddl_end DISABLE'
\set seen 'ALTER EVENT TRIGGER rowkeeper_ddl_end ENABLE ALWAYS'

-- all in order: both modes, cascades, partitions, a view of another name
CREATE TABLE customers (id int PRIMARY KEY, email text);
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE CASCADE, total int);
CREATE TABLE days (day int PRIMARY KEY, customer int REFERENCES customers) PARTITION BY RANGE (day);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10);
CREATE TABLE notes (id int PRIMARY KEY, body text, _db_user text);
CREATE TABLE note_lines (note int REFERENCES notes ON DELETE CASCADE, n int, PRIMARY KEY (note, n));
CREATE TABLE years (year int PRIMARY KEY) PARTITION BY RANGE (year);
CREATE TABLE years_1 PARTITION OF years FOR VALUES FROM (0) TO (10);
\o /dev/null
SELECT rowkeeper.soft_delete('orders');
SELECT rowkeeper.soft_delete('customers', view_name => 'living');
SELECT rowkeeper.soft_delete('days', on_delete => 'allow');
SELECT rowkeeper.soft_delete(t, mode => 'trash') FROM unnest('{note_lines,years}'::regclass[]) t;
SELECT rowkeeper.soft_delete('notes', mode => 'trash', view_name => 'all_notes');
\o
CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM (10) TO (20);
CREATE TABLE years_2 PARTITION OF years FOR VALUES FROM (10) TO (20);
:findings;
SELECT target, healthy, detail FROM rowkeeper.features WHERE feature = 'soft_delete' AND target::text IN ('customers', 'orders', 'days', 'notes', 'note_lines', 'years') ORDER BY target::text;
SELECT rowkeeper.doctor_assert('info', 'sd_doctor', 'soft_delete');

-- view, in flag mode: hidden, missing, of other rows, past row security, without
-- its trigger, lacking columns
BEGIN;
SELECT rowkeeper.soft_delete_hide_view('orders') \g /dev/null
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;
BEGIN;
DROP VIEW active_orders;
:findings;
SELECT target, healthy, detail FROM rowkeeper.features WHERE target = 'orders'::regclass;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;
BEGIN;
CREATE OR REPLACE VIEW active_orders WITH (security_invoker = true) AS SELECT * FROM orders WHERE deleted_at IS NULL AND id > 0;
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;
BEGIN;
ALTER VIEW active_orders RESET (security_invoker);
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;
BEGIN;
DROP TRIGGER rowkeeper_soft_delete ON active_orders;
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;
BEGIN;
:unseen;
ALTER TABLE orders ADD COLUMN late int;
:seen;
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;
-- view, in trash mode: missing, lacking columns
BEGIN;
SELECT rowkeeper.soft_delete_hide_view('notes') \g /dev/null
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;
BEGIN;
:unseen;
ALTER TABLE notes ADD COLUMN late int;
:seen;
:findings;
\o /dev/null
:remedies \gexec
\o
SELECT check_name FROM rowkeeper.doctor('sd_doctor', 'soft_delete');
ROLLBACK;

-- view_without_table, table_without_options: the row trigger is gone, or the
-- column and all that hung on it
BEGIN;
DROP TRIGGER rowkeeper_soft_delete ON orders;
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;
BEGIN;
ALTER TABLE orders DROP COLUMN deleted_at CASCADE;
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;

-- triggers: missing, disabled; on partitions, in trash mode
BEGIN;
DROP TRIGGER rowkeeper_soft_delete_truncate ON days_2;
DROP TRIGGER rowkeeper_soft_delete_truncate ON notes;
DROP TRIGGER rowkeeper_soft_delete_direct ON orders;
DROP TRIGGER rowkeeper_soft_delete_end ON customers;
ALTER TABLE days_1 DISABLE TRIGGER rowkeeper_soft_delete;
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;

-- columns
BEGIN;
:unseen;
ALTER TABLE orders RENAME COLUMN deleted_by TO who;
:seen;
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;

-- guards
BEGIN;
DROP TRIGGER rowkeeper_soft_delete_insert_orders_customer_fkey ON orders;
:unseen;
ALTER TABLE days DISABLE TRIGGER rowkeeper_soft_delete_update_days_customer_fkey;
:seen;
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;

-- cascade: to a table without soft delete, to one in the other mode
BEGIN;
CREATE TABLE visits (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE CASCADE);
CREATE TABLE pages (id int PRIMARY KEY, note int REFERENCES notes ON DELETE CASCADE);
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;
BEGIN;
CREATE TABLE visits (id int PRIMARY KEY, customer int);
SELECT rowkeeper.soft_delete('visits', mode => 'trash') \g /dev/null
ALTER TABLE visits ADD FOREIGN KEY (customer) REFERENCES customers ON DELETE CASCADE;
:findings;
ROLLBACK;

BEGIN;
CREATE TABLE boxes (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('boxes', mode => 'trash') \g /dev/null
CREATE TABLE things (id int PRIMARY KEY, box int REFERENCES boxes ON DELETE CASCADE);
:findings;
ALTER TABLE things DROP CONSTRAINT things_box_fkey;
:findings;
ROLLBACK;
BEGIN;
CREATE TABLE boxes (id int PRIMARY KEY);
CREATE TABLE things (id int PRIMARY KEY, box int REFERENCES boxes ON DELETE CASCADE);
SELECT rowkeeper.soft_delete('boxes', cascade => false) \g /dev/null
:findings;
ROLLBACK;

-- hard_cascade
BEGIN;
CREATE TABLE countries (id int PRIMARY KEY);
ALTER TABLE customers ADD COLUMN country int REFERENCES countries ON DELETE CASCADE;
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;

-- unique
BEGIN;
ALTER TABLE customers ADD UNIQUE (id, email);
CREATE UNIQUE INDEX ON customers (email) INCLUDE (id);
CREATE UNIQUE INDEX ON customers (email) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX ON customers (lower(email));
ALTER TABLE notes ADD UNIQUE (body);
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;

-- trash_missing
BEGIN;
DROP TABLE rowkeeper_trash.sd_doctor__notes CASCADE;
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;

-- trash_trigger
BEGIN;
:unseen;
ALTER TABLE years_1 DISABLE TRIGGER "!rowkeeper_changes";
ALTER TABLE notes ENABLE REPLICA TRIGGER "!rowkeeper_changes";
:seen;
:findings;
SELECT target, healthy, detail FROM rowkeeper.features WHERE target = 'notes'::regclass;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;

-- trash_readers: grants, owner, row security, policies
CREATE ROLE regress_rk_sd_reader;
BEGIN;
:unseen;
GRANT SELECT, UPDATE ON rowkeeper_trash.sd_doctor__notes TO regress_rk_sd_reader;
GRANT SELECT (note) ON note_lines TO regress_rk_sd_reader;
ALTER TABLE rowkeeper_trash.sd_doctor__years OWNER TO regress_rk_sd_reader;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON notes TO regress_rk_sd_reader USING (body = current_user);
:seen;
:findings;
\o /dev/null
:remedies \gexec
\o
:findings;
ROLLBACK;
-- trash_policies: one that the trash table cannot have
BEGIN;
CREATE FUNCTION allowed(notes) RETURNS boolean LANGUAGE sql STABLE RETURN true;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON notes USING (allowed(notes));
:findings;
DROP POLICY own ON notes;
:findings;
ROLLBACK;

-- trash_columns: what goes to _extra
BEGIN;
ALTER TABLE notes ADD COLUMN late int;
ALTER TABLE note_lines ADD COLUMN "Late" date, ADD COLUMN more text;
:findings;
ROLLBACK;

-- who may not see a table is told nothing of it
BEGIN;
DROP TRIGGER rowkeeper_soft_delete_truncate ON orders;
DROP TABLE rowkeeper_trash.sd_doctor__notes CASCADE;
DROP TRIGGER rowkeeper_soft_delete ON customers;
SET LOCAL ROLE regress_rk_sd_reader;
:findings;
SELECT count(*) FROM rowkeeper.features WHERE feature = 'soft_delete';
RESET ROLE;
GRANT SELECT ON notes TO regress_rk_sd_reader;
SET LOCAL ROLE regress_rk_sd_reader;
SELECT check_name, object FROM rowkeeper.doctor(feature => 'soft_delete');
RESET ROLE;
-- for CI: what is an error raises
SELECT rowkeeper.doctor_assert(schema => 'sd_doctor', feature => 'soft_delete');
ROLLBACK;
:findings;

SELECT rowkeeper.soft_delete_off(t) FROM unnest('{customers,orders,days,notes,note_lines,years}'::regclass[]) t \g /dev/null
DROP SCHEMA sd_doctor CASCADE;
DROP TABLE rowkeeper_trash.sd_doctor__notes, rowkeeper_trash.sd_doctor__note_lines, rowkeeper_trash.sd_doctor__years;
DROP ROLE regress_rk_sd_reader;
