-- 43_soft_delete_restore.sql: batches, restore and purge, for both modes

CREATE FUNCTION rowkeeper._soft_delete_batches()
	RETURNS TABLE (batch bigint, deleted_at timestamptz, actor text, table_schema name, table_name name, rows bigint)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_batches';
REVOKE ALL ON FUNCTION rowkeeper._soft_delete_batches() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._soft_delete_batches() TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._soft_delete_batches() IS
'Batches of deleted rows of tables that the caller may see; before the first soft_delete(): none.';

CREATE VIEW rowkeeper.soft_delete_batches WITH (security_barrier = true) AS
SELECT b.batch, b.deleted_at, b.actor, b.table_schema, b.table_name, b.rows
FROM rowkeeper._soft_delete_batches() b;
REVOKE ALL ON rowkeeper.soft_delete_batches FROM PUBLIC;
GRANT SELECT ON rowkeeper.soft_delete_batches TO PUBLIC;
COMMENT ON VIEW rowkeeper.soft_delete_batches IS
'What was deleted together, one row a batch and table: a batch is one top-level statement with its cascades; rows: how many of them can be restored. Of tables that the reader may SELECT whole or owns.';

CREATE FUNCTION rowkeeper.soft_delete_restore(target regclass, VARIADIC key "any")
	RETURNS TABLE (table_schema name, table_name name, record_id jsonb, conflict text)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_restore';
COMMENT ON FUNCTION rowkeeper.soft_delete_restore(regclass, "any") IS
'Restores the row deleted last under this key, and what its delete took with it: soft_delete_restore(''orders'', 42). Needs what INSERT (trash) or UPDATE (flag) of these rows needs, and SELECT on their keys.';

CREATE FUNCTION rowkeeper.soft_delete_restore(target regclass, VARIADIC key text[])
	RETURNS TABLE (table_schema name, table_name name, record_id jsonb, conflict text)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_restore';
COMMENT ON FUNCTION rowkeeper.soft_delete_restore(regclass, text[]) IS
'soft_delete_restore() with the key''s values as text, as drivers send them.';

CREATE FUNCTION rowkeeper.soft_delete_restore(target regclass, key jsonb, dry_run boolean DEFAULT false)
	RETURNS TABLE (table_schema name, table_name name, record_id jsonb, conflict text)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_restore_key';
COMMENT ON FUNCTION rowkeeper.soft_delete_restore(regclass, jsonb, boolean) IS
'soft_delete_restore() with the key as an object, {"id": 42}, or as a scalar where it has one column. dry_run: restores nothing, and lists what would keep each row from coming back.';

CREATE FUNCTION rowkeeper.soft_delete_restore_batch(batch bigint, "cascade" boolean DEFAULT true, dry_run boolean DEFAULT false)
	RETURNS TABLE (table_schema name, table_name name, record_id jsonb, conflict text)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_restore_batch';
COMMENT ON FUNCTION rowkeeper.soft_delete_restore_batch(bigint, boolean, boolean) IS
'Restores all rows of a batch, see soft_delete_batches; cascade => false: only those that no other row of the batch took with it. dry_run as of soft_delete_restore().';

CREATE FUNCTION rowkeeper.soft_delete_hard(target regclass, VARIADIC key "any") RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_hard';
COMMENT ON FUNCTION rowkeeper.soft_delete_hard(regclass, "any") IS
'Removes a row for good, live or deleted, and what its delete took with it; returns how many rows. For the owner of the table.';

CREATE FUNCTION rowkeeper.soft_delete_hard(target regclass, VARIADIC key text[]) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_hard';
COMMENT ON FUNCTION rowkeeper.soft_delete_hard(regclass, text[]) IS
'soft_delete_hard() with the key''s values as text, as drivers send them.';

CREATE PROCEDURE rowkeeper.soft_delete_purge(target regclass, older_than interval DEFAULT NULL, batch_size integer DEFAULT 5000)
LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_purge';
COMMENT ON PROCEDURE rowkeeper.soft_delete_purge(regclass, interval, integer) IS
'Removes for good what was deleted longer ago than older_than (null: the table''s keep), batch_size rows a transaction, so not in a transaction block; rowkeeper.progress shows how far it is. For the owner of the table. maintain() does the same for all tables that have a keep.';
