"""How failed logins slow down whoever makes them; pure.

Every failure is counted for the account, the address, and both together. After a few, each further try has to wait
longer than the one before, up to a limit that leaves an attacker fewer than a hundred tries an hour.

The owner is never locked out, since what strangers do is not counted against devices and places the account knows:
- A device with a refresh token of the user's (even one that is used up) is counted by itself: only its own failures
  slow it.
- At an address the user has registered or logged in from, the right password gets in however busy the account and the
  address are; only failures with that account there slow it. A wrong one is counted and answered there as everywhere,
  and as one for a name that nobody has: else it could be told who has been there.
- Any other address has a few tries of its own, however busy the account is; of IPv6, any other network of the size
  that a site has, which holds 65,536 of those that are one address here.
"""

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Limit:
    """`free` failures cost nothing; then 1 s, 2 s, 4 s… up to `longest`. A quiet `forgotten_after` begins anew."""

    free: int
    longest: timedelta
    forgotten_after: timedelta


@dataclass(frozen=True)
class Failures:
    """What has been counted under one key."""

    count: int
    last_at: datetime


ACCOUNT = Limit(10, timedelta(seconds=45), timedelta(hours=1))
ADDRESS = Limit(100, timedelta(seconds=5), timedelta(minutes=15))
SITE_PREFIX = 48  # of an IPv6 network that one site has
STRANGER_TRIES = 3  # of an address the account does not know, whatever others do
# A try that is due so soon waits; others are told when to come again.
PATIENCE_S = 2.0
KNOWN_FOR = timedelta(days=90)


@dataclass(frozen=True)
class Keys:
    """What a try is counted under; hashes, so that no address is kept for it."""

    account: bytes
    address: bytes
    both: bytes
    strangers: bytes  # like `both`, of the site

    def of_device(self, device: bytes) -> "Keys":
        """The keys of a try from a device of the user's: an attacker at its address doesn't use up its tries."""
        return replace(self, both=hashlib.sha256(self.account + b"device\0" + device).digest())


def keys_of(name: str, address: str) -> Keys:
    """The keys of a try: `name` as it is kept, whether there is such an account or not."""
    place = place_of(address)
    account = hashlib.sha256(b"account\0" + name.encode("utf-8", "replace")).digest()
    site = place_of(address, SITE_PREFIX)
    return Keys(account, place, hashlib.sha256(account + place).digest(), hashlib.sha256(account + site).digest())


def place_of(address: str, prefix: int = 64) -> bytes:
    """The hash of an IP address; of IPv6 the network, which one customer has as a whole."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return hashlib.sha256(b"address\0" + address.encode("utf-8", "replace")).digest()
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or ipaddress.ip_network((parsed, prefix), strict=False).network_address
    return hashlib.sha256(b"address\0" + str(parsed).encode()).digest()


def own_wait_s(keys: Keys, counted: Mapping[bytes, Failures], now: datetime) -> float:
    """How long this try has to wait for what has failed with this account here, or on this device."""
    return _due_s(counted.get(keys.both), ACCOUNT, now)


def wait_s(keys: Keys, counted: Mapping[bytes, Failures], now: datetime) -> float:
    """How long this try has to wait in all, where neither device nor place is known; 0 when it need not."""
    own = current(counted.get(keys.strangers), ACCOUNT, now)
    account_s = 0.0 if own < STRANGER_TRIES else _due_s(counted.get(keys.account), ACCOUNT, now)
    return max(own_wait_s(keys, counted, now), account_s, _due_s(counted.get(keys.address), ADDRESS, now))


def limits_of(keys: Keys) -> dict[bytes, Limit]:
    """All that a try is counted for, but that of a device, which is for `both` alone."""
    return {keys.account: ACCOUNT, keys.address: ADDRESS, keys.strangers: ACCOUNT, keys.both: ACCOUNT}


def current(failures: Failures | None, limit: Limit, now: datetime) -> int:
    """The failures that still count."""
    if failures is None or now - failures.last_at > limit.forgotten_after:
        return 0
    return failures.count


def _due_s(failures: Failures | None, limit: Limit, now: datetime) -> float:
    over = current(failures, limit, now) - limit.free
    if failures is None or over < 0:
        return 0.0
    pause = min(limit.longest, timedelta(seconds=2 ** min(over, 20)))
    return max(0.0, (failures.last_at + pause - now).total_seconds())
