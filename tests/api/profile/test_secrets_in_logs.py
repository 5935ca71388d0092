"""No password, token or key in the logs of the services, however much they say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from profile_parts import ROOT, unique, wait_ready
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from infra.local.part import free_port

KEY = "a-signing-key-that-no-log-may-ever-have"
PASSWORDS = ("the-first-password-of-a-user", "the-second-password-of-a-user", "a-wrong-password-of-a-user")


def started(module: str, log: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module], cwd=ROOT, env={**os.environ, **environment}, stderr=file, stdout=file
        )


async def use(url: str, secrets: list[str]) -> None:
    """Everything that takes or gives a secret, also done wrongly; `secrets` hears of what was given."""
    name, (first, second, wrong) = unique(), PASSWORDS
    async with httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=30) as client:

        async def ask(method: str, path: str, body: Any = None, token: str = "") -> httpx.Response:
            return await client.request(
                method, path, json=body, headers={"Authorization": f"Bearer {token}"} if token else {}
            )

        await ask("POST", "/auth/register", {"name": name, "password": first})
        await ask("POST", "/auth/register", {"name": name, "password": second})
        await ask("POST", "/auth/login", {"name": name, "password": wrong})
        await ask("POST", "/auth/login", {"name": name, "password": [first]})
        token = (await ask("POST", "/auth/login", {"name": name, "password": first})).json()["accessToken"]
        secrets += [token, client.cookies["refreshToken"]]
        token = (await ask("POST", "/auth/refresh")).json()["accessToken"]
        secrets += [token, client.cookies["refreshToken"]]
        await ask("GET", "/auth/sessions", token=token)
        await ask("GET", "/profile", token=token[:-1])
        secrets.append(token[:-1])
        for current in (wrong, first):
            await ask("POST", "/auth/password", {"currentPassword": current, "newPassword": second}, token)
        await ask("POST", "/profile/coins", {"symbol": "btcusdt", "quantity": "1"}, token)
        async with connect(url.replace("http", "ws") + "/api/v1/ws") as socket:
            await socket.send(json.dumps({"type": "auth", "accessToken": token}))
            await socket.recv()
        async with connect(url.replace("http", "ws") + "/api/v1/ws") as socket:
            await socket.send(json.dumps({"type": "auth", "accessToken": token[:-1]}))
            with pytest.raises(ConnectionClosed) as caught:
                await socket.recv()
            assert token[:-1] not in str(caught.value)
        await ask("DELETE", "/auth/account", {"password": wrong}, token)
        assert (await ask("DELETE", "/auth/account", {"password": second}, token)).status_code == 200


async def metrics_of(port: int) -> str:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{port}/metrics")).text


async def test_secrets_are_in_no_log(postgres: Any, valkey: str, neighbours: Any, tmp_path: Path) -> None:
    port, health, http = free_port(), free_port(), free_port()
    common = {
        "LOG_LEVEL": "DEBUG", "JWT_SECRET": KEY, "JWT_PREVIOUS_SECRETS": KEY[::-1],
        "POSTGRES_HOST": postgres.host, "POSTGRES_PORT": str(postgres.port), "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password,
    }  # fmt: skip
    auth = {**common, "POSTGRES_DB": postgres.create_database("auth_db"), "GRPC_PORT": str(port)}
    bff = {
        **common, "POSTGRES_DB": postgres.create_database("profile_db"), "HTTP_PORT": str(http), "REDIS_ADDR": valkey,
        "AUTH_SERVICE_ADDR": f"127.0.0.1:{port}", "AGGREGATOR_ADDR": neighbours.address,
        "EXCHANGE_REST_URL": f"http://{neighbours.address}",
    }  # fmt: skip
    logs = [tmp_path / "auth.log", tmp_path / "bff.log"]
    processes = [
        started("api.auth.server", logs[0], {**auth, "HEALTH_PORT": str(health)}),
        started("api.profile.app", logs[1], bff),
    ]
    secrets = [*PASSWORDS, KEY, KEY[::-1]]
    try:
        wait_ready(f"http://127.0.0.1:{health}/readyz", processes[0])
        wait_ready(f"http://127.0.0.1:{http}/readyz", processes[1])
        await use(f"http://127.0.0.1:{http}", secrets)
        metrics = "".join([await metrics_of(one) for one in (health, http)])
    finally:
        for process in processes:
            process.terminate()
            process.wait(15)
    said = "".join(log.read_text() for log in logs)
    assert "listening" in said
    assert len(secrets) > 8
    assert [secret for secret in secrets if secret in said + metrics] == []
    for header_and_payload in (secret.rpartition(".")[0] for secret in secrets if secret.count(".") == 2):
        assert header_and_payload not in said
