"""What users can do: accounts (kept by the authorization service), profiles and coins."""

import unicodedata
import uuid
from collections.abc import Callable
from decimal import Decimal

from api.profile.account_client import AccountClient, SessionRow
from api.profile.auth_client import AuthClient, TokenPair, Visitor
from api.profile.decimals import plain
from api.profile.deletion import Deletions
from api.profile.errors import InvalidInput, NotAvailable, NotFound
from api.profile.idempotency import once
from api.profile.repository import CoinRow, ProfileRepository, ProfileRow
from api.symbols import Symbol, SymbolDirectory
from flows.domain.errors import ExchangeError

QUOTE = "USDT"  # until other quotes are converted


class ProfileService:
    """`changed` hears of each user whose coins have changed, after the transaction; see `errors` for what is raised."""

    def __init__(
        self,
        repository: ProfileRepository,
        auth: AuthClient,
        accounts: AccountClient,
        deletions: Deletions,
        symbols: SymbolDirectory,
        changed: Callable[[uuid.UUID], None],
    ) -> None:
        self._repository = repository
        self._auth = auth
        self._accounts = accounts
        self._deletions = deletions
        self._symbols = symbols
        self._changed = changed

    async def register(self, name: str, password: str, visitor: Visitor) -> None:
        """An account and its profile. If only the profile fails, logging in and `create_profile` mend it."""
        user_id = await self._auth.register(name, password, visitor)
        await self._repository.create(user_id, unicodedata.normalize("NFC", name))

    async def login(self, name: str, password: str, visitor: Visitor) -> TokenPair:
        """Raises NotAuthenticated, TooManyRequests."""
        return await self._auth.login(name, password, visitor)

    async def refresh(self, refresh_token: str) -> TokenPair:
        """Raises NotAuthenticated."""
        return await self._auth.refresh(refresh_token)

    async def logout(self, refresh_token: str) -> None:
        """Revoke the token's family."""
        await self._auth.logout(refresh_token)

    async def sessions(self, access_token: str) -> list[SessionRow]:
        """The owner's sessions, the newest first."""
        return await self._accounts.sessions(access_token)

    async def revoke_sessions(self, access_token: str, session_id: str = "") -> None:
        """End one session (raises NotFound), or all."""
        await self._accounts.revoke(access_token, session_id)

    async def change_password(self, access_token: str, current: str, new: str) -> None:
        """End all other sessions too. Raises InvalidInput, NotAllowed, TooManyRequests."""
        await self._accounts.change_password(access_token, current, new)

    async def delete_account(self, user_id: uuid.UUID, access_token: str, password: str) -> bool:
        """Delete the profile and the account; False when the account will only be deleted later.

        Raises NotAllowed, TooManyRequests, and then nothing has changed.
        """
        ticket = await self._accounts.confirm_deletion(access_token, password)
        await self._deletions.begin(user_id, ticket)
        self._changed(user_id)
        return await self._deletions.finish(user_id, ticket)

    async def create_profile(self, user_id: uuid.UUID, name: str) -> None:
        """Raises Conflict when there is one."""
        await self._repository.create(user_id, name)

    async def profile(self, user_id: uuid.UUID) -> ProfileRow:
        """Raises NotFound."""
        found = await self._repository.find(user_id)
        if found is None:
            raise NotFound("there is no profile yet")
        return found

    async def change_coin(self, user_id: uuid.UUID, symbol: str, change: Decimal, key: str | None = None) -> CoinRow:
        """Add to or take from a coin, once for each `key`.

        Raises InvalidInput, NotFound without a profile, NotAvailable.
        """
        named = once(user_id, key, symbol.lower(), plain(change)) if key else None
        if named and (before := await self._repository.answered(named)):
            return before
        known = await self._holdable(symbol)
        if change > 0 and not known.trading:
            raise InvalidInput(f"symbol: {symbol} does not trade now ({known.status})")
        coin = await self._repository.change(user_id, known.symbol.lower(), change, named)
        self._changed(user_id)
        return coin

    async def delete_coin(self, user_id: uuid.UUID, symbol: str) -> None:
        """Raises NotFound when it is not held."""
        await self._repository.delete(user_id, symbol.lower())
        self._changed(user_id)

    async def symbols(self, query: str) -> list[Symbol]:
        """Those that can be held and contain `query`. Raises NotAvailable."""
        await self._refresh_symbols()
        return [one for one in self._symbols.search(query) if one.quote == QUOTE]

    async def _holdable(self, symbol: str) -> Symbol:
        await self._refresh_symbols()
        known = self._symbols.get(symbol)
        if known is None:
            raise InvalidInput(f"symbol: the exchange has no {symbol}")
        if known.quote != QUOTE:
            raise InvalidInput(f"symbol: only pairs quoted in {QUOTE} can be held, {symbol} is quoted in {known.quote}")
        return known

    async def _refresh_symbols(self) -> None:
        try:
            await self._symbols.refresh()
        except ExchangeError as error:
            raise NotAvailable("the list of symbols is not available: the exchange has not answered yet") from error
