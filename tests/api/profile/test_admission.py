"""How many connections a user and an address may have."""

from contextlib import ExitStack

import pytest

from api.profile.admission import Admission, TooManyConnections


def test_a_user_has_so_many_and_gets_one_back_with_each_that_ends() -> None:
    admission = Admission(per_user=2, per_address=0)
    with admission.user("one"), admission.user("other"):
        with admission.user("one"), pytest.raises(TooManyConnections), admission.user("one"):
            pass
        with admission.user("one"):
            pass


@pytest.mark.parametrize(
    ("addresses", "admitted"),
    [
        (["192.0.2.1"] * 3, 2),
        (["192.0.2.1", "192.0.2.2", "192.0.2.3"], 3),
        (["::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"], 2),
        (["2001:db8::1", "2001:db8::2", "2001:db8::ffff:3"], 2),  # one customer's
        (["2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:2::1"], 3),
        (["fe80::1%eth0", "fe80::2", "fe80::3"], 2),
        (["127.0.0.1"] * 3, 3),
        (["127.1.2.3", "::1", "::1", "::ffff:127.0.0.1"], 4),
        ([""] * 3, 3),
        (["no address"] * 3, 2),
    ],
)
def test_an_address_has_so_many_but_loopback(addresses: list[str], admitted: int) -> None:
    assert count(Admission(per_user=0, per_address=2), addresses) == admitted


def test_loopback_is_limited_when_told_so_and_zero_is_no_limit() -> None:
    assert count(Admission(0, 2, limit_loopback=True), ["127.0.0.1"] * 3) == 2
    assert count(Admission(0, 0), ["192.0.2.1"] * 3) == 3


def count(admission: Admission, addresses: list[str]) -> int:
    admitted = 0
    with ExitStack() as stack:
        for address in addresses:
            try:
                stack.enter_context(admission.address(address))
                admitted += 1
            except TooManyConnections:
                pass
    return admitted
