"""Which names and passwords are taken, and how passwords are hashed."""

import asyncio
import base64
import hashlib
import hmac
import os
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from api.auth.common_passwords import is_common, is_of_context
from api.auth.errors import InvalidInput, Overloaded

MAX_NAME = 64
MIN_PASSWORD, MAX_PASSWORD = 8, 128
PRODUCTION_COST = 12
# At 0.25 s each, a password behind 16 others waits about as long as its caller does (5 s); on a slow machine longer.
_QUEUE_PER_WORKER = 16
MAX_WAIT_S = 4.0
_BUSY = "too many logins and registrations at once; try again shortly"
_PREHASH_CONTEXT = b"crypto-asset-tracker password"
_INVISIBLE = {"Cc": "control characters", "Cf": "invisible characters", "Cs": "half characters"}
_INVISIBLE |= {"Zl": "line breaks", "Zp": "line breaks"}

T = TypeVar("T")


def composed(text: str, most: int) -> str:
    """`text` in NFC, unless that has more than `most` characters anyway: long runs of marks take their square in time.

    No character of NFC is made of more than four.
    """
    return unicodedata.normalize("NFC", text) if len(text) <= 4 * most else text


def checked_name(name: str) -> str:
    """The name in NFC, as it is kept and compared (case matters). Raises InvalidInput.

    1 to 64 characters; no control or invisible characters; no space at either end.
    """
    normal = composed(name, MAX_NAME)
    if not 1 <= len(normal) <= MAX_NAME:
        raise InvalidInput(f"name: must have 1 to {MAX_NAME} characters")
    for character in normal:
        if found := _INVISIBLE.get(unicodedata.category(character)):
            raise InvalidInput(f"name: must not contain {found}")
    if normal != normal.strip():
        raise InvalidInput("name: must not begin or end with a space")
    return normal


def checked_password(password: str, name: str = "") -> str:
    """The password in NFC: 8 to 128 characters, any at all, but not one that is easily guessed. Raises InvalidInput."""
    normal = composed(password, MAX_PASSWORD)
    if not MIN_PASSWORD <= len(normal) <= MAX_PASSWORD:
        raise InvalidInput(f"password: must have {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    if is_common(normal) or is_of_context(normal, name):
        raise InvalidInput("password: is one of those that are tried first; take a less common one")
    return normal


class PasswordHasher:
    """bcrypt in a few threads (it releases the GIL), with a bounded queue in front of them.

    One core is left to everything else, so that a flood of logins does not stop refreshes.
    """

    def __init__(self, cost: int = PRODUCTION_COST, workers: int | None = None, max_wait_s: float = MAX_WAIT_S) -> None:
        self._workers = workers or max(1, (os.cpu_count() or 1) - 1)
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="bcrypt", initializer=_give_way)
        self._cost = cost
        self._max_wait_s = max_wait_s
        self._pending = 0
        # A hash of no password: checking against it takes the time that checking takes.
        self._nobody = (bcrypt.gensalt(cost) + b"." * 31).decode()

    def ensure_room(self) -> None:
        """Raises Overloaded when a password would be turned away now: ask before anything else is done for it."""
        if self._pending >= self._workers * _QUEUE_PER_WORKER:
            raise Overloaded(_BUSY)

    async def hash(self, password: str) -> str:
        """A salted hash of the whole password. Raises Overloaded."""
        return await self._in_thread(lambda: bcrypt.hashpw(_prehash(password), bcrypt.gensalt(self._cost)).decode())

    async def matches(self, password: str, hashed: str | None, waited_s: float = 0.0) -> bool:
        """Is it the password of this hash? Takes as long, and says no, where there is none. Raises Overloaded.

        Who has waited before may wait so much less here: callers wait for both together.
        """
        against = (hashed or self._nobody).encode()
        return await self._in_thread(lambda: bcrypt.checkpw(_prehash(password), against), waited_s)

    def close(self) -> None:
        """Drop what waits and let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], T], waited_s: float = 0.0) -> T:
        self.ensure_room()
        self._pending += 1
        try:
            async with asyncio.timeout(self._max_wait_s - waited_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as error:
            raise Overloaded(_BUSY) from error
        finally:
            self._pending -= 1


def _give_way() -> None:
    """Hashing takes what the event loop leaves; on Linux a thread has a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _prehash(password: str) -> bytes:
    """64 bytes of any password: bcrypt takes 72 at most, and no NUL."""
    normal = composed(password, MAX_PASSWORD).encode()
    return base64.b64encode(hmac.digest(_PREHASH_CONTEXT, normal, hashlib.sha384))
