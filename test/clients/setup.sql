-- What each client's database begins with, as a superuser: the extension, and
-- what the programs ask of the catalogs. Everything after it is done by the
-- client, as a role that owns its tables and nothing else.
CREATE EXTENSION rowkeeper CASCADE;

-- Every catalog row of the user's tables: any ALTER, CREATE or DROP of them
-- changes it, whatever it leaves the table looking like. A rewritten catalog
-- row has another xmin.
CREATE FUNCTION public.catalog_state() RETURNS text
LANGUAGE sql STABLE AS $$
WITH relations AS (
	SELECT oid, xmin, relname FROM pg_class
	WHERE relnamespace::regnamespace::text IN ('public', 'rowkeeper_log', 'rowkeeper_trash')
), state AS (
	SELECT 'c' AS kind, xmin::text, relname AS name FROM relations
	UNION ALL SELECT 'a', a.xmin::text, a.attname FROM pg_attribute a JOIN relations r ON r.oid = a.attrelid
	UNION ALL SELECT 't', t.xmin::text, t.tgname FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid
	UNION ALL SELECT 'k', k.xmin::text, k.conname FROM pg_constraint k JOIN relations r ON r.oid = k.conrelid
	UNION ALL SELECT 'd', d.xmin::text, d.adnum::text FROM pg_attrdef d JOIN relations r ON r.oid = d.adrelid
	UNION ALL SELECT 'v', w.xmin::text, w.rulename FROM pg_rewrite w JOIN relations r ON r.oid = w.ev_class
)
SELECT md5(string_agg(state::text, ',' ORDER BY state::text)) FROM state
$$;
