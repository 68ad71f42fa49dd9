-- Attempts to see or touch another tenant's rows. Eve may act for tenant 1, by
-- a token that somebody else signed; each row of tenant 2 says SECRET. What a
-- pooler, a server's log and a second session add is in the TAP tests.
\set VERBOSITY terse
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA attacks;
SET search_path = attacks;
CREATE ROLE attacks_owner;
CREATE ROLE attacks_eve;
CREATE ROLE attacks_trusted;
CREATE ROLE attacks_reader IN ROLE pg_read_all_data;
GRANT USAGE, CREATE ON SCHEMA attacks TO attacks_owner, attacks_eve, attacks_trusted;
SELECT count(*) FROM rowkeeper.tenant_role('attacks_eve', 'signed');
SELECT count(*) FROM rowkeeper.tenant_role('attacks_trusted', 'set');
SELECT rowkeeper.tenant_key_add('attacks', repeat('s', 32)::bytea);
SET ROLE attacks_owner;
CREATE TABLE orders (tenant_id int NOT NULL, id int PRIMARY KEY, item text UNIQUE);
CREATE TABLE lines (tenant_id int NOT NULL, order_id int, note text) PARTITION BY HASH (order_id);
CREATE TABLE lines_0 PARTITION OF lines FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE lines_1 PARTITION OF lines FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO orders SELECT 1 + i % 2, i, CASE i % 2 WHEN 1 THEN 'SECRET ' ELSE 'mine ' END || i FROM generate_series(1, 6) i;
INSERT INTO lines SELECT tenant_id, id, item FROM orders;
GRANT ALL ON orders, lines, lines_0, lines_1 TO attacks_eve, attacks_trusted;
REVOKE TRIGGER, REFERENCES ON orders, lines, lines_0, lines_1 FROM attacks_eve;
SELECT count(*) FROM rowkeeper.tenant('orders');
SELECT count(*) FROM rowkeeper.tenant('lines');
ANALYZE orders, lines;
RESET ROLE;
CREATE TABLE token (value text);
GRANT SELECT ON token TO PUBLIC;
INSERT INTO token SELECT rowkeeper.tenant_sign(1, 'eve', '1 hour');
SELECT value AS token FROM token \gset
\set as_one 'BEGIN; SELECT rowkeeper.tenant_set_signed(:''token''); SAVEPOINT a;'
\set again 'ROLLBACK TO a;'
SET ROLE attacks_eve;

\echo == settings
BEGIN; SAVEPOINT a;
-- 1. SET
SET rowkeeper.tenant = '2';
:again
-- 2. SET LOCAL
SET LOCAL rowkeeper.tenant = '2';
:again
-- 3. set_config
SELECT set_config('rowkeeper.tenant', '2', true);
:again
-- 4. the user's claim
SELECT set_config('rowkeeper.user_claim', 'admin', false);
:again
-- 5. the bypass
SET rowkeeper.bypass = 'because';
:again
-- 6. UPDATE pg_settings
UPDATE pg_settings SET setting = '2' WHERE name = 'rowkeeper.tenant';
:again
-- 7. a role's setting
ALTER ROLE attacks_eve SET rowkeeper.tenant = '2';
:again
-- 8. a function's setting
CREATE FUNCTION set_two() RETURNS bigint LANGUAGE sql SET rowkeeper.tenant = '2' AS 'SELECT count(*) FROM attacks.orders';
:again
ROLLBACK;
-- 9. what is in force, kept in a function
:as_one
CREATE FUNCTION keep() RETURNS bigint LANGUAGE sql SET rowkeeper.token FROM CURRENT AS 'SELECT count(*) FROM attacks.orders';
:again
CREATE FUNCTION keep() RETURNS bigint LANGUAGE sql SET rowkeeper.tenant FROM CURRENT AS 'SELECT count(*) FROM attacks.orders';
ROLLBACK;
SET ROLE attacks_trusted;
BEGIN;
SELECT rowkeeper.tenant_set(2);
CREATE FUNCTION attacks.keep_two() RETURNS bigint LANGUAGE sql SET rowkeeper.tenant FROM CURRENT AS 'SELECT count(*) FROM attacks.orders';
ROLLBACK;
RESET ROLE;
-- 10. by a superuser for the database, the system, a role
SELECT current_database() AS db \gset
ALTER DATABASE :"db" SET rowkeeper.tenant = '2';
ALTER SYSTEM SET rowkeeper.tenant = '2';
ALTER ROLE attacks_eve SET rowkeeper.token = '2';
-- 11. the right to set it
GRANT SET ON PARAMETER rowkeeper.tenant TO attacks_eve;
SET ROLE attacks_eve;
SET rowkeeper.tenant = '2';
RESET ROLE;
REVOKE SET ON PARAMETER rowkeeper.tenant FROM attacks_eve;
-- 12. a superuser's own SET
SET rowkeeper.tenant = '2';
SET rowkeeper.bypass = 'because';
SET ROLE attacks_eve;
-- 13. RESET, DISCARD and SET DEFAULT leave no claim, or the token's
:as_one
RESET rowkeeper.tenant;
SELECT * FROM orders ORDER BY id;
SET LOCAL rowkeeper.tenant TO DEFAULT;
SELECT count(*) FROM orders;
RESET ALL;
SET search_path = attacks;
SELECT count(*) FROM orders;
ROLLBACK;
SET search_path = attacks;

\echo == before the library is loaded
-- 14. a placeholder
\c -
SET search_path = attacks;
SET rowkeeper.tenant = '2';
SET ROLE attacks_eve;
SELECT * FROM orders;
SHOW rowkeeper.tenant;
-- 15. a placeholder, no error asked for
\c -
SET search_path = attacks;
SET rowkeeper.tenant_strict = off;
SET rowkeeper.tenant = '2';
SET rowkeeper.bypass = 'because';
SET ROLE attacks_eve;
SELECT * FROM orders;
-- 16. of the transaction
\c -
SET search_path = attacks;
SET ROLE attacks_eve;
BEGIN;
SELECT set_config('rowkeeper.tenant', '2', true);
SELECT * FROM orders;
ROLLBACK;
-- 17. of the token, as a worker would get it
\c -
SET search_path = attacks;
SET rowkeeper.token = '1 1:2 -1:';
SET ROLE attacks_eve;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off;
SELECT * FROM orders;
-- 18. with the connection's options
\set conn 'dbname=' :DBNAME ' options=-crowkeeper.tenant=2'
\c :"conn"
SET search_path = attacks;
SET ROLE attacks_eve;
SELECT * FROM orders;
\set conn 'dbname=' :DBNAME ' options=''-c rowkeeper.bypass=x -c rowkeeper.tenant_strict=off'''
\c :"conn"
SET search_path = attacks;
SET ROLE attacks_eve;
SELECT * FROM orders;
\set conn 'dbname=' :DBNAME ' options='
\c :"conn"
SET search_path = attacks;
-- 19. a function that a superuser made so, before the library was loaded
CREATE FUNCTION planted() RETURNS SETOF text LANGUAGE plpgsql SET rowkeeper.tenant = '2' AS $$BEGIN RETURN QUERY SELECT item FROM attacks.orders; END$$;
SET ROLE attacks_eve;
SELECT planted();
:as_one
SELECT planted();
ROLLBACK;
RESET ROLE;
DROP FUNCTION planted();
SET ROLE attacks_eve;

\echo == transactions, plans, cursors
-- 20. the claim after the transaction
:as_one
COMMIT;
SELECT count(*) FROM orders;
-- 21. after an error
:as_one
SELECT 1 / 0;
ROLLBACK TO a;
SELECT min(tenant_id), max(tenant_id) FROM orders;
COMMIT;
-- 22. a procedure that commits
CREATE PROCEDURE commits(token text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM rowkeeper.tenant_set_signed(token);
	RAISE WARNING 'before: %', (SELECT count(*) FROM attacks.orders);
	COMMIT;
	RAISE WARNING 'after: %', (SELECT count(*) FROM attacks.orders);
END$$;
CALL commits(:'token');
-- 23. a plan made for another tenant
RESET ROLE;
SET ROLE attacks_trusted;
SET plan_cache_mode = force_generic_plan;
PREPARE all_orders AS SELECT * FROM orders WHERE id > $1 ORDER BY id;
BEGIN;
SELECT rowkeeper.tenant_set(2);
EXPLAIN (COSTS off) EXECUTE all_orders(0);
SELECT rowkeeper.tenant_set(1);
EXECUTE all_orders(0);
COMMIT;
EXECUTE all_orders(0);
-- 24. for another role
RESET ROLE;
PREPARE by_super AS SELECT * FROM orders ORDER BY id;
EXPLAIN (COSTS off) EXECUTE by_super;
SET ROLE attacks_eve;
EXECUTE by_super;
:as_one
EXECUTE by_super;
ROLLBACK;
DEALLOCATE ALL;
RESET plan_cache_mode;
-- 25. a SQL function planned for another claim
CREATE FUNCTION items() RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN QUERY SELECT item FROM attacks.orders ORDER BY id; END$$;
GRANT EXECUTE ON FUNCTION items() TO attacks_trusted;
SET ROLE attacks_trusted;
BEGIN;
SELECT rowkeeper.tenant_set(2);
SELECT count(*) FROM items();
SET LOCAL ROLE attacks_eve;
SELECT rowkeeper.tenant_set(1);
RESET ROLE;
ROLLBACK;
SET ROLE attacks_eve;
SELECT items();
:as_one
SELECT items();
-- 26. a cursor kept past the commit has what was its transaction's
DECLARE kept CURSOR WITH HOLD FOR SELECT item FROM orders ORDER BY id;
COMMIT;
FETCH ALL kept;
CLOSE kept;
-- 27. a cursor, and the claim changed under it
SET ROLE attacks_trusted;
BEGIN;
SELECT rowkeeper.tenant_set(1);
DECLARE c CURSOR FOR SELECT tenant_id FROM orders ORDER BY id;
FETCH 1 c;
SELECT rowkeeper.tenant_set(NULL::text);
FETCH 1 c;
ROLLBACK;
SET ROLE attacks_eve;
-- 28. parallel workers
:as_one
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL parallel_leader_participation = off;
SELECT min(tenant_id), max(tenant_id), count(*) FROM orders;
SELECT min(tenant_id), max(tenant_id), count(*) FROM lines;
ROLLBACK;

\echo == other ways to the rows
:as_one
-- 29. partitions directly
SELECT * FROM lines_0 ORDER BY order_id;
SELECT * FROM lines_1 ORDER BY order_id;
-- 30. by place, by sample, as a whole row, by system columns
SELECT * FROM orders WHERE ctid IN ('(0,1)', '(0,2)', '(0,3)') ORDER BY id;
SELECT count(*) FROM orders TABLESAMPLE BERNOULLI (100);
SELECT o FROM orders o WHERE o::text ~ 'SECRET';
SELECT count(*) FROM ONLY orders WHERE xmin IS NOT NULL;
-- 31. without row security
SET LOCAL row_security = off;
SELECT * FROM orders;
:again
-- 32. COPY out, COPY in
COPY (SELECT * FROM orders ORDER BY id) TO STDOUT;
COPY lines_0 TO STDOUT;
\copy orders from /dev/null
:again
-- 33. a lock that says whether a row is there
SELECT id FROM orders WHERE id = 1 FOR UPDATE;
-- 34. TRUNCATE
TRUNCATE orders;
:again
TRUNCATE lines_0;
:again
-- 35. writing over
UPDATE orders SET item = 'x' WHERE id = 1 RETURNING *;
UPDATE orders o SET item = 'x' FROM lines l WHERE l.order_id = o.id AND o.tenant_id = 2 RETURNING *;
DELETE FROM orders USING lines WHERE orders.id = 1 RETURNING *;
WITH gone AS (DELETE FROM orders WHERE tenant_id = 2 RETURNING *) SELECT * FROM gone;
-- 36. a row given away, or taken
UPDATE orders SET tenant_id = 2 WHERE id = 2;
:again
INSERT INTO orders VALUES (2, 100, 'planted');
:again
INSERT INTO lines_1 VALUES (2, 1, 'planted');
:again
-- 37. ON CONFLICT: an error, which knows that the key is taken and no more
INSERT INTO orders VALUES (1, 1, 'x') ON CONFLICT (id) DO UPDATE SET item = orders.item RETURNING *;
:again
INSERT INTO orders VALUES (1, 1, 'x') ON CONFLICT DO NOTHING RETURNING *;
-- 38. a unique probe: the same
INSERT INTO orders VALUES (1, 1, 'x');
:again
-- 39. MERGE
MERGE INTO orders o USING (VALUES (1)) v (id) ON o.id = v.id WHEN MATCHED THEN UPDATE SET item = 'x' WHEN NOT MATCHED THEN DO NOTHING;
MERGE INTO orders o USING (VALUES (1)) v (id) ON o.id = v.id WHEN NOT MATCHED THEN INSERT VALUES (2, 100, 'x');
:again
-- 40. a function that tells what it is asked of
CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$BEGIN RAISE WARNING 'seen: %', $1; RETURN true; END$$;
SELECT count(*) FROM orders WHERE leak(item);
SELECT count(*) FROM lines WHERE leak(note);
-- 41. an operator that does
CREATE FUNCTION leak_op(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$BEGIN RAISE WARNING 'seen: %', $1; RETURN true; END$$;
CREATE OPERATOR attacks.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = leak_op);
SELECT count(*) FROM orders WHERE item <<< 'x';
-- 42. an error that does
SELECT count(*) FROM orders WHERE 1 / (id - 1) < 100;
SELECT count(*) FROM orders WHERE item::int > 0;
:again
-- 43. one that claims to be leakproof
CREATE FUNCTION leak_proof(text) RETURNS boolean LANGUAGE plpgsql LEAKPROOF COST 0.0000001 AS $$BEGIN RAISE WARNING 'seen: %', $1; RETURN true; END$$;
:again
-- 44. a view of Eve's, a barrier, a temporary one
CREATE VIEW eve_view AS SELECT * FROM attacks.orders;
CREATE TEMP VIEW eve_temp WITH (security_barrier = false) AS SELECT * FROM attacks.orders;
SELECT * FROM eve_view WHERE tenant_id = 2;
SELECT * FROM eve_temp WHERE tenant_id = 2;
ROLLBACK;
-- 45. a view of the table's owner, who is held to it, too
SET ROLE attacks_owner;
CREATE VIEW owner_view AS SELECT * FROM orders;
CREATE FUNCTION owner_items() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT item FROM attacks.orders ORDER BY id';
GRANT SELECT ON owner_view TO attacks_eve;
SET ROLE attacks_eve;
:as_one
SELECT * FROM owner_view ORDER BY id;
-- 46. a function with the owner's rights
SELECT owner_items();
-- 47. a materialized view
CREATE MATERIALIZED VIEW eve_mat AS SELECT * FROM attacks.orders;
SELECT * FROM eve_mat ORDER BY id;
CREATE MATERIALIZED VIEW eve_later AS SELECT * FROM attacks.orders WITH NO DATA;
COMMIT;
REFRESH MATERIALIZED VIEW eve_mat;
DROP MATERIALIZED VIEW eve_mat, eve_later;
-- 48. EXPLAIN plans under the same policies
:as_one
EXPLAIN (COSTS off) SELECT * FROM orders WHERE id = 1;
-- 49. statistics
SELECT count(*) FROM pg_stats WHERE schemaname = 'attacks' AND tablename IN ('orders', 'lines', 'lines_0', 'lines_1');
SELECT stavalues1 FROM pg_statistic WHERE starelid = 'orders'::regclass;
:again
SELECT count(*) FROM pg_stats_ext WHERE schemaname = 'attacks';
-- 50. aggregates and joins over what is not seen
SELECT string_agg(item, ',' ORDER BY id) FROM orders;
SELECT count(*) FROM orders a FULL JOIN lines b ON a.id = b.order_id AND a.tenant_id <> b.tenant_id WHERE coalesce(a.tenant_id, b.tenant_id) = 2;
SELECT count(*) FROM (SELECT FROM orders UNION ALL SELECT FROM lines) u;
-- 51. shadows: a temporary table, functions and operators first in the path
CREATE TEMP TABLE shadow (tenant_id int);
CREATE FUNCTION pg_temp.tenant_guard(int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION attacks.tenant_id() RETURNS bigint LANGUAGE sql AS 'SELECT 2::bigint';
CREATE FUNCTION attacks.eq(int, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR attacks.= (LEFTARG = int, RIGHTARG = bigint, FUNCTION = attacks.eq);
SET LOCAL search_path = attacks, pg_temp, pg_catalog;
SELECT count(*) FROM attacks.orders WHERE item OPERATOR(pg_catalog.~) 'SECRET';
ROLLBACK;
SET search_path = attacks;
-- 52. the functions themselves
CREATE OR REPLACE FUNCTION rowkeeper.tenant_id() RETURNS bigint LANGUAGE sql AS 'SELECT 2::bigint';
CREATE FUNCTION rowkeeper.tenant_guard(numeric) RETURNS boolean LANGUAGE sql AS 'SELECT true';
DROP FUNCTION rowkeeper.tenant_guard(int) CASCADE;
ALTER FUNCTION rowkeeper.tenant_guard(int) RENAME TO x;
CREATE FUNCTION my_set(bigint) RETURNS text LANGUAGE c AS '$libdir/rowkeeper', 'rowkeeper_tenant_set';
-- 53. what is for others to call
BEGIN; SAVEPOINT a;
SELECT rowkeeper.tenant_set(2);
:again
SELECT rowkeeper.user_set('admin');
:again
SELECT rowkeeper.tenant_bypass('because');
:again
SELECT rowkeeper.tenant_sign(2, 'eve', '1 hour');
:again
SELECT rowkeeper.tenant_key_add('eve', repeat('e', 32)::bytea);
:again
SELECT rowkeeper.tenant_role('attacks_eve', 'bypass');
:again
SELECT rowkeeper.tenant_off('orders');
:again
SELECT rowkeeper.leave('orders');
:again
-- 54. through a function of somebody who is trusted
RESET ROLE;
SET ROLE attacks_trusted;
CREATE FUNCTION attacks.trusted_count() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM attacks.orders';
SET ROLE attacks_eve;
SELECT attacks.trusted_count();
ROLLBACK;
-- 55. the table's security
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;
ALTER TABLE orders NO FORCE ROW LEVEL SECURITY;
DROP POLICY rowkeeper_tenant_guard ON orders;
CREATE POLICY eve ON orders USING (true);
ALTER TABLE orders DISABLE TRIGGER ALL;
ALTER TABLE lines DETACH PARTITION lines_0;
-- 56. another policy, by who may: it widens nothing
SET ROLE attacks_owner;
CREATE POLICY wide ON orders USING (true) WITH CHECK (true);
SET ROLE attacks_eve;
:as_one
SELECT * FROM orders ORDER BY id;
ROLLBACK;
SET ROLE attacks_owner;
DROP POLICY wide ON orders;
SET ROLE attacks_eve;
-- 57. a trigger, a rule, an index of Eve's
CREATE FUNCTION eve_trigger() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE WARNING 'seen: %', OLD; RETURN OLD; END$$;
CREATE TRIGGER eve BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION eve_trigger();
CREATE RULE eve AS ON INSERT TO orders DO ALSO SELECT * FROM orders;
CREATE INDEX eve ON orders ((leak(item)));
-- 58. with the right to make triggers: they see what the statement sees
RESET ROLE;
GRANT TRIGGER ON orders TO attacks_eve;
SET ROLE attacks_eve;
CREATE TRIGGER eve BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION eve_trigger();
:as_one
UPDATE orders SET item = item || '';
ROLLBACK;
RESET ROLE;
DROP TRIGGER eve ON orders;
REVOKE TRIGGER ON orders FROM attacks_eve;
SET ROLE attacks_eve;
-- 59. a foreign key of Eve's own, to look which keys there are
CREATE TABLE probe (id int REFERENCES orders (id));
-- 60. an inheritance child, a partition
CREATE TABLE heir () INHERITS (orders);
-- 61. another role
SET ROLE attacks_owner;
RESET ROLE;
SET SESSION AUTHORIZATION attacks_eve;
SET ROLE attacks_owner;
SET ROLE attacks_trusted;
RESET SESSION AUTHORIZATION;
-- 62. who may read all data may not read another tenant's, nor the keys
SET ROLE attacks_reader;
SELECT * FROM attacks.orders;
SELECT * FROM rowkeeper._token_key;
SELECT count(*) FROM pg_stats WHERE schemaname = 'rowkeeper' AND tablename = '_token_key';
RESET ROLE;
BEGIN;
SELECT string_agg(md5(i::text), '') AS long FROM generate_series(1, 31) i \gset
SELECT rowkeeper.tenant_key_add('stored', convert_to(:'long' || repeat('s', 32), 'UTF8'), tenant_claim => :'long', user_claim => :'long');
ANALYZE rowkeeper._token_key;
SELECT reltoastrelid::regclass AS toast FROM pg_class WHERE oid = 'rowkeeper._token_key'::regclass \gset
SET LOCAL ROLE attacks_reader;
SELECT count(*) FROM :toast WHERE position('ssss' IN chunk_data) > 0;
SELECT count(*) FROM pg_statistic WHERE starelid = 'rowkeeper._token_key'::regclass AND staattnum = 2;
ROLLBACK;
-- but TOAST tables and statistics of others: so he is not held to it
SELECT rowkeeper.tenant_assert('attacks_reader');
SET ROLE attacks_eve;
SELECT * FROM rowkeeper._token_key;

\echo == tokens
RESET ROLE;
CREATE FUNCTION base64url(bytea) RETURNS text LANGUAGE sql AS $$SELECT translate(encode($1, 'base64'), E'+/=\n', '-_')$$;
CREATE FUNCTION sign(header text, payload bytea, secret text DEFAULT repeat('s', 32), hash text DEFAULT 'sha256') RETURNS text LANGUAGE sql AS
	$$SELECT part || '.' || attacks.base64url(public.hmac(part::bytea, secret::bytea, hash))
	FROM concat(attacks.base64url(header::bytea), '.', attacks.base64url(payload)) part$$;
CREATE FUNCTION payload(more text DEFAULT '') RETURNS text LANGUAGE sql AS
	$$SELECT format('{"tenant": "2", "aud": %s, "exp": %s%s}', to_json(current_database()::text), floor(extract(epoch FROM now()) + 50), more)$$;
CREATE FUNCTION try(token text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN 'accepted: ' || coalesce(rowkeeper.tenant_set_signed(token), 'null');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END$$;
SET ROLE attacks_eve;
\set h '{"alg": "HS256", "kid": "attacks"}'
\set p '(SELECT attacks.payload()::bytea)'
-- 63. the way it is meant, that the others differ from in one thing
SELECT try(sign(:'h', :p));
-- 64. another algorithm, or none
SELECT alg, try(sign(format('{"alg": %s, "kid": "attacks"}', alg), :p, hash => hash)) FROM
	(VALUES ('"none"', 'sha256'), ('"None"', 'sha256'), ('"HS512"', 'sha512'), ('"HS384"', 'sha384'), ('"RS256"', 'sha256'), ('"hs256"', 'sha256'), ('"HS256 "', 'sha256'), ('null', 'sha256'), ('["HS256"]', 'sha256')) a (alg, hash);
SELECT try(sign('{"kid": "attacks"}', :p));
SELECT try(base64url('{"alg": "none", "kid": "attacks"}') || '.' || base64url(:p) || '.');
-- 65. the algorithm or a claim twice
SELECT try(sign('{"alg": "none", "alg": "HS256", "kid": "attacks"}', :p));
SELECT try(sign(:'h', payload(', "tenant": "1"')::bytea));
SELECT try(sign(:'h', payload(', "x": {"y": 1, "y": 2}')::bytea));
-- 66. another secret, an empty one, the key's name
SELECT try(sign(:'h', :p, repeat('x', 32))), try(sign(:'h', :p, '')), try(sign(:'h', :p, 'attacks'));
-- 67. a key that there is not, or that is no name
SELECT kid, try(sign(format('{"alg": "HS256", "kid": %s}', kid), :p)) FROM
	unnest('{"\"gone\"","\"\"","null",5,"[\"attacks\"]","\"attacks'' OR true\"","\"../../etc/passwd\""}'::text[]) kid;
SELECT try(sign('{"alg": "HS256", "kid": "attacks", "crit": ["b64"], "b64": false}', :p));
-- 68. altered: payload, signature, header
SELECT try(split_part(t, '.', 1) || '.' || base64url(:p) || '.' || split_part(t, '.', 3)) FROM token, LATERAL (SELECT value) v (t);
SELECT try(overlay(value PLACING 'AAAA' FROM length(value) - 3)), try(overlay(value PLACING 'eyJ1' FROM 1)) FROM token;
-- 69. truncated, with a part too many, with padding, in other spellings
SELECT try(left(value, -1)), try(left(value, -10)), try(split_part(value, '.', 1)), try(value || '.x'), try(value || '='), try(value || E'\n'), try(' ' || value), try('..'), try('.'), try(''), try('x') FROM token;
SELECT try(left(value, -1) || translate(right(value, 1), 'AEIMQUYcgkosw048', 'BFJNRVZdhlptx159')) FROM token;
-- 70. expired, without an end, with one that is none
SELECT exp, try(sign(:'h', format('{"tenant": "2", "aud": %s, "exp": %s}', to_json(current_database()::text), exp)::bytea)) FROM
	unnest('{1,0,-1,"null","\"9999999999\"","[9999999999]",true}'::text[]) exp;
SELECT try(sign(:'h', format('{"tenant": "2", "aud": %s}', to_json(current_database()::text))::bytea));
-- 71. not valid yet
SELECT try(sign(:'h', payload(', "nbf": 9999999999')::bytea)), try(sign(:'h', payload(', "nbf": "1"')::bytea));
-- 72. for another database, for none
SELECT aud, try(sign(:'h', format('{"tenant": "2", "exp": 9999999999, "aud": %s}', aud)::bytea)) FROM unnest('{"\"other\"","null","[]","[\"other\"]","{}",5}'::text[]) aud;
SELECT try(sign(:'h', '{"tenant": "2", "exp": 9999999999}'));
-- 73. for another role
SELECT try(sign(:'h', payload(', "role": "attacks_trusted"')::bytea)), try(sign(:'h', payload(', "role": null')::bytea)), try(sign(:'h', payload(', "role": ["x"]')::bytea));
-- 74. oversized
SELECT try(sign(:'h', payload(format(', "x": "%s"', repeat('x', 9000)))::bytea)), try(repeat('x', 100000)), try(repeat('.', 100000));
-- 75. not UTF-8, with a zero byte, no JSON, no object, too deep
SELECT try(sign(:'h', convert_to(payload(), 'UTF8') || '\xff')), try(sign(:'h', :p || '\x00')), try(sign(:'h', convert_to(payload(', "x": "\u0000"'), 'UTF8'))),
	try(sign(:'h', 'tenant=2')), try(sign(:'h', '[]')), try(sign(:'h', '"2"')), try(sign('[]', :p)), try(sign(:'h', convert_to(repeat('[', 5000), 'UTF8'))), try(sign(:'h', ''));
-- 76. a tenant that is none
SELECT tenant, try(sign(:'h', format('{"tenant": %s, "sub": "eve", "aud": %s, "exp": 9999999999}', tenant, to_json(current_database()::text))::bytea)) FROM
	unnest('{"\"\"",true,"[2]","{\"id\": 2}"}'::text[]) tenant;
SELECT try(sign(:'h', format('{"tenant": "%s", "aud": %s, "exp": 9999999999}', repeat('x', 1025), to_json(current_database()::text))::bytea));
SELECT try(sign(:'h', format('{"aud": %s, "exp": 9999999999}', to_json(current_database()::text))::bytea));
-- 77. what SHOW says, handed back
:as_one
SELECT try(current_setting('rowkeeper.token'));
SELECT try('1 1:2 -1:'), rowkeeper.tenant_id();
ROLLBACK;
-- 78. planted by a session's SET, for later transactions and their workers
SELECT sign(:'h', :p) AS short \gset
SET rowkeeper.token = :'short';
SELECT count(*) FROM orders;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off;
SELECT count(*) FROM orders;
SET rowkeeper.tenant_strict = off;
SELECT count(*) FROM orders;
RESET rowkeeper.tenant_strict;
BEGIN;
SAVEPOINT a;
-- 79. beside a claim that somebody trusted has set
SELECT rowkeeper.tenant_set_signed(:'token');
SET LOCAL rowkeeper.token = '';
SELECT count(*) FROM orders;
ROLLBACK;
-- 80. kept for a role, a database, a function
ALTER ROLE attacks_eve SET rowkeeper.token = :'short';
CREATE FUNCTION kept() RETURNS bigint LANGUAGE sql SET rowkeeper.token = 'x' AS 'SELECT 1';
-- 81. in a connection's options
RESET ROLE;
\set conn 'dbname=' :DBNAME ' options=-crowkeeper.token=' :short
\c :"conn"
SET search_path = attacks;
SET ROLE attacks_eve;
SELECT * FROM orders;
\set conn 'dbname=' :DBNAME ' options='
\c :"conn"
-- 82. as a name of the library
SET ROLE attacks_eve;
LOAD '$libdir/plugins/rowkeeper';
LOAD 'rowkeeper';
RESET ROLE;

-- all of it is still there, and no row of it was seen
SET search_path = attacks;
SELECT count(*) FILTER (WHERE tenant_id = 2 AND item ~ 'SECRET'), count(*) FROM orders;
SELECT count(*) FILTER (WHERE tenant_id = 2 AND note ~ 'SECRET'), count(*) FROM lines;
SELECT check_name, level, object, detail FROM rowkeeper.doctor('attacks', 'tenant') WHERE level = 'error';
SET client_min_messages = warning;
SELECT rowkeeper.tenant_key_drop('attacks');
SELECT count(*) FROM rowkeeper.tenant_role('attacks_eve', 'none');
SELECT count(*) FROM rowkeeper.tenant_role('attacks_trusted', 'none');
DROP SCHEMA attacks CASCADE;
DROP ROLE attacks_owner, attacks_eve, attacks_trusted, attacks_reader;
