-- What the programs that make tokens find, as a superuser: two keys, an
-- isolated table, and the README's token in SQL. :client is database and role.
SELECT rowkeeper.tenant_key_add('2026-11', convert_to(repeat('s', 32), 'UTF8')) \g /dev/null
SELECT rowkeeper.tenant_key_add('login', convert_to(repeat('x', 48), 'UTF8'),
	tenant_claim => 'app_metadata.tenant_id', audience => 'authenticated') \g /dev/null
SELECT rowkeeper.tenant_role(:'client' || '_app', 'signed') \g /dev/null
CREATE TABLE notes (tenant_id bigint NOT NULL, item text);
INSERT INTO notes VALUES (42, 'of 42'), (43, 'of 43');
GRANT SELECT ON notes TO PUBLIC;
SELECT rowkeeper.tenant('notes') \g /dev/null

CREATE FUNCTION public.make_token(tenant text, user_name text, secret text) RETURNS text
LANGUAGE sql AS $$
WITH parts AS (
	SELECT '{"alg":"HS256","kid":"2026-11"}'::text AS header,
		json_build_object('tenant', tenant, 'sub', user_name, 'aud', current_database(),
			'exp', floor(extract(epoch FROM now())) + 300)::text AS payload
), encoded AS (
	SELECT translate(encode(convert_to(header, 'UTF8'), 'base64'), E'+/=\n', '-_') || '.' ||
		translate(encode(convert_to(payload, 'UTF8'), 'base64'), E'+/=\n', '-_') AS signed
	FROM parts
)
SELECT signed || '.' || translate(encode(hmac(signed, secret, 'sha256'), 'base64'), E'+/=\n', '-_') FROM encoded
$$;
