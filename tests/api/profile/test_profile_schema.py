"""The profile service against its own OpenAPI document."""

import httpx
from profile_parts import TOKENS, Bff, unique
from schema_run import run


def test_every_answer_is_a_documented_one(bff: Bff) -> None:
    account = {"name": unique(), "password": "not one of the examples"}
    with httpx.Client(base_url=bff.url, timeout=30) as client:
        assert client.post("/api/v1/auth/register", json=account).status_code == 201
        token = client.post("/api/v1/auth/login", json=account).json()["accessToken"]
    # A token without a session: ending all sessions does not end the test.
    bearer = TOKENS.issue(TOKENS.verify(token).sub, account["name"])[0]
    run(f"{bff.url}/openapi.json", "-H", f"Authorization: Bearer {bearer}")
