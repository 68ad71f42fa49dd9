-- later(): a migration asks for work that cannot be done inside a transaction.
-- In a database of its own: maintain() works on everything there is.
SET client_min_messages = warning;
CREATE DATABASE regress_rk_jobs;
\c regress_rk_jobs
SET client_min_messages = warning;
\pset null '(null)'
CREATE EXTENSION rowkeeper CASCADE;
CREATE ROLE regress_rk_owner LOGIN;
CREATE ROLE regress_rk_group NOLOGIN;       -- owns tables, nobody logs in as it
CREATE ROLE regress_rk_other LOGIN;
GRANT CREATE ON SCHEMA public TO regress_rk_owner, regress_rk_group, regress_rk_other;

-- how a job ended
CREATE FUNCTION await(job bigint) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE found text;
BEGIN
    FOR i IN 1..1000 LOOP
        SELECT state INTO found FROM rowkeeper.jobs WHERE id = job;
        EXIT WHEN found IS NULL OR found IN ('done', 'failed');
        PERFORM pg_sleep(0.02);
    END LOOP;
    RETURN found;
END$$;
-- what a table's triggers see of the session that purges
CREATE TABLE seen (what text, session_user_is name, current_user_is name, superuser text, search_path text, application text);
GRANT INSERT, SELECT ON seen TO PUBLIC;
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.seen VALUES (TG_ARGV[0], session_user, current_user, current_setting('is_superuser'),
        current_setting('search_path'), regexp_replace(current_setting('application_name'), '\d+', 'N'));
    RETURN OLD;
END$$;

-- a table with rows that are due to be purged
CREATE SCHEMA regress_rk_owner AUTHORIZATION regress_rk_owner;
SET ROLE regress_rk_owner;
CREATE TABLE orders (id int PRIMARY KEY, status text);
SELECT rowkeeper.soft_delete('orders') \g /dev/null
CREATE TRIGGER witness BEFORE DELETE ON orders FOR EACH ROW EXECUTE FUNCTION witness('orders');
INSERT INTO orders SELECT i, 'new' FROM generate_series(1, 3) i;
UPDATE orders SET deleted_at = now() - interval '1 day' WHERE id < 3;

-- ---- the migration ----
-- what is rolled back queues nothing
BEGIN;
SELECT rowkeeper.later($$CALL rowkeeper.soft_delete_purge('orders', older_than => '1 hour')$$) AS job \gset
SELECT id = :job AS is_it, call, state, progress, error, queued_at <= clock_timestamp() AS queued, finished_at FROM rowkeeper.jobs;
ROLLBACK;
SELECT count(*) FROM rowkeeper.jobs;

BEGIN;
SELECT rowkeeper.later($$CALL rowkeeper.soft_delete_purge('orders', older_than => '1 hour')$$) AS job \gset
SAVEPOINT s;
SELECT rowkeeper.later('CALL rowkeeper.maintain()') \g /dev/null
ROLLBACK TO s;
COMMIT;
SELECT await(:job);
SELECT rowkeeper.job_require(:job);
SELECT call, state, error, queued_at < finished_at AS finished FROM rowkeeper.jobs;
SELECT id, status FROM orders;
-- it was the role that queued it, with its search_path, in a session of its own
SELECT DISTINCT * FROM seen;
RESET ROLE;
TRUNCATE seen;

-- ---- nothing that a job runs is a superuser ----
-- A trigger that fires as the transaction commits tries every way.
CREATE FUNCTION escape() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    superuser name := (SELECT rolname FROM pg_roles WHERE oid = 10);
    way text;
BEGIN
    FOREACH way IN ARRAY ARRAY[
        format('SET SESSION AUTHORIZATION %I', superuser), 'SET SESSION AUTHORIZATION DEFAULT', 'RESET SESSION AUTHORIZATION',
        format('SET ROLE %I', superuser), 'RESET ROLE', 'SET ROLE NONE', 'RESET ALL', 'DISCARD PLANS',
        format('SELECT set_config(''session_authorization'', %L, true)', superuser),
        format('SELECT set_config(''role'', %L, false)', superuser),
        'SELECT as_superuser()'
    ] LOOP
        BEGIN
            EXECUTE way;
            INSERT INTO public.seen VALUES ('escape', session_user, current_user, current_setting('is_superuser'));
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO public.seen VALUES ('refused', session_user, current_user, current_setting('is_superuser'));
        END;
    END LOOP;
    RETURN NULL;
END$$;
DO $do$BEGIN
    EXECUTE format('CREATE FUNCTION as_superuser() RETURNS text LANGUAGE sql SET session_authorization = %L
        RETURN current_user', (SELECT rolname FROM pg_roles WHERE oid = 10));
END$do$;
-- nobody logs in as the group
SET ROLE regress_rk_group;
CREATE TABLE things (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('things') \g /dev/null
INSERT INTO things VALUES (1), (2);
UPDATE things SET deleted_at = now() - interval '1 day' WHERE id = 1;
CREATE TRIGGER witness BEFORE DELETE ON things FOR EACH ROW EXECUTE FUNCTION witness('things');
CREATE CONSTRAINT TRIGGER escape AFTER DELETE ON things DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION escape();
SET search_path = public, pg_temp;
SELECT rowkeeper.later($$CALL rowkeeper.soft_delete_purge('things', '1 hour')$$) AS job \gset
RESET search_path;
SELECT await(:job);
SELECT id FROM things;
SELECT DISTINCT session_user_is, current_user_is, superuser FROM seen;
SELECT search_path, application FROM seen WHERE what = 'things';
SELECT count(*) FROM seen WHERE what IN ('escape', 'refused');
RESET ROLE;
TRUNCATE seen;
-- the same as a role that can log in
ALTER TABLE things OWNER TO regress_rk_other;
UPDATE things SET deleted_at = now() - interval '1 day';
SET ROLE regress_rk_other;
SELECT rowkeeper.later($$CALL rowkeeper.soft_delete_purge('things', '1 hour')$$) AS job \gset
SELECT await(:job);
SELECT DISTINCT session_user_is, current_user_is, superuser FROM seen;
SELECT count(*) FROM seen WHERE what IN ('escape', 'refused');
RESET ROLE;

-- ---- a job that fails ----
SET ROLE regress_rk_other;
SELECT rowkeeper.later($$CALL rowkeeper.soft_delete_purge('regress_rk_owner.orders', '0')$$) AS job \gset
RESET ROLE;
GRANT USAGE ON SCHEMA regress_rk_owner TO regress_rk_other;
SET ROLE regress_rk_other;
SELECT rowkeeper.later($$CALL rowkeeper.soft_delete_purge('regress_rk_owner.orders', '0')$$) AS job \gset
SELECT await(:job);
SELECT call, state, error FROM rowkeeper.jobs WHERE id = :job;
SELECT rowkeeper.job_require(:job);
SELECT rowkeeper.job_require(-1);
SELECT rowkeeper.job_require(NULL);
-- jobs of others are nobody's business
SELECT count(*) FROM rowkeeper.jobs;
SELECT count(*) FROM rowkeeper._jobs;
SET ROLE regress_rk_owner;
SELECT rowkeeper.job_require(:job);
SELECT count(*) FROM rowkeeper.jobs;
RESET ROLE;
SELECT count(*) FROM rowkeeper.jobs;

-- ---- one after another ----
SET ROLE regress_rk_owner;
BEGIN;
SELECT rowkeeper.later($$CALL rowkeeper.maintain('orders')$$) AS first \gset
SELECT rowkeeper.later($$CALL rowkeeper.soft_delete_purge(target => 'orders', older_than => interval '-1 day', batch_size => 100)$$) AS second \gset
SELECT rowkeeper.later($$CALL rowkeeper.maintain(force => false, target => 'orders'::regclass)$$) AS third \gset
COMMIT;
SELECT await(:third);
RESET ROLE;
SELECT call, state, error FROM rowkeeper.jobs WHERE id IN (:first, :second, :third) ORDER BY id;
SELECT a.finished_at <= b.started_at AND b.finished_at <= c.started_at AS in_order
FROM rowkeeper._jobs a, rowkeeper._jobs b, rowkeeper._jobs c WHERE a.id = :first AND b.id = :second AND c.id = :third;

-- ---- what can be a job ----
SELECT rowkeeper.later(NULL);
SELECT rowkeeper.later('');
SELECT rowkeeper.later('SELECT 1');
SELECT rowkeeper.later('CALL rowkeeper.maintain(); CALL rowkeeper.maintain()');
SELECT rowkeeper.later('CALL rowkeeper.maintain(');
SELECT rowkeeper.later('CALL maintain()');
SELECT rowkeeper.later('CALL public.maintain()');
SELECT rowkeeper.later('CALL rowkeeper.nothing()');
SELECT rowkeeper.later('CALL rowkeeper.actor()');
SELECT rowkeeper.later('CALL rowkeeper.maintain(force => 1 = 1)');
SELECT rowkeeper.later('CALL rowkeeper.maintain((SELECT oid FROM pg_class LIMIT 1))');
SELECT rowkeeper.later('CALL rowkeeper.maintain(to_regclass($$orders$$))');
SELECT rowkeeper.later('CALL rowkeeper.maintain($1)');
SELECT rowkeeper.later('CALL rowkeeper.maintain($$gone$$)');
CREATE PROCEDURE rowkeeper.mine() LANGUAGE sql AS 'SELECT 1';
SELECT rowkeeper.later('CALL rowkeeper.mine()');
DROP PROCEDURE rowkeeper.mine();

-- ---- what was not started, or was interrupted ----
-- as no slot was free, or the server was down: maintain() starts it
DELETE FROM rowkeeper._jobs;
CREATE FUNCTION queue(state text, resumable boolean DEFAULT true, home text DEFAULT rowkeeper._home(),
    role oid DEFAULT NULL, attempts int DEFAULT 0, starts int DEFAULT 0) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO rowkeeper._jobs (id, home, role, role_name, call, search_path, resumable, state, pid, attempts, starts,
        started_at, finished_at)
    VALUES (nextval('rowkeeper._job_id'), home,
        coalesce(role, (SELECT oid FROM pg_roles WHERE rolname = 'regress_rk_owner')), 'regress_rk_owner',
        'CALL rowkeeper.maintain(''regress_rk_owner.orders'')', '', resumable, state, CASE state WHEN 'running' THEN 1 END,
        attempts, starts, CASE state WHEN 'running' THEN now() END, CASE state WHEN 'done' THEN now() END)
    RETURNING id $$;
SELECT queue('queued') AS job \gset
CALL rowkeeper.maintain();
SELECT await(:job);
SELECT changed, error FROM rowkeeper.maintain_log WHERE task = 'jobs';
-- the role's own maintain() does, nobody else's
SELECT queue('queued') AS job \gset
SET ROLE regress_rk_other;
CALL rowkeeper.maintain();
SET ROLE regress_rk_owner;
CALL rowkeeper.maintain('orders');
SELECT state FROM rowkeeper.jobs WHERE id = :job;
CALL rowkeeper.maintain();
SELECT await(:job);
RESET ROLE;
-- one whose process is gone goes on where its procedure can
SELECT queue('running', attempts => 1) AS job \gset
SELECT state FROM rowkeeper.jobs WHERE id = :job;
SELECT rowkeeper.job_require(:job);
CALL rowkeeper.maintain();
SELECT await(:job);
SELECT state, attempts, pid, error FROM rowkeeper._jobs WHERE id = :job;
-- and has failed where it cannot, or has had its chances
SELECT queue('running', resumable => false, attempts => 1) AS job \gset
SELECT queue('running', attempts => 5) AS job2 \gset
SELECT queue('queued', starts => 5) AS job3 \gset
CALL rowkeeper.maintain();
SELECT state, error, finished_at IS NOT NULL AS finished FROM rowkeeper.jobs WHERE id IN (:job, :job2, :job3) ORDER BY id;
-- its role has gone
SELECT queue('queued', role => 1) AS job \gset
CALL rowkeeper.maintain();
SELECT state, error FROM rowkeeper.jobs WHERE id = :job;
-- what came with a copy of another database is a record
SELECT queue('queued', home => '1/1') AS job \gset
SELECT queue('done', home => '1/1') AS job2 \gset
CALL rowkeeper.maintain();
SELECT pg_sleep(0.2) \g /dev/null
SELECT state, error FROM rowkeeper.jobs WHERE id IN (:job, :job2) ORDER BY id;
SET ROLE regress_rk_owner;
SELECT rowkeeper.job_require(:job2);
SELECT rowkeeper.job_require(:job);
RESET ROLE;
-- of what is long over nothing is kept
UPDATE rowkeeper._jobs SET finished_at = now() - interval '91 days' WHERE id = :job2;
UPDATE rowkeeper._jobs SET queued_at = now() - interval '91 days' WHERE id = :job;
CALL rowkeeper.maintain();
SELECT count(*) FROM rowkeeper.jobs WHERE id IN (:job, :job2);

\c contrib_regression
DROP DATABASE regress_rk_jobs;
DROP ROLE regress_rk_owner, regress_rk_group, regress_rk_other;
