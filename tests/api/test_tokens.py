import time
import uuid
from typing import Any

import jwt
import pytest

from api.tokens import AccessTokens, ExpiredToken, InvalidToken, key_id

SECRET = "s" * 32
USER = str(uuid.uuid4())


@pytest.fixture
def tokens() -> AccessTokens:
    return AccessTokens(SECRET, 900)


def forged(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    now = int(time.time())
    claims: dict[str, Any] = {
        "sub": USER,
        "name": "ada",
        "typ": "access",
        "iss": "crypto-asset-tracker",
        "aud": "crypto-asset-tracker",
        "iat": now,
        "exp": now + 60,
        "jti": "1",
    } | changes
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, secret, algorithm)


def test_an_issued_token_says_who_and_how_long(tokens: AccessTokens) -> None:
    token, expires_at_ms = tokens.issue(USER, "Ада ∀")
    claims = tokens.verify(token)
    assert (claims.sub, claims.name, claims.exp * 1000) == (USER, "Ада ∀", expires_at_ms)
    assert 890_000 < expires_at_ms - time.time() * 1000 <= 900_000


def test_it_carries_the_claims_of_the_contract(tokens: AccessTokens) -> None:
    token, _ = tokens.issue(USER, "ada")
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="crypto-asset-tracker")
    assert set(claims) == {"sub", "name", "typ", "iss", "aud", "iat", "exp", "jti"}
    assert claims["typ"] == "access"
    assert claims["iss"] == claims["aud"] == "crypto-asset-tracker"


def test_two_tokens_differ(tokens: AccessTokens) -> None:
    assert tokens.issue(USER, "ada")[0] != tokens.issue(USER, "ada")[0]


def test_a_token_made_elsewhere_with_the_secret_is_accepted(tokens: AccessTokens) -> None:
    assert tokens.verify(forged()).sub == USER


@pytest.mark.parametrize("claim", ["sub", "name", "typ", "iss", "aud", "iat", "exp", "jti"])
def test_each_claim_is_required(tokens: AccessTokens, claim: str) -> None:
    with pytest.raises(InvalidToken):
        tokens.verify(forged(**{claim: None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"typ": "refresh"},
        {"iss": "someone"},
        {"aud": "someone"},
        {"aud": ["crypto-asset-tracker", "someone"]},
        {"sub": "not-a-uuid"},
        {"name": 5},
        {"iat": int(time.time()) + 3600},
        {"exp": "soon"},
    ],
)
def test_wrong_claims_are_refused(tokens: AccessTokens, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        tokens.verify(forged(**changes))


def test_an_expired_token_is_told_apart(tokens: AccessTokens) -> None:
    with pytest.raises(ExpiredToken):
        tokens.verify(forged(exp=int(time.time()) - 1))


@pytest.mark.parametrize("secret", ["t" * 32, SECRET + "x"])
def test_a_foreign_signature_is_refused(tokens: AccessTokens, secret: str) -> None:
    with pytest.raises(InvalidToken):
        tokens.verify(forged(secret))


def test_other_algorithms_are_refused(tokens: AccessTokens) -> None:
    with pytest.raises(InvalidToken):
        tokens.verify(forged("s" * 64, "HS512"))
    with pytest.raises(InvalidToken):
        tokens.verify(jwt.encode({"sub": USER}, None, "none"))


@pytest.mark.parametrize("text", ["", "a", "a.b.c", "…", "\ud800", "a" * 10_000, forged()[:-2]])
def test_anything_else_is_refused(tokens: AccessTokens, text: str) -> None:
    with pytest.raises(InvalidToken):
        tokens.verify(text)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        AccessTokens("short", 900)


def test_a_token_names_its_session_and_its_key(tokens: AccessTokens) -> None:
    token, _ = tokens.issue(USER, "ada", "a-session")
    assert tokens.verify(token).sid == "a-session"
    assert jwt.get_unverified_header(token)["kid"] == key_id(SECRET)
    with pytest.raises(InvalidToken):
        tokens.verify(forged(sid=7))


def test_after_a_rotation_the_old_secret_verifies_and_signs_no_more() -> None:
    old, new = AccessTokens(SECRET, 900), AccessTokens("n" * 32, 900, [SECRET])
    before, after = old.issue(USER, "ada")[0], new.issue(USER, "ada")[0]
    assert new.verify(before).sub == new.verify(after).sub == USER
    assert jwt.get_unverified_header(after)["kid"] == key_id("n" * 32)
    for tokens, token in ((old, after), (AccessTokens("n" * 32, 900), before)):
        with pytest.raises(InvalidToken):
            tokens.verify(token)


@pytest.mark.parametrize("kid", ["", "unknown", key_id("n" * 32), 5, None])
def test_a_kid_of_another_key_is_refused(kid: object) -> None:
    token = forged()
    claims = jwt.decode(token, options={"verify_signature": False})
    with pytest.raises((InvalidToken, jwt.InvalidTokenError)):
        AccessTokens(SECRET, 900, ["n" * 32]).verify(jwt.encode(claims, SECRET, "HS256", {"kid": kid}))


def test_previous_secrets_are_no_shorter() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        AccessTokens(SECRET, 900, ["short"])
