"""The aggregator against its own OpenAPI document."""

import asyncio

from aggregator_parts import Neighbours
from schema_run import run, served


async def test_every_answer_is_a_documented_one(kafka: str, neighbours: Neighbours) -> None:
    environment = {
        "BROKERS": kafka,
        "EXCHANGE_REST_URL": f"http://{neighbours.address}",
        "INGEST_ADDR": neighbours.address,
    }

    def check() -> None:
        with served("api.aggregator.app", environment) as url:
            run(f"{url}/openapi.json")

    await asyncio.to_thread(check)  # the neighbours are served by this loop
