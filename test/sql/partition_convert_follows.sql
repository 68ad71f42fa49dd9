-- What belongs to a table belongs to the partitioned one once it is converted:
-- rights, row security, comments, keys, triggers, sequences, and who reads it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
RESET client_min_messages;
CREATE SCHEMA convert_follows;
SET search_path = convert_follows;
\pset null '(null)'
CREATE ROLE convert_owner;
CREATE ROLE convert_reader;
CREATE ROLE convert_other;
GRANT CREATE, USAGE ON SCHEMA convert_follows TO convert_owner, convert_other;
GRANT USAGE ON SCHEMA convert_follows TO convert_reader;
-- what would give new tables more rights than the old one has
ALTER DEFAULT PRIVILEGES FOR ROLE convert_owner GRANT ALL ON TABLES TO convert_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE convert_owner GRANT ALL ON SEQUENCES TO convert_reader, PUBLIC;

SET ROLE convert_owner;
CREATE TABLE customers (id int PRIMARY KEY, name text);
INSERT INTO customers SELECT n, 'c' || n FROM generate_series(0, 9) n;
CREATE SEQUENCE invoice_number OWNED BY NONE;
CREATE TABLE orders (
	id int GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME the_orders START 1 INCREMENT 2 CACHE 1),
	period int NOT NULL,
	serial serial,
	customer int CONSTRAINT to_customer REFERENCES customers ON DELETE CASCADE,
	amount numeric CHECK (amount > 0) DEFAULT 1,
	twice numeric GENERATED ALWAYS AS (amount * 2) STORED,
	note varchar(20) COLLATE "C" DEFAULT 'none',
	state text,
	CONSTRAINT the_key PRIMARY KEY (id),
	CONSTRAINT the_other_key UNIQUE (id, period)
) WITH (fillfactor = 70);
ALTER SEQUENCE invoice_number OWNED BY orders.serial;
REVOKE ALL ON orders FROM convert_reader;
REVOKE ALL ON SEQUENCE the_orders FROM convert_reader, PUBLIC;
GRANT SELECT ON orders TO convert_reader WITH GRANT OPTION;
GRANT UPDATE (note, state) ON orders TO convert_other;
GRANT USAGE ON SEQUENCE the_orders TO convert_other;
CREATE INDEX orders_note ON orders (lower(note), amount DESC) INCLUDE (state) WHERE state = 'open';
CREATE UNIQUE INDEX orders_unique ON orders (period, id);
CREATE INDEX orders_state ON orders USING hash (state);
ALTER INDEX orders_note ALTER COLUMN 1 SET STATISTICS 11;
CREATE STATISTICS orders_statistics (dependencies) ON note, state FROM orders;
ALTER STATISTICS orders_statistics SET STATISTICS 12;
ALTER TABLE orders ALTER note SET STATISTICS 13, ALTER note SET (n_distinct = 14), ALTER note SET STORAGE EXTERNAL;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON orders AS RESTRICTIVE FOR UPDATE TO convert_reader, convert_other USING (amount < 100) WITH CHECK (orders.note IS NOT NULL);
CREATE POLICY seen ON orders USING (period < 1000);
COMMENT ON TABLE orders IS 'the table';
COMMENT ON COLUMN orders.note IS 'the column';
COMMENT ON INDEX orders_note IS 'the index';
COMMENT ON CONSTRAINT the_key ON orders IS 'the key';
COMMENT ON CONSTRAINT to_customer ON orders IS 'the foreign key';
COMMENT ON CONSTRAINT orders_amount_check ON orders IS 'the check';
COMMENT ON STATISTICS orders_statistics IS 'the statistics';
COMMENT ON SEQUENCE the_orders IS 'the sequence';
CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE '% % % of %', TG_NAME, TG_WHEN, TG_OP, TG_TABLE_NAME;
	RETURN NEW;
END $$;
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OF note, state ON orders FOR EACH ROW WHEN (NEW.note <> 'quiet') EXECUTE FUNCTION told();
CREATE TRIGGER after_statement AFTER INSERT ON orders REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION told('an argument');
CREATE TRIGGER switched_off AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION told();
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.note = 'loud') EXECUTE FUNCTION told();
ALTER TABLE orders DISABLE TRIGGER switched_off;
ALTER TABLE orders ENABLE ALWAYS TRIGGER before_row;
COMMENT ON TRIGGER before_row ON orders IS 'the trigger';
CREATE VIEW open_orders WITH (security_barrier, check_option = local) AS SELECT id, period, note FROM orders o WHERE state = 'open';
CREATE VIEW twice AS SELECT v.note AS first_note, orders.* FROM open_orders v JOIN orders ON orders.id = v.id;
CREATE VIEW above AS SELECT count(*) FROM open_orders;
CREATE RULE seen AS ON INSERT TO above DO INSTEAD NOTHING;
GRANT SELECT ON open_orders TO convert_reader;
CREATE FUNCTION sum_of(customer_id int) RETURNS numeric LANGUAGE sql STABLE SECURITY DEFINER SET search_path = convert_follows
BEGIN ATOMIC
	SELECT sum(o.amount) FROM orders o WHERE o.customer = customer_id;
END;
CREATE FUNCTION late_bound() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM orders); END';
ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY has_orders ON customers USING (EXISTS (SELECT FROM orders WHERE orders.customer = customers.id) OR id = 0) WITH CHECK (true);
CREATE TABLE lines (o int, period int, n int, CONSTRAINT to_order FOREIGN KEY (o, period) REFERENCES orders (id, period) ON DELETE CASCADE);
CREATE TABLE doubtful_lines (o int, period int);
INSERT INTO orders (period, customer, amount, note, state)
	SELECT n, n % 10, n, 'n' || n, CASE n % 3 WHEN 0 THEN 'open' END FROM generate_series(1, 30) n;
INSERT INTO lines SELECT id, period, 1 FROM orders;
INSERT INTO doubtful_lines VALUES (0, 0);
ALTER TABLE doubtful_lines ADD CONSTRAINT doubtful FOREIGN KEY (o, period) REFERENCES orders (id, period) NOT VALID;
COMMENT ON CONSTRAINT to_order ON lines IS 'the foreign key to it';
SELECT count(*), late_bound(), sum_of(1) FROM orders;

CALL rowkeeper.partition_convert('orders', 'period', '100', ahead => '150');

\d orders
\d lines
SELECT c.relname, a.privilege_type, a.grantee::regrole, a.is_grantable FROM pg_class c, aclexplode(c.relacl) a
WHERE c.relnamespace = 'convert_follows'::regnamespace AND c.relname IN ('orders', 'orders_p200', 'the_orders', 'open_orders')
	AND a.grantee <> c.relowner AND a.privilege_type <> 'MAINTAIN' ORDER BY 1, 2, 3;
SELECT c.relname, a.attname, a.attacl FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relname ~ '^orders' AND c.relkind IN ('r', 'p') AND c.relnamespace = 'convert_follows'::regnamespace AND a.attacl IS NOT NULL ORDER BY 1, 2;
SELECT c.relname, c.relowner::regrole, c.relrowsecurity, c.relforcerowsecurity, c.reloptions FROM pg_class c
WHERE c.relname ~ '^orders' AND c.relkind IN ('r', 'p') AND c.relnamespace = 'convert_follows'::regnamespace ORDER BY 1;
SELECT d.classoid::regclass, d.objsubid, d.description,
	CASE d.classoid WHEN 'pg_class'::regclass THEN d.objoid::regclass::text END AS object
FROM pg_description d WHERE d.description ~ '^the ' AND d.classoid IN ('pg_class'::regclass, 'pg_constraint'::regclass, 'pg_trigger'::regclass, 'pg_statistic_ext'::regclass)
ORDER BY 3, 4;
SELECT a.attname, a.attstorage, coalesce(a.attstattarget, -1) AS target, ARRAY(SELECT o FROM unnest(a.attoptions) o WHERE o ~ '^n_dist') AS options FROM pg_attribute a
WHERE a.attrelid = 'orders'::regclass AND a.attname = 'note';
SELECT c.relname, a.attstattarget FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relkind IN ('i', 'I') AND a.attstattarget = 11 ORDER BY 1;
SELECT regexp_replace(s.stxname, '^\d+', '<oid>') AS name, s.stxrelid::regclass, s.stxstattarget FROM pg_statistic_ext s
	WHERE s.stxnamespace = 'convert_follows'::regnamespace ORDER BY s.stxrelid::regclass::text;
SELECT d.objid::regclass, d.refobjid::regclass, d.deptype FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
WHERE d.refobjid = 'orders'::regclass ORDER BY 1;
SELECT conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint
WHERE contype = 'f' AND connamespace = 'convert_follows'::regnamespace AND conparentid = 0 ORDER BY 2;
SELECT regexp_replace(index.relname, '^\d+', '<oid>') AS index, parent.relname AS of
FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid JOIN pg_class index ON index.oid = i.inhrelid JOIN pg_class parent ON parent.oid = i.inhparent
WHERE x.indrelid = 'orders_before_p200'::regclass ORDER BY 1;
SELECT pg_get_viewdef('open_orders') ~ 'FROM orders o' AS reads, (SELECT reloptions FROM pg_class WHERE oid = 'open_orders'::regclass);
SELECT DISTINCT d.refobjid::regclass FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid::regclass::text ~ '^orders'
	AND (d.classid = 'pg_proc'::regclass OR d.classid = 'pg_policy'::regclass OR d.classid = 'pg_rewrite'::regclass);
SELECT prosecdef, proconfig FROM pg_proc WHERE proname = 'sum_of';
SELECT polname, pg_get_expr(polqual, polrelid) AS qual, pg_get_expr(polwithcheck, polrelid) AS "check" FROM pg_policy WHERE polrelid = 'customers'::regclass;

-- as it was
SELECT count(*), late_bound(), sum_of(1) FROM orders;
SELECT count(*) FROM open_orders;
SELECT count(*) FROM twice;
INSERT INTO orders (period, customer, note) VALUES (20, 1, 'loud'), (250, 2, 'quiet') RETURNING id, serial, tableoid::regclass;
UPDATE open_orders SET note = 'seen' WHERE id = 5;
DELETE FROM customers WHERE id = 3;
SELECT count(*), (SELECT count(*) FROM lines) FROM orders;
INSERT INTO lines VALUES (1, 2);
INSERT INTO orders (period, customer) VALUES (20, 77);
SELECT * FROM rowkeeper.doctor('convert_follows');
RESET ROLE;
SET ROLE convert_reader;
SELECT count(*) FROM orders;
SELECT count(*) FROM orders_before_p200;
INSERT INTO orders (period) VALUES (1);
RESET ROLE;

-- the same within a transaction
BEGIN;
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE small (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, at int NOT NULL, p int REFERENCES parents, UNIQUE (at, id));
CREATE TABLE smaller (at int, id int, FOREIGN KEY (at, id) REFERENCES small (at, id));
CREATE VIEW of_small AS SELECT * FROM small;
INSERT INTO parents VALUES (1);
INSERT INTO small (at, p) VALUES (1, 1), (2, 1);
INSERT INTO smaller VALUES (1, 1);
SELECT regexp_replace(step, '("|rowkeeper_)\d+', '\1<oid>', 'g') AS step FROM rowkeeper.partition('small', 'at', '10', ahead => '5') step
WHERE step !~ '^CREATE OR REPLACE VIEW';
SELECT rowkeeper.partition('small', 'at', '10', ahead => '5');
INSERT INTO small (at, p) VALUES (22, 1) RETURNING id, tableoid::regclass;
COMMIT;
SELECT conname, convalidated FROM pg_constraint WHERE conrelid = 'smaller'::regclass AND conparentid = 0;
SELECT count(*) FROM of_small;

-- indexes whose definitions read differently than they were written
CREATE TYPE mood AS ENUM ('a', 'b');
CREATE TABLE indexed (k int, v varchar(10), c char(3), d date, ts timestamptz, j jsonb, m mood, a text[], n numeric(8, 2), b bool);
CREATE INDEX ON indexed (v) WHERE v IN ('a', 'b');
CREATE INDEX ON indexed (c) WHERE c IN ('a', 'b') OR c IS NULL;
CREATE INDEX ON indexed (m) WHERE m IN ('a', 'b');
CREATE INDEX ON indexed (((j ->> 'x')::int), (j -> 'y' ->> 'z')) WHERE (j ->> 'x') ~ '^\d+$';
CREATE INDEX ON indexed USING gin (j jsonb_path_ops);
CREATE INDEX ON indexed (((ts AT TIME ZONE 'UTC')::date), extract(year FROM d)) WHERE ts > '2020-01-01 00:00+02';
CREATE INDEX ON indexed (coalesce(v, 'x'), (CASE WHEN b THEN n ELSE 0 END), nullif(k, 3));
CREATE INDEX ON indexed (lower(v) text_pattern_ops, upper(v) COLLATE "C" DESC NULLS LAST);
CREATE INDEX ON indexed (k) WHERE b IS TRUE AND NOT (n BETWEEN 1 AND 2.5) AND v LIKE 'a%' AND a @> '{x}' AND row(k, n) > row(1, 2);
CREATE INDEX ON indexed (k) WHERE v = ANY ('{a,b}') AND k = ANY (ARRAY[1, 2]);
CALL rowkeeper.partition_convert('indexed', 'k', '100', ahead => '5');
SELECT c.relname, count(*), count(i.inhparent) AS of_parent FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid LEFT JOIN pg_inherits i ON i.inhrelid = x.indexrelid
WHERE c.relname ~ '^indexed' AND c.relnamespace = 'convert_follows'::regnamespace GROUP BY 1 ORDER BY 1;

-- publications
CREATE TABLE published (id int PRIMARY KEY, v text, "V" text);
SET client_min_messages = error;
CREATE PUBLICATION convert_named FOR TABLE published (id, "V") WHERE (id > 5 AND "V" <> 'x') WITH (publish_via_partition_root, publish = 'insert');
CREATE PUBLICATION convert_all FOR ALL TABLES WITH (publish_via_partition_root);
RESET client_min_messages;
SELECT pubname, tablename, attnames, rowfilter FROM pg_publication_tables WHERE tablename ~ '^published' ORDER BY 1, 2;
CALL rowkeeper.partition_convert('published', 'id', '10', ahead => '5');
SELECT pubname, tablename, attnames, rowfilter FROM pg_publication_tables WHERE tablename ~ '^published' ORDER BY 1, 2;
SELECT prrelid::regclass FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE pubname = 'convert_named';
DROP PUBLICATION convert_named, convert_all;

-- replica identity, and a sequence that was restarted but not used
CREATE TABLE identified (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at int NOT NULL);
ALTER TABLE identified REPLICA IDENTITY USING INDEX identified_pkey;
ALTER TABLE identified ALTER id RESTART WITH 77;
CREATE TABLE fully (at int NOT NULL);
ALTER TABLE fully REPLICA IDENTITY FULL;
CALL rowkeeper.partition_convert('identified', 'at', '10', ahead => '5');
CALL rowkeeper.partition_convert('fully', 'at', '10', ahead => '5');
SELECT c.relname, c.relreplident, i.indexrelid::regclass FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisreplident
WHERE c.relname ~ '^(identified|fully)' AND c.relkind IN ('r', 'p') ORDER BY 1;
INSERT INTO identified (at) VALUES (1) RETURNING id;
SELECT * FROM rowkeeper.doctor('convert_follows');

-- an identity column keeps its sequence, which others may use; a primary key
-- and other constraints keep how their indexes are stored
SET allow_in_place_tablespaces = true;
CREATE TABLESPACE convert_space LOCATION '';
CREATE TABLE stored (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY WITH (fillfactor = 55), at int NOT NULL,
	CONSTRAINT stored_unique UNIQUE (at, id) WITH (fillfactor = 66) USING INDEX TABLESPACE convert_space DEFERRABLE INITIALLY DEFERRED);
INSERT INTO stored (at) VALUES (1), (2);
CREATE TABLE beside (id int DEFAULT nextval('stored_id_seq'));
SELECT 'stored_id_seq'::regclass::oid AS sequence \gset
CALL rowkeeper.partition_convert('stored', 'at', '10', ahead => '5');
INSERT INTO beside DEFAULT VALUES RETURNING id;
INSERT INTO stored (at) VALUES (3) RETURNING id;
SELECT 'stored_id_seq'::regclass = :sequence AS same, pg_get_serial_sequence('stored', 'id');
SELECT c.relname, c.relkind, c.reloptions, s.spcname, x.indisprimary, x.indimmediate FROM pg_class c JOIN pg_index x ON x.indexrelid = c.oid
	LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
WHERE c.relname ~ '^stored' ORDER BY 1;
DROP TABLE stored, beside;
DROP TABLESPACE convert_space;
RESET allow_in_place_tablespaces;

-- who has granted a right can take it back
CREATE TABLE granted (k int PRIMARY KEY, v int, w int);
GRANT SELECT, INSERT ON granted TO convert_owner WITH GRANT OPTION;
GRANT UPDATE (v) ON granted TO convert_owner WITH GRANT OPTION;
SET ROLE convert_owner;
GRANT SELECT ON granted TO convert_reader;
GRANT UPDATE (v) ON granted TO convert_reader;
RESET ROLE;
SELECT rowkeeper.partition('granted', 'k', '10') \g /dev/null
SELECT a.grantor::regrole = 'convert_owner'::regrole AS by_owner, a.grantee::regrole, a.privilege_type
FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = 'granted'::regclass AND a.grantee IN ('convert_owner'::regrole, 'convert_reader'::regrole) ORDER BY 2, 3;
REVOKE SELECT ON granted FROM convert_owner CASCADE;
REVOKE UPDATE (v) ON granted FROM convert_owner CASCADE;
SELECT has_table_privilege('convert_reader', 'granted', 'SELECT') AS reads, has_column_privilege('convert_reader', 'granted', 'v', 'UPDATE') AS updates;
SELECT refobjid::regrole, objsubid FROM pg_shdepend WHERE objid = 'granted'::regclass AND deptype = 'a' ORDER BY 1, 2;

-- names that begin with the table's are not the table's
CREATE TABLE ord (k int PRIMARY KEY);
CREATE TABLE orders_of (k int);
CREATE VIEW only_others AS SELECT o.k FROM ONLY orders_of o, ord;
ALTER TABLE ord ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_others ON ord USING (k IN (SELECT o.k FROM orders_of o));
ALTER TABLE orders_of RENAME TO ord_of;
SELECT rowkeeper.partition('ord', 'k', '10') \g /dev/null
SELECT relkind FROM pg_class WHERE oid = 'ord'::regclass;

-- where transactions are read-only by default
CREATE TABLE written (id int PRIMARY KEY, k int NOT NULL);
SET default_transaction_read_only = on;
CALL rowkeeper.partition_convert('convert_follows.written', 'k', '10', ahead => '5');
SHOW transaction_read_only;
RESET default_transaction_read_only;
SELECT relkind FROM pg_class WHERE oid = 'written'::regclass;

SET client_min_messages = warning;
DROP SCHEMA convert_follows CASCADE;
ALTER DEFAULT PRIVILEGES FOR ROLE convert_owner REVOKE ALL ON TABLES FROM convert_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE convert_owner REVOKE ALL ON SEQUENCES FROM convert_reader, PUBLIC;
DROP OWNED BY convert_owner, convert_reader, convert_other;
DROP ROLE convert_owner, convert_reader, convert_other;
