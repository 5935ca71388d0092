"""The aggregator's REST interface (contract section 6)."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from api.aggregator.schemas import Coin, Desired, SubscriptionList
from api.aggregator.service import AggregatorService
from api.http import problem_responses
from infra.settings import go_duration_seconds

SymbolName = Annotated[str, Query(min_length=1, max_length=32, description="in any case", examples=["btcusdt"])]
UserId = Annotated[
    str,
    Query(alias="id", min_length=1, max_length=128, pattern="^[!-~]+$", description="visible ASCII, as a UUID"),
]

Ttl = Annotated[
    Annotated[float, BeforeValidator(go_duration_seconds)] | None,
    Query(ge=1, le=86_400, description="makes it a lease (`60s`, `5m`); call again to renew", examples=["60s"]),
]


def aggregator_router(service: AggregatorService) -> APIRouter:
    """`/coin` and `/subscriptions`."""
    router = APIRouter(tags=["subscriptions"])

    @router.get("/coin", responses=problem_responses(413, 422, 431, 503))
    async def add(symbol: SymbolName, user: UserId, ttl: Ttl = None) -> Coin:
        """Subscribe a user to a symbol: the first subscriber starts its stream."""
        return Coin(symbol=symbol.lower(), subscribers=await service.add(symbol, user, ttl))

    @router.delete("/coin", responses=problem_responses(413, 422, 431, 503))
    async def remove(symbol: SymbolName, user: UserId) -> Coin:
        """Take a subscription back: the last one's leaving stops the stream."""
        return Coin(symbol=symbol.lower(), subscribers=await service.remove(symbol, user))

    @router.get("/subscriptions", responses=problem_responses(413, 431, 503))
    async def subscriptions() -> SubscriptionList:
        """What should stream, and what does."""
        desired = [
            Desired(symbol=one.symbol.lower(), subscribers=one.subscribers, always_on=one.always_on)
            for one in await service.desired()
        ]
        actual = await service.actual()
        return SubscriptionList(
            desired=desired, actual=[one.lower() for one in actual or ()], actual_known=actual is not None
        )

    return router
