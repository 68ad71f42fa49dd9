-- Soft delete: switched on, changed and off. An option that is NULL stays as
-- it is; the first time it has the default that the comment names.

CREATE FUNCTION rowkeeper.soft_delete(target regclass, mode text DEFAULT NULL, deleted_at name DEFAULT NULL,
	deleted_by name DEFAULT NULL, batch name DEFAULT NULL, on_delete text DEFAULT NULL,
	view_name name DEFAULT NULL, view_schema name DEFAULT NULL, keep interval DEFAULT NULL,
	cascade boolean DEFAULT NULL)
	RETURNS SETOF text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete';
COMMENT ON FUNCTION rowkeeper.soft_delete(regclass, text, name, name, name, text, name, name, interval, boolean) IS
'Deletes of a table can be taken back: mode (''flag'', or ''trash''); deleted_at, deleted_by (''-'': without), batch: columns of flag mode (deleted_at, deleted_by, delete_batch); on_delete: what a DELETE on the table itself does in flag mode (''error'', or ''allow''); view_name, view_schema (active_<table> beside the table); keep (''0'': for ever); cascade (true): children of cascading foreign keys go along. Returns what was done.';

CREATE FUNCTION rowkeeper.soft_delete_off(target regclass) RETURNS SETOF text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_off';
COMMENT ON FUNCTION rowkeeper.soft_delete_off(regclass) IS
'Takes soft delete from a table (NULL: nothing); its rows, columns and trash stay.';

CREATE FUNCTION rowkeeper.soft_delete_hide_view(target regclass) RETURNS SETOF text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_hide_view';
COMMENT ON FUNCTION rowkeeper.soft_delete_hide_view(regclass) IS
'Drops the view of a soft-deleted table, which blocks DDL such as ALTER TYPE; soft_delete_refresh() brings it back with its rights.';

CREATE FUNCTION rowkeeper.soft_delete_refresh(target regclass) RETURNS SETOF text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_refresh';
COMMENT ON FUNCTION rowkeeper.soft_delete_refresh(regclass) IS
'Brings back the view of a soft-deleted table with its rights, or in line with the columns of the table.';

CREATE FUNCTION rowkeeper._soft_delete_options(target regclass) RETURNS jsonb
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_options';
REVOKE ALL ON FUNCTION rowkeeper._soft_delete_options(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._soft_delete_options(regclass) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._soft_delete_options(regclass) IS
'What soft_delete() was told of a table, as pg_trigger shows it to everybody.';

CREATE FUNCTION rowkeeper._soft_delete_direct() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_direct';
REVOKE ALL ON FUNCTION rowkeeper._soft_delete_direct() FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._soft_delete_direct() IS
'Statement trigger: refuses DELETE (flag mode) and TRUNCATE of a soft-deleted table.';
