"""The authorization service over a real channel and database, with cheap hashes and a clock that tests move."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from auth_parts import REFRESH_TTL_S, SECRET, Auth, Clock
from sqlalchemy import URL

from api.auth.account_repository import AccountRepository
from api.auth.accounts import AccountService
from api.auth.attempts import Throttle
from api.auth.credentials import PasswordHasher
from api.auth.database import Database
from api.auth.repository import AuthRepository
from api.auth.rotation import RefreshTokens
from api.auth.server import AuthServer
from api.auth.service import AuthService
from api.tokens import AccessTokens
from protos import auth_pb2_grpc


@pytest.fixture(scope="module")
def auth_url(postgres: Any) -> URL:
    """A database of the module's own, still without tables."""
    name = postgres.create_database("auth_db")
    return URL.create("postgresql+psycopg", postgres.user, postgres.password, postgres.host, postgres.port, name)


@pytest.fixture
async def auth(auth_url: URL) -> AsyncIterator[Auth]:
    clock, database, hasher = Clock(), Database(auth_url), PasswordHasher(cost=4, workers=1)
    await database.check()
    repository, tokens = AuthRepository(database), AccessTokens(SECRET, 900)
    throttle = Throttle(database, clock, clock.sleep)
    service = AuthService(repository, throttle, hasher, tokens, RefreshTokens(SECRET), REFRESH_TTL_S, clock)
    accounts = AccountService(AccountRepository(database), throttle, hasher, tokens, clock)
    server = AuthServer(service, accounts, database, "127.0.0.1", 0)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        yield Auth(stub, channel, server, service, accounts, repository, database, hasher, clock, tokens)
    await server.stop()
    hasher.close()
    await database.close()
