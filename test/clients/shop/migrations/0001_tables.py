"""The application's tables. Django's own foreign keys do not cascade."""
from django.db import migrations, models


def versioned(name, table):
    return migrations.CreateModel(name, [
        ('id', models.AutoField(primary_key=True)),
        ('name', models.TextField()),
        ('version', models.IntegerField(default=1)),
    ], options={'db_table': table})


def child_of(parent, name, table):
    return migrations.CreateModel(name, [
        ('id', models.AutoField(primary_key=True)),
        ('parent', models.ForeignKey('shop.' + parent, models.CASCADE)),
    ], options={'db_table': table})


class Migration(migrations.Migration):
    operations = [
        versioned('AnyCustomer', 'customers'),
        child_of('AnyCustomer', 'AnyOrder', 'orders'),
        versioned('Ticket', 'tickets'),
        child_of('Ticket', 'Message', 'messages'),
    ]
