"""Tokens that an application makes: PyJWT, and a session token that it has already.

The lines that make them are those of the README. Connected by PGHOST and its like.
"""
import time

import jwt
import psycopg2

from tap import done, ok, raises, same, story

SECRET = 's' * 32
SESSION_SECRET = 'x' * 48

connection = psycopg2.connect('')


def claims(token):
    """What a transaction with this token acts for, and the rows it sees."""
    with connection, connection.cursor() as cursor:
        cursor.execute('SELECT rowkeeper.tenant_set_signed(%s)', (token,))
        cursor.execute('SELECT rowkeeper.tenant_text(), rowkeeper.user_text(), rowkeeper.actor()')
        found = cursor.fetchone()
        cursor.execute('SELECT array_agg(item ORDER BY item) FROM notes')
        return found + cursor.fetchone()


def make(secret=SECRET, kid='2026-11', **differing):
    payload = {"tenant": "42", "sub": "alice", "aud": "tokens", "exp": int(time.time()) + 300}
    payload.update(differing)
    return jwt.encode(payload, secret, algorithm="HS256", headers={"kid": kid})


@story
def pyjwt():
    same(claims(make()), ('42', 'alice', 'alice', ['of 42']), 'PyJWT: a token names tenant and user')
    same(claims(make(tenant=43)), ('43', 'alice', 'alice', ['of 43']), 'a tenant that is a number')
    for name, token in (('another secret', make(secret='t' * 32)), ('expired', make(exp=int(time.time()) - 1)),
                        ('another database', make(aud='shop')), ('not valid yet', make(nbf=int(time.time()) + 60)),
                        ('another role', make(role='postgres')),
                        ('alg none', jwt.encode({'tenant': '42'}, None, algorithm='none'))):
        with raises(psycopg2.errors.InvalidAuthorizationSpecification, 'refused: ' + name):
            claims(token)


@story
def session_token():
    """The one that an identity provider makes: its names, audience and key."""
    token = jwt.encode({"sub": "0b9e7f0a-8f0e-4a56-9d27-2f6a1f6f2f8a", "aud": ["authenticated"], "iss": "https://login.example",
                        "app_metadata": {"tenant_id": 42, "roles": ["admin"]}, "iat": int(time.time()),
                        "exp": int(time.time()) + 3600}, SESSION_SECRET, algorithm="HS256", headers={"kid": "login"})
    same(claims(token), ('42', '0b9e7f0a-8f0e-4a56-9d27-2f6a1f6f2f8a', '0b9e7f0a-8f0e-4a56-9d27-2f6a1f6f2f8a', ['of 42']),
         'a session token serves as it is')
    with raises(psycopg2.errors.InvalidAuthorizationSpecification, 'its key does not sign for the others'):
        claims(make(secret=SESSION_SECRET))


@story
def by_hmac():
    """By a role that has the secret and is not trusted to sign: pgcrypto's hmac."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT public.make_token(%s, %s, %s)", ('42', 'bob', SECRET))
        token, = cursor.fetchone()
    same(claims(token), ('42', 'bob', 'bob', ['of 42']), 'pgcrypto: a token made in SQL')
    ok(jwt.decode(token, SECRET, algorithms=['HS256'], audience='tokens')['sub'] == 'bob', 'which PyJWT reads')


done()
