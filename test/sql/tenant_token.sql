-- Signed tokens: tenant and user from who signed, not from who asks.
\set VERBOSITY terse
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE ROLE tenant_token_app;
CREATE ROLE tenant_token_signer;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_token_app', 'signed');
SELECT count(*) FROM rowkeeper.tenant_role('tenant_token_signer', 'sign');
-- a token as an application makes it, in SQL: header and payload signed by pgcrypto
CREATE FUNCTION pg_temp.base64url(bytea) RETURNS text LANGUAGE sql AS
	$$SELECT translate(encode($1, 'base64'), E'+/=\n', '-_')$$;
CREATE FUNCTION pg_temp.jwt(payload jsonb, header jsonb DEFAULT '{"alg": "HS256", "typ": "JWT", "kid": "k1"}', secret text DEFAULT repeat('s', 32)) RETURNS text LANGUAGE sql AS
	$$SELECT part || '.' || pg_temp.base64url(hmac(part::bytea, secret::bytea, 'sha256'))
	FROM concat(pg_temp.base64url(header::text::bytea), '.', pg_temp.base64url(payload::text::bytea)) part$$;
CREATE FUNCTION pg_temp.claims(jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_strip_nulls(jsonb_build_object('tenant', '7', 'sub', 'joe', 'aud', current_database(),
		'exp', floor(extract(epoch FROM now()) + 50)) || $1)$$;

-- keys: superusers only, long enough
SELECT rowkeeper.tenant_sign('7', 'joe', '1 min');
SELECT rowkeeper.tenant_key_add('k1', repeat('s', 32)::bytea);
SELECT rowkeeper.tenant_key_add('k1', repeat('s', 32)::bytea);
SELECT rowkeeper.tenant_key_add('short', repeat('s', 31)::bytea);
SELECT rowkeeper.tenant_key_add('long', repeat('s', 1025)::bytea);
SELECT rowkeeper.tenant_key_add('', repeat('s', 32)::bytea);
SELECT rowkeeper.tenant_key_add(NULL, repeat('s', 32)::bytea);
SELECT rowkeeper.tenant_key_drop('gone');
SET ROLE tenant_token_signer;
SELECT rowkeeper.tenant_key_add('mine', repeat('s', 32)::bytea);
SELECT rowkeeper.tenant_key_drop('k1');
-- signing, by who may
SELECT rowkeeper.tenant_sign('7', 'joe', '10 min') AS token \gset
SELECT rowkeeper.tenant_sign(7, 'joe', '30 s') AS short_token \gset
SELECT rowkeeper.tenant_sign('5f1ea0f0-0000-4000-8000-000000000001'::uuid, NULL, '10 min') AS uuid_token \gset
SELECT convert_from(decode(rpad(translate(part, '-_', '+/'), (length(part) + 3) / 4 * 4, '='), 'base64'), 'UTF8') FROM split_part(:'token', '.', 1) part;
SELECT rowkeeper.tenant_sign(NULL::text, NULL, '1 min');
SELECT rowkeeper.tenant_sign('7', NULL, '-1 min');
SELECT rowkeeper.tenant_sign('7', NULL, NULL);
SELECT rowkeeper.tenant_set_signed(:'token');
SET ROLE tenant_token_app;
SELECT rowkeeper.tenant_sign('7', 'joe', '1 min');

-- used: as a parameter
SELECT rowkeeper.tenant_set_signed(:'token');
BEGIN;
SELECT rowkeeper.tenant_set_signed(:'token');
SELECT rowkeeper.tenant_id(), rowkeeper.user_text();
-- what it was is not shown
SELECT regexp_replace(current_setting('rowkeeper.token'), '^\d+', 'transaction');
SELECT count(*) FROM pg_settings WHERE name = 'rowkeeper.token';
SELECT rowkeeper.tenant_set_signed(:'uuid_token');
SELECT rowkeeper.tenant_uuid();
SELECT rowkeeper.user_text();
ROLLBACK;
BEGIN;
SELECT rowkeeper.tenant_set_signed(:'uuid_token');
SAVEPOINT a;
SELECT rowkeeper.tenant_set_signed(:'token');
ROLLBACK TO a;
SELECT rowkeeper.tenant_uuid();
SELECT rowkeeper.tenant_set_signed(NULL);
SELECT rowkeeper.tenant_uuid();
ROLLBACK;
SELECT rowkeeper.tenant_id();
-- in a SET, where others see it: for a minute at most
BEGIN;
SET LOCAL rowkeeper.token = :'short_token';
SELECT rowkeeper.tenant_id();
SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid() AND query ~ 'eyJ';
COMMIT;
SELECT rowkeeper.tenant_id();
BEGIN;
SET LOCAL rowkeeper.token = :'token';
ROLLBACK;
-- a session's SET is for its transaction only: the setting stays, its claim does not
SET rowkeeper.token = :'short_token';
SELECT rowkeeper.tenant_id();
BEGIN;
SELECT rowkeeper.tenant_id();
ROLLBACK;
RESET ROLE;
CREATE TABLE tenant_token_rows AS SELECT i AS id, i % 10 AS tenant_id FROM generate_series(1, 1000) i;
GRANT SELECT ON tenant_token_rows TO tenant_token_app;
SET ROLE tenant_token_app;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off;
-- nor for parallel workers, which take what their leader verified
SELECT count(*) FROM tenant_token_rows WHERE rowkeeper.tenant_guard(tenant_id);
SET rowkeeper.tenant_strict = off;
SELECT count(*) FROM tenant_token_rows WHERE rowkeeper.tenant_guard(tenant_id);
RESET rowkeeper.tenant_strict;
BEGIN;
SELECT rowkeeper.tenant_set_signed(:'token');
SELECT count(*) FROM tenant_token_rows WHERE rowkeeper.tenant_guard(tenant_id) AND rowkeeper.user_guard('joe'::text);
COMMIT;
SELECT count(*) FROM tenant_token_rows WHERE rowkeeper.tenant_guard(tenant_id);
RESET rowkeeper.token;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET parallel_leader_participation;

-- made by an application
\set try 'BEGIN; SELECT rowkeeper.tenant_set_signed(:''t''), rowkeeper.tenant_text(), rowkeeper.user_text(); ROLLBACK;'
SELECT pg_temp.jwt(pg_temp.claims()) AS t \gset
:try
SELECT pg_temp.jwt(pg_temp.claims('{"tenant": 8, "sub": 12}')) AS t \gset
:try
SELECT pg_temp.jwt(pg_temp.claims(jsonb_build_object('aud', array['other', current_database()]))) AS t \gset
:try
SELECT pg_temp.jwt(pg_temp.claims(jsonb_build_object('role', session_user, 'nbf', 1, 'iat', 5, 'scope', '{"a": [1, null]}'::jsonb))) AS t \gset
:try
SELECT pg_temp.jwt(pg_temp.claims(), '{"alg": "HS256"}') AS t \gset
:try
-- set and signed: the same, or an error
RESET ROLE;
BEGIN;
SELECT rowkeeper.tenant_set(7), rowkeeper.tenant_set_signed(:'token'), rowkeeper.tenant_id();
SELECT rowkeeper.tenant_set(8), rowkeeper.tenant_id();
ROLLBACK;
-- the actor: what a token says, then set_context(), then what is claimed
BEGIN;
SELECT rowkeeper.user_set('claimed'), rowkeeper.actor();
SELECT rowkeeper.set_context('said'), rowkeeper.actor();
SELECT rowkeeper.user_set(NULL::text), rowkeeper.tenant_set_signed(:'token'), rowkeeper.actor();
ROLLBACK;
-- several keys, each with its time and its names for the claims
SELECT rowkeeper.tenant_key_add('app', repeat('a', 40)::bytea, tenant_claim => 'app_metadata.tenant_id', user_claim => 'app_metadata.user', audience => 'authenticated');
SELECT rowkeeper.tenant_key_add('old', repeat('o', 32)::bytea, not_after => '2026-01-01');
SELECT rowkeeper.tenant_key_add('next', repeat('n', 32)::bytea, not_before => '2100-01-01');
SET ROLE tenant_token_app;
\set h '{"alg": "HS256", "kid": "app"}'
SELECT pg_temp.jwt(pg_temp.claims('{"tenant": null, "aud": "authenticated", "app_metadata": {"tenant_id": "acme", "user": "ann"}}'), :'h', repeat('a', 40)) AS t \gset
:try
SELECT pg_temp.jwt(pg_temp.claims('{"aud": "authenticated"}'), :'h', repeat('a', 40)) AS t \gset
:try
SELECT pg_temp.jwt(pg_temp.claims(), '{"alg": "HS256", "kid": "old"}', repeat('o', 32)) AS t \gset
:try
SELECT pg_temp.jwt(pg_temp.claims(), '{"alg": "HS256", "kid": "next"}', repeat('n', 32)) AS t \gset
:try
-- no kid, and more than one key
SELECT pg_temp.jwt(pg_temp.claims(), '{"alg": "HS256"}') AS t \gset
:try
-- rotation: from the commit on, in every session
RESET ROLE;
SELECT rowkeeper.tenant_sign('7', 'joe', '1 min') AS t \gset
SELECT rowkeeper.tenant_key_drop('app');
SELECT rowkeeper.tenant_key_drop('old');
SELECT rowkeeper.tenant_key_drop('next');
SELECT rowkeeper.tenant_key_drop('k1');
SET ROLE tenant_token_app;
BEGIN;
SELECT rowkeeper.tenant_set_signed(:'token');
ROLLBACK;
RESET ROLE;
DROP TABLE tenant_token_rows;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_token_app', 'none');
SELECT count(*) FROM rowkeeper.tenant_role('tenant_token_signer', 'none');
DROP ROLE tenant_token_app, tenant_token_signer;
