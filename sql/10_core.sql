-- Core: who acts, the triggers that feed the change batch, event triggers, leave.
-- Private functions begin with _ and are nobody's to execute; what an
-- application needs at run time stands in a GRANT beside its declaration.

CREATE FUNCTION set_context(actor text, context jsonb DEFAULT NULL) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_set_context';
COMMENT ON FUNCTION set_context(text, jsonb) IS
    'who acts and why, until the transaction ends; returns the actor in force';

CREATE FUNCTION set_context(actor bigint, context jsonb DEFAULT NULL) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_set_context';
COMMENT ON FUNCTION set_context(bigint, jsonb) IS
    'who acts and why, until the transaction ends; returns the actor in force';

CREATE FUNCTION set_context(actor uuid, context jsonb DEFAULT NULL) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_set_context';
COMMENT ON FUNCTION set_context(uuid, jsonb) IS
    'who acts and why, until the transaction ends; returns the actor in force';

CREATE FUNCTION actor() RETURNS text
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'rowkeeper_actor';
COMMENT ON FUNCTION actor() IS
    'who acts now: the user of a token, set_context(), the user that is claimed, a setting listed in rowkeeper.actor_settings, or the session user';

GRANT USAGE ON SCHEMA rowkeeper TO PUBLIC;

-- The server asks whoever adds a partition for EXECUTE on _changes_row(), so it
-- stays with PUBLIC; creating a trigger with it by hand is refused.
CREATE FUNCTION _changes_row() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_changes_row';
COMMENT ON FUNCTION _changes_row() IS 'row trigger: captures a change for the features named in its arguments';

CREATE FUNCTION _changes_flush() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_changes_flush';
REVOKE ALL ON FUNCTION _changes_flush() FROM PUBLIC;
COMMENT ON FUNCTION _changes_flush() IS 'statement trigger: writes what the statement changed, records TRUNCATE';

CREATE FUNCTION _on_ddl_end() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_on_ddl_end';
REVOKE ALL ON FUNCTION _on_ddl_end() FROM PUBLIC;
COMMENT ON FUNCTION _on_ddl_end() IS 'event trigger: tells features what was created or altered';

CREATE FUNCTION _on_drop() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_on_drop';
REVOKE ALL ON FUNCTION _on_drop() FROM PUBLIC;
COMMENT ON FUNCTION _on_drop() IS 'event trigger: tells features what was dropped';

CREATE FUNCTION _on_rewrite() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_on_rewrite';
REVOKE ALL ON FUNCTION _on_rewrite() FROM PUBLIC;
COMMENT ON FUNCTION _on_rewrite() IS 'event trigger: tells features which table is written anew';

CREATE EVENT TRIGGER rowkeeper_ddl_end ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE FOREIGN TABLE',
                 'IMPORT FOREIGN SCHEMA', 'CREATE SCHEMA', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER SCHEMA',
                 -- all of these alter tables, too: ALTER INDEX orders RENAME TO sales
                 'ALTER TABLE', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE', 'ALTER INDEX',
                 'ALTER TYPE',
                 -- who may read
                 'GRANT', 'REVOKE', 'CREATE POLICY', 'ALTER POLICY', 'DROP POLICY')
    EXECUTE FUNCTION rowkeeper._on_ddl_end();
ALTER EVENT TRIGGER rowkeeper_ddl_end ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER rowkeeper_ddl_end IS 'rowkeeper: what was created or altered';

CREATE EVENT TRIGGER rowkeeper_drop ON sql_drop EXECUTE FUNCTION rowkeeper._on_drop();
ALTER EVENT TRIGGER rowkeeper_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER rowkeeper_drop IS 'rowkeeper: what was dropped';

CREATE EVENT TRIGGER rowkeeper_rewrite ON table_rewrite EXECUTE FUNCTION rowkeeper._on_rewrite();
ALTER EVENT TRIGGER rowkeeper_rewrite ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER rowkeeper_rewrite IS 'rowkeeper: which table is written anew';

CREATE FUNCTION leave() RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_leave';
COMMENT ON FUNCTION leave() IS
    'every feature off, of all tables; data and logs stay as ordinary tables; then DROP EXTENSION works';

CREATE FUNCTION leave(target regclass) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_leave';
COMMENT ON FUNCTION leave(regclass) IS 'every feature off, of one table (NULL: nothing)';
