"""A Django application: customers by the view of the live rows (flag), tickets
as the table itself (trash). The database cascades from customers to their
orders, Django itself from tickets to their messages.
"""
from django.db import models


class Versioned(models.Model):
    name = models.TextField()
    version = models.IntegerField(default=1)
    updated_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        abstract = True


class Customer(Versioned):
    class Meta:
        managed = False
        db_table = 'active_customers'


class AnyCustomer(Versioned):
    """The table itself: deleted rows, too."""
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = 'customers'


class Order(models.Model):
    parent = models.ForeignKey(Customer, models.DO_NOTHING)

    class Meta:
        managed = False
        db_table = 'active_orders'


class Ticket(Versioned):
    class Meta:
        managed = False
        db_table = 'tickets'


class Message(models.Model):
    parent = models.ForeignKey(Ticket, models.CASCADE)

    class Meta:
        managed = False
        db_table = 'messages'
