-- Tenant: which tenant, and which user, a transaction acts for.

CREATE FUNCTION rowkeeper.tenant_set(tenant bigint) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_set';
REVOKE ALL ON FUNCTION rowkeeper.tenant_set(bigint) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.tenant_set(bigint) IS
    'the tenant that this transaction acts for (NULL: none), for roles trusted to say so';

CREATE FUNCTION rowkeeper.tenant_set(tenant uuid) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_set';
REVOKE ALL ON FUNCTION rowkeeper.tenant_set(uuid) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.tenant_set(uuid) IS
    'the tenant that this transaction acts for (NULL: none), for roles trusted to say so';

CREATE FUNCTION rowkeeper.tenant_set(tenant text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_set';
REVOKE ALL ON FUNCTION rowkeeper.tenant_set(text) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.tenant_set(text) IS
    'the tenant that this transaction acts for (NULL: none), for roles trusted to say so';

CREATE FUNCTION rowkeeper.user_set(user_name bigint) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_user_set';
REVOKE ALL ON FUNCTION rowkeeper.user_set(bigint) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.user_set(bigint) IS
    'the user that this transaction acts for (NULL: none), for roles trusted to say so';

CREATE FUNCTION rowkeeper.user_set(user_name uuid) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_user_set';
REVOKE ALL ON FUNCTION rowkeeper.user_set(uuid) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.user_set(uuid) IS
    'the user that this transaction acts for (NULL: none), for roles trusted to say so';

CREATE FUNCTION rowkeeper.user_set(user_name text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_user_set';
REVOKE ALL ON FUNCTION rowkeeper.user_set(text) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.user_set(text) IS
    'the user that this transaction acts for (NULL: none), for roles trusted to say so';

CREATE FUNCTION rowkeeper.tenant_id() RETURNS bigint
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF AS 'MODULE_PATHNAME', 'rowkeeper_tenant_id';
COMMENT ON FUNCTION rowkeeper.tenant_id() IS
    'the tenant that this transaction acts for; an error where none is set, or NULL with rowkeeper.tenant_strict off';

CREATE FUNCTION rowkeeper.tenant_uuid() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF AS 'MODULE_PATHNAME', 'rowkeeper_tenant_uuid';
COMMENT ON FUNCTION rowkeeper.tenant_uuid() IS
    'the tenant that this transaction acts for; an error where none is set, or NULL with rowkeeper.tenant_strict off';

CREATE FUNCTION rowkeeper.tenant_text() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF AS 'MODULE_PATHNAME', 'rowkeeper_tenant_text';
COMMENT ON FUNCTION rowkeeper.tenant_text() IS
    'the tenant that this transaction acts for; an error where none is set, or NULL with rowkeeper.tenant_strict off';

CREATE FUNCTION rowkeeper.user_id() RETURNS bigint
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF AS 'MODULE_PATHNAME', 'rowkeeper_user_id';
COMMENT ON FUNCTION rowkeeper.user_id() IS
    'the user that this transaction acts for; an error where none is set, or NULL with rowkeeper.tenant_strict off';

CREATE FUNCTION rowkeeper.user_uuid() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF AS 'MODULE_PATHNAME', 'rowkeeper_user_uuid';
COMMENT ON FUNCTION rowkeeper.user_uuid() IS
    'the user that this transaction acts for; an error where none is set, or NULL with rowkeeper.tenant_strict off';

CREATE FUNCTION rowkeeper.user_text() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF AS 'MODULE_PATHNAME', 'rowkeeper_user_text';
COMMENT ON FUNCTION rowkeeper.user_text() IS
    'the user that this transaction acts for; an error where none is set, or NULL with rowkeeper.tenant_strict off';

CREATE FUNCTION rowkeeper._tenant_guard_support(internal) RETURNS internal
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_guard_support';
REVOKE ALL ON FUNCTION rowkeeper._tenant_guard_support(internal) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._tenant_guard_support(internal) IS
    'planner support: the guard takes away nothing that the policy beside it leaves';

CREATE FUNCTION rowkeeper.tenant_guard(smallint) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT rowkeeper._tenant_guard_support
    AS 'MODULE_PATHNAME', 'rowkeeper_tenant_guard_int2';
COMMENT ON FUNCTION rowkeeper.tenant_guard(smallint) IS
    'whether a row of this tenant is one of the tenant that this transaction acts for; policies call it';

CREATE FUNCTION rowkeeper.tenant_guard(integer) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT rowkeeper._tenant_guard_support
    AS 'MODULE_PATHNAME', 'rowkeeper_tenant_guard_int4';
COMMENT ON FUNCTION rowkeeper.tenant_guard(integer) IS
    'whether a row of this tenant is one of the tenant that this transaction acts for; policies call it';

CREATE FUNCTION rowkeeper.tenant_guard(bigint) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT rowkeeper._tenant_guard_support
    AS 'MODULE_PATHNAME', 'rowkeeper_tenant_guard_int8';
COMMENT ON FUNCTION rowkeeper.tenant_guard(bigint) IS
    'whether a row of this tenant is one of the tenant that this transaction acts for; policies call it';

CREATE FUNCTION rowkeeper.tenant_guard(uuid) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT rowkeeper._tenant_guard_support
    AS 'MODULE_PATHNAME', 'rowkeeper_tenant_guard_uuid';
COMMENT ON FUNCTION rowkeeper.tenant_guard(uuid) IS
    'whether a row of this tenant is one of the tenant that this transaction acts for; policies call it';

CREATE FUNCTION rowkeeper.tenant_guard(text) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT rowkeeper._tenant_guard_support
    AS 'MODULE_PATHNAME', 'rowkeeper_tenant_guard_text';
COMMENT ON FUNCTION rowkeeper.tenant_guard(text) IS
    'whether a row of this tenant is one of the tenant that this transaction acts for; policies call it';


CREATE FUNCTION rowkeeper.user_guard(smallint) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT rowkeeper._tenant_guard_support
    AS 'MODULE_PATHNAME', 'rowkeeper_user_guard_int2';
COMMENT ON FUNCTION rowkeeper.user_guard(smallint) IS
    'whether a row of this user is one of the user that this transaction acts for; policies call it';

CREATE FUNCTION rowkeeper.user_guard(integer) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT rowkeeper._tenant_guard_support
    AS 'MODULE_PATHNAME', 'rowkeeper_user_guard_int4';
COMMENT ON FUNCTION rowkeeper.user_guard(integer) IS
    'whether a row of this user is one of the user that this transaction acts for; policies call it';

CREATE FUNCTION rowkeeper.user_guard(bigint) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT rowkeeper._tenant_guard_support
    AS 'MODULE_PATHNAME', 'rowkeeper_user_guard_int8';
COMMENT ON FUNCTION rowkeeper.user_guard(bigint) IS
    'whether a row of this user is one of the user that this transaction acts for; policies call it';

CREATE FUNCTION rowkeeper.user_guard(uuid) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT rowkeeper._tenant_guard_support
    AS 'MODULE_PATHNAME', 'rowkeeper_user_guard_uuid';
COMMENT ON FUNCTION rowkeeper.user_guard(uuid) IS
    'whether a row of this user is one of the user that this transaction acts for; policies call it';

CREATE FUNCTION rowkeeper.user_guard(text) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT rowkeeper._tenant_guard_support
    AS 'MODULE_PATHNAME', 'rowkeeper_user_guard_text';
COMMENT ON FUNCTION rowkeeper.user_guard(text) IS
    'whether a row of this user is one of the user that this transaction acts for; policies call it';

-- Policies of the roles that may bypass isolation call it, as those roles.
CREATE FUNCTION rowkeeper._bypassing() RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF AS 'MODULE_PATHNAME', 'rowkeeper_bypassing';
COMMENT ON FUNCTION rowkeeper._bypassing() IS
    'whether this transaction is past the isolation of tenants';

CREATE FUNCTION rowkeeper._tenant_claim() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF AS 'MODULE_PATHNAME', 'rowkeeper_tenant_claim';
COMMENT ON FUNCTION rowkeeper._tenant_claim() IS
    'the tenant that this transaction acts for, or null; for the audit log';
