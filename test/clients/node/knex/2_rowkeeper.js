// rowkeeper's calls. Clients send the version that they read, if any.
export async function up (knex) {
  await knex.raw(`
    SELECT rowkeeper.audit('customers');
    SELECT rowkeeper.audit('orders');
    SELECT rowkeeper.audit('tickets');
    SELECT rowkeeper.audit('messages');
    SELECT rowkeeper.stamp('customers', client_version => 'read', stale => 'error', sqlstate => 'PT409');
    SELECT rowkeeper.stamp('tickets', client_version => 'read', stale => 'skip');
    SELECT rowkeeper.soft_delete('orders');
    SELECT rowkeeper.soft_delete('customers');
    SELECT rowkeeper.soft_delete('messages', mode => 'trash');
    SELECT rowkeeper.soft_delete('tickets', mode => 'trash');
  `)
}

export async function down () {}
