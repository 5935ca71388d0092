from datetime import UTC, datetime, timedelta

import pytest

from api.auth.rotation import RefreshTokens, StoredToken, Verdict, judge

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def unused(expires_at: datetime = LATER) -> StoredToken:
    return StoredToken(expires_at, None)


def used(seconds_ago: float) -> StoredToken:
    return StoredToken(LATER, NOW - timedelta(seconds=seconds_ago))


@pytest.mark.parametrize(
    ("token", "successor", "revoked", "verdict"),
    [
        (unused(), None, False, Verdict.ROTATE),
        (unused(), None, True, Verdict.REFUSE),
        (unused(NOW), None, False, Verdict.REFUSE),
        (used(0), unused(), False, Verdict.REPEAT),
        (used(10), unused(), False, Verdict.REPEAT),
        (used(10.001), unused(), False, Verdict.REVOKE),
        (used(1), used(0), False, Verdict.REVOKE),
        (used(1), None, False, Verdict.REVOKE),  # the key has changed since
        (used(1), unused(), True, Verdict.REFUSE),
    ],
)
def test_the_rule(token: StoredToken, successor: StoredToken | None, revoked: bool, verdict: Verdict) -> None:
    assert judge(token, successor, revoked, NOW) is verdict


def test_tokens_are_256_bits_and_differ() -> None:
    tokens = RefreshTokens("secret")
    assert len(tokens.new()) == 43
    assert tokens.new() != tokens.new()


def test_a_successor_is_always_the_same_and_needs_the_key() -> None:
    tokens = RefreshTokens("secret")
    token = tokens.new()
    assert tokens.successor(token) == RefreshTokens("secret").successor(token) != token
    assert RefreshTokens("other").successor(token) != tokens.successor(token)
