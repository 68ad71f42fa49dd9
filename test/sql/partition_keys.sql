-- What keys there are, and where partitions begin: no gap, no overlap, whatever
-- the clocks do and the session's settings are. partition_plan() says where; a
-- default partition keeps partition() from making them at once.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA partition_keys;
SET search_path = partition_keys;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null '(null)'
CREATE FUNCTION plan(t regclass) RETURNS TABLE (n bigint, name text, lower text, upper text) LANGUAGE sql AS $$
    SELECT row_number() OVER (), m[1], m[2], m[3]
    FROM rowkeeper.partition_plan(t) WITH ORDINALITY p (sql, o),
        regexp_match(sql, 'ATTACH PARTITION \S+?\.(\S+) FOR VALUES FROM \((.*)\) TO \((.*)\)') m
    WHERE m IS NOT NULL ORDER BY o
$$;
-- every lower bound is the upper bound before it, and the last is far enough
CREATE FUNCTION sound(t regclass) RETURNS TABLE (periods bigint, contiguous boolean, names boolean) LANGUAGE sql AS $$
    SELECT count(*), count(*) FILTER (WHERE lower IS DISTINCT FROM before) = 1, count(DISTINCT name) = count(*)
    FROM (SELECT *, lag(upper) OVER (ORDER BY n) AS before FROM plan(t)) x
$$;

-- hours over both changes of the clock, in two zones: each is an hour
CREATE TABLE hours (at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE hours_default PARTITION OF hours DEFAULT;
SELECT count(*) FROM rowkeeper.partition('hours', 'at', '1 hour', ahead => '370 days', timezone => 'Europe/Berlin');
SELECT contiguous, names, periods BETWEEN 24 * 370 AND 24 * 370 + 2 AS all_there FROM sound('hours');
SELECT DISTINCT trim(upper, '''')::timestamptz - trim(lower, '''')::timestamptz AS length FROM plan('hours');
SELECT count(*) FROM rowkeeper.partition('hours', timezone => 'America/New_York');
SELECT contiguous, names FROM sound('hours');
SELECT DISTINCT trim(upper, '''')::timestamptz - trim(lower, '''')::timestamptz AS length FROM plan('hours');

-- days: one of 23 hours a year, one of 25
CREATE TABLE days (at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE days_default PARTITION OF days DEFAULT;
SELECT count(*) FROM rowkeeper.partition('days', 'at', '1 day', ahead => '1 year', timezone => 'Europe/Berlin');
SELECT contiguous, names FROM sound('days');
SELECT trim(upper, '''')::timestamptz - trim(lower, '''')::timestamptz AS length,
    CASE count(*) WHEN 1 THEN 'one' ELSE 'many' END AS days FROM plan('days') GROUP BY 1 ORDER BY 1;
SET timezone = 'Europe/Berlin';
SELECT bool_and(trim(lower, '''')::timestamptz::time = '00:00') AS midnight,
    bool_and(name = to_char(trim(lower, '''')::timestamptz, '"days_p"YYYYMMDD')) AS named FROM plan('days');
-- the same under any session's settings
CREATE TABLE expected AS SELECT * FROM plan('days');
SET datestyle = 'German, DMY';
SET timezone = 'Pacific/Auckland';
SET intervalstyle = 'sql_standard';
SELECT count(*) FROM plan('days') p FULL JOIN expected e USING (n, name, lower, upper) WHERE p IS NULL OR e IS NULL;
SELECT rowkeeper.partition('days', 'at', '1 day', ahead => '1 year', timezone => 'Europe/Berlin');
-- and what is made under them is what was planned
CREATE TABLE german (day date, at timestamp) PARTITION BY RANGE (day);
SELECT count(*) FROM rowkeeper.partition('german', 'day', '1 week');
CREATE TABLE german_at (at timestamp) PARTITION BY RANGE (at);
SELECT count(*) FROM rowkeeper.partition('german_at', 'at', '12 hours');
CREATE TABLE german_tz (at timestamptz) PARTITION BY RANGE (at);
SELECT count(*) FROM rowkeeper.partition('german_tz', 'at', '1 month', timezone => 'Europe/Berlin');
SELECT rowkeeper.partition_plan('german');
SELECT rowkeeper.partition('german');
SET datestyle = 'ISO';
RESET intervalstyle;
SET timezone = 'UTC';
INSERT INTO german SELECT now()::date + n FROM generate_series(0, 28) n;
INSERT INTO german_at SELECT now() + n * interval '1 hour' FROM generate_series(0, 48) n;
INSERT INTO german_tz SELECT now() + n * interval '1 day' FROM generate_series(0, 120) n;
SELECT count(*) FROM plan('german_at');
-- weeks begin on Monday
SELECT DISTINCT extract(isodow FROM (regexp_match(pg_get_expr(relpartbound, oid), 'FROM \(''(.*?)'''))[1]::date)
FROM pg_class WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'german'::regclass);

-- months from the 31st: reckoned from there, not from one to the next
CREATE TABLE month_ends (at timestamp) PARTITION BY RANGE (at);
CREATE TABLE month_ends_1 PARTITION OF month_ends FOR VALUES FROM ('2023-12-31') TO ('2024-01-31');
CREATE TABLE month_ends_2 PARTITION OF month_ends FOR VALUES FROM ('2024-01-31') TO ('2024-02-29');
CREATE TABLE month_ends_default PARTITION OF month_ends DEFAULT;
SELECT count(*) FROM rowkeeper.partition('month_ends');
SELECT options ->> 'every' AS every, options ->> 'origin' AS origin FROM rowkeeper.features WHERE target = 'month_ends'::regclass;
SELECT * FROM plan('month_ends') LIMIT 14;
SELECT contiguous, names FROM sound('month_ends');

-- a bound that the zone's rules have moved from midnight: the next one begins
-- there, and the rest of an hour is no day of its own
CREATE TABLE moved (at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE moved_default PARTITION OF moved DEFAULT;
SELECT count(*) FROM rowkeeper.partition('moved', 'at', '1 day', timezone => 'Asia/Tokyo');
SELECT (((now() AT TIME ZONE 'Asia/Tokyo')::date - 20)::timestamp AT TIME ZONE 'Asia/Tokyo') AS midnight \gset
\set ECHO none
SELECT format('CREATE TABLE moved_1 PARTITION OF moved FOR VALUES FROM (%L) TO (%L)',
    :'midnight'::timestamptz - interval '1 day', :'midnight'::timestamptz - interval '1 hour') \gexec
\set ECHO all
SELECT n, trim(lower, '''')::timestamptz - :'midnight' AS lower, trim(upper, '''')::timestamptz - :'midnight' AS upper,
    name ~ '_2300$' AS with_time FROM plan('moved') LIMIT 3;
SELECT contiguous, names FROM sound('moved');
\set ECHO none
SELECT format('CREATE TABLE moved_2 PARTITION OF moved FOR VALUES FROM (%L) TO (%L)',
    :'midnight'::timestamptz - interval '1 hour', :'midnight'::timestamptz + interval '5 hours') \gexec
\set ECHO all
SELECT n, trim(lower, '''')::timestamptz - :'midnight' AS lower, trim(upper, '''')::timestamptz - :'midnight' AS upper
FROM plan('moved') LIMIT 2;
SELECT contiguous, names FROM sound('moved');
-- two weeks, ten days: from where there are partitions
CREATE TABLE fortnights (day date) PARTITION BY RANGE (day);
CREATE TABLE fortnights_1 PARTITION OF fortnights FOR VALUES FROM ('2025-01-03') TO ('2025-01-17');
CREATE TABLE fortnights_default PARTITION OF fortnights DEFAULT;
SELECT count(*) FROM rowkeeper.partition('fortnights');
SELECT * FROM plan('fortnights') LIMIT 3;
SELECT count(*) FROM rowkeeper.partition('fortnights', every => '10 days');
SELECT * FROM plan('fortnights') LIMIT 3;
-- a hole ahead is filled, to where the next one begins
CREATE TABLE holes (id int) PARTITION BY RANGE (id);
CREATE TABLE holes_1 PARTITION OF holes FOR VALUES FROM (0) TO (100);
CREATE TABLE holes_2 PARTITION OF holes FOR VALUES FROM (250) TO (300);
CREATE TABLE holes_default PARTITION OF holes DEFAULT;
SELECT count(*) FROM rowkeeper.partition('holes', every => '100');
INSERT INTO holes VALUES (1);
SELECT * FROM plan('holes');
-- after a long time without maintenance: from now on
CREATE TABLE old (at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE old_1 PARTITION OF old FOR VALUES FROM ('1999-01-01 00:00+00') TO ('1999-01-01 01:00+00');
CREATE TABLE old_default PARTITION OF old DEFAULT;
SELECT count(*) FROM rowkeeper.partition('old');
SELECT count(*), min(trim(lower, '''')::timestamptz) = date_trunc('hour', now()) AS from_now FROM plan('old');
-- and not what would be expired at once
CREATE TABLE kept (at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE kept_1 PARTITION OF kept FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2025-01-02 00:00+00');
CREATE TABLE kept_default PARTITION OF kept DEFAULT;
SELECT count(*) FROM rowkeeper.partition('kept', keep => '3 days');
SELECT count(*) BETWEEN 8 AND 9 AS few FROM plan('kept');

-- numbers and uuids that say when
CREATE TABLE seconds (at int) PARTITION BY RANGE (at);
CREATE TABLE milliseconds (at bigint) PARTITION BY RANGE (at);
CREATE TABLE microseconds (at numeric(20)) PARTITION BY RANGE (at);
CREATE TABLE nanoseconds (at bigint) PARTITION BY RANGE (at);
CREATE TABLE snowflakes (id bigint) PARTITION BY RANGE (id);
CREATE TABLE uuids (id uuid) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('seconds', 'at', '1 month', epoch => 's');
SELECT count(*) FROM rowkeeper.partition('milliseconds', 'at', '1 month', epoch => 'ms');
SELECT count(*) FROM rowkeeper.partition('microseconds', 'at', '1 month', epoch => 'us');
SELECT count(*) FROM rowkeeper.partition('nanoseconds', 'at', '1 month', epoch => 'ns');
SELECT count(*) FROM rowkeeper.partition('snowflakes', 'id', '1 month', epoch => 'snowflake:1288834974657:22');
SELECT count(*) FROM rowkeeper.partition('uuids', 'id', '1 month');
CREATE FUNCTION lowers(t regclass) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''?(.*?)''?\)'))[1]
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = t ORDER BY c.relname
$$;
CREATE TABLE months AS SELECT date_trunc('month', now()) + n * interval '1 month' AS at FROM generate_series(0, 4) n;
SELECT array_agg(to_timestamp(l::bigint)) = (SELECT array_agg(at) FROM months) AS seconds FROM lowers('seconds') l;
SELECT array_agg(to_timestamp(l::bigint / 1000)) = (SELECT array_agg(at) FROM months) AS milliseconds FROM lowers('milliseconds') l;
SELECT array_agg(to_timestamp(l::numeric / 1000000)) = (SELECT array_agg(at) FROM months) AS microseconds FROM lowers('microseconds') l;
SELECT array_agg(to_timestamp(l::numeric / 1000000000)) = (SELECT array_agg(at) FROM months) AS nanoseconds FROM lowers('nanoseconds') l;
SELECT array_agg(to_timestamp(((l::bigint >> 22) + 1288834974657) / 1000)) = (SELECT array_agg(at) FROM months) AS snowflakes FROM lowers('snowflakes') l;
SELECT array_agg(to_timestamp(('x' || lpad(replace(left(l, 13), '-', ''), 16, '0'))::bit(64)::bigint / 1000)) = (SELECT array_agg(at) FROM months) AS uuids FROM lowers('uuids') l;
INSERT INTO uuids SELECT overlay(overlay(md5('x') PLACING lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') FROM 1) PLACING '7' FROM 13)::uuid;
SELECT name FROM (SELECT tableoid::regclass::text AS name FROM uuids) u, months WHERE name <> to_char(date_trunc('month', now()), '"uuids_p"YYYYMMDD');
SELECT rowkeeper.partition('uuids');

-- ids to the end of their type
CREATE TABLE small (id smallint) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('small', 'id', '10000');
SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'small'::regclass) ORDER BY 1;
INSERT INTO small VALUES (32767);
CALL rowkeeper.maintain('small');
SELECT covered_until, next_action FROM rowkeeper.partition_status WHERE table_name = 'small' AND table_schema = 'partition_keys';
CREATE TABLE negative (id numeric(30, 2)) PARTITION BY RANGE (id);
CREATE TABLE negative_1 PARTITION OF negative FOR VALUES FROM (-200.5) TO (-100.5);
SELECT rowkeeper.partition('negative', every => '100', ahead => '150');
-- ids from the lowest that there is
CREATE TABLE lowest (id bigint) PARTITION BY RANGE (id);
CREATE TABLE lowest_0 PARTITION OF lowest FOR VALUES FROM ('-9223372036854775806') TO ('-9223372036854774806');
SELECT count(*) FROM rowkeeper.partition('lowest', 'id', '1000');
SELECT pg_get_expr(relpartbound, c.oid) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
WHERE inhparent = 'lowest'::regclass ORDER BY c.oid;

DROP SCHEMA partition_keys CASCADE;
