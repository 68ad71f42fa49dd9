"""rowkeeper's calls. save() sends every column as it was read: 'read'."""
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [('shop', '0002_cascade')]
    operations = [migrations.RunSQL("""
        SELECT rowkeeper.audit('customers');
        SELECT rowkeeper.audit('orders');
        SELECT rowkeeper.audit('tickets');
        SELECT rowkeeper.audit('messages');
        SELECT rowkeeper.stamp('customers', client_version => 'read', stale => 'error');
        SELECT rowkeeper.stamp('tickets', client_version => 'read', stale => 'skip');
        SELECT rowkeeper.soft_delete('orders');
        SELECT rowkeeper.soft_delete('customers');
        SELECT rowkeeper.soft_delete('messages', mode => 'trash');
        SELECT rowkeeper.soft_delete('tickets', mode => 'trash');
    """, migrations.RunSQL.noop)]
