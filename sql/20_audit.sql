-- Audit: switched on, changed and off. An option that is NULL stays as it is;
-- the first time it has the default that its comment names.

CREATE FUNCTION audit(target regclass, exclude name[] DEFAULT NULL, capture text DEFAULT NULL,
                      keep interval DEFAULT NULL, replica boolean DEFAULT NULL)
    RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_audit';
COMMENT ON FUNCTION audit(regclass, name[], text, interval, boolean) IS
    'keeps a table''s full change history: exclude (none) columns left out; capture (''changes'', or ''full'' rows); keep (''0'': for ever); replica (true): also under session_replication_role = replica. Returns what was done';

CREATE FUNCTION audit_schema(schema name, except_tables regclass[] DEFAULT NULL, exclude name[] DEFAULT NULL,
                             capture text DEFAULT NULL, keep interval DEFAULT NULL, replica boolean DEFAULT NULL)
    RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_audit_schema';
COMMENT ON FUNCTION audit_schema(name, regclass[], name[], text, interval, boolean) IS
    'audit() of every table of a schema that has a primary key and is not audited yet; says which it left out';

CREATE FUNCTION audit_off(target regclass) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_audit_off';
COMMENT ON FUNCTION audit_off(regclass) IS
    'stops the audit of a table (NULL: nothing); what was logged stays';
