# rowkeeper's calls.
class Rowkeeper < ActiveRecord::Migration[6.1]
  def up
    execute <<~SQL
      SELECT rowkeeper.audit('customers');
      SELECT rowkeeper.audit('orders');
      SELECT rowkeeper.audit('tickets');
      SELECT rowkeeper.audit('messages');
      SELECT rowkeeper.stamp('customers', version => 'lock_version', created_at => 'created_at',
                             client_version => 'next', stale => 'error');
      SELECT rowkeeper.stamp('tickets', version => 'lock_version', created_at => 'created_at',
                             client_version => 'next', stale => 'skip');
      SELECT rowkeeper.soft_delete('orders');
      SELECT rowkeeper.soft_delete('customers');
      SELECT rowkeeper.soft_delete('messages', mode => 'trash');
      SELECT rowkeeper.soft_delete('tickets', mode => 'trash');
    SQL
  end

  def down; end
end
