# ActiveRecord with lock_version and timestamps, and its migrations.
#
# customers are the view of the live rows (flag), tickets the table itself
# (trash). Connected by PGHOST and its like.
require 'active_record'
require_relative 'tap'

ActiveRecord::Base.establish_connection(adapter: 'postgresql', host: ENV['PGHOST'],
                                        username: ENV['PGUSER'], database: ENV['PGDATABASE'])

class Customer < ActiveRecord::Base
  self.table_name = 'active_customers'
  self.primary_key = 'id'
  has_many :orders, foreign_key: :parent_id
end

class Order < ActiveRecord::Base
  self.table_name = 'active_orders'
  self.primary_key = 'id'
end

# The table itself: deleted rows, too.
class AnyCustomer < ActiveRecord::Base
  self.table_name = 'customers'
end

class Ticket < ActiveRecord::Base
  has_many :messages, foreign_key: :parent_id
end

class Message < ActiveRecord::Base
end

# One transaction of this user.
def acting(user)
  ActiveRecord::Base.transaction do
    ActiveRecord::Base.connection.execute("SET LOCAL app.user_id = #{ActiveRecord::Base.connection.quote(user)}")
    yield
  end
end

def rows(sql)
  ActiveRecord::Base.connection.select_rows(sql)
end

def history(table, key)
  rows("SELECT action, actor FROM rowkeeper.audit_history('#{table}', #{key})")
end

story 'migrations' do
  ActiveRecord::Migration.verbose = false
  migrations = ActiveRecord::MigrationContext.new(File.join(__dir__, 'activerecord'), ActiveRecord::SchemaMigration)
  migrations.migrate
  before = rows('SELECT catalog_state()')
  migrations.rollback
  migrations.migrate
  same(rows('SELECT catalog_state()'), before, 'migration: run again, it has touched nothing')
  same(rows('SELECT DISTINCT feature FROM rowkeeper.features ORDER BY 1').flatten, %w[audit soft_delete stamp],
       'and the features are on')
end

story 'stamps' do
  ann = acting('ann') { Customer.create!(name: 'Ann') }
  same(ann.lock_version, 0, 'insert: the object has lock_version 0')
  ann.reload
  same(ann.lock_version, 0, 'insert: so has the row')
  inserted_at = ann.updated_at

  ann.update!(name: 'Ann B.')
  same(ann.lock_version, 1, 'update: the object has lock_version 1')
  same(rows("SELECT lock_version, name FROM customers WHERE id = #{ann.id}"), [[1, 'Ann B.']],
       'update: so has the row, bumped once')
  ann.reload
  ok(ann.updated_at > inserted_at, 'update: updated_at went on')
  AnyCustomer.find(ann.id).update!(updated_at: Time.utc(2001), name: 'Ann C.')
  ok(ann.reload.updated_at > inserted_at, "update: updated_at is the server's, not the client's")
  same(ann.created_at, inserted_at, 'update: created_at stays')

  mine = Customer.find(ann.id)
  Customer.find(ann.id).update!(name: 'Bob')
  raises(ActiveRecord::StaleObjectError, 'stale update: StaleObjectError') { mine.update!(name: 'Carol') }
  same(rows("SELECT name, lock_version FROM customers WHERE id = #{ann.id}"), [['Bob', 3]],
       'stale update: nothing written')

  error = raises(ActiveRecord::SerializationFailure,
                 "a version sent without a look, stale => 'error': SerializationFailure") do
    AnyCustomer.where(id: ann.id).update_all(name: 'Dora', lock_version: 3)
  end
  same(error&.cause&.result&.error_field(PG::Result::PG_DIAG_SQLSTATE), '40001', 'is 40001')
  ticket = Ticket.create!(name: 'printer')
  same(Ticket.where(id: ticket.id).update_all(name: 'scanner', lock_version: 0), 0, "with stale => 'skip': 0 rows")
  same(Ticket.where(id: ticket.id).update_all(name: 'scanner', lock_version: 1), 1, 'with the next version: 1 row')
  raises(ActiveRecord::StaleObjectError, "stale update, stale => 'skip': StaleObjectError") do
    ticket.update!(name: 'disk')
  end
end

story 'flag' do
  ann, other = acting('ann') { %w[Ann other].map { |name| Customer.create!(name: name) } }
  acting('ann') { [ann, ann, other].each { |parent| parent.orders.create! } }

  acting('ann') { ann.destroy! }
  ok(ann.destroyed?, 'destroy! through the view: one row')
  same(Order.where(parent_id: ann.id).count, 0, 'its orders are deleted with it')
  same(rows("SELECT count(*) FROM orders WHERE parent_id = #{ann.id}"), [[2]], 'and still there')
  same(Customer.find_by(id: ann.id), nil, 'ActiveRecord finds it no more')
  same(AnyCustomer.find(ann.id).lock_version, 1, 'its version counts the delete, once')

  acting('eve') do
    same(rows("SELECT count(*) FROM rowkeeper.soft_delete_restore('customers', #{ann.id})"), [[3]],
         'restored: the row and its two orders')
  end
  same(Customer.find(ann.id).orders.count, 2, 'ActiveRecord finds them again')
  same(history('customers', ann.id), [%w[INSERT ann], ['SOFT DELETE', 'ann'], %w[RESTORE eve]],
       'audit: what, and by whom')

  mine = Customer.find(ann.id)
  Customer.find(ann.id).update!(name: 'Ann C.')
  raises(ActiveRecord::StaleObjectError, 'destroy of a stale object: StaleObjectError') { mine.destroy! }

  same(rows("DELETE FROM active_customers WHERE id = #{ann.id} RETURNING id, name"), [[ann.id, 'Ann C.']],
       'RETURNING has the row')
  same(Customer.where(id: other.id).delete_all, 1, 'delete_all: 1 row')
  same(Customer.where(id: other.id).delete_all, 0, 'once more: 0 rows')
  rows("SELECT count(*) FROM rowkeeper.soft_delete_restore('customers', #{other.id})")

  acting('eve') { AnyCustomer.find(other.id).update!(deleted_at: Time.current) }
  same(Order.where(parent_id: other.id).count, 0,
       'deleted_at set by the application: its orders are deleted with it')
  same(history('customers', other.id).last, ['SOFT DELETE', 'eve'], 'audit: a soft delete all the same')
  acting('ann') { AnyCustomer.find(other.id).update!(deleted_at: nil) }
  same(history('customers', other.id).last, %w[RESTORE ann], 'deleted_at taken back: a restore')

  raises(ActiveRecord::StatementInvalid, 'destroy of the table itself is refused') { AnyCustomer.find(other.id).destroy! }
end

story 'trash' do
  ticket = acting('ann') { Ticket.create!(name: 'disk').reload }
  2.times { ticket.messages.create! }
  acting('ann') { ticket.destroy! }
  ok(ticket.destroyed?, 'trash: destroy!: one row')
  same(Message.where(parent_id: ticket.id).count, 0, 'trash: its messages went with it')
  acting('eve') do
    same(rows("SELECT count(*) FROM rowkeeper.soft_delete_restore('tickets', #{ticket.id})"), [[3]],
         'trash: restored: the row and its two messages')
  end
  back = Ticket.find(ticket.id)
  same([back.name, back.messages.count], ['disk', 2], 'trash: ActiveRecord finds them again')
  same([back.lock_version, back.created_at], [ticket.lock_version, ticket.created_at],
       'trash: as they were, stamps too')
  same(history('tickets', ticket.id), [%w[INSERT ann], ['SOFT DELETE', 'ann'], %w[RESTORE eve]],
       'trash: audit: what, and by whom')
  same(rows("DELETE FROM tickets WHERE id = #{ticket.id} RETURNING name"), [['disk']], 'trash: RETURNING has the row')
end

done
