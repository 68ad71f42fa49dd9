-- One account per service, with exactly its verbs.

CREATE FUNCTION rowkeeper.service_role(role name, level text, schema name DEFAULT NULL, tables regclass[] DEFAULT NULL,
                                       created_by name[] DEFAULT NULL) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_service_role';
COMMENT ON FUNCTION rowkeeper.service_role(name, text, name, regclass[], name[]) IS
    'a login role with exactly the rights of its level, ''read'', ''write'', ''own'' (isolated tables only) or ''admin'' (member of the owner), on a schema''s tables, also those that created_by (their owners) make later, or on these tables; never a password';

CREATE FUNCTION rowkeeper.service_columns(role name, target regclass, read name[], write name[]) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_service_columns';
COMMENT ON FUNCTION rowkeeper.service_columns(name, regclass, name[], name[]) IS
    'the columns of a table that a role may read and write, and no others';

CREATE FUNCTION rowkeeper.service_off(role name) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_service_off';
COMMENT ON FUNCTION rowkeeper.service_off(name) IS
    'takes away whatever was granted to a role in this database, its trust too (NULL: nothing); the role stays';
