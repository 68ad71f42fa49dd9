// The same calls as knex has made: nothing is left to do.
exports.up = pgm => {
  pgm.sql(`
    SELECT rowkeeper.audit('customers');
    SELECT rowkeeper.stamp('customers', client_version => 'read', stale => 'error', sqlstate => 'PT409');
    SELECT rowkeeper.soft_delete('orders');
    SELECT rowkeeper.soft_delete('customers');
    SELECT rowkeeper.soft_delete('tickets', mode => 'trash');
  `)
}

exports.down = false
