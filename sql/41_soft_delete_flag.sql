-- 41_soft_delete_flag.sql: flag mode, where a deleted row stays in its table

-- The server asks whoever adds a partition for EXECUTE on the functions of row
-- triggers, so those stay with PUBLIC; creating such a trigger by hand is
-- refused.
CREATE FUNCTION rowkeeper._soft_delete_row() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_row';
COMMENT ON FUNCTION rowkeeper._soft_delete_row() IS
'Row trigger: what a soft delete takes with it.';

CREATE FUNCTION rowkeeper._soft_delete_guard() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_guard';
COMMENT ON FUNCTION rowkeeper._soft_delete_guard() IS
'Constraint trigger: a live row must not reference a deleted one.';

CREATE FUNCTION rowkeeper._soft_delete_end() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_end';
REVOKE ALL ON FUNCTION rowkeeper._soft_delete_end() FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._soft_delete_end() IS
'Statement trigger: notes what a statement deleted.';

CREATE FUNCTION rowkeeper._soft_delete_view() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_view';
REVOKE ALL ON FUNCTION rowkeeper._soft_delete_view() FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._soft_delete_view() IS
'INSTEAD OF trigger: deletes a row through the view of the live ones.';

CREATE FUNCTION rowkeeper.soft_delete_unique(target regclass, columns name[]) RETURNS SETOF text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_unique';
COMMENT ON FUNCTION rowkeeper.soft_delete_unique(regclass, name[]) IS
'Makes columns unique among the live rows of a table in flag mode, in place of a plain unique constraint.';

CREATE FUNCTION rowkeeper._soft_delete_view_is_live(target regclass) RETURNS text
LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_soft_delete_view_is_live';
REVOKE ALL ON FUNCTION rowkeeper._soft_delete_view_is_live(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._soft_delete_view_is_live(regclass) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._soft_delete_view_is_live(regclass) IS
'What is wrong with the view of a table in flag mode; for doctor().';
