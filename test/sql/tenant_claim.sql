-- Claims: which tenant and user a transaction acts for.
\set VERBOSITY terse
\pset format unaligned
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE ROLE tenant_claim_app;
CREATE ROLE tenant_claim_other;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_claim_app', 'set');
SET ROLE tenant_claim_app;

-- every usual type of parameter
BEGIN;
SELECT rowkeeper.tenant_set(42), rowkeeper.tenant_id(), rowkeeper.tenant_text();
SELECT rowkeeper.tenant_set('acme'), rowkeeper.tenant_text();
SELECT rowkeeper.tenant_set('5f1ea0f0-0000-4000-8000-000000000001'::uuid), rowkeeper.tenant_uuid();
SELECT rowkeeper.tenant_set(7::smallint), rowkeeper.tenant_id();
PREPARE set_it AS SELECT rowkeeper.tenant_set($1);
EXECUTE set_it('9');
SELECT rowkeeper.tenant_id();
DEALLOCATE set_it;
-- text that reads as a number is one, as numbers are written, and as nothing else
SELECT rowkeeper.tenant_set('-9223372036854775808'), rowkeeper.tenant_id();
SELECT rowkeeper.tenant_set('5F1EA0F0-0000-4000-8000-000000000001'), rowkeeper.tenant_uuid();
SAVEPOINT a;
SELECT rowkeeper.tenant_set('042'), rowkeeper.tenant_id();
ROLLBACK TO a;
SELECT rowkeeper.tenant_set('+42'), rowkeeper.tenant_id();
ROLLBACK TO a;
SELECT rowkeeper.tenant_set(' 42'), rowkeeper.tenant_id();
ROLLBACK TO a;
SELECT rowkeeper.tenant_set('9223372036854775808'), rowkeeper.tenant_id();
ROLLBACK TO a;
SELECT rowkeeper.tenant_set('acme'), rowkeeper.tenant_uuid();
ROLLBACK TO a;
SELECT rowkeeper.tenant_set('');
ROLLBACK TO a;
SELECT rowkeeper.tenant_set(repeat('x', 1025));
ROLLBACK TO a;
SELECT length(rowkeeper.tenant_set(repeat('x', 1024)));
-- NULL clears
SELECT rowkeeper.tenant_set(NULL::bigint);
SELECT rowkeeper.tenant_id();
ROLLBACK;

-- the user likewise, on its own
BEGIN;
SELECT rowkeeper.user_set('alice'), rowkeeper.user_text();
SELECT rowkeeper.user_set(5), rowkeeper.user_id();
SELECT rowkeeper.user_set('5f1ea0f0-0000-4000-8000-000000000001'::uuid), rowkeeper.user_uuid();
SELECT rowkeeper.tenant_id();
ROLLBACK;

-- what undoes it
BEGIN;
SELECT rowkeeper.tenant_set(1);
SAVEPOINT a;
SELECT rowkeeper.tenant_set(2);
ROLLBACK TO a;
SELECT rowkeeper.tenant_id();
SAVEPOINT b;
SELECT rowkeeper.tenant_set(3);
RELEASE b;
SELECT rowkeeper.tenant_id();
SAVEPOINT c;
SELECT 1 / 0;
ROLLBACK TO c;
SELECT rowkeeper.tenant_id();
COMMIT;
SELECT rowkeeper.tenant_id();
BEGIN;
SELECT rowkeeper.tenant_set(1);
RESET rowkeeper.tenant;
SELECT rowkeeper.tenant_id();
ROLLBACK;
BEGIN;
SELECT rowkeeper.tenant_set(1);
COMMIT AND CHAIN;
SELECT rowkeeper.tenant_id();
ROLLBACK;

-- where it would have no effect
SELECT rowkeeper.tenant_set(1);
SELECT rowkeeper.user_set(1);
-- within a function or a DO block it has
DO $$BEGIN PERFORM rowkeeper.tenant_set(1); RAISE NOTICE '%', rowkeeper.tenant_id(); END$$;
SELECT rowkeeper.tenant_id();
-- a procedure that commits loses it at each commit
DO $$
BEGIN
	PERFORM rowkeeper.tenant_set(1);
	COMMIT;
	PERFORM rowkeeper.tenant_id();
END$$;

-- not set: an error, or NULL
SET rowkeeper.tenant_strict = off;
SELECT rowkeeper.tenant_id(), rowkeeper.tenant_uuid(), rowkeeper.tenant_text(), rowkeeper.user_text();
RESET rowkeeper.tenant_strict;

-- parallel workers see it
RESET ROLE;
CREATE TABLE tenant_claim_rows AS SELECT i AS id FROM generate_series(1, 1000) i;
GRANT SELECT ON tenant_claim_rows TO tenant_claim_app;
SET ROLE tenant_claim_app;
BEGIN;
SELECT rowkeeper.tenant_set(5), rowkeeper.user_set('alice');
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL parallel_leader_participation = off;
EXPLAIN (COSTS off) SELECT count(*) FROM tenant_claim_rows WHERE rowkeeper.tenant_guard(5) AND rowkeeper.tenant_id() = 5;
SELECT count(*) FROM tenant_claim_rows WHERE rowkeeper.tenant_guard(5) AND id < rowkeeper.tenant_id() * 10 AND rowkeeper.user_guard('alice'::text);
SELECT count(*) FROM tenant_claim_rows WHERE rowkeeper.tenant_guard(id);
ROLLBACK;

-- trust
SET ROLE tenant_claim_other;
BEGIN;
SELECT rowkeeper.tenant_set(1);
ROLLBACK;
BEGIN;
SELECT rowkeeper.user_set('x');
ROLLBACK;
SELECT rowkeeper.tenant_role('tenant_claim_other', 'set');
RESET ROLE;
-- the guard of each type, of NULL
BEGIN;
SELECT rowkeeper.tenant_set(7);
SELECT rowkeeper.tenant_guard(7::smallint), rowkeeper.tenant_guard(7), rowkeeper.tenant_guard(7::bigint), rowkeeper.tenant_guard('7'::text), rowkeeper.tenant_guard(8),
	rowkeeper.tenant_guard(NULL::int), rowkeeper.tenant_guard('00000000-0000-0000-0000-000000000007'::uuid);
ROLLBACK;
DROP TABLE tenant_claim_rows;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_claim_app', 'none');
DROP ROLE tenant_claim_app, tenant_claim_other;
