"""Who watches, and what each connection has still to be told: always the state of now, never a queue."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from api.profile.portfolio import Holding, Push, user_head
from api.profile.prices import Quote
from api.profile.security import User


class Outlet(Protocol):
    """A connection, as far as pushes need it."""

    ready: bool  # its client has read what it was sent, but for a few KB

    def write_text(self, text: bytes) -> None:
        """Send a message now; on a connection that is closing it is lost."""


class Viewer:
    """One connection: it costs a number and a flag, whatever its client does."""

    __slots__ = ("_behind", "_gone", "_is_held", "_on_gone", "_outlet", "_sequence", "live")

    def __init__(self, live: "LivePortfolio") -> None:
        self.live = live
        self._is_held = False
        self._outlet: Outlet | None = None
        self._sequence = 0
        self._behind = True  # the first push follows at once
        self._gone = False
        self._on_gone: Callable[[], None] | None = None

    def attach(self, outlet: Outlet, on_gone: Callable[[], None]) -> None:
        """Push there from now on, beginning at once; `on_gone` hears when the account has been deleted."""
        if self._gone:
            on_gone()
            return
        self._outlet, self._on_gone = outlet, on_gone
        self.catch_up()

    def detach(self) -> None:
        """Push no more."""
        self._outlet = self._on_gone = None

    def end(self) -> None:
        """The account has been deleted."""
        on_gone, self._gone = self._on_gone, True
        self.detach()
        if on_gone:
            on_gone()

    def tell(self) -> None:
        """There is something new: push it, or remember that the client is behind."""
        outlet = self._outlet
        if outlet is None or not outlet.ready or self._is_held:
            self._behind = True
            return
        self.show(self.live.push)

    def show(self, push: Push) -> None:
        """Push this, as the next of this connection."""
        if self._outlet:
            self._sequence += 1
            self._outlet.write_text(push.numbered(self._sequence))

    def hold(self) -> None:
        """No live pushes until `release`."""
        self._is_held = True

    def release(self) -> None:
        """Live pushes again, beginning at once."""
        self._is_held, self._behind = False, True
        self.catch_up()

    def catch_up(self) -> None:
        """The client can be told again what it missed: the state of now."""
        if self._behind:
            self._behind = False
            self.tell()


class LivePortfolio:
    """A user who is watching: coins, connections, and the push that is right now."""

    def __init__(self, user: User) -> None:
        self.user_id = user.id
        self.viewers: set[Viewer] = set()
        self.quotes: dict[str, Quote] = {}
        self.lock = asyncio.Lock()
        self.changes = 1  # seen
        self.loaded = 0  # of these changes, from the database
        self.head = user_head(str(user.id), user.name)
        self.holdings: list[Holding] = []
        self.push = Push(self.head, ())

    def hold(self, holdings: list[Holding]) -> None:
        """These coins from now on."""
        self.holdings = holdings
        self.refresh()

    def refresh(self) -> None:
        """Tell all connections, if there is something to tell."""
        push = Push(self.head, self.holdings)
        if not push.same_as(self.push):
            self.push = push
            for viewer in self.viewers:
                viewer.tell()

    def end(self) -> None:
        """The account has been deleted: tell all connections, and read anew for the next."""
        self.loaded = 0
        for viewer in self.viewers:
            viewer.end()
