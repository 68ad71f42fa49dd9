"""SQLAlchemy, its ORM with version_id_col and its core, and Alembic.

customers are mapped as the view of the live rows (flag), tickets as the table
itself (trash). Connected by PGHOST and its like.
"""
import os

from alembic import command
from alembic.config import Config
from sqlalchemy import (Column, DateTime, FetchedValue, ForeignKey, Integer, Text, create_engine,
                        delete, event, func, text, update)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, declarative_base, relationship
from sqlalchemy.orm.exc import StaleDataError

from tap import done, ok, raises, same, story

engine = create_engine('postgresql+psycopg2://')
Base = declarative_base()


class Versioned:
    id = Column(Integer, primary_key=True)
    name = Column(Text, nullable=False)
    version = Column(Integer, nullable=False)
    updated_at = Column(DateTime(timezone=True), server_default=FetchedValue(),
                        server_onupdate=FetchedValue())


class Customer(Versioned, Base):
    __tablename__ = 'active_customers'
    __mapper_args__ = {'version_id_col': Versioned.version, 'eager_defaults': True}
    orders = relationship('Order', passive_deletes='all')


class Order(Base):
    __tablename__ = 'active_orders'
    id = Column(Integer, primary_key=True)
    parent_id = Column(ForeignKey('active_customers.id'), nullable=False)


class AnyCustomer(Versioned, Base):
    """The table itself: deleted rows, too."""
    __tablename__ = 'customers'
    __mapper_args__ = {'version_id_col': Versioned.version, 'eager_defaults': True}
    deleted_at = Column(DateTime(timezone=True))


class Ticket(Versioned, Base):
    __tablename__ = 'tickets'
    __mapper_args__ = {'version_id_col': Versioned.version, 'eager_defaults': True}
    messages = relationship('Message', passive_deletes='all')


class Message(Base):
    __tablename__ = 'messages'
    id = Column(Integer, primary_key=True)
    parent_id = Column(ForeignKey('tickets.id'), nullable=False)


@event.listens_for(Session, 'after_begin')
def name_actor(session, transaction, connection):
    if 'user' in session.info:
        connection.execute(text("SELECT set_config('app.user_id', :user, true)"),
                           {'user': session.info['user']})


def session(user='ann'):
    return Session(engine, info={'user': user}, expire_on_commit=False)


def value(sql, **parameters):
    with engine.begin() as connection:
        return connection.execute(text(sql), parameters).scalar()


def rows(sql, **parameters):
    with engine.begin() as connection:
        return [tuple(row) for row in connection.execute(text(sql), parameters)]


def history(table, key):
    return rows('SELECT action, actor FROM rowkeeper.audit_history(:table, CAST(:key AS integer))',
                table=table, key=key)


def add(thing):
    with session() as s:
        s.add(thing)
        s.commit()
    return thing


@story
def migrations():
    config = Config()
    config.set_main_option('script_location', os.path.join(os.path.dirname(__file__), 'alembic'))

    def run(what, revision):
        config.attributes['done'] = []
        with engine.begin() as connection:
            config.attributes['connection'] = connection
            what(config, revision)
        return config.attributes['done']

    ok(len(run(command.upgrade, 'head')) >= 10, 'Alembic: the migration says what it did')
    before = value('SELECT catalog_state()')
    run(command.downgrade, '001')
    same(run(command.upgrade, 'head'), [], 'Alembic: run again, it has nothing to do')
    same(value('SELECT catalog_state()'), before, 'and has touched nothing')


@story
def stamps():
    ann = add(Customer(name='Ann'))
    same(ann.version, 1, 'insert: version 1')
    ok(ann.updated_at is not None, 'insert: updated_at read back')
    inserted_at = ann.updated_at

    with session() as s:
        s.add(ann)
        ann.name = 'Ann B.'
        s.commit()
    same(ann.version, 2, 'update: the object has version 2')
    same(rows('SELECT version, updated_at FROM customers WHERE id = :id', id=ann.id),
         [(2, ann.updated_at)], 'update: so has the row, bumped once; updated_at read back')
    ok(ann.updated_at > inserted_at, 'update: updated_at went on')

    with session() as first, session() as second:
        mine, theirs = first.get(Customer, ann.id), second.get(Customer, ann.id)
        theirs.name = 'Bob'
        second.commit()
        mine.name = 'Carol'
        with raises(StaleDataError, 'stale update: StaleDataError'):
            first.commit()
    same(rows('SELECT name, version FROM customers WHERE id = :id', id=ann.id), [('Bob', 3)],
         'stale update: nothing written')

    blind = update(AnyCustomer).where(AnyCustomer.id == ann.id).values(name='Dora', version=3)
    with engine.connect() as connection:
        with raises(DBAPIError, "a version sent without a look, stale => 'error'") as caught:
            connection.execute(blind)
        same([e.orig.pgcode for e in caught], ['40001'], 'is 40001')
    ticket = add(Ticket(name='printer'))
    blind = update(Ticket).where(Ticket.id == ticket.id)
    with engine.begin() as connection:
        same(connection.execute(blind.values(version=1)).rowcount, 0, "with stale => 'skip': 0 rows")
        same(connection.execute(blind.values(version=2)).rowcount, 1, 'with the next version: 1 row')
    with session() as s:
        s.add(ticket)
        ticket.name = 'scanner'
        with raises(StaleDataError, "stale update, stale => 'skip': StaleDataError"):
            s.commit()


@story
def flag():
    ann = add(Customer(name='Ann', orders=[Order(), Order()]))
    other = add(Customer(name='other', orders=[Order()]))

    with session() as s:
        s.delete(s.get(Customer, ann.id))
        s.commit()
    ok(True, 'delete through the view: the ORM sees its one row')
    same(value('SELECT count(*) FROM active_orders WHERE parent_id = :id', id=ann.id), 0,
         'its orders are deleted with it')
    same(value('SELECT count(*) FROM orders WHERE parent_id = :id', id=ann.id), 2, 'and still there')
    with session() as s:
        same(s.get(Customer, ann.id), None, 'the ORM finds it no more')
        same(s.get(AnyCustomer, ann.id).version, 2, 'its version counts the delete, once')

    with session('eve') as s:
        same(s.execute(text("SELECT count(*) FROM rowkeeper.soft_delete_restore('customers', :id)"),
                       {'id': ann.id}).scalar(), 3, 'restored: the row and its two orders')
        s.commit()
    with session() as s:
        same(len(s.get(Customer, ann.id).orders), 2, 'the ORM finds them again')
    same(history('customers', ann.id),
         [('INSERT', 'ann'), ('SOFT DELETE', 'ann'), ('RESTORE', 'eve')], 'audit: what, and by whom')

    with session() as first, session() as second:
        mine, theirs = first.get(Customer, ann.id), second.get(Customer, ann.id)
        theirs.name = 'Ann C.'
        second.commit()
        first.delete(mine)
        with raises(StaleDataError, 'delete of a stale object: StaleDataError'):
            first.commit()

    customers = Customer.__table__
    with engine.begin() as connection:
        result = connection.execute(delete(customers).where(customers.c.id == ann.id)
                                    .returning(customers.c.id, customers.c.name))
        same(result.rowcount, 1, 'core: delete through the view: 1 row')
        same([tuple(row) for row in result], [(ann.id, 'Ann C.')], 'core: RETURNING has the row')
        result = connection.execute(delete(customers).where(customers.c.id == ann.id))
        same(result.rowcount, 0, 'core: once more: 0 rows')

    with session('eve') as s:
        s.get(AnyCustomer, other.id).deleted_at = func.now()
        s.commit()
    same(value('SELECT count(*) FROM active_orders WHERE parent_id = :id', id=other.id), 0,
         'deleted_at set by the application: its orders are deleted with it')
    same(history('customers', other.id), [('INSERT', 'ann'), ('SOFT DELETE', 'eve')],
         'audit: a soft delete all the same')
    with session() as s:
        s.get(AnyCustomer, other.id).deleted_at = None
        s.commit()
    same(history('customers', other.id)[-1], ('RESTORE', 'ann'), 'deleted_at taken back: a restore')

    with engine.connect() as connection:
        with raises(DBAPIError, 'DELETE on the table itself is refused'):
            connection.execute(delete(AnyCustomer.__table__))


@story
def trash():
    ticket = add(Ticket(name='printer', messages=[Message(), Message()]))
    with session() as s:
        s.delete(s.get(Ticket, ticket.id))
        s.commit()
    ok(True, 'trash: delete: the ORM sees its one row')
    same(rows('SELECT count(*) FROM messages WHERE parent_id = :id', id=ticket.id), [(0,)],
         'trash: its messages went with it')
    with session('eve') as s:
        same(s.execute(text("SELECT count(*) FROM rowkeeper.soft_delete_restore('tickets', :id)"),
                       {'id': ticket.id}).scalar(), 3, 'trash: restored: the row and its two messages')
        s.commit()
    with session() as s:
        back = s.get(Ticket, ticket.id)
        same((back.name, len(back.messages)), ('printer', 2), 'trash: the ORM finds them again')
    same(history('tickets', ticket.id),
         [('INSERT', 'ann'), ('SOFT DELETE', 'ann'), ('RESTORE', 'eve')], 'trash: audit: what, and by whom')

    tickets = Ticket.__table__
    with engine.begin() as connection:
        result = connection.execute(delete(tickets).where(tickets.c.id == ticket.id)
                                    .returning(tickets.c.name))
        same((result.rowcount, result.scalar()), (1, 'printer'), 'trash: core: 1 row, and RETURNING has it')


done()
