-- Stamps beside triggers written by hand: their order, who sets what, and how
-- the old ones go.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA stamp_triggers;
SET search_path = stamp_triggers;
\pset format unaligned
-- whoever runs this owns the table and is no superuser
CREATE ROLE regress_rk_migrator;
GRANT ALL ON SCHEMA stamp_triggers TO regress_rk_migrator;
SET ROLE regress_rk_migrator;
RESET client_min_messages;

CREATE TABLE items (id int PRIMARY KEY, name text, updated_at timestamptz, version int, "Changed By" text);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- the one that everybody copies
    NEW.updated_at = clock_timestamp() - interval '1 day';
    NEW.version := OLD.version + 1;
    RETURN NEW;
END $$;
CREATE FUNCTION tidy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    /* NEW.updated_at := now(); */
    IF NEW.updated_at = OLD.updated_at THEN
        NEW.name := trim(NEW.name);
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION who() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT session_user INTO NEW."Changed By";
    RETURN NEW;
END $$;
CREATE TRIGGER set_updated_at BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER trg_tidy BEFORE INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION tidy();
CREATE TRIGGER update_who BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION who();
CREATE TRIGGER after_all AFTER UPDATE ON items FOR EACH ROW EXECUTE FUNCTION touch();

-- those that set the same columns are named, and only those
SELECT rowkeeper.stamp('items', updated_by => 'Changed By') \g /dev/null
-- the stamps are the last word, and there is one bump
SET app.user_id = 'alice';
INSERT INTO items VALUES (1, ' a ');
UPDATE items SET name = ' b ' RETURNING name, updated_at = now() AS now, version, "Changed By";
-- what a trigger tidied away is no change
DROP TRIGGER set_updated_at ON items;
DROP TRIGGER update_who ON items;
UPDATE items SET name = ' b ' RETURNING name, version;
UPDATE items SET name = ' b ' RETURNING name, version;

-- replaced in the same call, as steps of it
CREATE TRIGGER set_updated_at BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER update_who BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION who();
SELECT check_name, level, detail, remedy FROM rowkeeper.doctor('stamp_triggers', 'stamp') ORDER BY detail COLLATE "C";
BEGIN;
SELECT rowkeeper.stamp('items', replace_triggers => '{set_updated_at,update_who}');
ROLLBACK;
SELECT rowkeeper.stamp('items', replace_triggers => '{set_updated_at,update_who}') \g /dev/null
SELECT rowkeeper.stamp('items', replace_triggers => '{set_updated_at}');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'items'::regclass AND NOT tgisinternal ORDER BY 1;
SELECT check_name FROM rowkeeper.doctor('stamp_triggers', 'stamp');
-- what it cannot replace
SELECT rowkeeper.stamp('items', replace_triggers => '{~rowkeeper_stamp}');
CREATE TABLE refs (id int REFERENCES items, updated_at timestamptz);
SELECT tgname AS fk_trigger FROM pg_trigger WHERE tgrelid = 'refs'::regclass ORDER BY tgname LIMIT 1 \gset
\set VERBOSITY sqlstate
SELECT rowkeeper.stamp('refs', replace_triggers => ARRAY[:'fk_trigger']::name[]);
\set VERBOSITY default
-- a migration that fails keeps the old one
CREATE TRIGGER set_updated_at BEFORE UPDATE ON refs FOR EACH ROW EXECUTE FUNCTION touch();
SELECT rowkeeper.stamp('refs', created_at => 'id', replace_triggers => '{set_updated_at}');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'refs'::regclass AND NOT tgisinternal;

-- a trigger that fires after the stamps
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.name := upper(NEW.name); RETURN NEW; END';
CREATE TRIGGER "ängstlich" BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TRIGGER "~zz" BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TRIGGER "~only_statements" BEFORE INSERT ON items EXECUTE FUNCTION shout();
DROP TRIGGER "~only_statements" ON items;
SELECT rowkeeper.stamp('items');
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor('stamp_triggers', 'stamp') ORDER BY detail COLLATE "C";
SELECT remedy FROM rowkeeper.doctor('stamp_triggers', 'stamp') ORDER BY remedy COLLATE "C" \gexec
SELECT check_name FROM rowkeeper.doctor('stamp_triggers', 'stamp');
SELECT rowkeeper.stamp('items');

-- triggers of single partitions
CREATE TABLE parts (id int, updated_at timestamptz) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TRIGGER touch_part BEFORE UPDATE ON parts_1 FOR EACH ROW EXECUTE FUNCTION touch();
SELECT rowkeeper.stamp('parts') \g /dev/null
SELECT rowkeeper.stamp('parts', replace_triggers => '{touch_part}');
CREATE TRIGGER touch_all BEFORE UPDATE ON parts FOR EACH ROW EXECUTE FUNCTION touch();
SELECT rowkeeper.stamp('parts', replace_triggers => '{touch_all}');

-- other ways to set a column
CREATE FUNCTION maybe() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id <> OLD.id THEN new . "updated_at" = now(); END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION not_this() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at_source := 'x';   -- NEW.updated_at := now()
    RETURN NEW;
END $$;
CREATE TABLE ways (id int, updated_at timestamptz, updated_at_source text);
CREATE TRIGGER maybe BEFORE UPDATE ON ways FOR EACH ROW EXECUTE FUNCTION maybe();
CREATE TRIGGER not_this BEFORE UPDATE ON ways FOR EACH ROW EXECUTE FUNCTION not_this();
SELECT rowkeeper.stamp('ways') \g /dev/null
SELECT detail FROM rowkeeper.doctor('stamp_triggers', 'stamp');
RESET ROLE;
-- an extension's own
CREATE EXTENSION moddatetime;
CREATE TRIGGER mdt BEFORE UPDATE ON ways FOR EACH ROW EXECUTE FUNCTION moddatetime(updated_at);
SELECT rowkeeper.stamp('ways', replace_triggers => '{maybe}') \g /dev/null
SELECT rowkeeper.stamp('ways', replace_triggers => '{mdt}');
DROP EXTENSION moddatetime;

SET client_min_messages = warning;
DROP SCHEMA stamp_triggers CASCADE;
DROP ROLE regress_rk_migrator;
