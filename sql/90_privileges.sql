-- Rights are what stands beside each declaration, whatever default privileges
-- were in force when this script ran.

CREATE FUNCTION rowkeeper._reset_privileges() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_reset_privileges';
REVOKE ALL ON FUNCTION rowkeeper._reset_privileges() FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._reset_privileges() IS
    'takes away what ALTER DEFAULT PRIVILEGES gave on the extension''s objects; for its scripts';

SELECT rowkeeper._reset_privileges();
