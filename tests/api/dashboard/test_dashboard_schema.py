"""The dashboard against the OpenAPI document of its code; it publishes none."""

import json
from pathlib import Path

from dashboard_parts import Table
from schema_run import run, served

from api.dashboard.app import create_app
from infra.settings import Settings


def test_every_answer_is_a_documented_one(table: Table, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(create_app(Settings()).openapi()))
    environment = {
        "CLICKHOUSE_ADDR": table.address,
        "CLICKHOUSE_DATABASE": table.database,
        "CLICKHOUSE_TABLE": table.name,
    }
    with served("api.dashboard.app", environment) as url:
        run(str(document), url=url)
