"""Django: models of shop/models.py, migrations with RunSQL.

Connected by PGHOST and its like.
"""
import contextlib
import os

import django
from django.conf import settings
from django.core.management import call_command
from django.db import (DatabaseError, IntegrityError, OperationalError, connection, transaction)
from django.db.models.functions import Now

from tap import done, ok, raises, same, story

settings.configure(
    INSTALLED_APPS=['shop'], USE_TZ=True, DEFAULT_AUTO_FIELD='django.db.models.AutoField',
    DATABASES={'default': {'ENGINE': 'django.db.backends.postgresql', 'NAME': os.environ['PGDATABASE'],
                           'USER': os.environ['PGUSER'], 'HOST': os.environ['PGHOST']}})
django.setup()

from shop.models import AnyCustomer, Customer, Message, Order, Ticket  # noqa: E402


@contextlib.contextmanager
def acting(user):
    """One transaction of this user; a middleware would do the same."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('app.user_id', %s, true)", [user])
        yield


def rows(sql, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def history(table, key):
    return rows('SELECT action, actor FROM rowkeeper.audit_history(%s, %s)', table, key)


@story
def migrations():
    call_command('migrate', verbosity=0)
    before = rows('SELECT catalog_state()')
    call_command('migrate', 'shop', '0002', verbosity=0)
    call_command('migrate', verbosity=0)
    same(rows('SELECT catalog_state()'), before, 'RunSQL: run again, it has touched nothing')
    same(rows('SELECT count(DISTINCT feature) >= 3 FROM rowkeeper.features'), [(True,)],
         'and the features are on')


@story
def stamps():
    with acting('ann'):
        ann = Customer.objects.create(name='Ann')
    ann.refresh_from_db()
    same(ann.version, 1, 'insert: version 1')
    ok(ann.updated_at is not None, 'insert: updated_at filled')
    inserted_at = ann.updated_at

    ann.name = 'Ann B.'
    ann.save()
    ann.refresh_from_db()
    same((ann.name, ann.version), ('Ann B.', 2), 'save(): version bumped once')
    ok(ann.updated_at > inserted_at, "save(): updated_at is the server's, not what was read")

    mine, theirs = (Customer.objects.get(pk=ann.pk) for _ in range(2))
    theirs.name = 'Bob'
    theirs.save()
    mine.name = 'Carol'
    with raises(OperationalError, "stale save(), stale => 'error': OperationalError") as caught:
        mine.save()
    same([e.__cause__.pgcode for e in caught], ['40001'], 'is 40001')
    ann.refresh_from_db()
    same((ann.name, ann.version), ('Bob', 3), 'stale save(): nothing written')

    same(Customer.objects.filter(pk=ann.pk, version=3).update(name='Dora'), 1, 'update(): 1 row')
    same(Customer.objects.filter(pk=ann.pk, version=3).update(name='Dora'), 0,
         'update() of the old version: 0 rows')

    ticket = Ticket.objects.create(name='printer')
    stale = Ticket.objects.get(pk=ticket.pk)
    ticket.save()
    ticket.refresh_from_db()
    same(ticket.version, 1, 'a save() that changes nothing is no new version')
    ticket.name = 'scanner'
    ticket.save(force_update=True)
    with raises(DatabaseError, "stale save(force_update), stale => 'skip': DatabaseError"):
        stale.save(force_update=True)
    with raises(DatabaseError, "stale save(update_fields), stale => 'skip': DatabaseError"):
        stale.save(update_fields=['name', 'version'])
    with raises(IntegrityError, "stale save(), stale => 'skip': Django tries to insert the row"):
        stale.save()
    ticket.refresh_from_db()
    same((ticket.name, ticket.version), ('scanner', 2), 'stale saves: nothing written')


@story
def flag():
    with acting('ann'):
        ann, other = (Customer.objects.create(name=name) for name in ('Ann', 'other'))
        for parent in (ann, ann, other):
            Order.objects.create(parent=parent)

    key = ann.pk
    with acting('ann'):
        same(ann.delete(), (1, {'shop.Customer': 1}), 'delete() through the view: 1 row')
    same(Order.objects.filter(parent_id=key).count(), 0, 'its orders are deleted with it')
    same(rows('SELECT count(*) FROM orders WHERE parent_id = %s', key), [(2,)], 'and still there')
    ok(not Customer.objects.filter(pk=key).exists(), 'Django finds it no more')
    same(AnyCustomer.objects.get(pk=key).version, 2, 'its version counts the delete, once')

    with acting('eve'):
        same(rows("SELECT count(*) FROM rowkeeper.soft_delete_restore('customers', %s)", key), [(3,)],
             'restored: the row and its two orders')
    same(Order.objects.filter(parent_id=key).count(), 2, 'Django finds them again')
    same(history('customers', key), [('INSERT', 'ann'), ('SOFT DELETE', 'ann'), ('RESTORE', 'eve')],
         'audit: what, and by whom')

    same(Customer.objects.filter(pk=key).delete(), (1, {'shop.Customer': 1}), 'QuerySet.delete(): 1 row')
    same(Customer.objects.filter(pk=key).delete()[0], 0, 'once more: 0 rows')
    same(rows('DELETE FROM active_customers WHERE id = %s RETURNING id, name', other.pk),
         [(other.pk, 'other')], 'RETURNING has the row')
    rows("SELECT count(*) FROM rowkeeper.soft_delete_restore('customers', %s)", other.pk)

    with acting('eve'):
        same(AnyCustomer.objects.filter(pk=other.pk).update(deleted_at=Now()), 1,
             'deleted_at set by the application: 1 row')
    same(Order.objects.filter(parent_id=other.pk).count(), 0, 'its orders are deleted with it')
    same(history('customers', other.pk)[-1], ('SOFT DELETE', 'eve'), 'audit: a soft delete all the same')
    with acting('ann'):
        AnyCustomer.objects.filter(pk=other.pk).update(deleted_at=None)
    same(history('customers', other.pk)[-1], ('RESTORE', 'ann'), 'deleted_at taken back: a restore')

    with raises(DatabaseError, 'delete() on the table itself is refused'):
        with transaction.atomic():
            AnyCustomer.objects.get(pk=other.pk).delete()


@story
def trash():
    with acting('ann'):
        ticket = Ticket.objects.create(name='disk')
        for _ in range(2):
            Message.objects.create(parent=ticket)
    key = ticket.pk
    with acting('ann'):
        same(ticket.delete(), (3, {'shop.Message': 2, 'shop.Ticket': 1}),
             'trash: delete(): Django cascades and counts 3 rows')
    same((Ticket.objects.filter(pk=key).count(), Message.objects.filter(parent_id=key).count()), (0, 0),
         'trash: they are gone')
    batches = rows('SELECT batch, table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY batch DESC LIMIT 2')
    same([batch[1:] for batch in batches], [('tickets', 1), ('messages', 2)],
         'trash: two statements are two batches')
    with acting('eve'):
        for batch in batches:
            rows('SELECT count(*) FROM rowkeeper.soft_delete_restore_batch(%s)', batch[0])
    same((Ticket.objects.get(pk=key).name, Message.objects.filter(parent_id=key).count()), ('disk', 2),
         'trash: restored, the parent first')
    same(history('tickets', key), [('INSERT', 'ann'), ('SOFT DELETE', 'ann'), ('RESTORE', 'eve')],
         'trash: audit: what, and by whom')
    rows('DELETE FROM messages WHERE parent_id = %s RETURNING id', key)
    same(rows('DELETE FROM tickets WHERE id = %s RETURNING name', key), [('disk',)],
         'trash: RETURNING has the row')


done()
