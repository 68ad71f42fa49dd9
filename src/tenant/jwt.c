/*
 * jwt.c
 *
 * Tokens as text: a JWT (JWS compact, HS256), so that any language makes one
 * and an application's own session token can serve. Verified are algorithm,
 * key, signature, validity, audience and role; why one fails is for the
 * server's log, and its text for nobody.
 */
#include "tenant/json.h"

#include <math.h>

#include "commands/dbcommands.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#define MAX_TOKEN_LENGTH 8192
#define MAX_SET_VALIDITY 60		/* seconds a token in a SET may be valid */

/* ---- base64url, RFC 7515: no padding ---- */

static const char base64url[] =
"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static char *
encode_base64url(const uint8 *from, int length)
{
	StringInfoData to;

	initStringInfo(&to);
	for (int i = 0; i < length; i += 3)
	{
		int			left = length - i;
		uint32		bits = from[i] << 16 | (left > 1 ? from[i + 1] << 8 : 0) | (left > 2 ? from[i + 2] : 0);

		for (int j = 0; j < 4 && j <= left; j++)
			appendStringInfoChar(&to, base64url[(bits >> (18 - 6 * j)) & 63]);
	}
	return to.data;
}

/* The value of a digit, -1 where it is none. */
static inline int
digit_value(unsigned char digit)
{
	static int8 values[256];
	static bool known = false;

	if (unlikely(!known))
	{
		memset(values, -1, sizeof(values));
		for (int i = 0; i < 64; i++)
			values[(unsigned char) base64url[i]] = i;
		known = true;
	}
	return values[digit];
}

/* NULL where the text is not base64url in its one canonical form. */
static uint8 *
decode_base64url(const char *from, int length, int *decoded)
{
	uint8	   *to = palloc(length + 1);
	uint32		bits = 0;
	int			pending_bits = 0;

	*decoded = 0;
	for (int i = 0; i < length; i++)
	{
		int			digit = digit_value(from[i]);

		if (digit < 0)
			return NULL;
		bits = bits << 6 | digit;
		pending_bits += 6;
		if (pending_bits >= 8)
		{
			pending_bits -= 8;
			to[(*decoded)++] = (bits >> pending_bits) & 0xFF;
		}
	}
	if (pending_bits >= 6 || (bits & ((1 << pending_bits) - 1)) != 0)
		return NULL;
	to[*decoded] = '\0';
	return to;
}

/* ---- JSON ---- */

/* A JSON object that a token consists of. */
static RkJson *
parse_object(const char *text, int length)
{
	if (strlen(text) != length || !pg_verify_mbstr(PG_UTF8, text, length, true))
		return NULL;
	return rk_json_object(pg_any_to_server(text, length, PG_UTF8));
}

/* Whether a JSON number is whole and written as bigint would be. */
static bool
is_plain_number(const char *text)
{
	int			length = strspn(text, "0123456789");

	return text[length] == '\0' && length <= 15;
}

/* A claim's value as text: a string, or a number as numeric is written out. */
static char *
claim_text(const RkJson *payload, const char *path)
{
	const RkJson *value = rk_json_find(payload, path);

	if (value == NULL || (value->type != JSON_TOKEN_STRING && value->type != JSON_TOKEN_NUMBER))
		return NULL;
	if (value->type == JSON_TOKEN_STRING || is_plain_number(value->text))
		return value->text;
	return DatumGetCString(DirectFunctionCall1(numeric_out,
											   DirectFunctionCall3(numeric_in,
																   CStringGetDatum(value->text),
																   ObjectIdGetDatum(InvalidOid),
																   Int32GetDatum(-1))));
}

/* A NumericDate: seconds since 1970. */
static bool
date_claim(const RkJson *payload, const char *name, bool *present, float8 *seconds)
{
	const RkJson *value = rk_json_find(payload, name);

	*present = value != NULL;
	if (!*present)
		return true;
	if (value->type != JSON_TOKEN_NUMBER)
		return false;
	*seconds = is_plain_number(value->text) ? (float8) strtoll(value->text, NULL, 10)
		: DatumGetFloat8(DirectFunctionCall1(float8in, CStringGetDatum(value->text)));
	return true;
}

static float8
epoch_seconds(TimestampTz at)
{
	return at / (float8) USECS_PER_SEC +
		(float8) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
}

/* ---- verifying ---- */

static bool
hmac_sha256(const bytea *secret, const char *text, int length, uint8 *result)
{
	pg_hmac_ctx *context = pg_hmac_create(PG_SHA256);
	bool		done = context != NULL &&
		pg_hmac_init(context, (uint8 *) VARDATA_ANY(secret), VARSIZE_ANY_EXHDR(secret)) >= 0 &&
		pg_hmac_update(context, (const uint8 *) text, length) >= 0 &&
		pg_hmac_final(context, result, PG_SHA256_DIGEST_LENGTH) >= 0;

	pg_hmac_free(context);
	return done;
}

/* Takes as long whatever differs. */
static bool
equal_digests(const uint8 *a, const uint8 *b)
{
	uint8		difference = 0;

	for (int i = 0; i < PG_SHA256_DIGEST_LENGTH; i++)
		difference |= a[i] ^ b[i];
	return difference == 0;
}

/*
 * The header last read: all tokens of a key have the same, so what it says is
 * kept. It is no secret, and says nothing of the token's being good.
 */
static struct
{
	int			length;			/* 0: none is kept */
	bool		has_kid;
	char		encoded[256];	/* as in the token */
	char		kid[256];
} known_header;

static void
keep_header(const char *text, int length, const char *kid)
{
	known_header.length = 0;

	if (length >= sizeof(known_header.encoded) ||
		(kid != NULL && strlen(kid) >= sizeof(known_header.kid)))
		return;
	memcpy(known_header.encoded, text, length);
	known_header.has_kid = kid != NULL;

	if (kid != NULL)
		strcpy(known_header.kid, kid);
	known_header.length = length;
}

/* Read the header; *kid is the key's name, NULL: it names none. Returns why not. */
static const char *
read_header(const char *text, int length, const char **kid)
{
	const RkJson *value;
	uint8	   *json;
	int			json_length;
	const RkJson *header;

	if (known_header.length > 0 && known_header.length == length && memcmp(known_header.encoded, text, length) == 0)
	{
		*kid = known_header.has_kid ? known_header.kid : NULL;

		return NULL;
	}
	json = decode_base64url(text, length, &json_length);
	header = json == NULL ? NULL : parse_object((char *) json, json_length);
	if (header == NULL)
		return "its header is malformed";
	value = rk_json_find(header, "alg");
	if (value == NULL || !rk_json_is_string(value, "HS256"))
		return "its algorithm is not HS256";
	if (rk_json_find(header, "crit") != NULL)
		return "its header has an extension that must be understood";
	value = rk_json_find(header, "kid");
	*kid = value == NULL ? NULL : value->type == JSON_TOKEN_STRING ? value->text : "";
	keep_header(text, length, *kid);
	return NULL;
}

/* The key of that name; NULL with the reason. */
static const RkTokenKey *
find_key(const char *kid, const char **reason)
{
	const RkTokenKey *key = rk_token_key_find(kid);
	TimestampTz now = GetCurrentTimestamp();

	if (key == NULL)
		*reason = "its key is not known, or it names none and there is not exactly one";
	else if (now < key->not_before || now >= key->not_after)
	{
		*reason = "its key is not valid now";
		key = NULL;
	}
	return key;
}

static bool
has_audience(const RkJson *payload, const char *audience)
{
	const RkJson *value = rk_json_find(payload, "aud");

	if (value == NULL)
		return false;
	if (value->type != JSON_TOKEN_ARRAY_START)
		return rk_json_is_string(value, audience);
	for (value = value->first; value != NULL; value = value->next)
		if (rk_json_is_string(value, audience))
			return true;
	return false;
}

/* Why the payload of a token that is signed well is not accepted, or NULL. */
static const char *
check_payload(const RkJson *payload, const RkTokenKey *key, bool visible)
{
	float8		now = epoch_seconds(GetCurrentTimestamp());
	float8		date;
	bool		present;
	const RkJson *role;

	if (!date_claim(payload, "exp", &present, &date) || !present)
		return "it has no \"exp\"";
	if (!(now < date))
		return "it has expired";
	if (visible && !(date <= now + MAX_SET_VALIDITY))
		return "it is valid too long for SET, where others can see it";
	if (!date_claim(payload, "nbf", &present, &date) || (present && !(now >= date)))
		return "it is not valid yet";
	if (!has_audience(payload, key->audience != NULL ? key->audience : get_database_name(MyDatabaseId)))
		return "it is meant for another audience";
	role = rk_json_find(payload, "role");
	if (role != NULL && !rk_json_is_string(role, GetUserNameFromId(GetSessionUserId(), false)))
		return "it is meant for another role";
	return NULL;
}

static const char *
read_claim(const RkJson *payload, const char *path, char **claim)
{
	const RkJson *value = rk_json_find(payload, path);

	*claim = claim_text(payload, path);
	if (*claim == NULL)
		return value == NULL || value->type == JSON_TOKEN_NULL ? NULL
			: "a claim is neither text nor a number";
	if (**claim == '\0' || strlen(*claim) > RK_MAX_CLAIM_LENGTH)
		return "a claim is empty or too long";
	return NULL;
}

/*
 * Verify a token; NULL, and what it claims, or the reason why not. visible: it
 * came where other sessions of the role can see it. May raise errors of
 * parsing, whose message may quote the token.
 */
static const char *
verify(const char *jwt, bool visible, RkTokenClaims *claims)
{
	const char *first = strchr(jwt, '.');
	const char *second = first == NULL ? NULL : strchr(first + 1, '.');
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint8	   *decoded;
	int			length;
	const char *kid;
	const RkJson *payload;
	const RkTokenKey *key;
	const char *reason;

	if (strlen(jwt) > MAX_TOKEN_LENGTH)
		return "it is too long";
	if (second == NULL || strchr(second + 1, '.') != NULL)
		return "it does not have three parts";
	reason = read_header(jwt, first - jwt, &kid);
	if (reason != NULL)
		return reason;
	key = find_key(kid, &reason);
	if (key == NULL)
		return reason;

	decoded = decode_base64url(second + 1, strlen(second + 1), &length);
	if (decoded == NULL || length != PG_SHA256_DIGEST_LENGTH ||
		!hmac_sha256(key->secret, jwt, second - jwt, digest) ||
		!equal_digests(decoded, digest))
		return "its signature is wrong";

	decoded = decode_base64url(first + 1, second - first - 1, &length);
	payload = decoded == NULL ? NULL : parse_object((char *) decoded, length);
	if (payload == NULL)
		return "its payload is malformed";
	reason = check_payload(payload, key, visible);
	if (reason == NULL)
		reason = read_claim(payload, key->tenant_claim, &claims->tenant);
	if (reason == NULL)
		reason = read_claim(payload, key->user_claim, &claims->user);
	if (reason == NULL && claims->tenant == NULL && claims->user == NULL)
		reason = "it names neither a tenant nor a user";
	return reason;
}

/*
 * NULL, and what the token claims, or the reason why not, of which parsing
 * errors are one. visible: it came where other sessions of the role can see it.
 */
const char *
rk_jwt_verify(const char *jwt, bool visible, RkTokenClaims *claims)
{
	MemoryContext caller = CurrentMemoryContext;
	const char *volatile reason = NULL;

	PG_TRY();
	{
		reason = verify(jwt, visible, claims);
	}
	PG_CATCH();
	{
		/*
		 * a cancel is no reason; parsing text holds nothing that only an
		 * abort would release
		 */
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		reason = "it is malformed";
	}
	PG_END_TRY();
	return reason;
}

/* ---- signing ---- */

static void
append_name(StringInfo json, const char *name)
{
	if (json->data[json->len - 1] != '{')
		appendStringInfoChar(json, ',');
	escape_json(json, name);
	appendStringInfoChar(json, ':');
}

static void
append_member(StringInfo json, const char *name, const char *value)
{
	append_name(json, name);
	escape_json(json, value);
}

/* Whether two dotted paths begin in the same object. */
static bool
share_object(const char *a, const char *b)
{
	const char *dot = strchr(a, '.');

	return dot != NULL && strncmp(a, b, dot + 1 - a) == 0;
}

/*
 * Members under dotted paths, {"app_metadata":{"tenant_id":"42"}}; a value
 * that is NULL is left out.
 */
static void
append_paths(StringInfo json, const char *paths[2], const char *values[2])
{
	bool		together = values[0] != NULL && values[1] != NULL && share_object(paths[0], paths[1]);

	for (int i = 0; i < (together ? 1 : 2); i++)
	{
		const char *dot = strchr(paths[i], '.');
		const char *inner_paths[2] = {dot + 1, together ? paths[1] + (dot + 1 - paths[0]) : dot + 1};
		const char *inner_values[2] = {values[i], together ? values[1] : NULL};

		if (values[i] == NULL)
			continue;
		if (dot == NULL)
		{
			append_member(json, paths[i], values[i]);
			continue;
		}
		append_name(json, pnstrdup(paths[i], dot - paths[i]));
		appendStringInfoChar(json, '{');
		append_paths(json, inner_paths, inner_values);
		appendStringInfoChar(json, '}');
	}
}

static char *
encode_utf8(const char *text)
{
	char	   *utf8 = pg_server_to_any(text, strlen(text), PG_UTF8);

	return encode_base64url((uint8 *) utf8, strlen(utf8));
}

/* A token, signed with this key; tenant, user and role may be NULL. */
char *
rk_jwt_sign(const RkTokenKey *key, const char *tenant, const char *user, TimestampTz expires, const char *role)
{
	StringInfoData header;
	StringInfoData payload;
	const char *paths[2] = {key->tenant_claim, key->user_claim};
	const char *values[2] = {tenant, user};
	char	   *signed_part;
	uint8		digest[PG_SHA256_DIGEST_LENGTH];

	initStringInfo(&header);
	appendStringInfoChar(&header, '{');
	append_member(&header, "alg", "HS256");
	append_member(&header, "typ", "JWT");
	append_member(&header, "kid", key->kid);
	appendStringInfoChar(&header, '}');

	initStringInfo(&payload);
	appendStringInfoChar(&payload, '{');
	append_paths(&payload, paths, values);
	append_member(&payload, "aud", key->audience != NULL ? key->audience : get_database_name(MyDatabaseId));
	if (role != NULL)
		append_member(&payload, "role", role);
	appendStringInfo(&payload, ",\"exp\":%.0f}", floor(epoch_seconds(expires)));

	signed_part = psprintf("%s.%s", encode_utf8(header.data), encode_utf8(payload.data));
	if (!hmac_sha256(key->secret, signed_part, strlen(signed_part), digest))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not sign the token")));
	return psprintf("%s.%s", signed_part, encode_base64url(digest, lengthof(digest)));
}
