-- The row encoder and the key hash, for the tests only.

CREATE FUNCTION rowkeeper._audit_encode("row" record, columns name[] DEFAULT NULL)
RETURNS jsonb STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_audit_encode';
REVOKE ALL ON FUNCTION rowkeeper._audit_encode(record, name[]) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._audit_encode(record, name[])
IS 'a row, or the columns named, as the audit log stores it; for tests';

CREATE FUNCTION rowkeeper._audit_as_text("row" record)
RETURNS name[] STABLE STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_audit_as_text';
REVOKE ALL ON FUNCTION rowkeeper._audit_as_text(record) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._audit_as_text(record)
IS 'the columns of a row that the audit log stores as text; for tests';

CREATE FUNCTION rowkeeper._audit_key_hash("row" record, VARIADIC columns name[])
RETURNS integer STABLE STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_audit_key_hash';
REVOKE ALL ON FUNCTION rowkeeper._audit_key_hash(record, name[]) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._audit_key_hash(record, name[])
IS 'the hash by which the audit log finds a row, were these columns its primary key; for tests';
