-- 61_partition_convert.sql: a plain table becomes a partitioned one

-- What is being converted. A dump has none of it: the table in it is as it was,
-- but for a CHECK that doctor() names.
CREATE TABLE rowkeeper._partition_conversions (
	relation regclass PRIMARY KEY,
	key name NOT NULL,
	options jsonb NOT NULL,
	upper bigint NOT NULL, -- where the table's rows end, on the key's scale
	bound text NOT NULL, -- the same as SQL takes it
	swapped boolean NOT NULL DEFAULT false,
	validate jsonb NOT NULL DEFAULT '[]', -- foreign keys: schema, table, name
	since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
REVOKE ALL ON rowkeeper._partition_conversions FROM PUBLIC;
COMMENT ON TABLE rowkeeper._partition_conversions IS
'Plain tables that are becoming partitioned ones, and how.';

CREATE PROCEDURE partition_convert(target regclass, "by" name DEFAULT NULL, every text DEFAULT NULL, ahead text DEFAULT NULL,
                                   keep text DEFAULT NULL, on_expiry text DEFAULT NULL, archive_schema name DEFAULT NULL,
                                   timezone text DEFAULT NULL, partition_schema name DEFAULT NULL, brin boolean DEFAULT NULL,
                                   epoch text DEFAULT NULL, split boolean DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_partition_convert';
COMMENT ON PROCEDURE partition_convert(regclass, name, text, text, text, text, name, text, name, boolean, text, boolean) IS
    'makes a plain table one with partitions while it is in use; the table as it is becomes the first of them. Options as of partition(); split: its rows are moved to partitions of a period each, too. Commits as it goes; called again, it goes on where it was; partition_off() gives it up';

-- The name of the index that becomes the table's primary key, whatever that is
-- called and is replaced with meanwhile.
CREATE FUNCTION rowkeeper._partition_convert_index(target oid) RETURNS name
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.format('%s_rowkeeper_key', $1)::name;
REVOKE ALL ON FUNCTION rowkeeper._partition_convert_index(oid) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_convert_index(oid) IS
'The index with the partition key that becomes the primary key of a table in conversion.';

-- What an index includes besides its key; "except" is in the key from now on.
CREATE FUNCTION rowkeeper._partition_convert_included(index oid, "except" smallint) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT ' INCLUDE (' || pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY x.position) || ')'
	FROM pg_catalog.pg_index i
		CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY x (attnum, position)
		JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = x.attnum
	WHERE i.indexrelid = $1 AND x.position > i.indnkeyatts AND x.attnum <> $2);
REVOKE ALL ON FUNCTION rowkeeper._partition_convert_included(oid, smallint) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_convert_included(oid, smallint) IS
'The INCLUDE clause of an index, but for one column.';

-- Of what the swap needs and nobody else: the catalog as DDL writes it, which
-- takes another file for the index of a dropped key, and another sequence for an
-- identity column that moves. Called by the statements below only.
CREATE FUNCTION rowkeeper._partition_convert_demote_key(target regclass) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowkeeper_partition_convert_demote_key';
REVOKE ALL ON FUNCTION rowkeeper._partition_convert_demote_key(regclass) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_convert_demote_key(regclass) IS
'Drops a primary key and keeps its index as a unique one.';

CREATE FUNCTION rowkeeper._partition_convert_move_identity(sequence regclass, target regclass) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowkeeper_partition_convert_move_identity';
REVOKE ALL ON FUNCTION rowkeeper._partition_convert_move_identity(regclass, regclass) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_convert_move_identity(regclass, regclass) IS
'Gives the sequence of an identity column to the column of that name in another table, which is an identity column from then on.';

CREATE FUNCTION rowkeeper._partition_convert_copy_rights(source regclass, target regclass) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowkeeper_partition_convert_copy_rights';
REVOKE ALL ON FUNCTION rowkeeper._partition_convert_copy_rights(regclass, regclass) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_convert_copy_rights(regclass, regclass) IS
'Gives a table the rights of another of the same owner, and of its columns by name, with who granted them.';

-- Whether a text of the catalog contains a name, which is not the beginning or
-- the end of another.
CREATE FUNCTION rowkeeper._partition_convert_names("text" text, name text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN "text" ~ ('(^|[^a-z0-9_"])' || pg_catalog.regexp_replace(name, '\W', '\\\&', 'g') || '($|[^a-z0-9_"])');
REVOKE ALL ON FUNCTION rowkeeper._partition_convert_names(text, text) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_convert_names(text, text) IS
'Whether a text of the catalog contains a name as a whole.';

-- The CHECK that holds rows below the bound; a user may have one of that name.
CREATE FUNCTION rowkeeper._partition_convert_is_check(definition text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN definition ~ '^CHECK \(\(\((.+) IS NOT NULL\) AND \(.+ < .+\)\)\)( NOT VALID)?$'
	OR definition ~ '^CHECK \(\([^<>=]+ IS NOT NULL\)\)( NOT VALID)?$';
REVOKE ALL ON FUNCTION rowkeeper._partition_convert_is_check(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._partition_convert_is_check(text) TO PUBLIC; -- doctor() asks it
COMMENT ON FUNCTION rowkeeper._partition_convert_is_check(text) IS
'Whether the CHECK that is named rowkeeper_convert, as the server writes it, is of a conversion.';

-- Why a table cannot be converted; no row: it can. role: who asks.
CREATE FUNCTION rowkeeper._partition_convert_problems(target oid, key name, role oid)
	RETURNS TABLE (rank integer, state text, problem text, hint text)
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
	WITH t AS (
		SELECT c.oid, c.relowner, c.reltype, c.relpersistence, c.reloftype, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
			k.attnum AS key, k.attgenerated, n.oid AS namespace
		FROM pg_catalog.pg_class c
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			JOIN pg_catalog.pg_attribute k ON k.attrelid = c.oid AND k.attname = $2 AND NOT k.attisdropped
		WHERE c.oid = $1
	), views AS (
		-- rules that read the table; ev_type '1' of a view: what it shows
		SELECT DISTINCT r.oid AS rule, r.rulename, c.oid, c.relkind, c.relowner, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
			c.relkind = 'v' AND r.rulename = '_RETURN' AS is_view
		FROM pg_catalog.pg_depend d
			JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
			JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
			AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1 AND r.ev_class <> $1
	), functions AS (
		SELECT DISTINCT p.oid, p.proowner
		FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.objid
		WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
			AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1
	), policies AS (
		SELECT DISTINCT y.oid, y.polname, c.relowner, y.polrelid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
		FROM pg_catalog.pg_depend d
			JOIN pg_catalog.pg_policy y ON y.oid = d.objid
			JOIN pg_catalog.pg_class c ON c.oid = y.polrelid
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND y.polrelid <> $1
			AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1
	), referencing AS (
		SELECT k.oid, k.conname, k.conrelid, c.relkind, c.relispartition, c.relowner,
			pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
			t.key = ANY (k.confkey) AS has_key
		FROM t JOIN pg_catalog.pg_constraint k ON k.confrelid = t.oid AND k.contype = 'f' AND k.conparentid = 0
			JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	), constraints AS (
		SELECT k.oid, k.conname, k.contype, k.convalidated, k.connoinherit, k.condeferrable, k.confrelid, k.conkey, t.key = ANY (k.conkey) AS has_key,
			pg_catalog.to_jsonb(k) AS facts -- columns that not every version has
		FROM t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid
	), indexes AS (
		SELECT i.*, c.relname,
			t.key = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AS has_key
		FROM t JOIN pg_catalog.pg_index i ON i.indrelid = t.oid
			JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
	)
	SELECT 1 AS rank, '0A000' AS state, 'it is a member of extension ' || pg_catalog.quote_ident(e.extname) AS problem, NULL::text AS hint
	FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
	WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = $1 AND d.deptype = 'e'
	UNION ALL
	SELECT 2, '0A000', 'it is a table of type ' || pg_catalog.format_type(t.reloftype, NULL), 'ALTER TABLE ' || t.name || ' NOT OF.'
	FROM t WHERE t.reloftype <> 0
	UNION ALL
	SELECT 3, '0A000', pg_catalog.format('%s inherits from it', i.inhrelid::pg_catalog.regclass), NULL
	FROM pg_catalog.pg_inherits i WHERE i.inhparent = $1
	UNION ALL
	SELECT 3, '0A000', pg_catalog.format('it inherits from %s', i.inhparent::pg_catalog.regclass), NULL
	FROM pg_catalog.pg_inherits i WHERE i.inhrelid = $1
	UNION ALL
	SELECT 4, '0A000', pg_catalog.format('its column %I is generated', $2), NULL
	FROM t WHERE t.attgenerated <> ''
	UNION ALL
	SELECT 5, '0A000', pg_catalog.format('it has rule %I', r.rulename), 'Partitioned tables pass rules by where rows go: use a trigger.'
	FROM pg_catalog.pg_rewrite r WHERE r.ev_class = $1
	UNION ALL
	SELECT 6, '0A000', pg_catalog.format('materialized view %s reads it', v.name),
		'It would have to be made anew: drop it before, and create it after.'
	FROM views v WHERE v.relkind = 'm'
	UNION ALL
	SELECT 7, '0A000', pg_catalog.format('rule %I on %s reads it', v.rulename, v.name), NULL
	FROM views v WHERE v.relkind <> 'm' AND NOT v.is_view
	UNION ALL
	SELECT 8, '0A000', pg_catalog.format('view %s reads it with ONLY, which a partitioned table has no rows for', v.name), NULL
	FROM views v, t
	WHERE v.is_view AND rowkeeper._partition_convert_names(pg_catalog.pg_get_viewdef(v.oid), 'ONLY ' || t.name)
	UNION ALL
	SELECT 9, '42501', pg_catalog.format('view %s reads it, and belongs to %I', v.name, pg_catalog.pg_get_userbyid(v.relowner)),
		pg_catalog.format('The view is replaced: let a member of %I do it.', pg_catalog.pg_get_userbyid(v.relowner))
	FROM views v WHERE v.is_view AND NOT pg_catalog.pg_has_role($3, v.relowner, 'USAGE')
	UNION ALL
	SELECT 9, '0A000', pg_catalog.format('view %s of another session reads it', v.name), 'It goes with that session.'
	FROM views v JOIN pg_catalog.pg_class c ON c.oid = v.oid WHERE v.is_view AND pg_catalog.pg_is_other_temp_schema(c.relnamespace)
	UNION ALL
	SELECT 10, '0A000', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) || ' uses its row type', NULL
	FROM t
		JOIN pg_catalog.pg_type y ON y.oid = t.reltype
		JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
			AND d.refobjid IN (y.oid, y.typarray) AND d.deptype = 'n'
	UNION ALL
	SELECT 11, '0A000', pg_catalog.format('function %s reads it in a way that only its text shows', f.oid::pg_catalog.regprocedure), NULL
	FROM functions f JOIN pg_catalog.pg_proc p ON p.oid = f.oid WHERE p.prosqlbody IS NULL
	UNION ALL
	SELECT 11, '0A000', pg_catalog.format('function %s reads it with ONLY, which a partitioned table has no rows for', f.oid::pg_catalog.regprocedure), NULL
	FROM functions f JOIN pg_catalog.pg_proc p ON p.oid = f.oid, t
	WHERE p.prosqlbody IS NOT NULL AND rowkeeper._partition_convert_names(pg_catalog.pg_get_functiondef(f.oid), 'ONLY ' || t.name)
	UNION ALL
	SELECT 12, '42501', pg_catalog.format('function %s reads it, and belongs to %I', f.oid::pg_catalog.regprocedure, pg_catalog.pg_get_userbyid(f.proowner)),
		pg_catalog.format('The function is replaced: let a member of %I do it.', pg_catalog.pg_get_userbyid(f.proowner))
	FROM functions f WHERE NOT pg_catalog.pg_has_role($3, f.proowner, 'USAGE')
	UNION ALL
	SELECT 13, '42501', pg_catalog.format('policy %I of %s reads it, which belongs to %I', y.polname, y.name, pg_catalog.pg_get_userbyid(y.relowner)),
		pg_catalog.format('The policy is altered: let a member of %I do it.', pg_catalog.pg_get_userbyid(y.relowner))
	FROM policies y WHERE NOT pg_catalog.pg_has_role($3, y.relowner, 'USAGE')
	UNION ALL
	SELECT 14, '0A000', pg_catalog.format('policy %I of %s reads it with ONLY, which a partitioned table has no rows for', p.polname, p.name), NULL
	FROM policies p JOIN pg_catalog.pg_policy y ON y.oid = p.oid, t
	WHERE rowkeeper._partition_convert_names(pg_catalog.concat(pg_catalog.pg_get_expr(y.polqual, y.polrelid), ' ', pg_catalog.pg_get_expr(y.polwithcheck, y.polrelid)), 'ONLY ' || t.name)
	UNION ALL
	SELECT 14, '0A000', pg_catalog.format('its policy %I reads the table itself', y.polname), NULL
	FROM t JOIN pg_catalog.pg_policy y ON y.polrelid = t.oid
	-- columns of the row are named without the schema
	WHERE rowkeeper._partition_convert_names(pg_catalog.concat(pg_catalog.pg_get_expr(y.polqual, y.polrelid), ' ', pg_catalog.pg_get_expr(y.polwithcheck, y.polrelid)), t.name)
	UNION ALL
	-- what their owners need to make them anew
	SELECT 14, '42501', pg_catalog.format('%I may not create tables in its schema', pg_catalog.pg_get_userbyid(t.relowner)),
		pg_catalog.format('GRANT CREATE ON SCHEMA %s TO %I.', t.namespace::pg_catalog.regnamespace, pg_catalog.pg_get_userbyid(t.relowner))
	FROM t WHERE NOT pg_catalog.has_schema_privilege(t.relowner, t.namespace, 'CREATE')
	UNION ALL
	SELECT 14, '42501', pg_catalog.format('%I, who owns view %s, may not create views in its schema', pg_catalog.pg_get_userbyid(v.relowner), v.name),
		pg_catalog.format('GRANT CREATE ON SCHEMA %s TO %I.', c.relnamespace::pg_catalog.regnamespace, pg_catalog.pg_get_userbyid(v.relowner))
	FROM views v JOIN pg_catalog.pg_class c ON c.oid = v.oid
	WHERE v.is_view AND NOT pg_catalog.has_schema_privilege(v.relowner, c.relnamespace, 'CREATE')
	UNION ALL
	SELECT 14, '42501', pg_catalog.format('%I, who owns function %s, may not create functions in its schema', pg_catalog.pg_get_userbyid(f.proowner), f.oid::pg_catalog.regprocedure),
		pg_catalog.format('GRANT CREATE ON SCHEMA %s TO %I.', p.pronamespace::pg_catalog.regnamespace, pg_catalog.pg_get_userbyid(f.proowner))
	FROM functions f JOIN pg_catalog.pg_proc p ON p.oid = f.oid
	WHERE NOT pg_catalog.has_schema_privilege(f.proowner, p.pronamespace, 'CREATE')
	UNION ALL
	SELECT 14, '42501', pg_catalog.format('%I may not reference %s, as foreign key %I does', pg_catalog.pg_get_userbyid(t.relowner), k.confrelid::pg_catalog.regclass, k.conname),
		pg_catalog.format('GRANT REFERENCES ON %s TO %I.', k.confrelid::pg_catalog.regclass, pg_catalog.pg_get_userbyid(t.relowner))
	FROM t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f'
	WHERE NOT pg_catalog.has_table_privilege(t.relowner, k.confrelid, 'REFERENCES')
		AND EXISTS (SELECT FROM pg_catalog.unnest(k.confkey) a (attnum)
			WHERE NOT pg_catalog.has_column_privilege(t.relowner, k.confrelid, a.attnum, 'REFERENCES'))
	UNION ALL
	SELECT 14, '42501', pg_catalog.format('%I may not execute %s, as trigger %I does', pg_catalog.pg_get_userbyid(t.relowner), g.tgfoid::pg_catalog.regprocedure, g.tgname),
		pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I.', g.tgfoid::pg_catalog.regprocedure, pg_catalog.pg_get_userbyid(t.relowner))
	FROM t JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
		JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
	WHERE n.nspname <> 'rowkeeper' AND NOT pg_catalog.has_function_privilege(t.relowner, g.tgfoid, 'EXECUTE')
	UNION ALL
	SELECT 15, '0A000', pg_catalog.format('foreign key %I of %s references it without column %I', r.conname, r.name, $2),
		'A key of a partitioned table contains the column that it is partitioned by: drop the foreign key, or reference that column, too.'
	FROM referencing r WHERE NOT r.has_key
	UNION ALL
	SELECT 16, '0A000', pg_catalog.format('foreign key %I references the table itself', r.conname), NULL
	FROM referencing r WHERE r.conrelid = $1
	UNION ALL
	SELECT 17, '0A000', pg_catalog.format('foreign key %I of the partitioned table %s references it', r.conname, r.name), NULL
	FROM referencing r WHERE r.relkind = 'p' OR r.relispartition
	UNION ALL
	-- the server fails to attach a table that has one
	SELECT 17, '0A000', pg_catalog.format('its foreign key %I references the partitioned table %s', k.conname, k.confrelid::pg_catalog.regclass), NULL
	FROM constraints k JOIN pg_catalog.pg_class c ON c.oid = k.confrelid AND (c.relkind = 'p' OR c.relispartition)
	WHERE k.contype = 'f'
	UNION ALL
	SELECT 18, '42501', pg_catalog.format('foreign key %I of %s references it, which belongs to %I', r.conname, r.name, pg_catalog.pg_get_userbyid(r.relowner)),
		pg_catalog.format('The foreign key is made anew: let a member of %I do it.', pg_catalog.pg_get_userbyid(r.relowner))
	FROM referencing r WHERE NOT pg_catalog.pg_has_role($3, r.relowner, 'USAGE')
	UNION ALL
	SELECT 18, '42501', pg_catalog.format('%I, who owns %s, may not reference it any more, as foreign key %I does', pg_catalog.pg_get_userbyid(r.relowner), r.name, r.conname),
		pg_catalog.format('GRANT REFERENCES ON %s TO %I.', t.name, pg_catalog.pg_get_userbyid(r.relowner))
	FROM referencing r, t JOIN pg_catalog.pg_constraint k ON true
	WHERE k.oid = r.oid AND NOT pg_catalog.has_table_privilege(r.relowner, $1, 'REFERENCES')
		AND EXISTS (SELECT FROM pg_catalog.unnest(k.confkey) a (attnum)
			WHERE NOT pg_catalog.has_column_privilege(r.relowner, $1, a.attnum, 'REFERENCES'))
	UNION ALL
	SELECT 18, '42501', pg_catalog.format('statistics object %I belongs to %I', s.stxname, pg_catalog.pg_get_userbyid(s.stxowner)),
		pg_catalog.format('ALTER STATISTICS %I.%I OWNER TO %I.', n.nspname, s.stxname, pg_catalog.pg_get_userbyid(t.relowner))
	FROM t JOIN pg_catalog.pg_statistic_ext s ON s.stxrelid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
	WHERE s.stxowner <> t.relowner
	UNION ALL
	SELECT 19, '0A000', pg_catalog.format('it has exclusion constraint %I', k.conname), NULL
	FROM constraints k WHERE k.contype = 'x' OR (k.contype IN ('p', 'u', 'f') AND k.facts ->> 'conperiod' = 'true')
	UNION ALL
	SELECT 20, '55000', pg_catalog.format('constraint %I is not valid', k.conname),
		pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I, or drop it.', t.name, k.conname)
	FROM constraints k, t WHERE NOT k.convalidated AND k.conname <> 'rowkeeper_convert'
	UNION ALL
	SELECT 20, '0A000', pg_catalog.format('constraint %I is NOT ENFORCED', k.conname), NULL
	FROM constraints k WHERE k.facts ->> 'conenforced' = 'false'
	UNION ALL
	SELECT 20, '55000', 'its constraint rowkeeper_convert is not of a conversion',
		pg_catalog.format('ALTER TABLE %s RENAME CONSTRAINT rowkeeper_convert TO ...', t.name)
	FROM constraints k, t WHERE k.conname = 'rowkeeper_convert'
		AND NOT (k.contype = 'c' AND rowkeeper._partition_convert_is_check(pg_catalog.pg_get_constraintdef(k.oid)))
	UNION ALL
	-- what is made anew is enabled
	SELECT 20, '55000', pg_catalog.format('triggers of constraint %I are disabled on %s', k.conname, g.tgrelid::pg_catalog.regclass),
		pg_catalog.format('ALTER TABLE %s ENABLE TRIGGER ALL.', g.tgrelid::pg_catalog.regclass)
	FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_trigger g ON g.tgconstraint = k.oid
	WHERE (k.conrelid = $1 OR k.confrelid = $1) AND g.tgisinternal AND g.tgenabled <> 'O'
	UNION ALL
	SELECT 20, '0A000', pg_catalog.format('constraint %I is NO INHERIT', k.conname), NULL
	FROM constraints k WHERE k.contype IN ('c', 'n') AND k.connoinherit
	UNION ALL
	SELECT 21, '0A000', pg_catalog.format('primary key %I is deferrable', k.conname), NULL
	FROM constraints k WHERE k.contype = 'p' AND k.condeferrable AND NOT k.has_key
	UNION ALL
	SELECT 22, '0A000', pg_catalog.format('unique index %I does not contain column %I', i.relname, $2),
		'Rows of different partitions could be equal in it: make it one that contains the column, or that is not unique.'
	FROM indexes i WHERE i.indisunique AND NOT i.indisprimary AND NOT i.has_key
	UNION ALL
	SELECT 23, '55000', pg_catalog.format('index %I is not valid', i.relname), 'REINDEX it, or drop it.'
	FROM indexes i, t WHERE NOT (i.indisvalid AND i.indisready) AND i.relname IS DISTINCT FROM rowkeeper._partition_convert_index(t.oid)
	UNION ALL
	SELECT 24, '0A000', pg_catalog.format('%s needs its primary key %I to be as it is',
		CASE d.classid WHEN 'pg_catalog.pg_rewrite'::pg_catalog.regclass
			THEN (SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, r.ev_class, 0) FROM pg_catalog.pg_rewrite r WHERE r.oid = d.objid)
			ELSE pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) END, k.conname),
		'It groups by the key alone: name all columns in GROUP BY.'
	FROM constraints k
		JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.refobjid = k.oid
	WHERE k.contype = 'p' AND NOT k.has_key AND d.deptype = 'n'
	UNION ALL
	SELECT 25, '0A000', pg_catalog.format('row trigger %I has a transition table', g.tgname), 'Make it a statement trigger.'
	FROM pg_catalog.pg_trigger g
	WHERE g.tgrelid = $1 AND NOT g.tgisinternal AND (g.tgtype & 1) = 1 AND (g.tgoldtable IS NOT NULL OR g.tgnewtable IS NOT NULL)
	UNION ALL
	SELECT 26, '0A000', pg_catalog.format('constraint trigger %I of %s is FROM it', g.tgname, g.tgrelid::pg_catalog.regclass), NULL
	FROM pg_catalog.pg_trigger g WHERE g.tgconstrrelid = $1 AND NOT g.tgisinternal
	UNION ALL
	SELECT 26, '0A000', pg_catalog.format('constraint trigger %I is FROM another table', g.tgname), NULL
	FROM pg_catalog.pg_trigger g WHERE g.tgrelid = $1 AND g.tgconstrrelid <> 0 AND NOT g.tgisinternal
		-- those of soft delete
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
			WHERE f.oid = g.tgfoid AND n.nspname = 'rowkeeper')
	UNION ALL
	SELECT 27, '0A000', pg_catalog.format('publication %I contains it without publish_via_partition_root', p.pubname),
		pg_catalog.format('ALTER PUBLICATION %I SET (publish_via_partition_root = true).', p.pubname)
	FROM pg_catalog.pg_publication p
	WHERE NOT p.pubviaroot AND (p.puballtables
		OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = $1)
		OR EXISTS (SELECT FROM t JOIN pg_catalog.pg_publication_namespace s ON s.pnnspid = t.namespace AND s.pnpubid = p.oid))
	UNION ALL
	SELECT 27, '0A000', pg_catalog.format('publication %I lists columns of it without %I', p.pubname, $2),
		'The primary key, by which subscribers know rows, will contain that column: publish it, too.'
	FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
	WHERE r.prrelid = $1 AND r.prattrs IS NOT NULL
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
			WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum = ANY (r.prattrs::smallint[]))
	UNION ALL
	SELECT 28, '42501', pg_catalog.format('publication %I names it, which belongs to %I', p.pubname, pg_catalog.pg_get_userbyid(p.pubowner)),
		pg_catalog.format('The publication is altered: its owner has to be a member of %I, and who calls a member of %I.',
			pg_catalog.pg_get_userbyid(t.relowner), pg_catalog.pg_get_userbyid(p.pubowner))
	FROM t JOIN pg_catalog.pg_publication_rel r ON r.prrelid = t.oid JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
	WHERE NOT (pg_catalog.pg_has_role($3, p.pubowner, 'USAGE') AND pg_catalog.pg_has_role(p.pubowner, t.relowner, 'USAGE'))
	UNION ALL
	SELECT 29, '0A000', pg_catalog.format('it is a table of subscription %I, whose publisher does not know partitions', s.subname), NULL
	FROM pg_catalog.pg_subscription_rel r JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid WHERE r.srrelid = $1
	UNION ALL
	SELECT 30, '0A000', 'it is unlogged and has foreign keys, which partitioned tables have only where they are logged', NULL
	FROM t WHERE t.relpersistence = 'u' AND EXISTS (SELECT FROM constraints k WHERE k.contype = 'f' UNION ALL SELECT FROM referencing)
	UNION ALL
	-- what there may be besides
	SELECT 99, '0A000', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) || ' depends on it', NULL
	FROM pg_catalog.pg_depend d
	WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'n'
		AND NOT (d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid IN (SELECT v.rule FROM views v))
		AND NOT (d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass)
		AND NOT (d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass)
		AND NOT (d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass)
		AND NOT (d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
			AND EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.oid = d.objid AND g.tgrelid = $1))
		AND NOT (d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
			AND EXISTS (SELECT FROM pg_catalog.pg_attrdef a WHERE a.oid = d.objid AND a.adrelid = $1))
		AND NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
			AND (EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indexrelid = d.objid AND i.indrelid = $1)
				OR EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = d.objid)))
		AND NOT (d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass)
		AND NOT (d.classid = 'pg_catalog.pg_publication_rel'::pg_catalog.regclass);
END;
REVOKE ALL ON FUNCTION rowkeeper._partition_convert_problems(oid, name, oid) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_convert_problems(oid, name, oid) IS
'Why a table cannot become partitioned by a column: what could not follow it.';

-- The statements that make a table the first partition of a new one in its
-- name, in their order; texts of the catalog as they are before the first of
-- them. Those of steps below 10 make the new table beside the other, under
-- names of nobody's; with step 10 others begin to wait. quiet: no feature hears
-- of it. wide: the table's name then; bound: where its rows end. What the
-- comparison of partitions finds (_partition_differences(): policies and the
-- like) is not here: it comes before step 10.
CREATE FUNCTION rowkeeper._partition_convert_statements(target oid, key name, wide name, bound text)
	RETURNS TABLE (step integer, number bigint, role oid, quiet boolean, statement text)
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
	WITH t AS (
		SELECT c.oid, c.relname, c.relnamespace, n.nspname, c.relowner AS owner, c.relreplident, c.reltablespace,
			pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
			pg_catalog.format('%I.%I', n.nspname, $3) AS wide,
			pg_catalog.format('%I.%I', n.nspname, pg_catalog.format('rowkeeper_%s', c.oid)) AS new, x.extowner, e.oid AS ours, k.attnum AS key
		FROM pg_catalog.pg_class c
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			JOIN pg_catalog.pg_attribute k ON k.attrelid = c.oid AND k.attname = $2
			JOIN pg_catalog.pg_extension x ON x.extname = 'rowkeeper'
			JOIN pg_catalog.pg_namespace e ON e.nspname = 'rowkeeper'
		WHERE c.oid = $1
	), triggers AS (
		SELECT g.oid, g.tgname, g.tgenabled, (g.tgtype & 1) = 1 AS is_row, o.is_ours,
			CASE WHEN o.is_ours THEN t.extowner ELSE t.owner END AS role,
			pg_catalog.pg_get_triggerdef(g.oid) AS definition
		FROM t JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid
			JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid
			CROSS JOIN LATERAL (SELECT f.pronamespace = t.ours AND g.tgname ~ '^[!~]?rowkeeper_'
				-- that one its owner may have made himself
				AND (f.proname <> '_stamp' OR g.tgqual IS NULL)) o (is_ours)
		WHERE NOT g.tgisinternal
	), replaced AS (
		-- the primary key, where it does not contain the partition key
		SELECT k.oid, k.conname, k.conindid, rowkeeper._partition_convert_index(t.oid) AS index,
			(SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY x.position)
			FROM pg_catalog.unnest(k.conkey || t.key) WITH ORDINALITY x (attnum, position)
				JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.attnum) AS columns,
			rowkeeper._partition_convert_included(k.conindid, t.key) AS included
		FROM t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid AND k.contype = 'p' AND NOT t.key = ANY (k.conkey)
	), indexes AS (
		SELECT i.indexrelid, coalesce(n.oid, i.indexrelid)::bigint AS made, i.indisreplident, c.relname, pg_catalog.format('%I.%I', t.nspname, c.relname) AS name, c.reltablespace,
			r.oid IS NOT NULL AS is_replaced, k.oid AS constraint_oid, coalesce(r.conname, k.conname) AS constraint_name,
			CASE WHEN r.oid IS NOT NULL THEN pg_catalog.format('PRIMARY KEY (%s)%s', r.columns, r.included)
				ELSE pg_catalog.pg_get_constraintdef(k.oid) END AS constraint_definition,
			(SELECT ' WITH (' || pg_catalog.string_agg(o.option, ', ') || ')' FROM pg_catalog.unnest(c.reloptions) o (option)) AS options,
			pg_catalog.pg_get_indexdef(i.indexrelid) AS definition,
			-- how that begins
			pg_catalog.format('CREATE %sINDEX %I ON %s ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, c.relname, t.name) AS beginning,
			pg_catalog.format('CREATE %sINDEX %I ON %s ', CASE WHEN i.indisunique THEN 'UNIQUE ' END,
				pg_catalog.format('rowkeeper_%s', i.indexrelid), t.new) AS new_beginning,
			pg_catalog.format('rowkeeper_%s', i.indexrelid) AS new_relname,
			pg_catalog.format('%I.%I', t.nspname, pg_catalog.format('rowkeeper_%s', i.indexrelid)) AS new_name,
			-- the old name with the table's new name in it, where that is one
			CASE WHEN pg_catalog.starts_with(c.relname::text, t.relname::text)
					AND pg_catalog.octet_length($3::text || pg_catalog.substr(c.relname::text, pg_catalog.length(t.relname::text) + 1)) < 64
					AND NOT EXISTS (SELECT FROM pg_catalog.pg_class o WHERE o.relnamespace = t.relnamespace
						AND o.relname = ($3::text || pg_catalog.substr(c.relname::text, pg_catalog.length(t.relname::text) + 1))::name)
				THEN ($3::text || pg_catalog.substr(c.relname::text, pg_catalog.length(t.relname::text) + 1))::name
				ELSE pg_catalog.format('%s_%s', i.indexrelid, c.relname)::name END AS old_name
		FROM t JOIN pg_catalog.pg_index i ON i.indrelid = t.oid
			JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
			LEFT JOIN replaced r ON r.conindid = i.indexrelid
			LEFT JOIN pg_catalog.pg_class n ON n.relname = r.index AND n.relnamespace = t.relnamespace
			LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = t.oid AND k.contype IN ('p', 'u')
		WHERE NOT EXISTS (SELECT FROM replaced o WHERE o.index = c.relname)
	), sequences AS (
		SELECT s.oid, pg_catalog.format('%I.%I', n.nspname, s.relname) AS name, d.deptype = 'i' AS is_identity, a.attname
		FROM t JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = t.oid
				AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
			JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
			JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
			JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
	), statistics AS (
		SELECT s.oid, s.stxname, s.stxstattarget, pg_catalog.format('%I.%I', n.nspname, s.stxname) AS name,
			pg_catalog.pg_get_statisticsobjdef(s.oid) AS definition
		FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
		WHERE s.stxrelid = $1
	), referencing AS (
		SELECT k.oid, k.conname, c.relowner, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
			pg_catalog.pg_get_constraintdef(k.oid) AS definition, k.convalidated
		FROM pg_catalog.pg_constraint k
			JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE k.confrelid = $1 AND k.contype = 'f' AND k.conparentid = 0
	), dependents AS (
		SELECT DISTINCT d.classid, d.objid
		FROM pg_catalog.pg_depend d
		WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'n'
	)
	-- the new table
	SELECT 1, 0::bigint, t.owner, false, pg_catalog.format('CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY EXCLUDING STATISTICS)'
		' PARTITION BY RANGE (%I)%s', t.new, t.name, $2,
		' TABLESPACE ' || (SELECT pg_catalog.quote_ident(s.spcname) FROM pg_catalog.pg_tablespace s WHERE s.oid = t.reltablespace))
	FROM t
	UNION ALL
	SELECT 2, 0, t.owner, false, pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT rowkeeper_convert', t.new) FROM t
	UNION ALL
	-- 18 names it, and would name it after the table's name of the moment
	SELECT 2, 1, t.owner, false, pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I NOT NULL %I', t.new,
		pg_catalog.format('%s_%s_not_null', t.relname, $2)::name, $2)
	FROM t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = t.key
	WHERE NOT a.attnotnull AND pg_catalog.current_setting('server_version_num')::integer >= 180000
		AND EXISTS (SELECT FROM replaced)
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
			WHERE k.conrelid = t.oid AND k.conname = pg_catalog.format('%s_%s_not_null', t.relname, $2)::name)
	UNION ALL
	SELECT 3, 0, t.extowner, true, pg_catalog.format('SELECT rowkeeper._partition_convert_copy_rights(%L, %L)', t.name, t.new) FROM t
	UNION ALL
	-- its keys and indexes, which find those of the partition; of equal ones the
	-- server takes the oldest for the oldest
	SELECT 4, i.made * 10, t.owner, false,
		CASE WHEN i.constraint_definition IS NOT NULL THEN pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s', t.new, i.new_relname,
				pg_catalog.regexp_replace(i.constraint_definition, '(( NOT)? DEFERRABLE)?( INITIALLY (DEFERRED|IMMEDIATE))?$', coalesce(i.options, '') || '\&'))
			WHEN pg_catalog.starts_with(i.definition, i.beginning) THEN i.new_beginning || pg_catalog.substr(i.definition, pg_catalog.length(i.beginning) + 1) END
	FROM t, indexes i
	UNION ALL
	SELECT 4, i.made * 10 + 1, t.owner, false, pg_catalog.format('ALTER INDEX %s SET TABLESPACE %I', i.new_name, s.spcname)
	FROM t, indexes i JOIN pg_catalog.pg_tablespace s ON s.oid = i.reltablespace
	UNION ALL
	SELECT 4, i.made * 10 + 2, t.owner, false, pg_catalog.format('COMMENT ON INDEX %s IS %L', i.new_name, pg_catalog.obj_description(i.indexrelid, 'pg_class'))
	FROM t, indexes i WHERE pg_catalog.obj_description(i.indexrelid, 'pg_class') IS NOT NULL
	UNION ALL
	SELECT 4, i.made * 10 + 3, t.owner, false, pg_catalog.format('COMMENT ON CONSTRAINT %I ON %s IS %L', i.new_relname, t.new,
		pg_catalog.obj_description(i.constraint_oid, 'pg_constraint'))
	FROM t, indexes i WHERE pg_catalog.obj_description(i.constraint_oid, 'pg_constraint') IS NOT NULL
	UNION ALL
	SELECT 5, i.indexrelid::bigint * 100 + a.attnum, t.owner, false, pg_catalog.format('ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %s', i.new_name, a.attnum, a.attstattarget)
	FROM t, indexes i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indexrelid
	WHERE coalesce(a.attstattarget, -1) >= 0 AND NOT i.is_replaced
	UNION ALL
	-- what the table is to be given by the new one
	SELECT 10, g.oid::bigint, g.role, g.is_ours, pg_catalog.format('DROP TRIGGER %I ON %s', g.tgname, t.name)
	FROM t, triggers g
	-- each partition has our statement triggers itself
	WHERE g.is_row OR NOT g.is_ours
	UNION ALL
	SELECT 11, r.oid::bigint, r.relowner, false, pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', r.name, r.conname)
	FROM referencing r
	UNION ALL
	-- its index is dropped later
	SELECT 12, 1, t.extowner, true, pg_catalog.format('SELECT rowkeeper._partition_convert_demote_key(%L)', t.name)
	FROM t, replaced r
	UNION ALL
	SELECT 12, 2, t.owner, true, pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I PRIMARY KEY USING INDEX %I', t.name, r.index, r.index)
	FROM t, replaced r
	UNION ALL
	SELECT 13, i.indexrelid::bigint, t.owner, true, pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', t.name, r.index)
	FROM t, replaced r, indexes i WHERE i.is_replaced AND i.indisreplident
	-- names
	UNION ALL
	SELECT 19, 0, t.owner, true, pg_catalog.format('ALTER INDEX %s RENAME TO %I', i.name, pg_catalog.format('%s_rowkeeper_old', t.oid))
	FROM t, indexes i WHERE i.is_replaced
	UNION ALL
	SELECT 20, i.indexrelid::bigint, t.owner, true, pg_catalog.format('ALTER INDEX %s RENAME TO %I',
		CASE WHEN i.is_replaced THEN pg_catalog.format('%I.%I', t.nspname, rowkeeper._partition_convert_index(t.oid)) ELSE i.name END, i.old_name)
	FROM t, indexes i
	UNION ALL
	SELECT 21, s.oid::bigint, t.owner, true, pg_catalog.format('ALTER STATISTICS %s RENAME TO %I', s.name, pg_catalog.format('%s_%s', s.oid, s.stxname)::name)
	FROM t, statistics s
	UNION ALL
	SELECT 22, 0, t.owner, true, pg_catalog.format('ALTER TABLE %s RENAME TO %I', t.name, $3) FROM t
	UNION ALL
	SELECT 23, 0, t.owner, true, pg_catalog.format('ALTER TABLE %s RENAME TO %I', t.new, t.relname) FROM t
	UNION ALL
	SELECT 24, i.made, t.owner, true, pg_catalog.format('ALTER INDEX %s RENAME TO %I', i.new_name, i.relname)
	FROM t, indexes i
	UNION ALL
	-- sequences: identity columns keep theirs
	SELECT 32, s.oid::bigint, t.extowner, true, pg_catalog.format('SELECT rowkeeper._partition_convert_move_identity(%L, %L)', s.name, t.name)
	FROM t, sequences s WHERE s.is_identity
	UNION ALL
	SELECT 33, s.oid::bigint, t.owner, false, pg_catalog.format('ALTER SEQUENCE %s OWNED BY %s.%I', s.name, t.name, s.attname)
	FROM t, sequences s WHERE NOT s.is_identity
	UNION ALL
	SELECT 42, i.indexrelid::bigint, t.owner, false, pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', t.name, i.relname)
	FROM t, indexes i WHERE i.indisreplident AND t.relreplident = 'i'
	UNION ALL
	SELECT 43, s.oid::bigint * 10, t.owner, false, s.definition FROM t, statistics s
	UNION ALL
	SELECT 43, s.oid::bigint * 10 + 1, t.owner, false, pg_catalog.format('COMMENT ON STATISTICS %s IS %L', s.name, pg_catalog.obj_description(s.oid, 'pg_statistic_ext'))
	FROM t, statistics s WHERE pg_catalog.obj_description(s.oid, 'pg_statistic_ext') IS NOT NULL
	UNION ALL
	SELECT 43, s.oid::bigint * 10 + 2, t.owner, false, pg_catalog.format('ALTER STATISTICS %s SET STATISTICS %s', s.name, s.stxstattarget)
	FROM t, statistics s WHERE coalesce(s.stxstattarget, -1) >= 0
	UNION ALL
	SELECT 44, k.oid::bigint * 10, t.owner, false, pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s', t.name, k.conname, pg_catalog.pg_get_constraintdef(k.oid))
	FROM t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f'
	UNION ALL
	SELECT 44, k.oid::bigint * 10 + 1, t.owner, false, pg_catalog.format('COMMENT ON CONSTRAINT %I ON %s IS %L', k.conname, t.name, pg_catalog.obj_description(k.oid, 'pg_constraint'))
	FROM t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f'
	WHERE pg_catalog.obj_description(k.oid, 'pg_constraint') IS NOT NULL
	UNION ALL
	SELECT 50, l.objsubid, t.owner, false, pg_catalog.format('SECURITY LABEL FOR %I ON %s IS %L', l.provider,
		CASE l.objsubid WHEN 0 THEN 'TABLE ' || t.name
			ELSE pg_catalog.format('COLUMN %s.%I', t.name, (SELECT a.attname FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = l.objsubid)) END,
		l.label)
	FROM t JOIN pg_catalog.pg_seclabel l ON l.objoid = t.oid AND l.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
	UNION ALL
	SELECT 51, g.oid::bigint * 10, g.role, g.is_ours, g.definition FROM triggers g
	UNION ALL
	SELECT 51, g.oid::bigint * 10 + 1, g.role, g.is_ours, pg_catalog.format('ALTER TABLE %s %s TRIGGER %I', t.name,
		CASE g.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END, g.tgname)
	FROM t, triggers g WHERE g.tgenabled <> 'O'
	UNION ALL
	SELECT 51, g.oid::bigint * 10 + 2, g.role, g.is_ours, pg_catalog.format('COMMENT ON TRIGGER %I ON %s IS %L', g.tgname, t.name, pg_catalog.obj_description(g.oid, 'pg_trigger'))
	FROM t, triggers g WHERE pg_catalog.obj_description(g.oid, 'pg_trigger') IS NOT NULL
	-- its first partition
	UNION ALL
	SELECT 60, 0, t.owner, true, pg_catalog.format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (MINVALUE) TO (%s)', t.name, t.wide, $4) FROM t
	UNION ALL
	SELECT 62, p.oid::bigint * 10, p.pubowner, false, pg_catalog.format('ALTER PUBLICATION %I DROP TABLE %s', p.pubname, t.wide)
	FROM t JOIN pg_catalog.pg_publication_rel r ON r.prrelid = t.oid JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
	UNION ALL
	SELECT 62, p.oid::bigint * 10 + 1, p.pubowner, false, pg_catalog.format('ALTER PUBLICATION %I ADD TABLE %s%s%s', p.pubname, t.name,
		(SELECT ' (' || pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) || ')'
		FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY (r.prattrs::int2[])),
		' WHERE (' || pg_catalog.pg_get_expr(r.prqual, r.prrelid) || ')')
	FROM t JOIN pg_catalog.pg_publication_rel r ON r.prrelid = t.oid JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
	-- and who refers to it; valid keys are validated afterwards
	UNION ALL
	SELECT 70, r.oid::bigint * 10, r.relowner, false, pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s%s', r.name, r.conname, r.definition,
		CASE WHEN r.convalidated THEN ' NOT VALID' ELSE '' END)
	FROM referencing r
	UNION ALL
	SELECT 70, r.oid::bigint * 10 + 1, r.relowner, false, pg_catalog.format('COMMENT ON CONSTRAINT %I ON %s IS %L', r.conname, r.name, pg_catalog.obj_description(r.oid, 'pg_constraint'))
	FROM referencing r WHERE pg_catalog.obj_description(r.oid, 'pg_constraint') IS NOT NULL
	UNION ALL
	SELECT 71, c.oid::bigint, c.relowner, false, pg_catalog.format('CREATE OR REPLACE VIEW %I.%I%s AS %s', n.nspname, c.relname,
		(SELECT ' WITH (' || pg_catalog.string_agg(pg_catalog.format('%s = %L', pg_catalog.split_part(o.option, '=', 1),
			pg_catalog.substr(o.option, pg_catalog.strpos(o.option, '=') + 1)), ', ') || ')' FROM pg_catalog.unnest(c.reloptions) o (option)),
		pg_catalog.rtrim(pg_catalog.pg_get_viewdef(c.oid), ';'))
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE c.oid IN (SELECT r.ev_class FROM dependents d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
		WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass)
	UNION ALL
	SELECT 72, p.oid::bigint, p.proowner, false, pg_catalog.pg_get_functiondef(p.oid)
	FROM dependents d JOIN pg_catalog.pg_proc p ON p.oid = d.objid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
	UNION ALL
	SELECT 73, y.oid::bigint, c.relowner, false, pg_catalog.format('ALTER POLICY %I ON %I.%I%s%s', y.polname, n.nspname, c.relname,
		' USING (' || rowkeeper._policy_expression(y.polqual, y.polrelid, c.relname::text) || ')',
		' WITH CHECK (' || rowkeeper._policy_expression(y.polwithcheck, y.polrelid, c.relname::text) || ')')
	FROM dependents d JOIN pg_catalog.pg_policy y ON y.oid = d.objid AND d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND y.polrelid <> $1
		JOIN pg_catalog.pg_class c ON c.oid = y.polrelid
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace;
END;
REVOKE ALL ON FUNCTION rowkeeper._partition_convert_statements(oid, name, name, text) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_convert_statements(oid, name, name, text) IS
'How a table becomes the first partition of a new one in its name: the statements, captured before the first is run.';

-- The versions of what those statements were made of: as long as they are the
-- same, so are the statements. Not of what nobody alters under the lock that
-- the table has by then (SHARE UPDATE EXCLUSIVE). OFFSET 0: these are few rows
-- of big catalogs, found by index.
CREATE FUNCTION rowkeeper._partition_convert_state(target oid) RETURNS SETOF text
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
	WITH dependents AS (
		SELECT d.classid, d.objid, d.xmin, d.ctid
		FROM pg_catalog.pg_depend d
		WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1
		UNION ALL
		SELECT d.classid, d.objid, d.xmin, d.ctid
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_type y ON y.oid = c.reltype
			JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid IN (y.oid, y.typarray)
		WHERE c.oid = $1
	), rules AS (
		SELECT r.ev_class, r.xmin, r.ctid
		FROM dependents d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
	), constraints AS (
		SELECT k.oid, k.conrelid, k.confrelid, k.xmin, k.ctid
		FROM dependents d CROSS JOIN LATERAL (SELECT e.oid, e.conrelid, e.confrelid, e.xmin, e.ctid FROM pg_catalog.pg_constraint e
			WHERE e.oid = d.objid OFFSET 0) k
		WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
	), policies AS (
		SELECT y.polrelid, y.xmin, y.ctid
		FROM dependents d JOIN pg_catalog.pg_policy y ON y.oid = d.objid WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
	), relations AS (
		SELECT $1 AS oid
		UNION SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = $1
		UNION SELECT d.objid FROM dependents d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
		UNION SELECT r.ev_class FROM rules r
		UNION SELECT k.conrelid FROM constraints k
		UNION SELECT k.confrelid FROM constraints k
		UNION SELECT y.polrelid FROM policies y
	), triggers AS (
		SELECT g.oid, g.xmin, g.ctid FROM relations r
			CROSS JOIN LATERAL (SELECT e.oid, e.xmin, e.ctid FROM pg_catalog.pg_trigger e WHERE e.tgrelid = r.oid OFFSET 0) g
	), objects AS (
		SELECT d.classid, d.objid FROM dependents d
		UNION SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, r.oid FROM relations r
		UNION SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid FROM constraints k
		UNION SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, g.oid FROM triggers g
	), named AS (
		-- by the texts of them, and renamed without a lock on the table
		SELECT DISTINCT d.refclassid, d.refobjid
		FROM objects o CROSS JOIN LATERAL (SELECT e.refclassid, e.refobjid FROM pg_catalog.pg_depend e
			WHERE e.classid = o.classid AND e.objid = o.objid OFFSET 0) d
		WHERE d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass,
			'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_collation'::pg_catalog.regclass)
	), versions AS (
		SELECT d.xmin, d.ctid FROM dependents d
		UNION ALL SELECT r.xmin, r.ctid FROM rules r
		UNION ALL SELECT k.xmin, k.ctid FROM constraints k
		UNION ALL SELECT y.xmin, y.ctid FROM policies y
		UNION ALL SELECT c.xmin, c.ctid FROM relations r CROSS JOIN LATERAL (SELECT e.xmin, e.ctid FROM pg_catalog.pg_class e
			WHERE e.oid = r.oid OFFSET 0) c
		UNION ALL SELECT a.xmin, a.ctid FROM relations r CROSS JOIN LATERAL (SELECT e.xmin, e.ctid FROM pg_catalog.pg_attribute e
			WHERE e.attrelid = r.oid AND e.attnum > 0 OFFSET 0) a
		UNION ALL SELECT q.xmin, q.ctid FROM relations r JOIN pg_catalog.pg_sequence q ON q.seqrelid = r.oid
		UNION ALL SELECT p.xmin, p.ctid FROM dependents d JOIN pg_catalog.pg_proc p ON p.oid = d.objid
			WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
		UNION ALL SELECT g.xmin, g.ctid FROM triggers g
		UNION ALL SELECT s.xmin, s.ctid FROM dependents d JOIN pg_catalog.pg_statistic_ext s ON s.oid = d.objid
			WHERE d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass
		UNION ALL SELECT c.xmin, c.ctid FROM objects o CROSS JOIN LATERAL (SELECT e.xmin, e.ctid FROM pg_catalog.pg_description e
			WHERE e.classoid = o.classid AND e.objoid = o.objid OFFSET 0) c
		UNION ALL SELECT p.xmin, p.ctid FROM named m JOIN pg_catalog.pg_proc p ON p.oid = m.refobjid
			WHERE m.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
		UNION ALL SELECT y.xmin, y.ctid FROM named m JOIN pg_catalog.pg_type y ON y.oid = m.refobjid
			WHERE m.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
		UNION ALL SELECT o.xmin, o.ctid FROM named m JOIN pg_catalog.pg_operator o ON o.oid = m.refobjid
			WHERE m.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass
		UNION ALL SELECT c.xmin, c.ctid FROM named m JOIN pg_catalog.pg_collation c ON c.oid = m.refobjid
			WHERE m.refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass
		UNION ALL SELECT n.xmin, n.ctid FROM pg_catalog.pg_namespace n WHERE NOT pg_catalog.starts_with(n.nspname, 'pg_')
		UNION ALL SELECT p.xmin, p.ctid FROM pg_catalog.pg_publication p
		UNION ALL SELECT r.xmin, r.ctid FROM pg_catalog.pg_publication_rel r WHERE r.prrelid = $1
		UNION ALL SELECT s.xmin, s.ctid FROM pg_catalog.pg_publication_namespace s
		UNION ALL SELECT s.xmin, s.ctid FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = $1
	)
	SELECT pg_catalog.string_agg(pg_catalog.concat(v.xmin, v.ctid), ' ' ORDER BY v.ctid, v.xmin::text) FROM versions v;
END;
REVOKE ALL ON FUNCTION rowkeeper._partition_convert_state(oid) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_convert_state(oid) IS
'The versions of the catalog entries that the conversion of a table was prepared from.';

-- What these statements lock besides the table; modes as the server numbers them.
CREATE FUNCTION rowkeeper._partition_convert_locks(target oid) RETURNS TABLE (relation oid, mode integer)
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
	-- ACCESS EXCLUSIVE: triggers of foreign keys go from there, views and policies are replaced
	SELECT k.confrelid, 8 FROM pg_catalog.pg_constraint k WHERE k.conrelid = $1 AND k.contype = 'f' AND k.confrelid <> $1
	UNION
	SELECT k.conrelid, 8 FROM pg_catalog.pg_constraint k WHERE k.confrelid = $1 AND k.contype = 'f' AND k.conrelid <> $1
	UNION
	SELECT r.ev_class, 8
	FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
	WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.ev_class <> $1
		AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1
	UNION
	SELECT y.polrelid, 8
	FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_policy y ON y.oid = d.objid
	WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND y.polrelid <> $1
		AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1
	UNION
	SELECT s.oid, 8
	FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
	WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
		AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1
	ORDER BY 1;
END;
REVOKE ALL ON FUNCTION rowkeeper._partition_convert_locks(oid) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_convert_locks(oid) IS
'Relations that are locked while a table becomes partitioned, and how.';

-- What a swap leaves to be dropped once others can go on: the CHECK, and the
-- index of the old primary key.
CREATE VIEW rowkeeper._partition_convert_left_over AS
SELECT i.inhparent AS root, c.oid AS partition, c.relowner AS role, x.statement
FROM pg_catalog.pg_inherits i
	JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL (
		SELECT pg_catalog.format('ALTER TABLE %I.%I DROP CONSTRAINT rowkeeper_convert', n.nspname, c.relname)
		FROM pg_catalog.pg_constraint k
		WHERE k.conrelid = c.oid AND k.conname = 'rowkeeper_convert' AND k.coninhcount = 0
			AND k.contype = 'c' AND rowkeeper._partition_convert_is_check(pg_catalog.pg_get_constraintdef(k.oid))
		UNION ALL
		SELECT pg_catalog.format('DROP INDEX %I.%I', n.nspname, o.relname)
		FROM pg_catalog.pg_index p JOIN pg_catalog.pg_class o ON o.oid = p.indexrelid
		WHERE p.indrelid = c.oid AND o.relname ~ '^[0-9]+_rowkeeper_old$'
			AND p.indisunique AND NOT o.relispartition) x (statement);
REVOKE ALL ON rowkeeper._partition_convert_left_over FROM PUBLIC;
COMMENT ON VIEW rowkeeper._partition_convert_left_over IS
'What the conversion of a table needed and its first partition has still, and how to drop it.';

-- A conversion that nobody goes on with, and the CHECK of one in a restored
-- dump: it refuses rows that come after its bound.
CREATE VIEW rowkeeper._partition_convert_findings AS
SELECT 'conversion'::text AS check_name, CASE WHEN v.relation IS NULL AND NOT c.relispartition THEN 'error' ELSE 'warning' END AS level,
	n.nspname AS schema, x.name AS object,
	CASE WHEN v.relation IS NULL AND c.relispartition THEN 'constraint rowkeeper_convert is left of a conversion that nobody goes on with'
		WHEN v.relation IS NULL THEN 'constraint rowkeeper_convert is left of a conversion that nobody goes on with: it refuses rows'
		WHEN v.swapped THEN 'its conversion was interrupted: it is partitioned, but partitions are not made yet, foreign keys not validated, or what it needed not dropped'
		ELSE pg_catalog.format('its conversion was interrupted: rows from %s on are refused until it is done', v.bound) END AS detail,
	CASE WHEN v.relation IS NULL THEN pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT rowkeeper_convert', x.name)
		ELSE pg_catalog.format('CALL rowkeeper.partition_convert(%L)', x.name) END AS remedy
FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)) x (name)
	LEFT JOIN rowkeeper._partition_conversions v ON v.relation = c.oid
WHERE c.relkind IN ('r', 'p')
	AND (v.relation IS NOT NULL OR EXISTS (SELECT FROM pg_catalog.pg_constraint k
		WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conname = 'rowkeeper_convert'
			AND rowkeeper._partition_convert_is_check(pg_catalog.pg_get_constraintdef(k.oid))))
	-- that goes on with the table
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN rowkeeper._partition_conversions p ON p.relation = i.inhparent
		WHERE i.inhrelid = c.oid)
	-- the session that is at it
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks l
		WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND l.objid = c.oid AND l.objsubid = 1
			AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
	AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE'))
UNION ALL
SELECT 'conversion', 'warning', n.nspname, pg_catalog.format('%I.%I', n.nspname, c.relname),
	'an index is left of a conversion that nobody goes on with', l.statement
FROM rowkeeper._partition_convert_left_over l
	JOIN pg_catalog.pg_class c ON c.oid = l.partition
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE pg_catalog.starts_with(l.statement, 'DROP INDEX')
	AND NOT EXISTS (SELECT FROM rowkeeper._partition_conversions p WHERE p.relation = l.root)
	AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE'));
REVOKE ALL ON rowkeeper._partition_convert_findings FROM PUBLIC;
COMMENT ON VIEW rowkeeper._partition_convert_findings IS 'Conversions that were interrupted; for doctor().';
