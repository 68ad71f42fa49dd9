-- What could not follow a table into its partitions is refused at the call,
-- by name, and leaves nothing behind.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
RESET client_min_messages;
CREATE SCHEMA convert_refused;
SET search_path = convert_refused;
\pset null '(null)'
CREATE ROLE convert_owner;
CREATE ROLE convert_other;
GRANT CREATE, USAGE ON SCHEMA convert_refused TO convert_owner, convert_other;
-- Both ways check the same; here it is always partition().
CREATE PROCEDURE ways(target regclass, options text DEFAULT '''k'', ''10''') LANGUAGE plpgsql AS $$
DECLARE
	sentence text;
	state text;
	hint text;
BEGIN
	BEGIN
		EXECUTE format('SELECT rowkeeper.partition(%L, %s)', target, options);
		RAISE EXCEPTION 'was converted';
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS sentence = MESSAGE_TEXT, state = RETURNED_SQLSTATE, hint = PG_EXCEPTION_HINT;
	END;
	RAISE NOTICE '% %; %', state, sentence, hint;
END $$;

CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, v text);
INSERT INTO t SELECT n, n FROM generate_series(1, 30) n;
-- who asks
SET ROLE convert_other;
SELECT rowkeeper.partition('t', 'k', '10');
CALL rowkeeper.partition_convert('t', 'k', '10');
RESET ROLE;

-- which column, and how
CALL ways('t', '''nothing'', ''10''');
CALL ways('t', '''ctid'', ''10''');
CALL ways('t', '''v'', ''10''');
CALL ways('t', '''k''');
CALL ways('t', '''k'', ''1 month''');
CALL ways('t', '''k'', ''10'', on_expiry => ''archive''');

-- who refers to it
CREATE TABLE child (t int REFERENCES t);
CALL ways('t');
CALL rowkeeper.partition_convert('t', 'k', '10');
DROP TABLE child;
ALTER TABLE t ADD CONSTRAINT pair UNIQUE (id, k);
CREATE TABLE child (t int, k int, FOREIGN KEY (t, k) REFERENCES t (id, k)) PARTITION BY LIST (k);
CALL ways('t');
DROP TABLE child;
ALTER TABLE t ADD COLUMN parent int, ADD COLUMN parent_k int, ADD CONSTRAINT to_itself FOREIGN KEY (parent, parent_k) REFERENCES t (id, k);
CALL ways('t');
ALTER TABLE t DROP COLUMN parent, DROP CONSTRAINT pair CASCADE;
CREATE MATERIALIZED VIEW seen AS SELECT id FROM t;
CALL ways('t');
DROP MATERIALIZED VIEW seen;
CREATE VIEW only_seen AS SELECT id FROM ONLY t;
CALL ways('t');
DROP VIEW only_seen;
CREATE VIEW grouped AS SELECT id, v, count(*) FROM t GROUP BY id;
CALL ways('t');
DROP VIEW grouped;
CREATE VIEW rows AS SELECT t FROM t;
CALL ways('t');
DROP VIEW rows;
CREATE FUNCTION of_row(t) RETURNS text LANGUAGE sql AS 'SELECT $1.v';
CALL ways('t');
DROP FUNCTION of_row(t);
CREATE TABLE holds (ts t[]);
CALL ways('t');
DROP TABLE holds;
CREATE FUNCTION of_only() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM ONLY t; END;
CALL ways('t');
DROP FUNCTION of_only();
CREATE TABLE guarded (id int);
CREATE POLICY of_only ON guarded USING (NOT EXISTS (SELECT FROM ONLY t WHERE t.id = guarded.id));
CALL ways('t');
DROP TABLE guarded;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT rowkeeper.partition('t', 'k', '10');
ROLLBACK;
SET default_transaction_isolation = 'serializable';
CALL rowkeeper.partition_convert('t', 'k', '10');
RESET default_transaction_isolation;
CREATE TABLE another (id int);
CREATE RULE copies AS ON INSERT TO another DO ALSO INSERT INTO t (id, k) VALUES (NEW.id, 1);
CALL ways('t');
DROP TABLE another;
CREATE RULE away AS ON DELETE TO t DO INSTEAD NOTHING;
CALL ways('t');
DROP RULE away ON t;
CREATE TABLE heir () INHERITS (t);
CALL ways('t');
CALL ways('heir');
DROP TABLE heir;
CREATE POLICY recursive ON t USING (EXISTS (SELECT FROM t x WHERE x.id = t.id));
CALL ways('t');
DROP POLICY recursive ON t;
SET client_min_messages = error;	-- of wal_level
CREATE PUBLICATION of_two FOR TABLE t (id, v) WITH (publish_via_partition_root = true);
RESET client_min_messages;
CALL ways('t');
DROP PUBLICATION of_two;
CREATE STATISTICS of_other ON id, k FROM t;
ALTER STATISTICS of_other OWNER TO convert_other;
CALL ways('t');
DROP STATISTICS of_other;
ALTER TABLE t ADD CONSTRAINT pair UNIQUE (id, k);
CREATE TABLE child (t int, k int, FOREIGN KEY (t, k) REFERENCES t (id, k));
ALTER TABLE child OWNER TO convert_other;
CALL ways('t');
ALTER TABLE t DROP CONSTRAINT pair CASCADE;
DROP TABLE child;

-- its own
ALTER TABLE t ADD CONSTRAINT apart EXCLUDE (id WITH =);
CALL ways('t');
ALTER TABLE t DROP CONSTRAINT apart;
ALTER TABLE t ADD CONSTRAINT alone UNIQUE (v);
CALL ways('t');
ALTER TABLE t DROP CONSTRAINT alone;
CREATE UNIQUE INDEX partial ON t (v, id) INCLUDE (k) WHERE id > 5;
CALL ways('t');
DROP INDEX partial;
ALTER TABLE t ADD CONSTRAINT positive CHECK (id > 0) NOT VALID;
CALL ways('t');
ALTER TABLE t DROP CONSTRAINT positive;
ALTER TABLE t ADD CONSTRAINT alone CHECK (id > 0) NO INHERIT;
CALL ways('t');
ALTER TABLE t DROP CONSTRAINT alone;
CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER with_table AFTER UPDATE ON t REFERENCING NEW TABLE AS n FOR EACH ROW EXECUTE FUNCTION told();
CALL ways('t');
DROP TRIGGER with_table ON t;
ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id) DEFERRABLE;
CALL ways('t');
ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 't_pkey'::regclass;
CALL ways('t');
UPDATE pg_index SET indisvalid = true WHERE indexrelid = 't_pkey'::regclass;
CREATE TABLE generated (id int, k int GENERATED ALWAYS AS (id + 1) STORED);
CALL ways('generated');
CREATE TYPE shape AS (k int);
CREATE TABLE typed OF shape;
CALL ways('typed');
CREATE UNLOGGED TABLE unlogged (k int REFERENCES t);
CALL ways('unlogged');
DROP TABLE unlogged;
CREATE TABLE stamped (id int PRIMARY KEY);
SELECT rowkeeper.stamp('stamped', created_at => 'k') \g /dev/null
CALL ways('stamped', '''k'', ''1 month''');
-- what is made anew would be enabled
CREATE TABLE its_target (id int PRIMARY KEY);
CREATE TABLE disabled_out (k int PRIMARY KEY, ref int CONSTRAINT to_target REFERENCES its_target);
ALTER TABLE disabled_out DISABLE TRIGGER ALL;
CALL ways('disabled_out');
CREATE TABLE disabled_in (k int PRIMARY KEY);
CREATE TABLE refers (k int CONSTRAINT to_disabled REFERENCES disabled_in);
ALTER TABLE refers DISABLE TRIGGER ALL;
CALL ways('disabled_in');
-- a CHECK of the user's, in the name of ours
CREATE TABLE own_check (k int PRIMARY KEY, CONSTRAINT rowkeeper_convert CHECK (k > 0));
CALL ways('own_check');
CALL rowkeeper.partition_convert('own_check', 'k', '10');
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'own_check'::regclass AND contype = 'c';
SELECT * FROM rowkeeper.doctor('convert_refused');
DROP TABLE own_check, disabled_out, its_target;

CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE to_parted (k int, p int CONSTRAINT to_parted REFERENCES parted);
CALL ways('to_parted');
DROP TABLE to_parted, parted;

-- publications
SET client_min_messages = error;
CREATE PUBLICATION named FOR TABLE t;
RESET client_min_messages;
CALL ways('t');
DROP PUBLICATION named;
SET client_min_messages = error;
CREATE PUBLICATION whole FOR TABLES IN SCHEMA convert_refused;
RESET client_min_messages;
CALL ways('t');
DROP PUBLICATION whole;

-- what the caller does not own: it would have to be made anew for others
ALTER TABLE t OWNER TO convert_owner;
GRANT SELECT ON t TO convert_other;
SET ROLE convert_other;
CREATE VIEW of_other AS SELECT id FROM convert_refused.t;
RESET ROLE;
SET ROLE convert_owner;
SELECT rowkeeper.partition('t', 'k', '10');
RESET ROLE;
DROP VIEW of_other;
SET ROLE convert_other;
CREATE FUNCTION of_other() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM convert_refused.t; END;
RESET ROLE;
SET ROLE convert_owner;
SELECT rowkeeper.partition('t', 'k', '10');
RESET ROLE;
DROP FUNCTION of_other();
SET ROLE convert_other;
CREATE TABLE of_other (id int);
CREATE POLICY reads ON of_other USING (EXISTS (SELECT FROM convert_refused.t));
RESET ROLE;
SET ROLE convert_owner;
SELECT rowkeeper.partition('t', 'k', '10');
RESET ROLE;
DROP TABLE of_other;
ALTER TABLE t ADD CONSTRAINT pair UNIQUE (id, k);
GRANT REFERENCES ON t TO convert_other;
SET ROLE convert_other;
CREATE TABLE of_other (id int, k int, CONSTRAINT to_t FOREIGN KEY (id, k) REFERENCES convert_refused.t (id, k));
RESET ROLE;
SET ROLE convert_owner;
SELECT rowkeeper.partition('t', 'k', '10');
RESET ROLE;
DROP TABLE of_other;

ALTER TABLE t DROP CONSTRAINT pair;
SET client_min_messages = error;
CREATE PUBLICATION named FOR TABLE t WITH (publish_via_partition_root);
RESET client_min_messages;
SET ROLE convert_owner;
SELECT rowkeeper.partition('t', 'k', '10');
RESET ROLE;
DROP PUBLICATION named;

-- what he may not do
REVOKE CREATE ON SCHEMA convert_refused FROM convert_owner;
SET ROLE convert_owner;
SELECT rowkeeper.partition('t', 'k', '10');
RESET ROLE;
GRANT CREATE ON SCHEMA convert_refused TO convert_owner;
CREATE TABLE others (id int PRIMARY KEY);
ALTER TABLE t ADD COLUMN other int CONSTRAINT to_others REFERENCES others;
SET ROLE convert_owner;
SELECT rowkeeper.partition('t', 'k', '10');
RESET ROLE;
ALTER TABLE t DROP COLUMN other;
REVOKE EXECUTE ON FUNCTION told() FROM PUBLIC;
CREATE TRIGGER tells AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION told();
SET ROLE convert_owner;
SELECT rowkeeper.partition('t', 'k', '10');
RESET ROLE;
DROP TRIGGER tells ON t;

-- names
CREATE TABLE t_before_p50 ();
CALL ways('t');
DROP TABLE t_before_p50;

-- rows
ALTER TABLE t ALTER k DROP NOT NULL;
INSERT INTO t VALUES (0, NULL);
CALL ways('t');
CALL rowkeeper.partition_convert('t', 'k', '10');
DELETE FROM t WHERE id = 0;
CREATE TABLE far (at timestamptz NOT NULL);
INSERT INTO far VALUES ('2100-01-01 00:00:00+00');
CALL ways('far', '''at'', ''1 month''');
UPDATE far SET at = 'infinity';
CALL ways('far', '''at'', ''1 month''');
CREATE TABLE huge (n numeric);
INSERT INTO huge VALUES (1e30);
CALL ways('huge', '''n'', ''10''');

-- tables that never are
CREATE TEMP TABLE temporary (k int);
\set VERBOSITY sqlstate
SELECT rowkeeper.partition('temporary', 'k', '10');
\set VERBOSITY default
CALL ways('rowkeeper._jobs', '''id'', ''10''');
CALL ways('pg_class', '''oid'', ''10''');
CREATE VIEW v AS SELECT 1 AS k;
CALL ways('v');
DROP VIEW v;

-- pending events of the caller's own transaction
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE pending (k int PRIMARY KEY, p int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
INSERT INTO parents VALUES (1);
BEGIN;
INSERT INTO pending VALUES (1, 1);
SELECT rowkeeper.partition('pending', 'k', '10');
ROLLBACK;

-- nothing of all that is left, and in the end it is converted
SELECT conrelid::regclass, conname FROM pg_constraint WHERE conname = 'rowkeeper_convert';
SELECT relation FROM rowkeeper._partition_conversions;
SELECT relname FROM pg_class WHERE relnamespace = 'convert_refused'::regnamespace AND relkind IN ('p', 'I');
CALL rowkeeper.partition_convert('t', 'k', '10');
SELECT count(*) FROM t;

SET client_min_messages = warning;
DROP SCHEMA convert_refused CASCADE;
DROP OWNED BY convert_owner, convert_other;
DROP ROLE convert_owner, convert_other;
