"""The database cascades from customers to orders."""
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [('shop', '0001_tables')]
    operations = [migrations.RunSQL("""
        DO $$
        BEGIN
            EXECUTE (SELECT format('ALTER TABLE orders DROP CONSTRAINT %I', conname)
                     FROM pg_constraint WHERE conrelid = 'orders'::regclass AND contype = 'f');
        END $$;
        ALTER TABLE orders ADD FOREIGN KEY (parent_id) REFERENCES customers
            ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;
    """)]
