"""Tables of profiles, coins and the outbox in PostgreSQL (schema: infra/migrations/profile)."""

import sqlalchemy as sa

metadata = sa.MetaData()
_time = sa.DateTime(timezone=True)
profiles = sa.Table(
    "profiles",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", _time, nullable=False),
)
coins = sa.Table(
    "coins",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("updated_at", _time, nullable=False),
    sa.Column("deleted_at", _time),
    sa.Column("symbol", sa.Text, nullable=False),
    sa.Column("quantity", sa.Numeric(36, 18), nullable=False),
    sa.Column("user_id", sa.ForeignKey("profiles.id", ondelete="CASCADE"), nullable=False),
)
outbox = sa.Table(
    "subscription_outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("user_id", sa.Uuid, nullable=False),
    sa.Column("symbol", sa.Text, nullable=False),
    sa.Column("held", sa.Boolean, nullable=False),
    sa.Column("claimed_until", _time, nullable=False, server_default=sa.func.now()),
)
