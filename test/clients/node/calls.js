// rowkeeper's calls in the migrations of the clients that write camelCase.
export const calls = `
  SELECT rowkeeper.audit('customers');
  SELECT rowkeeper.audit('orders');
  SELECT rowkeeper.audit('tickets');
  SELECT rowkeeper.audit('messages');
  SELECT rowkeeper.stamp('customers', updated_at => 'updatedAt', client_version => 'next', stale => 'error');
  SELECT rowkeeper.stamp('tickets', updated_at => 'updatedAt', client_version => 'next', stale => 'skip');
  SELECT rowkeeper.soft_delete('orders', deleted_at => 'deletedAt', deleted_by => 'deletedBy', batch => 'deleteBatch');
  SELECT rowkeeper.soft_delete('customers', deleted_at => 'deletedAt', deleted_by => 'deletedBy', batch => 'deleteBatch');
  SELECT rowkeeper.soft_delete('messages', mode => 'trash');
  SELECT rowkeeper.soft_delete('tickets', mode => 'trash');
`
