"""Where and how sessions are used, failed logins, and the places a user has logged in from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    for name in ("address", "user_agent"):
        op.add_column("refresh_families", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.add_column("refresh_families", sa.Column("last_used_at", _time))
    op.execute("UPDATE refresh_families SET last_used_at = created_at")
    op.alter_column("refresh_families", "last_used_at", nullable=False)
    op.create_table(
        "login_failures",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("last_at", _time, nullable=False, index=True),
    )
    op.create_table(
        "known_places",
        sa.Column("user_id", sa.Uuid, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("place", sa.LargeBinary, primary_key=True),
        sa.Column("last_at", _time, nullable=False, index=True),
    )


def downgrade() -> None:
    op.drop_table("known_places")
    op.drop_table("login_failures")
    for name in ("last_used_at", "user_agent", "address"):
        op.drop_column("refresh_families", name)
