"""Profiles, their coins, and what the aggregator is still to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "profiles",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "coins",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("quantity", sa.Numeric(36, 18), nullable=False),
        sa.Column("user_id", sa.Uuid, sa.ForeignKey("profiles.id", ondelete="CASCADE"), nullable=False),
        sa.CheckConstraint("quantity >= 0", name="quantity_is_not_negative"),
    )
    live = sa.text("deleted_at IS NULL")
    op.create_index("one_live_coin", "coins", ["user_id", "symbol"], unique=True, postgresql_where=live)
    op.create_table(
        "subscription_outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.create_index("outbox_in_order", "subscription_outbox", ["user_id", "symbol", "id"])


def downgrade() -> None:
    op.drop_table("subscription_outbox")
    op.drop_table("coins")
    op.drop_table("profiles")
