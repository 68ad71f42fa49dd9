-- 16_progress.sql: long work as it goes on

CREATE TABLE rowkeeper._progress (
	pid integer NOT NULL,
	relation regclass,
	task text NOT NULL,
	step integer NOT NULL,
	steps integer NOT NULL,
	done bigint NOT NULL,
	total bigint,
	started_at timestamptz NOT NULL
);
ALTER TABLE rowkeeper._progress REPLICA IDENTITY FULL; -- where all tables are published
REVOKE ALL ON rowkeeper._progress FROM PUBLIC;
COMMENT ON TABLE rowkeeper._progress IS
'Work that commits in between, a row for each backend that does some; read it through rowkeeper.progress.';

-- A backend that went away has left its row behind: it is not shown, not even
-- where another one has its number now (whose start not everybody is told).
CREATE VIEW rowkeeper.progress WITH (security_barrier = true) AS
SELECT p.task, n.nspname AS table_schema, c.relname AS table_name, p.step, p.steps, p.done, p.total, p.started_at
FROM rowkeeper._progress p
	JOIN pg_catalog.pg_class c ON c.oid = p.relation
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
		WHERE a.pid = p.pid AND coalesce(a.backend_start <= p.started_at, true))
	AND (pg_catalog.pg_has_role(c.relowner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE'));
REVOKE ALL ON rowkeeper.progress FROM PUBLIC;
GRANT SELECT ON rowkeeper.progress TO PUBLIC;
COMMENT ON VIEW rowkeeper.progress IS
'Long work that runs now and commits as it goes: task, table, which step of how many, how much of this step is done and how much there is (null: not known). Table owners see that of their tables, members of pg_monitor all.';
