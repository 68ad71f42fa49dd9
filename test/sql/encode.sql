--
-- Rows as the audit log stores them: byte for byte what to_jsonb(row) gives
-- under fixed settings, whatever the session has set; and the hash of their
-- keys, which must never change.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA encode_test;
SET search_path = encode_test, public;
CREATE EXTENSION IF NOT EXISTS hstore SCHEMA public;
CREATE EXTENSION IF NOT EXISTS citext SCHEMA public;
RESET client_min_messages;

-- What the log promises to store.
CREATE FUNCTION promised(r record) RETURNS jsonb LANGUAGE plpgsql STABLE
	SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres'
	SET bytea_output = 'hex' SET extra_float_digits = 1 SET lc_monetary = 'C'
	SET search_path = '' SET quote_all_identifiers = off
	AS 'BEGIN RETURN to_jsonb(r); END';

-- Are two values the same bytes?
CREATE FUNCTION same(a jsonb, b jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE
	AS 'SELECT record_image_eq(row(a), row(b))';

--
-- In a session with settings of its own
--
SET datestyle = 'German';
SET timezone = 'Asia/Kathmandu';
SET intervalstyle = 'sql_standard';
SET bytea_output = 'escape';
SET extra_float_digits = -15;
SET quote_all_identifiers = on;
-- one with a currency sign, if this machine has one
DO $$ BEGIN
	PERFORM set_config('lc_monetary', collcollate, false) FROM pg_collation
	WHERE collprovider = 'c' AND collcollate ~* '^(en_US|de_DE|en_GB)\.utf-?8$' LIMIT 1;
END $$;

CREATE TABLE orders (
	id bigint, customer_id integer, status text, total numeric(12,2),
	placed_at timestamptz, paid_on date, wait interval, attributes jsonb,
	photo bytea, weight float8, open boolean, reference uuid);
INSERT INTO orders VALUES (
	42, 7, 'new', 99.50, '2026-03-01 12:00:00.25+00', '2026-03-02', '1 day 2 hours',
	'{"gift": true}', '\x00ff', 0.1, true, '6f1ed002-ab59-4a10-8a2f-0c6a1b3a1d2e'),
	(43, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
SELECT jsonb_pretty(rowkeeper._audit_encode(o)) FROM orders o WHERE id = 42;
SELECT id, same(rowkeeper._audit_encode(o), promised(o)) FROM orders o ORDER BY id;
SELECT rowkeeper._audit_encode(o, '{id,total}') FROM orders o ORDER BY id;
SELECT rowkeeper._audit_encode(o, '{}') FROM orders o WHERE id = 42;
SELECT rowkeeper._audit_encode(o, '{nothing}') FROM orders o WHERE id = 42;

-- The session's settings are as they were.
SELECT name, setting FROM pg_settings
WHERE name IN ('DateStyle', 'TimeZone', 'IntervalStyle', 'bytea_output', 'extra_float_digits', 'search_path')
ORDER BY name COLLATE "C";

--
-- Every type there is, with every value it takes from this list
--
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'très content');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN label AS varchar(40);
CREATE DOMAIN short_label AS label CHECK (length(VALUE) < 20);
CREATE DOMAIN price AS numeric(10,2);
CREATE DOMAIN moods AS mood[];
CREATE DOMAIN moment AS timestamptz;
CREATE DOMAIN document AS jsonb;
CREATE TYPE pair AS (a integer, b text);
CREATE TYPE measure AS (at timestamptz, "value" float8, took interval, raw bytea, tags text[], inner_pair pair);
CREATE DOMAIN measure_domain AS measure;
CREATE TYPE float_range AS RANGE (subtype = float8);
CREATE TYPE text_range AS RANGE (subtype = text, collation = "C");

CREATE TABLE literals (literal text);
INSERT INTO literals VALUES
	(''), (' '), ('0'), ('1'), ('-1'), ('7'), ('10000'), ('32767'), ('-32768'), ('2147483647'),
	('-2147483648'), ('9223372036854775807'), ('-9223372036854775808'), ('-0'), ('0.0000'), ('0.1'),
	('1.50'), ('-1234.5678'), ('123456789012345678901234567890.1234567890'), ('1e-10'), ('1e22'),
	('1e300'), ('-1.7976931348623157e308'), ('5e-324'), ('3.4028235e38'), ('1e-45'), ('16777217'),
	('9007199254740993'), ('1e130000'), ('0.00000000000000000000000000000000000000000000000000000000000000000001'),
	('NaN'), ('Infinity'), ('-Infinity'), ('true'), ('f'), ('hello'), ('it''s "quoted" \ and	tabbed'),
	('grüße, 東京 🐘'), ('a.b'), ('sad'), ('très content'), ('{}'), ('{1,2,NULL}'), ('{{1,2},{3,4}}'), ('[2:3]={5,6}'),
	('{"a","b c",NULL}'), ('{sad,NULL,happy}'), ('2026-02-28'), ('2024-02-29 23:59:59.999999'),
	('2000-01-01 00:00:00'), ('1999-12-31 23:59:59.1+00'), ('0001-01-01'), ('0044-03-15 12:00:00 BC'),
	('9999-12-31 23:59:59'), ('10000-01-01'), ('294276-12-31 23:59:59.999999+00'), ('4713-01-01 00:00:00 BC'),
	('infinity'), ('-infinity'), ('00:00:00'), ('24:00:00'), ('12:34:56.789'), ('12:34:56.789+05:45'),
	('1 year -2 months 3 days 04:05:06.7'), ('-1 day'), ('$1,234.56'), ('12.30'), ('6f1ed002-ab59-4a10-8a2f-0c6a1b3a1d2e'),
	('\x00ff7f'), ('null'), ('"text"'), ('12.50'), ('[]'), ('{"b": [1, {"c": null}], "aa": 1.10, "a": "x"}'),
	('[1, [2, []], {"k": true}]'), ('10.0.0.1/24'), ('::1'), ('10.0.0.0/8'), ('08:00:2b:01:02:03'),
	('08:00:2b:01:02:03:04:05'), ('1011'), ('(1,2)'), ('(0.1,0.2),(0.3,1e20)'), ('<(0.1,0.2),3>'),
	('{1,2,3}'), ('((0.1,1),(2,3))'), ('[1,10)'), ('empty'), ('[2026-01-01,2026-02-01)'),
	('["2026-01-01 00:00:00+00",)'), ('{[1,3),[5,7)}'), ('{["2026-01-01 00:00:00+00","2026-01-02 00:00:00+00")}'),
	('[a,b)'), ('[0.1,0.30000000000000004)'), ('pg_class'), ('encode_test.orders'), ('encode_test.pair'), ('now()'), ('+(int,int)'),
	('english'), ('''a'' & ''b'''), ('a b:3 c'), ('$.a[*]'), ('16/B374D848'), ('10:20:10,14,15'), ('(1,"x y")'),
	('(1.23456789,0.3333333333333333)'), ('[1.23456789,2.3456789)'), ('("2026-01-01 00:00:00+00",1.23456789,"1 day","\\x00ff","{a,NULL}","(1,)")'), ('<a>b</a>'), ('a=>1, "b c"=>NULL'), ('MiXed');

CREATE TABLE samples (type regtype, literal text);
SET client_min_messages = warning;
DO $$
DECLARE
	t regtype;
	l text;
BEGIN
	FOR t IN SELECT oid FROM pg_type
			 WHERE typnamespace IN ('pg_catalog'::regnamespace, 'encode_test'::regnamespace, 'public'::regnamespace)
			   AND typtype <> 'p' AND typisdefined AND typcategory <> 'Z'
			   AND (typrelid = 0 OR typnamespace = 'encode_test'::regnamespace)
	LOOP
		INSERT INTO samples VALUES (t, NULL);
		FOR l IN SELECT literal FROM literals LOOP
			BEGIN
				EXECUTE format('SELECT %L::%s', l, t);
				INSERT INTO samples VALUES (t, l);
			EXCEPTION WHEN OTHERS THEN
				NULL;			-- not a value of this type
			END;
		END LOOP;
	END LOOP;
END $$;
RESET client_min_messages;
SELECT count(DISTINCT type) > 150 AS types, count(literal) > 1500 AS samples FROM samples;

-- alone, in arrays, in row types
CREATE FUNCTION mismatches() RETURNS TABLE (type regtype, literal text, stored jsonb, to_jsonb jsonb)
LANGUAGE plpgsql AS $$
DECLARE
	t record;
BEGIN
	FOR t IN SELECT s.type, typarray <> 0 AND typcategory <> 'A' AS has_array, string_agg(format('(%L, %1$L::%s)', s.literal, s.type), ', ') AS rows
			 FROM samples s JOIN pg_type ON oid = s.type
			 WHERE oid NOT IN ('json'::regtype, 'json[]'::regtype, 'hstore'::regtype, 'hstore[]'::regtype)
			 GROUP BY 1, 2
	LOOP
		RETURN QUERY EXECUTE format(
			'SELECT %L::regtype, literal, rowkeeper._audit_encode(r), promised(r)
			 FROM (VALUES %s) s(literal, sample), LATERAL (SELECT sample AS value, 1 AS one %s) r, LATERAL (SELECT row(sample) AS "row") r2
			 WHERE NOT same(rowkeeper._audit_encode(r), promised(r)) OR NOT same(rowkeeper._audit_encode(r2), promised(r2))',
			t.type, t.rows,
			CASE WHEN t.has_array THEN
				format(', ARRAY[sample, NULL, sample] AS list, ARRAY[]::%s[] AS empty,
					   ARRAY[ARRAY[sample, sample], ARRAY[NULL, sample]] AS square', t.type)
			END);
	END LOOP;
END $$;
SET client_min_messages = warning;
SELECT * FROM mismatches();

-- in a session with the server's usual settings
RESET datestyle;
SET timezone = 'UTC';
RESET intervalstyle;
RESET bytea_output;
RESET extra_float_digits;
RESET quote_all_identifiers;
RESET lc_monetary;
SELECT * FROM mismatches();
SET datestyle = 'SQL, DMY';
SET timezone = 'America/St_Johns';
SET intervalstyle = 'iso_8601';
SET extra_float_digits = 3;
SET bytea_output = 'escape';

-- numbers of every size and sign
WITH n AS (SELECT e, s, m FROM generate_series(-320, 308) e, unnest('{-1,1}'::int[]) s,
		   unnest('{1,1.5,9.999999,1.2345678901234567,7.0000001}'::numeric[]) m)
SELECT count(*) FROM n,
LATERAL (SELECT s * m * 10::numeric ^ greatest(e, -100) AS a, (s || '.' || replace(m::text, '.', '') || 'e' || e)::numeric AS b,
		 CASE WHEN e BETWEEN -300 AND 307 THEN (s || 'e' || e)::float8 * m::float8 END AS c,
		 CASE WHEN e BETWEEN -37 AND 37 THEN ((s || 'e' || e)::float8 * m::float8)::float4 END AS d,
		 CASE WHEN e BETWEEN 0 AND 17 THEN (s * m * 10::numeric ^ e)::int8 END AS e,
		 CASE WHEN e BETWEEN 0 AND 8 THEN (s * m * 10::numeric ^ e)::int4 END AS f) r
WHERE NOT same(rowkeeper._audit_encode(r), promised(r));
SELECT count(*) FROM generate_series(0, 62) b, generate_series(-1, 1) d,
LATERAL (SELECT (1::int8 << b) + d AS a, -((1::int8 << b) + d) AS b, ((1::int8 << b) + d)::float8 AS c,
		 ((1::int8 << b) + d)::float4 AS d, ((1::int8 << b) + d)::numeric / 1000 AS e) r
WHERE NOT same(rowkeeper._audit_encode(r), promised(r));

-- days and times
SELECT count(*) FROM generate_series(-2451507, 105000000, 19973) d,
LATERAL (SELECT date '2000-01-01' + d AS a, (date '2000-01-01' + d)::timestamp AS b, time '00:00' + d * interval '1.000001 s' AS c) r
WHERE NOT same(rowkeeper._audit_encode(r), promised(r));
SELECT count(*) FROM generate_series(-731000, 2925000, 101) d,
LATERAL (SELECT date '2000-01-01' + d AS a, date '2000-01-01' + d + d * interval '0.000013 s' AS b,
		 timestamptz 'epoch' + d * interval '1 day 1.1 s' AS c) r
WHERE NOT same(rowkeeper._audit_encode(r), promised(r));

--
-- Shapes of tables
--

-- names: sorted by length, then bytes; any that fit
CREATE TABLE names (b int, a int, bb int, ab int, "Zürich" text, "naïve" text, "東京" text, " " int, "it's" int, "a""b" int,
	x123456789012345678901234567890123456789012345678901234567890ab int, gone text, kept text);
ALTER TABLE names DROP COLUMN gone;
INSERT INTO names VALUES (1, 2, 3, 4, 'z', 'n', 't', 5, 6, 7, 8, 'k');
ALTER TABLE names ADD COLUMN later int DEFAULT 9, ADD COLUMN double_later int GENERATED ALWAYS AS (a * 2) STORED;
SELECT rowkeeper._audit_encode(n) FROM names n;
SELECT same(rowkeeper._audit_encode(n), promised(n)) FROM names n;

-- columns that are computed on reading are not stored
SELECT current_setting('server_version_num')::int >= 180000 AS has_virtual \gset
\if :has_virtual
CREATE TABLE computed (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL);
\else
CREATE TABLE computed (a int);
\endif
INSERT INTO computed VALUES (1);
SELECT rowkeeper._audit_encode(c) FROM computed c;

-- none at all
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
SELECT rowkeeper._audit_encode(n), same(rowkeeper._audit_encode(n), promised(n)) FROM nothing n;

-- many: every 32nd item is stored in another way
DO $$ BEGIN
	EXECUTE (SELECT 'CREATE TABLE wide (' || string_agg(format('column_%s %s', i,
		(ARRAY['int', 'text', 'jsonb', 'numeric', 'boolean', 'int[]', 'interval'])[i % 7 + 1]), ', ') || ')'
		FROM generate_series(1, 300) i);
	INSERT INTO wide (column_300) VALUES (interval '3 days');
	EXECUTE (SELECT 'INSERT INTO wide VALUES (' || string_agg(quote_literal(
		(ARRAY[i::text, 'text ' || i, '{"k": [' || i || ']}', i || '.5', 'true', '{1,NULL,' || i || '}', i || ' days'])[i % 7 + 1]), ', ') || ')'
		FROM generate_series(1, 300) i);
END $$;
SELECT same(rowkeeper._audit_encode(w), promised(w)) FROM wide w;
SELECT same(rowkeeper._audit_encode(w, columns),
			(SELECT jsonb_object_agg(key, value) FROM jsonb_each(promised(w)) WHERE key = ANY (columns)))
FROM wide w, LATERAL (SELECT array_agg(format('column_%s', i)::name) AS columns FROM generate_series(1, 300, 3) i) c;
SELECT same(rowkeeper._audit_encode(r), promised(r))
FROM (SELECT array_agg(i) AS ints, array_agg('item ' || i) AS texts, array_agg(CASE WHEN i % 3 = 0 THEN i::numeric / 7 END) AS numerics,
	  jsonb_object_agg('key ' || i, i) AS object, jsonb_agg(jsonb_build_array(i)) AS nested FROM generate_series(1, 100) i) r;

-- large values: compressed, stored out of line, both
CREATE TABLE large (id int, a text, b text, c jsonb, d bytea, e text[], f numeric, g varchar, h int[], i json);
ALTER TABLE large ALTER a SET STORAGE EXTERNAL, ALTER d SET STORAGE EXTERNAL;
INSERT INTO large
SELECT n, repeat('a', n), (SELECT string_agg(md5(i::text), '') FROM generate_series(1, n / 32) i), jsonb_build_object('k', repeat('j', n)),
	   decode(repeat('ab', n), 'hex'), ARRAY[repeat('e', n), NULL, ''], repeat('7', least(n + 1, 100000))::numeric, repeat('g', n), array_fill(n, ARRAY[n]), NULL
FROM unnest('{0,1,126,127,128,2000,3000,10000,300000,1000000}'::int[]) n;
SELECT count(*), count(*) FILTER (WHERE same(rowkeeper._audit_encode(l), promised(l))) AS same FROM large l;

-- beyond what jsonb can hold
SELECT rowkeeper._audit_encode(r) FROM (SELECT 1 AS id, convert_to(repeat(repeat('x', 1024), 131072), 'UTF8') AS body) r;
SELECT pg_column_size(rowkeeper._audit_encode(r)) FROM (SELECT 'small' AS a) r;

-- a relation's name as seen from an empty search path
SELECT rowkeeper._audit_encode(r) FROM (SELECT 'orders'::regclass AS a, ARRAY['pg_class'::regclass, 'orders'] AS b) r;

--
-- Named exceptions: where to_jsonb would fail, or lose something, the
-- value's text is kept, and the column is named
--
CREATE TYPE with_json AS (id int, doc json, at timestamptz);
CREATE DOMAIN json_domain AS json;
CREATE TABLE exceptions (id int, a json, b json_domain, c json[], d with_json, e with_json[], f hstore, g hstore[], h jsonb, i citext, j json);
INSERT INTO exceptions VALUES (1, '{"b": 1, "a":  2, "b": 3}', '"\u0000"', ARRAY['1e200000', '{}']::json[],
	(1, '[ 1 ]', '2026-01-01 00:00:00+00'), ARRAY[(2, '"\u0000"', '2026-01-01 00:00:00+00')::with_json],
	'a=>1, b=>NULL', ARRAY['x=>y'::hstore], '[1, null]', 'CiText', NULL);
SELECT jsonb_pretty(rowkeeper._audit_encode(ex)), rowkeeper._audit_as_text(ex) FROM exceptions ex;
-- and they come back
SELECT r.a::text = ex.a::text AS a, r.b::text = ex.b::text AS b, r.c::text = ex.c::text AS c, r.d::text = ex.d::text AS d,
	   r.e::text = ex.e::text AS e, r.f = ex.f AS f, r.g = ex.g AS g, r.h = ex.h AS h
FROM exceptions ex, LATERAL (SELECT a #>> '{}' AS a, b #>> '{}' AS b, (c #>> '{}')::json[] AS c, (d #>> '{}')::with_json AS d,
	(e #>> '{}')::with_json[] AS e, (f #>> '{}')::hstore AS f, (g #>> '{}')::hstore[] AS g, h
	FROM jsonb_to_record(rowkeeper._audit_encode(ex)) x(a jsonb, b jsonb, c jsonb, d jsonb, e jsonb, f jsonb, g jsonb, h jsonb)) r;
SELECT rowkeeper._audit_as_text(o) FROM orders o WHERE id = 42;

--
-- Types that change under a table
--
CREATE TABLE moody (id int, m mood, list mood[], p pair);
INSERT INTO moody VALUES (1, 'ok', '{ok,sad}', (1, 'x'));
SELECT rowkeeper._audit_encode(my) FROM moody my;
ALTER TYPE mood RENAME VALUE 'ok' TO 'fine';
SELECT rowkeeper._audit_encode(my) FROM moody my;
BEGIN;
ALTER TYPE mood RENAME VALUE 'fine' TO 'superb';
SELECT rowkeeper._audit_encode(my) FROM moody my;
ROLLBACK;
SELECT rowkeeper._audit_encode(my) FROM moody my;
ALTER TYPE pair ADD ATTRIBUTE doc json;
UPDATE moody SET p.doc = '"\u0000"';
SELECT rowkeeper._audit_encode(my), rowkeeper._audit_as_text(my) FROM moody my;
-- also within a statement whose encoder is made already
CREATE FUNCTION change_pair(int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	IF $1 = 2 THEN
		ALTER TYPE pair ADD ATTRIBUTE more json;
	END IF;
	RETURN $1;
END $$;
ALTER TYPE pair DROP ATTRIBUTE doc;
SELECT rowkeeper._audit_encode(row(change_pair(g), (SELECT p FROM moody))) FROM generate_series(1, 3) g;

--
-- The key hash. These numbers are in users' logs: none may ever change.
--
CREATE TABLE keys (
	i2 int2, i4 int4, i8 int8, big int8, oid oid, num numeric, frac numeric, huge numeric, neg numeric, num_nan numeric, f4 float4, f8 float8,
	f8_nan float8, f8_inf float8, bool boolean, text text, "varchar" varchar(10), bpchar char(10), name name, "char" "char", uuid uuid, date date, "time" time,
	"timestamp" timestamp, timestamptz timestamptz, bytea bytea, mood mood, inet inet, inet6 inet, cidr cidr,
	macaddr macaddr, macaddr8 macaddr8, bit bit(5), varbit varbit, positive positive, short_label short_label, empty text);
INSERT INTO keys VALUES (
	42, 42, 42, 9000000000000000042, 42, 42, 1.50, 123456789012345678901234567890, -0.00001, 'NaN', 1.5, 0.1,
	'NaN', '-Infinity', true, 'grün', 'grün', 'grün', 'grün', 'g', '6f1ed002-ab59-4a10-8a2f-0c6a1b3a1d2e', '2026-03-01', '12:34:56.789',
	'2026-03-01 12:00:00', '2026-03-01 12:00:00+00', '\x00ff', 'très content', '10.0.0.1/24', '2001:db8::1', '10.0.0.0/8',
	'08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '10110', '1011010110', 42, 'grün', '');
SELECT attname, rowkeeper._audit_key_hash(k, attname) FROM keys k, pg_attribute
WHERE attrelid = 'keys'::regclass AND attnum > 0 ORDER BY attnum;
SELECT rowkeeper._audit_key_hash(k, 'i4', 'text') AS "i4, text", rowkeeper._audit_key_hash(k, 'text', 'i4') AS "text, i4",
	   rowkeeper._audit_key_hash(k, 'i2', 'varchar') AS "i2, varchar", rowkeeper._audit_key_hash(k, 'i8', 'i4', 'uuid') AS three
FROM keys k;

-- Rows that follow each other do so in the index of the log.
SELECT array_agg(rowkeeper._audit_key_hash(row(g), 'f1') ORDER BY g) FROM generate_series(1000000000001, 1000000000005) g;
SELECT rowkeeper._audit_key_hash(row(-1), 'f1') AS minus_one, rowkeeper._audit_key_hash(row(-2), 'f1') AS minus_two, rowkeeper._audit_key_hash(row(0), 'f1') AS zero,
	   rowkeeper._audit_key_hash(row(2147483647), 'f1') AS max, rowkeeper._audit_key_hash(row((-2147483648)::int), 'f1') AS min,
	   rowkeeper._audit_key_hash(row(4294967296), 'f1') AS beyond;

-- One value has one hash, in any type or form that can hold it.
SELECT rowkeeper._audit_key_hash(row(a), 'f1') = rowkeeper._audit_key_hash(row(b), 'f1') AS numeric,
	   rowkeeper._audit_key_hash(row(a), 'f1') = rowkeeper._audit_key_hash(row(a::float8), 'f1') AS float8
FROM (VALUES (1::int8, 1.000), (0, 0.0), (10000, 1e4), (-10000, -10000.0000), (123456780000, 123456780000.0),
	  (9223372036854774784, 9223372036854774784.00), (-9223372036854775808, -9223372036854775808)) v(a, b);
SELECT rowkeeper._audit_key_hash(row(1.5), 'f1') = rowkeeper._audit_key_hash(row(1.5000), 'f1') AS scale,
	   rowkeeper._audit_key_hash(row(1e100), 'f1') = rowkeeper._audit_key_hash(row(1e100 + 0.0000), 'f1') AS huge,
	   rowkeeper._audit_key_hash(row('-0'::float8), 'f1') = rowkeeper._audit_key_hash(row('0'::float8), 'f1') AS minus_zero,
	   rowkeeper._audit_key_hash(row('-0'::float8, 1), 'f1', 'f2') = rowkeeper._audit_key_hash(row(0, 1.0), 'f1', 'f2') AS in_pairs,
	   rowkeeper._audit_key_hash(row('NaN'::float8), 'f1') = rowkeeper._audit_key_hash(row('NaN'::numeric), 'f1') AS nan,
	   rowkeeper._audit_key_hash(row('-Infinity'::float8), 'f1') = rowkeeper._audit_key_hash(row('-Infinity'::numeric), 'f1') AS infinity,
	   rowkeeper._audit_key_hash(row(0.25::float4), 'f1') = rowkeeper._audit_key_hash(row(0.25::float8), 'f1') AS float4,
	   rowkeeper._audit_key_hash(row('ab'::char(5)), 'f1') = rowkeeper._audit_key_hash(row('ab'::text), 'f1') AS bpchar,
	   rowkeeper._audit_key_hash(row('sad'::mood), 'f1') = rowkeeper._audit_key_hash(row('sad'::text), 'f1') AS enum,
	   rowkeeper._audit_key_hash(row('10.0.0.0/8'::cidr), 'f1') = rowkeeper._audit_key_hash(row('10.0.0.0/8'::inet), 'f1') AS cidr;
-- Different values differ (up to chance), and so do the ways to split them.
SELECT count(DISTINCT rowkeeper._audit_key_hash(row(k), 'f1')) FROM unnest(ARRAY['a', 'b', 'A', 'a ', ' a', '', 'ä', 'aa']) k;
SELECT count(DISTINCT rowkeeper._audit_key_hash(row(a, b), 'f1', 'f2')) FROM (VALUES ('ab'::text, 'c'::text), ('a', 'bc'), ('abc', ''), ('', 'abc')) k(a, b);
SELECT count(DISTINCT rowkeeper._audit_key_hash(row('tenant'::text, g), 'f1', 'f2')) > 9995 AS spread FROM generate_series(1, 10000) g;
SELECT count(DISTINCT rowkeeper._audit_key_hash(row(g / 8), 'f1')) > 9995 AS spread FROM generate_series(1.0, 10000.0) g;

-- Keys of which equal values may differ in form are refused.
SET client_min_messages = warning;
CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
RESET client_min_messages;
CREATE TABLE refused (a interval, b citext, c jsonb, d int4range, e int[], f pair, g timetz, h hstore, i money, j text COLLATE no_case, k moods, l xid);
INSERT INTO refused VALUES ('1 day', 'x', '{}', '[1,2)', '{}', NULL, '10:00+02', '', 1, 'x', '{}', '1');
UPDATE refused SET f = row(1, 'x', NULL);
DO $$
DECLARE
	c name;
	d text;
	h text;
BEGIN
	FOR c IN SELECT attname FROM pg_attribute WHERE attrelid = 'refused'::regclass AND attnum > 0 ORDER BY attnum LOOP
		BEGIN
			EXECUTE format('SELECT rowkeeper._audit_key_hash(r, %L) FROM refused r', c);
			RAISE NOTICE '% was not refused', c;
		EXCEPTION WHEN feature_not_supported THEN
			RAISE NOTICE '%', SQLERRM;
		END;
	END LOOP;
END $$;
SELECT rowkeeper._audit_key_hash(r, 'a') FROM refused r;
SELECT rowkeeper._audit_key_hash(r, 'j') FROM refused r;
SELECT rowkeeper._audit_key_hash(r, 'nothing') FROM refused r;

-- These functions are nobody's but the extension's owner's.
SELECT p.proname, has_function_privilege('pg_monitor', p.oid, 'EXECUTE')
FROM pg_proc p WHERE p.proname IN ('_audit_encode', '_audit_as_text', '_audit_key_hash') ORDER BY 1;

SET client_min_messages = warning;
DROP SCHEMA encode_test CASCADE;
