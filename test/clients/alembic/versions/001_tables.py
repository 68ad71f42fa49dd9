"""The application's tables, as they were before anybody heard of rowkeeper."""
import sqlalchemy as sa
from alembic import op

revision = '001'
down_revision = None


def upgrade():
    for parent, child in (('customers', 'orders'), ('tickets', 'messages')):
        op.create_table(
            parent,
            sa.Column('id', sa.Integer, primary_key=True),
            sa.Column('name', sa.Text, nullable=False),
            sa.Column('version', sa.Integer, nullable=False))
        op.create_table(
            child,
            sa.Column('id', sa.Integer, primary_key=True),
            sa.Column('parent_id', sa.Integer, sa.ForeignKey(parent + '.id', ondelete='CASCADE'), nullable=False))
