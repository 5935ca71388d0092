"""Answers kept for repeated requests, and accounts that are being deleted."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.Uuid, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("answer", JSONB),
        sa.Column("expires_at", _time, nullable=False, index=True),
    )
    op.create_table(
        "account_deletions",
        sa.Column("user_id", sa.Uuid, primary_key=True),
        sa.Column("ticket", sa.Text),
        sa.Column("created_at", _time, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("account_deletions")
    op.drop_table("idempotency_keys")
