import asyncio
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from unicodedata import normalize

import bcrypt
import pytest
from zxcvbn import zxcvbn
from zxcvbn.adjacency_graphs import ADJACENCY_GRAPHS
from zxcvbn.frequency_lists import FREQUENCY_LISTS
from zxcvbn.matching import L33T_TABLE

from api.auth.common_passwords import FEW_GUESSES, is_common
from api.auth.credentials import PasswordHasher, checked_name, checked_password, composed
from api.auth.errors import InvalidInput, Overloaded


@pytest.fixture
def hasher() -> PasswordHasher:
    return PasswordHasher(cost=4, workers=1)


def test_a_name_is_kept_in_nfc() -> None:
    assert checked_name("e\u0301" * 64) == "é" * 64


@pytest.mark.parametrize("name", ["", " ", "a ", "\ta", "a\x7fb", "a\u2028b", "a\u200bb", "x" * 65, "\ud800"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidInput, match="name: "):
        checked_name(name)


def test_passwords_count_characters_not_bytes() -> None:
    assert checked_password("🔑" * 8)
    assert checked_password("🔑" * 128)
    with pytest.raises(InvalidInput, match="8 to 128"):
        checked_password("🔑" * 7)


async def test_a_hash_matches_its_password_alone(hasher: PasswordHasher) -> None:
    hashed = await hasher.hash("correct horse")
    assert hashed.startswith("$2b$04$")
    assert await hasher.matches("correct horse", hashed)
    assert not await hasher.matches("correct horsf", hashed)


async def test_nothing_is_cut_off_after_72_bytes(hasher: PasswordHasher) -> None:
    hashed = await hasher.hash("x" * 127 + "a")
    assert not await hasher.matches("x" * 127 + "b", hashed)


async def test_both_compositions_of_a_password_match(hasher: PasswordHasher) -> None:
    assert await hasher.matches("caf\u0065\u0301 noir", await hasher.hash("caf\u00e9 noir"))


async def test_without_a_hash_the_same_work_is_done(hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    real = bcrypt.checkpw

    def checkpw(password: bytes, hashed: bytes) -> bool:
        checked.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    stored = await hasher.hash("right one")
    assert not await hasher.matches("wrong one", stored)
    assert not await hasher.matches("wrong one", None)
    assert [one[:7] for one in checked] == [b"$2b$04$", b"$2b$04$"]


async def test_the_production_cost_is_12() -> None:
    assert (await PasswordHasher().hash("mypassword123")).startswith("$2b$12$")


async def test_the_queue_is_bounded_and_drains(hasher: PasswordHasher) -> None:
    results = await asyncio.gather(*(hasher.hash("password") for _ in range(50)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert len(refused) == 34
    assert refused[0].retry_after_s == 2
    assert await hasher.hash("password")


async def test_who_would_wait_longer_than_callers_do_is_refused() -> None:
    hasher, release = PasswordHasher(cost=4, workers=1, max_wait_s=0.1), threading.Event()
    busy = asyncio.get_running_loop().run_in_executor(hasher._threads, release.wait)
    with pytest.raises(Overloaded):
        await hasher.hash("password")
    release.set()
    await busy
    assert await hasher.hash("password")
    hasher.close()


@pytest.mark.parametrize(
    "password",
    ["password", "12345678", "PASSWORD", "password123", "Password1", "iloveyou1", "michelle", "987654321", "123123123",
     "qwertyuiop", "1q2w3e4r", "00000000", "basketball", "trustno1", "zaq12wsx"],
)  # fmt: skip
def test_common_passwords_are_refused(password: str) -> None:
    with pytest.raises(InvalidInput, match="password: "):
        checked_password(password)


@pytest.mark.parametrize("password", ["mypassword123", "x" * 128, "пароль12", "🔑" * 8, "correct horse"])
def test_others_are_taken(password: str) -> None:
    assert checked_password(password) == password


def test_the_three_thousand_most_common_are_refused() -> None:
    listed = [word for word in FREQUENCY_LISTS["passwords"] if len(word) >= 8][:3000]
    assert len(listed) == 3000
    assert [word for word in listed if not is_common(word)] == []


def variations(chosen: random.Random) -> list[str]:
    """Of a word, a way over the keyboard, a sequence and a date: as they are, backwards, with signs, repeated."""
    word = chosen.choice(FREQUENCY_LISTS[chosen.choice(list(FREQUENCY_LISTS))][:6000])
    signs = "".join(chosen.choice(L33T_TABLE.get(one, [one])) if chosen.random() < 0.5 else one for one in word)
    graph = ADJACENCY_GRAPHS[chosen.choice(["qwerty", "dvorak", "keypad"])]
    way, direction = chosen.choice([key for key in graph if key.isalnum()]), chosen.randrange(4)
    while len(way) < 12 and direction < len(graph[way[-1]]) and (key := graph[way[-1]][direction]):
        way += key[0]
    first = chosen.randrange(40, 90)
    sequence = "".join(chr(first + 3 * step) for step in range(9))
    date = chosen.choice(["{}{:02}{:02}", "{}.{}.{}"]).format(
        chosen.randrange(1990, 2030), chosen.randrange(1, 13), chosen.randrange(1, 29)
    )
    plain = [word, signs, way, sequence, date, word.capitalize(), word.upper()]
    varied = plain + [one[::-1] for one in plain]
    return [one * times for one in varied for times in (1, 2, 3) if 8 <= len(one) * times <= 20]


def test_all_that_zxcvbn_finds_within_few_guesses_is_refused() -> None:
    chosen = random.Random(1)
    found = [one for _ in range(60) for one in variations(chosen) if zxcvbn(one)["guesses"] < FEW_GUESSES]
    assert len(found) > 200
    assert [one for one in found if not is_common(one)] == []


@pytest.mark.parametrize("password", ["4@8({[<3691!|70$5+%2", "l|6&7@+9($21!58<[{t0", "91{4623+$(" * 2, "12" * 10])
def test_the_estimate_costs_little(password: str) -> None:
    """In calls of functions: zxcvbn itself makes 18,000 for the first, and takes up to 0.2 s."""
    calls = Counter[str]()
    sys.setprofile(lambda _frame, event, _arg: calls.update([event]))
    try:
        is_common(password)
    finally:
        sys.setprofile(None)
    assert 0 < calls["call"] < 3000


@pytest.mark.parametrize(
    "password", ["the name of ada", "The Name Of Ada", "bitcoin2026!", "crypto tracker 1", "btcusdt123"]
)
def test_words_of_the_context_are_refused(password: str) -> None:
    with pytest.raises(InvalidInput, match="password: "):
        checked_password(password, "the name of ada")


MARKS = "a" + "\u0315\u0300" * 16_000  # normalizing it takes a second, and while it does nothing else runs


@pytest.mark.parametrize("checked", [checked_name, checked_password])
def test_long_runs_of_marks_cost_nothing(checked: Callable[[str], str]) -> None:
    began = time.perf_counter()
    with pytest.raises(InvalidInput, match="characters"):
        checked(MARKS)
    assert time.perf_counter() - began < 0.2


async def test_nobody_has_a_password_of_long_runs_of_marks() -> None:
    hasher = PasswordHasher(cost=4, workers=1)
    began = time.perf_counter()
    assert not await hasher.matches(MARKS, None)
    assert time.perf_counter() - began < 0.2
    hasher.close()


def test_no_character_is_composed_of_more_than_four() -> None:
    longest = max((chr(number) for number in range(sys.maxunicode + 1)), key=lambda one: len(normalize("NFD", one)))
    assert composed(normalize("NFD", longest * 64), 64) == normalize("NFC", longest * 64)


async def test_who_has_waited_waits_so_much_less_for_a_place() -> None:
    hasher, go_on = PasswordHasher(cost=4, workers=1, max_wait_s=30), threading.Event()
    blocker = asyncio.create_task(hasher._in_thread(go_on.wait))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        async with asyncio.timeout(10):
            await hasher.matches("a password", None, waited_s=29.9)
    go_on.set()
    await blocker
    hasher.close()
