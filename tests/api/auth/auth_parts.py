"""What the tests of the authorization service hold on to."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from api.auth.accounts import AccountService
from api.auth.credentials import PasswordHasher
from api.auth.database import Database
from api.auth.repository import AuthRepository
from api.auth.server import AuthServer
from api.auth.service import AuthService
from api.tokens import AccessTokens

SECRET = "a secret of the tests, 32 bytes or more"
REFRESH_TTL_S = 168 * 3600
PASSWORD = "mypassword123"


@dataclass
class Clock:
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.forward(seconds)

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Auth:
    """A running service: `stub` calls it."""

    stub: Any
    channel: grpc.aio.Channel
    server: AuthServer
    service: AuthService
    accounts: AccountService
    repository: AuthRepository
    database: Database
    hasher: PasswordHasher
    clock: Clock
    tokens: AccessTokens
