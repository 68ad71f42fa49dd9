-- 17_jobs.sql: calls that run after commit, each in a process of its own

CREATE SEQUENCE rowkeeper._job_id;
REVOKE ALL ON SEQUENCE rowkeeper._job_id FROM PUBLIC;
COMMENT ON SEQUENCE rowkeeper._job_id IS 'Ids of jobs.';

-- Work of this database, which a dump does not carry: what is half restored
-- must not be worked on. A copy of the database has it ("home" says which one
-- it was queued in), and there it is a record that does not run.
CREATE TABLE rowkeeper._jobs (
	id bigint PRIMARY KEY,
	home text NOT NULL,
	role regrole NOT NULL,
	role_name name NOT NULL,
	call text NOT NULL,
	search_path text NOT NULL,
	resumable boolean NOT NULL,
	state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed')),
	starts integer NOT NULL DEFAULT 0,
	attempts integer NOT NULL DEFAULT 0,
	pid integer,
	error text,
	queued_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	started_at timestamptz,
	finished_at timestamptz
);
CREATE INDEX ON rowkeeper._jobs (role, id) WHERE state IN ('queued', 'running');
REVOKE ALL ON rowkeeper._jobs FROM PUBLIC;
COMMENT ON TABLE rowkeeper._jobs IS
'Calls that later() queued, for 90 days after their end; read them through rowkeeper.jobs.';

CREATE FUNCTION rowkeeper._home() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'rowkeeper_home';
COMMENT ON FUNCTION rowkeeper._home() IS 'this database of this server; for rowkeeper.jobs';

-- A job is its role's, and the extension's owner sees all. Its process holds a
-- lock in the role's name as long as it lives.
CREATE VIEW rowkeeper.jobs WITH (security_barrier = true) AS
SELECT j.id, j.call,
	CASE
		WHEN j.state IN ('queued', 'running') AND j.home <> (SELECT rowkeeper._home()) THEN 'failed'
		WHEN j.state = 'running' AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks l
			WHERE l.pid = j.pid AND l.locktype = 'object' AND l.objid = j.role
				AND l.classid = 'pg_catalog.pg_authid'::pg_catalog.regclass
				AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
					WHERE d.datname = pg_catalog.current_database())) THEN 'interrupted'
		ELSE j.state
	END AS state,
	CASE j.state WHEN 'running' THEN (
		SELECT pg_catalog.string_agg(pg_catalog.format('%s of %s: step %s of %s, %s%s', p.task, p.relation, p.step, p.steps,
				p.done, ' of ' || p.total), '; ')
		FROM rowkeeper._progress p
		WHERE p.pid = j.pid AND p.started_at >= j.started_at) END AS progress,
	CASE
		WHEN j.state IN ('queued', 'running') AND j.home <> (SELECT rowkeeper._home())
			THEN 'it was queued in another database, of which this is a copy'
		ELSE j.error
	END AS error,
	j.queued_at, j.finished_at
FROM rowkeeper._jobs j
WHERE pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c
		WHERE c.oid = 'rowkeeper._jobs'::pg_catalog.regclass), 'USAGE')
	OR CASE j.home WHEN (SELECT rowkeeper._home()) THEN pg_catalog.pg_has_role(j.role, 'USAGE')
		ELSE EXISTS (SELECT FROM pg_catalog.pg_roles r
			WHERE r.rolname = j.role_name AND pg_catalog.pg_has_role(r.oid, 'USAGE')) END;
REVOKE ALL ON rowkeeper.jobs FROM PUBLIC;
GRANT SELECT ON rowkeeper.jobs TO PUBLIC;
COMMENT ON VIEW rowkeeper.jobs IS
'Calls that later() queued: queued, running, interrupted (its process is gone; maintain() decides whether it runs again), done, failed. Roles see their own, the extension''s owner all.';

CREATE FUNCTION rowkeeper.later(call text) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_later';
COMMENT ON FUNCTION rowkeeper.later(text) IS
'Queues one CALL of a procedure of rowkeeper, with constant arguments: it runs once this transaction is committed, in a process of its own, as the current role and with its search_path. Returns the id in rowkeeper.jobs.';

CREATE FUNCTION rowkeeper.job_require(id bigint) RETURNS boolean
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_job_require';
COMMENT ON FUNCTION rowkeeper.job_require(bigint) IS
'Raises unless that job is done; for the migration that builds on it.';
