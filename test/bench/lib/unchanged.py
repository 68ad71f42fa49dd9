"""What must cost nothing: updates without a change, unchanged toasted values."""

from . import contestants as who

SCRIPT = """
SET client_min_messages = warning;
CREATE TABLE letter (id integer PRIMARY KEY, n integer, body text);
INSERT INTO letter SELECT i, 0, (SELECT string_agg(md5((i * j)::text), '') FROM generate_series(1, 5000) j)
FROM generate_series(1, 20) i;
SELECT rowkeeper.audit('letter') \\g /dev/null
SELECT nextval('rowkeeper_log.log_id') AS start \\gset
UPDATE letter SET n = n, body = body;
SELECT count(*) FROM rowkeeper_log.log WHERE id > :start AND action = 'U';
UPDATE letter SET n = n + 1;
SELECT avg(pg_column_size(l.*))::int FROM rowkeeper_log.log l WHERE id > :start AND action = 'U';
DROP TABLE letter;
"""


def run(server, say, result):
    """Fill result: entries of 20 updates without a change; bytes of an entry beside 160 kB of text."""
    say("updates that change nothing, and unchanged toasted values")
    rows = server.psql(SCRIPT)
    server.psql("SELECT format('TRUNCATE %%s', %s) \\gexec" % who.LEAF)
    result.update(no_op_entries=int(rows[0][0]), toast_entry_bytes=int(rows[1][0]))
