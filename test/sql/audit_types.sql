-- A row of every type, written under settings that change how values look:
-- the entry holds what to_jsonb() gives under fixed settings.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_types;
SET search_path = audit_types;
CREATE EXTENSION hstore SCHEMA audit_types;
CREATE ROLE regress_rk_typed;
CREATE TYPE mood AS ENUM ('sad', 'it''s "fine"');
CREATE DOMAIN small AS int CHECK (VALUE < 100);
CREATE DOMAIN moody AS mood;
CREATE DOMAIN smalls AS small[];
CREATE DOMAIN moment AS timestamptz;
CREATE TYPE pair AS (a int, "B b" text, at timestamptz);
CREATE DOMAIN positive_pair AS pair CHECK ((VALUE).a > 0);
CREATE TYPE nested AS (p pair, list pair[]);
CREATE TYPE floatrange AS RANGE (subtype = float8);
CREATE TABLE typed (
    id int PRIMARY KEY,
    bool bool, int2 int2, int4 int4, int8 int8, float4 float4, float8 float8, numeric numeric, numeric_s numeric(12,4), money money, oid oid,
    text text, varchar varchar(10), bpchar char(5), name name, "char" "char", bytea bytea,
    date date, "time" time, timetz timetz, "timestamp" timestamp, timestamptz timestamptz, "interval" interval,
    uuid uuid, jsonb jsonb, json json, xml xml, jsonpath jsonpath,
    inet inet, cidr cidr, macaddr macaddr, macaddr8 macaddr8, bit bit(4), varbit varbit(9),
    point point, line line, lseg lseg, box box, path path, polygon polygon, circle circle,
    tsvector tsvector, tsquery tsquery, pg_lsn pg_lsn, pg_snapshot pg_snapshot, txid_snapshot txid_snapshot, xid xid, xid8 xid8, cid cid, tid tid,
    refcursor refcursor, int2vector int2vector, oidvector oidvector, aclitem aclitem,
    regclass regclass, regtype regtype, regproc regproc, regprocedure regprocedure, regoper regoper, regoperator regoperator,
    regnamespace regnamespace, regrole regrole, regconfig regconfig, regdictionary regdictionary, regcollation regcollation,
    int4range int4range, int8range int8range, numrange numrange, tsrange tsrange, tstzrange tstzrange, daterange daterange, floatrange floatrange,
    int4multirange int4multirange, tstzmultirange tstzmultirange, datemultirange datemultirange,
    mood mood, small small, moody moody, smalls smalls, moment moment, pair pair, positive_pair positive_pair, nested nested,
    ints int[], grid int[][], texts text[], dates date[], moods mood[], pairs pair[], jsonbs jsonb[], ranges tstzrange[], nulls text[], empty int[],
    hstore hstore, hstores hstore[]
);
SELECT rowkeeper.audit('typed') \g /dev/null

-- hostile settings, and a search_path that shadows the server's own
CREATE SCHEMA audit_shadow;
CREATE DOMAIN audit_shadow.text AS pg_catalog.text;
CREATE FUNCTION audit_shadow.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"shadow"'::jsonb $$;
SET DateStyle = 'SQL, DMY';
SET TimeZone = 'America/New_York';
SET IntervalStyle = 'sql_standard';
SET bytea_output = 'escape';
SET extra_float_digits = -10;
SET xmloption = document;
SET array_nulls = on;
SET quote_all_identifiers = on;
SET search_path = audit_shadow, audit_types, pg_catalog;
INSERT INTO typed VALUES (
    1,
    true, -32768, 2147483647, -9223372036854775808, 1.1, 0.1, 12345678901234567890.123456789, 1.5, '1234.56', 4294967295,
    E'it''s "quoted" \\ \t\n\u0001 €', 'v', 'c', 'n', 'x', '\x00ff41',
    '2024-02-29', '23:59:59.999999', '12:00:00+05:30', '2024-02-29 12:34:56.789', '2024-07-01 12:00:00+00', '1 year 2 months -3 days 04:05:06.7',
    '0f0e0d0c-0b0a-0908-0706-050403020100', '{"b": [1.50, null, {"c": "d"}], "a": 1e3}', ' {"b": 1,  "a": [2.0]}', '<a b="c">d</a>', '$.a[*] ? (@.b > 1)',
    '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '1010', '101',
    '(1.5,-2)', '{1,2,3}', '[(0,0),(1,1)]', '(2,2),(0,0)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(1,2),3.3>',
    'a:1 fat:2A cat:3', 'fat & (rat | !cat)', '16/B374D848', '10:20:10,14,15', '10:20:10,14,15', '42', '4242424242', '7', '(1,2)',
    'cur', '1 2 3', '4 5', 'regress_rk_typed=r*w/regress_rk_typed',
    'pg_class', 'mood', 'pg_catalog.now', 'abs(int8)', 'pg_catalog.||/', '+(int4,int4)',
    'audit_types', 'regress_rk_typed', 'simple', 'simple', '"C"',
    '[1,10)', '(,5]', '[1.5,2.50]', '[2024-01-01,2024-02-01)', '[2024-01-01 00:00+00,)', '[2024-01-01,2024-02-01)', '(0.1,0.3]',
    '{[1,3),[5,7)}', '{[2024-01-01 00:00+00,2024-01-02 00:00+00)}', '{}',
    'it''s "fine"', 42, 'sad', '{1,2}', '2024-07-01 12:00:00+00', '(1,"b ""q"", (x)","2024-07-01 12:00:00+00")', '(1,,)',
    ROW((1, 'x', NULL)::pair, ARRAY[(2, 'y', '2024-07-01 12:00:00+00')::pair, NULL]),
    '{1,NULL,3}', '[2:3][1:2]={{1,2},{3,4}}', '{"a b","NULL",NULL,"{}"}', '{2024-02-29}', '{sad,"it''s \"fine\""}', '{"(1,x,)"}', '{"{\"a\": 1}"}', '{"[2024-01-01 00:00+00,)"}', '{NULL,NULL}', '{}',
    'a=>1, "b c"=>NULL', '{"a=>1","b=>2"}'
);
INSERT INTO typed (id) VALUES (2);
-- values at their limits
INSERT INTO typed (id, float4, float8, numeric, date, "timestamp", timestamptz, "interval", "time", text, int4range, money)
    VALUES (3, 'NaN', '-Infinity', 'NaN', '0044-03-15 BC', '0001-01-01 BC', '4713-01-01 00:00:00+00 BC', '-178000000 years', '24:00', '', 'empty', '-92233720368547758.08');
INSERT INTO typed (id, float4, float8, numeric, date, "timestamp", timestamptz, "interval", text, int4range, tsrange, money)
    VALUES (4, 'Infinity', 1e-7, '-Infinity', 'infinity', 'infinity', '-infinity', '0', '', '(,)', '[infinity,infinity]', '0');
INSERT INTO typed (id, float4, float8, numeric) VALUES (5, 1e10, 1.7976931348623157e25, 1e-20), (6, -0.0, '-0', '-0.00');

-- back to settings in which to_jsonb() gives the contract
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET IntervalStyle = 'postgres';
SET bytea_output = 'hex';
SET extra_float_digits = 1;
SET lc_monetary = 'C';
RESET xmloption;
RESET array_nulls;
RESET quote_all_identifiers;
SET search_path = '';
-- what differs from the contract: the exceptions that are named (json keeps
-- its text, hstore its own text instead of its cast to json)
SELECT record_id, key, new_data -> key AS logged, row -> key AS to_jsonb
    FROM (SELECT record_id, new_data, to_jsonb(t) AS row FROM rowkeeper.audit_log l
        JOIN audit_types.typed t ON t.id = (l.record_id ->> 'id')::int
        WHERE l.table_schema = 'audit_types' AND l.table_name = 'typed') x,
    LATERAL jsonb_object_keys(row || new_data) key
    WHERE (new_data -> key) IS DISTINCT FROM (row -> key) ORDER BY 1, 2;
-- the text is byte for byte the same where the values are
SELECT record_id, key FROM (SELECT record_id, new_data, to_jsonb(t) AS row FROM rowkeeper.audit_log l
        JOIN audit_types.typed t ON t.id = (l.record_id ->> 'id')::int
        WHERE l.table_schema = 'audit_types' AND l.table_name = 'typed') x,
    LATERAL jsonb_object_keys(row) key
    WHERE (new_data -> key) = (row -> key) AND (new_data -> key)::text <> (row -> key)::text;
SELECT key, value FROM rowkeeper.audit_log, LATERAL jsonb_each(new_data)
    WHERE table_schema = 'audit_types' AND record_id = '{"id": 1}' ORDER BY key COLLATE "C";
SELECT record_id, jsonb_strip_nulls(new_data) AS new_data, context FROM rowkeeper.audit_log
    WHERE table_schema = 'audit_types' AND record_id <> '{"id": 1}' ORDER BY id;

-- What jsonb rejects is kept as text, and the entry names it.
SET search_path = audit_types;
CREATE TABLE odd (id int PRIMARY KEY, doc json, docs json[], b jsonb);
SELECT rowkeeper.audit('odd') \g /dev/null
INSERT INTO odd VALUES (1, '{"a": "\u0000"}', '{"1e200000"}', '{"a": 1}');
INSERT INTO odd VALUES (2, '{"a": 1, "a": 2}', '{"{\"a\": 1, \"a\": 2}"}');
INSERT INTO odd VALUES (3, '1e200000', NULL), (4, '[1, "\ud800"]'::text::json, NULL), (5, '"plain"', '{"[1, 2]"}'), (6, 'null', '{null}');
UPDATE odd SET doc = '{"a": "\u0000", "b": 1}' WHERE id = 1;
UPDATE odd SET doc = '{"a": 1,  "a": 2}' WHERE id = 2;
UPDATE odd SET b = '{"x": 1}' WHERE id = 1;
DELETE FROM odd WHERE id < 4;
SELECT action, record_id, old_data, new_data, context FROM rowkeeper.audit_log
    WHERE table_schema = 'audit_types' AND table_name = 'odd' ORDER BY id;

-- Values that are equal but look different are a change; keys that are equal are the same row.
CREATE TABLE looks (id numeric PRIMARY KEY, n numeric, f float8, t text COLLATE "C");
SELECT rowkeeper.audit('looks') \g /dev/null
INSERT INTO looks VALUES (1.0, 1.0, '-0', 'a');
UPDATE looks SET n = 1.00, f = 0;
UPDATE looks SET id = 1.000;
DELETE FROM looks;
SELECT l.action, l.record_id, l.old_data, l.new_data FROM rowkeeper.audit_log l
    WHERE table_schema = 'audit_types' AND table_name = 'looks' ORDER BY id;
SELECT count(DISTINCT key_hash) FROM rowkeeper_log.log l JOIN rowkeeper_log.tables t USING (table_id)
    WHERE table_schema = 'audit_types' AND table_name = 'looks';

-- every type that can be a key, one row each, through its life
CREATE TABLE keys (b bool, i int2, n numeric(10,2), f float4, o oid, c "char", t text, v varchar, p char(4), nm name, u uuid, d date,
    tm time, ts timestamp, tz timestamptz, x bytea, ip inet, cd cidr, m macaddr, m8 macaddr8, bt bit(3), vb varbit, mood mood, sm small,
    val int,
    PRIMARY KEY (b, i, n, f, o, c, t, v, p, nm, u, d, tm, ts, tz, x, ip, cd, m, m8, bt, vb, mood, sm));
SELECT rowkeeper.audit('keys') \g /dev/null
SET TimeZone = 'Asia/Kolkata';
SET DateStyle = 'German';
INSERT INTO keys VALUES (true, 1, 2.5, 0.5, 6, 'c', 't', 'v', 'p', 'nm', '00000000-0000-0000-0000-000000000001', '2024-01-01',
    '01:02', '2024-01-01 01:02', '2024-01-01 01:02+00', '\x01', '::1', '10/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '101', '1', 'sad', 7, 1);
SET TimeZone = 'UTC';
UPDATE keys SET val = 2;
RESET DateStyle;
DELETE FROM keys;
SELECT action, count(*) OVER (PARTITION BY record_id), record_id - 'u' AS record_id FROM rowkeeper.audit_log
    WHERE table_schema = 'audit_types' AND table_name = 'keys' ORDER BY id;
RESET TimeZone;

DROP SCHEMA audit_types, audit_shadow CASCADE;
DROP ROLE regress_rk_typed;
