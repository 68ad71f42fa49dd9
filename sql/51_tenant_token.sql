-- Tenant: signed tokens. The keys are in no dump: a database restored elsewhere
-- must not accept, let alone make, the tokens of this one.

CREATE TABLE rowkeeper._token_key (
	kid text PRIMARY KEY,
	secret bytea NOT NULL,
	not_before timestamptz,
	not_after timestamptz,
	tenant_claim text NOT NULL,
	user_claim text NOT NULL,
	audience text
);
REVOKE ALL ON rowkeeper._token_key FROM PUBLIC;
-- Statistics and TOAST tables have no row security.
ALTER TABLE rowkeeper._token_key ALTER secret SET STORAGE PLAIN, ALTER secret SET STATISTICS 0;
ALTER TABLE rowkeeper._token_key ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
COMMENT ON TABLE rowkeeper._token_key IS
'Keys that tokens are signed with. Row security without a policy keeps it from those who may read all data.';

CREATE FUNCTION rowkeeper.tenant_set_signed(token text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_set_signed';
REVOKE ALL ON FUNCTION rowkeeper.tenant_set_signed(text) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.tenant_set_signed(text) IS
    'tenant and user that a signed token (JWT, HS256) names, until the transaction ends; returns the tenant';

CREATE FUNCTION rowkeeper.tenant_sign(tenant text, user_name text, valid_for interval, role name DEFAULT NULL) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_sign';
REVOKE ALL ON FUNCTION rowkeeper.tenant_sign(text, text, interval, name) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.tenant_sign(text, text, interval, name) IS
    'a token for tenant_set_signed(), signed with the newest key; for roles trusted to name any tenant';

CREATE FUNCTION rowkeeper.tenant_sign(tenant bigint, user_name text, valid_for interval, role name DEFAULT NULL) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_sign';
REVOKE ALL ON FUNCTION rowkeeper.tenant_sign(bigint, text, interval, name) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.tenant_sign(bigint, text, interval, name) IS
    'a token for tenant_set_signed(), signed with the newest key; for roles trusted to name any tenant';

CREATE FUNCTION rowkeeper.tenant_sign(tenant uuid, user_name text, valid_for interval, role name DEFAULT NULL) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_sign';
REVOKE ALL ON FUNCTION rowkeeper.tenant_sign(uuid, text, interval, name) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.tenant_sign(uuid, text, interval, name) IS
    'a token for tenant_set_signed(), signed with the newest key; for roles trusted to name any tenant';

CREATE FUNCTION rowkeeper.tenant_key_add(kid text, secret bytea, not_before timestamptz DEFAULT NULL,
                               not_after timestamptz DEFAULT NULL, tenant_claim text DEFAULT 'tenant',
                               user_claim text DEFAULT 'sub', audience text DEFAULT NULL) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_key_add';
REVOKE ALL ON FUNCTION rowkeeper.tenant_key_add(text, bytea, timestamptz, timestamptz, text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.tenant_key_add(text, bytea, timestamptz, timestamptz, text, text, text) IS
    'a key (32 to 1024 bytes) that tokens may be signed with; where they name tenant and user (dotted paths); their audience (the database''s name)';

CREATE FUNCTION rowkeeper.tenant_key_drop(kid text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_key_drop';
REVOKE ALL ON FUNCTION rowkeeper.tenant_key_drop(text) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.tenant_key_drop(text) IS
    'takes a key away: its tokens are refused from the commit on';
