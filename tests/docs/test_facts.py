"""What the docs say of ports, variables, files and each other is so, and nothing is left out."""

import re
import sys
from pathlib import Path

import pytest
from doc_file import DOCS, ROOT, anchors, blocks, code_spans, links, tables
from dotenv import dotenv_values

from infra.local.settle import HEALTH_PORTS, SERVICE_PORTS, STORE_PORTS
from infra.local.stack import MODULES, NEEDS
from infra.settings import SECRETS, Settings

sys.path.insert(0, str(ROOT / "tests" / "infra"))
from compose_file import compose, raw, variables

OPERATIONS = tables(DOCS / "operations.md")
ENVIRONMENT = {code_spans(row[0])[0]: row for row in OPERATIONS["Environment"]}
FIELDS = {str(field.validation_alias or name).upper(): name for name, field in Settings.model_fields.items()}
MARKDOWN = sorted(file for file in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
PARTS = {
    "aggregator-service": "aggregator", "authorization-service": "authorization", "clickhouse-dashboard": "dashboard",
    "profile-service": "profile", "socket-service": "socket",
}  # fmt: skip


def test_the_ports_of_the_embedded_stack():
    listed = {row[0]: int(row[2]) for row in OPERATIONS["Ports"] if row[0] != "–"}
    assert listed == {**STORE_PORTS, **SERVICE_PORTS}


def test_the_ports_of_compose():
    listed = {(row[1], int(row[2])) for row in OPERATIONS["Ports"]}
    services = compose("compose.yaml", "compose.simulated.yaml")["services"]
    published = {(name, int(port.split(":")[1])) for name, one in services.items() for port in one.get("ports", ())}
    assert listed == published


def test_the_health_ports():
    listed = {row[0]: int(row[1]) for row in OPERATIONS["Health"]}
    assert listed == {**{name: SERVICE_PORTS[name] for name in ("profile", "aggregator", "dashboard")}, **HEALTH_PORTS}
    assert set(listed) == set(MODULES) | {"second-stats", "minitickers"}


def test_every_variable():
    of_compose = variables(raw("compose.yaml")) | variables(raw("compose.simulated.yaml"))
    others = {"COMPOSE_FILE", "TRACKER_PASSWORD", "JWT_SECRET_FILE"}
    assert set(ENVIRONMENT) == set(FIELDS) | of_compose | others
    assert {f"{name}_FILE" for name in SECRETS} - {"JWT_SECRET_FILE"} <= set(
        code_spans(" ".join(row[3] for row in OPERATIONS["Environment"]))
    )


SIMPLE = [(name, code_spans(row[2])[0]) for name, row in ENVIRONMENT.items() if re.fullmatch(r"`[^`]+`\+?", row[2])]


@pytest.mark.parametrize(("name", "default"), [one for one in SIMPLE if one[0] in FIELDS and one[0] != "ADDRESS"])
def test_a_default(name, default, monkeypatch):
    expected = getattr(Settings(), FIELDS[name])
    if name in ("KAFKA_BROKERS", "BROKERS"):
        assert Settings().bootstrap_servers == default
    elif name == "KAFKA_GROUP_ID":
        from flows.channels import CLICKHOUSE_GROUP

        assert default == CLICKHOUSE_GROUP
    else:
        monkeypatch.setenv(name, default)
        assert getattr(Settings(), FIELDS[name]) == expected


@pytest.mark.parametrize("example", sorted((ROOT / "infra" / "env").glob("*.env.example")), ids=lambda file: file.name)
def test_who_reads_what(example):
    """A variable in a service's example is listed with that service among its readers."""
    service = example.name.removesuffix(".env.example")
    part = PARTS.get(service, service)
    assert part in NEEDS
    text = example.read_text(encoding="utf-8")
    named = {*dotenv_values(example), *re.findall(r"^# ([A-Z_]+)=", text, re.MULTILINE)}
    for name in named - {"ENV", "LOG_LEVEL"}:
        if (part, name) != ("profile", "GRPC_PORT"):  # which it ignores
            assert {part, "all"} & set(re.split(r", ", ENVIRONMENT[name][1])), f"{name} without {part}"


def test_every_service_of_ours_has_an_example():
    examples = {file.name.removesuffix(".env.example") for file in (ROOT / "infra" / "env").glob("*.env.example")}
    assert examples == {name for name, one in compose()["services"].items() if "build" in one}


@pytest.mark.parametrize("file", MARKDOWN, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_resolve(file: Path):
    for target in links(file):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (file.parent / path).resolve() if path else file
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("file", [DOCS / "operations.md", DOCS / "troubleshooting.md"], ids=lambda file: file.name)
def test_every_part_that_is_named_is_one(file: Path):
    text = "\n".join([file.read_text(encoding="utf-8"), *(block.text for block in blocks(file))])
    assert set(re.findall(r"tracker logs (?:-f )?([a-z][a-z-]+)", text)) <= set(NEEDS)


def test_the_five_symptoms_each_have_commands():
    symptoms = {block.heading for block in blocks(DOCS / "troubleshooting.md") if block.language == "sh"}
    assert symptoms >= {
        "The WebSocket does not connect", "No price updates", "Authentication errors", "Nothing in ClickHouse", "High memory",
    }  # fmt: skip


def test_every_cell_of_what_works_when_what_is_down_has_a_test():
    heading = "What works when what is down"
    section = (DOCS / "operations.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    listed = dict(re.findall(r"^- ([a-z]): ((?:.|\n  )+)", section, re.MULTILINE))
    cells = [cell for row in OPERATIONS[heading] for cell in row[1:]]
    used = [re.findall(r"\[([a-z])\]", cell) for cell in cells]
    assert [cell for cell, letters in zip(cells, used, strict=True) if not letters] == []
    assert {letter for letters in used for letter in letters} == set(listed)
    for letter, text in listed.items():
        for reference in code_spans(text):
            file, _, name = reference.partition("::")
            assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (
                letter
            )
    down = {part for row in OPERATIONS[heading] for part in row[0].split(", ")}
    assert down - {"one of several workers"} == set(NEEDS) - {"profile"}
