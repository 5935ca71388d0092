"""Passwords that attackers try first.

The lists are zxcvbn's: the 30,000 most common of 10 million leaked passwords, and the words and names people use
as passwords. Its patterns find simple variations (`987654321`, `qwertyuiop`, `p@ssw0rd`, `drowssap`).
"""

import re

from zxcvbn.frequency_lists import FREQUENCY_LISTS
from zxcvbn.matching import L33T_TABLE, date_match, regex_match, sequence_match, spatial_match
from zxcvbn.scoring import estimate_guesses

# A password found with fewer guesses than this is as good as one of a list of that length.
FEW_GUESSES = 10_000
# The estimate knows English and keyboards, costs more the longer it is, and nobody tries long repetitions first.
_MAX_ESTIMATED = 20


# Words of what this is about, which are tried here before others.
CONTEXT = frozenset(
    ["crypto", "asset", "tracker", "cryptoassettracker", "cryptotracker", "portfolio", "binance", "bitcoin", "ethereum",
     "btcusdt", "ethusdt"]
)  # fmt: skip

# Letters and the signs that are written for them (`p@ssw0rd`); those that share a sign are one.
_ALIKE = str.maketrans(
    {sign: letter for letter, signs in L33T_TABLE.items() for sign in signs} | dict.fromkeys("ilt1!|7+", "i")
)


def _looks(text: str) -> str:
    return text.casefold().translate(_ALIKE)


_LISTED = frozenset(word for words in FREQUENCY_LISTS.values() for word in words if len(word) >= 8)
# What the words look like that take few guesses even backwards, twice, or with a sign in them.
_FIRST = frozenset(_looks(word) for words in FREQUENCY_LISTS.values() for word in words[: FEW_GUESSES // 2])


def is_of_context(password: str, name: str) -> bool:
    """Is it the account's own name, or a word of CONTEXT, with digits and signs at the end?"""
    folded = password.casefold()
    word = folded.rstrip("0123456789!?.#*_-@$ ").replace(" ", "").replace("-", "")
    return folded == name.casefold() or word in CONTEXT


def is_common(password: str) -> bool:
    """Would it be among the first thousands of guesses?"""
    if password.casefold() in _LISTED:
        return True
    return password.isascii() and len(password) <= _MAX_ESTIMATED and _guesses(password) < FEW_GUESSES


def _guesses(text: str) -> int:
    """What zxcvbn estimates, or less; what it puts at 10,000 or more may be any number above.

    It needs that many for two patterns in a row, so those of the whole text are enough. Asked itself, it looks at each
    part with all combinations of signs, which takes 0.2 s for some texts of 20 characters.
    """
    if _looks(text) in _FIRST or _looks(text[::-1]) in _FIRST:
        return 1
    matches = [match for find in (spatial_match, sequence_match, regex_match, date_match) for match in find(text)]
    whole = [match for match in matches if match["token"] == text] + [{"pattern": "bruteforce", "token": text}]
    guesses = [int(estimate_guesses(match, text)) for match in whole]
    if repeated := re.fullmatch(r"(.+?)\1+", text):
        guesses.append(len(text) // len(repeated[1]) * _guesses(repeated[1]))
    return min(guesses) + 1
