"""Passwords that attackers try first.

The lists are zxcvbn's: the 30,000 most common of 10 million leaked passwords, and the words and names people use
as passwords. Its estimate finds their simple variations (`Password1`, `987654321`, `qwerty12`).
"""

from functools import lru_cache

from zxcvbn import zxcvbn
from zxcvbn.frequency_lists import FREQUENCY_LISTS

# A password found with fewer guesses than this is as good as one of a list of that length.
FEW_GUESSES = 10_000
# The estimate knows English and keyboards, costs more the longer it is, and nobody tries long repetitions first.
_MAX_ESTIMATED = 20


# Words of what this is about, which are tried here before others.
CONTEXT = frozenset(
    ["crypto", "asset", "tracker", "cryptoassettracker", "cryptotracker", "portfolio", "binance", "bitcoin", "ethereum",
     "btcusdt", "ethusdt"]
)  # fmt: skip


def is_of_context(password: str, name: str) -> bool:
    """Is it the account's own name, or a word of CONTEXT, with digits and signs at the end?"""
    folded = password.casefold()
    word = folded.rstrip("0123456789!?.#*_-@$ ").replace(" ", "").replace("-", "")
    return folded == name.casefold() or word in CONTEXT


def is_common(password: str) -> bool:
    """Would it be among the first thousands of guesses?"""
    if password.casefold() in _listed():
        return True
    return password.isascii() and len(password) <= _MAX_ESTIMATED and zxcvbn(password)["guesses"] < FEW_GUESSES


@lru_cache(maxsize=1)
def _listed() -> frozenset[str]:
    return frozenset(word for words in FREQUENCY_LISTS.values() for word in words if len(word) >= 8)
