-- 15_maintain.sql: periodic work, and the log of what it did

CREATE TABLE rowkeeper._maintain_log (
	ran_at timestamptz NOT NULL,
	table_schema text,
	table_name text,
	task text NOT NULL,
	duration interval NOT NULL,
	changed bigint NOT NULL,
	error text
);
CREATE INDEX ON rowkeeper._maintain_log (ran_at);
ALTER TABLE rowkeeper._maintain_log REPLICA IDENTITY FULL; -- where all tables are published
REVOKE ALL ON rowkeeper._maintain_log FROM PUBLIC;
COMMENT ON TABLE rowkeeper._maintain_log IS
'What maintenance did and what failed, for 90 days; read it through rowkeeper.maintain_log.';

CREATE VIEW rowkeeper.maintain_log WITH (security_barrier = true) AS
SELECT l.ran_at, l.table_schema, l.table_name, l.task, l.duration, l.changed, l.error
FROM rowkeeper._maintain_log l
WHERE pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c
		WHERE c.oid = 'rowkeeper._maintain_log'::pg_catalog.regclass), 'USAGE')
	OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
	OR EXISTS (SELECT FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = l.table_schema AND c.relname = l.table_name
			AND pg_catalog.pg_has_role(c.relowner, 'USAGE'));
GRANT SELECT ON rowkeeper.maintain_log TO PUBLIC;
COMMENT ON VIEW rowkeeper.maintain_log IS
'What rowkeeper.maintain() did and what failed, newest 90 days; a task that found nothing to do leaves no row. Table owners see the rows of their tables; members of the extension''s owner and of pg_monitor see all.';

CREATE PROCEDURE rowkeeper.maintain(target regclass DEFAULT NULL, force boolean DEFAULT false)
LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_maintain';
COMMENT ON PROCEDURE rowkeeper.maintain(regclass, boolean) IS
'All periodic work on one table, or (NULL) on every table the caller owns; superusers and members of the extension''s owner: on all, and on the audit log. Commits after each task, so not in a transaction block; failures are recorded in rowkeeper.maintain_log and stop nothing else. force: retention may expire more than half of a table.';
