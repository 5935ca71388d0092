"""Every command of docs/operations.md and docs/troubleshooting.md: the embedded ones run, against one stack."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from doc_file import DOCS, ROOT, Block, blocks, code_spans, tables

from infra.local.settle import HEALTH_PORTS, SERVICE_PORTS, STORE_PORTS

sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "tests" / "infra")]
from compose_file import compose  # noqa: E402
from stack import Stack, poll_until  # noqa: E402

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
FILES = (DOCS / "operations.md", DOCS / "troubleshooting.md")
PORTS = {*STORE_PORTS.values(), *SERVICE_PORTS.values(), *HEALTH_PORTS.values(), 8090}
# They start, stop or delete the whole; tests/e2e and tests/tracker have them.
NOT_HERE = {"make run", "make live", ".venv/bin/tracker reset"}


def pairs(file: Path) -> list[tuple[Block, str]]:
    """Each shell block with the text block that follows it: what its output has."""
    found = blocks(file)
    return [
        (one, after.text if after and after.language == "text" else "")
        for one, after in zip(found, [*found[1:], None], strict=True)
        if one.language == "sh"
    ]


def daily() -> list[tuple[str, str]]:
    """The embedded commands of the daily table, with the cell that has the good answer."""
    rows = tables(DOCS / "operations.md")["Daily commands"]
    return [
        (command, row[3]) for row in rows for command in code_spans(row[2]) if command not in NOT_HERE | {".venv/bin"}
    ]


BLOCKS = [
    pytest.param(block.text, output, id=f"{file.stem}-{number}-{block.heading.replace(' ', '-')}")
    for file in FILES
    for number, (block, output) in enumerate(pairs(file))
]


@pytest.fixture(scope="module")
def stack(store_data: Path):
    """A stack with the account of the README's tour, and prices of its coin."""
    stack = Stack(store_data / "docs")
    account = {"name": "myuser", "password": "mypassword123"}
    try:
        stack.start()
        with httpx.Client(base_url=stack.url, timeout=15) as client:
            assert client.post("/api/v1/auth/register", json=account).status_code == 201
            token = client.post("/api/v1/auth/login", json=account).json()["accessToken"]
            coin = {"symbol": "btcusdt", "quantity": "1.5"}
            bearer = {"Authorization": f"Bearer {token}"}
            assert client.post("/api/v1/profile/coins", json=coin, headers=bearer).status_code == 200
        stack.token = token
        poll_until(lambda: has_prices(stack), 60, "prices and rows")
        yield stack
    finally:
        stack.kill()


def has_prices(stack) -> bool:
    """Whether a trade's second is on Redis, and a row in ClickHouse."""
    from redis import Redis

    with Redis(port=stack.port(6379)) as redis:
        priced = redis.get("secondstat:last:btcusdt") is not None
    asked = httpx.get(
        f"http://127.0.0.1:{stack.port(8123)}/",
        params={"user": "default", "password": "postgres", "query": "SELECT count() FROM crypto.market_tickers"},
    )
    return priced and asked.status_code == 200 and int(asked.text) > 0


def here(stack, command: str) -> str:
    """The command for the ports and the data directory of this stack."""
    ported = re.sub(r"\b\d{4,5}\b", lambda n: str(stack.port(int(n[0]))) if int(n[0]) in PORTS else n[0], command)
    return ported.replace(".data/", f"{stack.data_dir}/")


def run(stack, command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As in a shell at the root of the checkout, but that files are written to `cwd`."""
    if not (cwd / ".venv").exists():
        (cwd / ".venv").symlink_to(ROOT / ".venv")
    environment = {**stack.environment, "TOKEN": stack.token, "PYTHONPATH": str(ROOT)}
    script = ["bash", "-e", "-c", here(stack, command)]
    return subprocess.run(script, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


def check(expected: str, output: str) -> None:
    """Each expected line is in the output, in this order; `…` is anything within a line."""
    position = 0
    for line in expected.rstrip("\n").splitlines():
        found = re.compile(".*?".join(map(re.escape, line.split("…")))).search(output, position)
        assert found, f"no {line!r} after {output[:position][-200:]!r} in:\n{output}"
        position = found.end()


def runs_on(command: str) -> bool:
    return "-m api." in command or " -f " in command


@pytest.mark.parametrize(("command", "output"), [one for one in BLOCKS if not runs_on(one.values[0])])
def test_a_block(stack, tmp_path, command, output):
    assert output, "the doc does not say what a good answer is"
    done = run(stack, command, tmp_path)
    assert done.returncode == 0, done.stderr
    check(output, done.stdout)


@pytest.mark.parametrize(("command", "answer"), [one for one in daily() if not runs_on(one[0])])
def test_a_daily_command(stack, tmp_path, command, answer):
    done = run(stack, command, tmp_path)
    assert done.returncode == 0, done.stderr
    if answer.startswith("nothing"):
        assert done.stdout == ""
    else:
        for expected in code_spans(answer):
            assert expected in done.stdout
    if command.startswith("kill"):
        poll_until(lambda: any("dashboard" in line and "up again" in line for line in stack.lines), 30, "its restart")
        poll_until(lambda: stack.status()[""]["ok"], 30, "all parts up")


def test_a_log_is_followed(stack, tmp_path):
    (command,) = [command for command, _ in daily() if runs_on(command)]
    with subprocess.Popen(
        ["bash", "-c", f"exec {here(stack, command)} -n 1"], cwd=ROOT, env=stack.environment, stdout=subprocess.PIPE
    ) as follower:
        log = stack.data_dir / "simulated" / "logs" / f"{command.split()[-1]}.log"
        with log.open("a") as file:
            file.write("a new line\n")
        assert follower.stdout
        assert any(line == b"a new line\n" for line in follower.stdout)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 0


def test_a_second_bff(stack):
    """It serves the same portfolios, and stops cleanly."""
    (command,) = [one.values[0] for one in BLOCKS if "-m api.profile.app" in one.values[0]]
    environment = {**stack.environment, "PYTHONWARNINGS": "ignore"}
    # `exec` would not take the variables before the command; the shell's own session is ended instead.
    process = subprocess.Popen(["bash", "-c", here(stack, command)], cwd=ROOT, env=environment, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{stack.port(8090)}/api/v1/profile"
        bearer = {"Authorization": f"Bearer {stack.token}"}

        def answer():
            try:
                return httpx.get(url, headers=bearer)
            except httpx.TransportError:
                return None

        poll_until(lambda: (got := answer()) and got.status_code == 200, 30, "the second BFF's answer")
        assert [coin["Symbol"] for coin in answer().json()["Coins"]] == ["btcusdt"]
    finally:
        os.killpg(process.pid, signal.SIGINT)
    process.wait(20)


def compose_commands() -> list[str]:
    """Every `docker compose …` of the docs, in blocks and in text."""
    return sorted(
        {
            found
            for file in DOCS.glob("*.md")
            for text in [*code_spans(file.read_text(encoding="utf-8")), *(b.text for b in blocks(file))]
            for found in re.findall(r"docker compose [^\n`]*", text.replace("\\|", "|"))
        }
    )


@pytest.mark.parametrize("command", compose_commands())
def test_a_compose_command_names_services_that_exist(command):
    services = compose()["services"]
    words = shlex.split(command.partition(">")[0] if ".sql" in command else command)[2:]
    verb = words.pop(0)
    assert verb in {"ps", "exec", "logs", "restart", "up", "down", "stats"}
    plain = [word for word in words if not word.startswith("-")]
    if verb == "up":
        assert all(word.partition("=")[0] in services for word in plain)
        assert "--scale" not in words or plain
    elif verb == "exec":
        assert plain[0] in services
        if plain[0] in {name for name, one in services.items() if "build" in one} and "infra.probes" in command:
            # The same question that the service's own health check asks, or its HTTP port's.
            assert words[-1].rpartition(":")[2].partition("/")[0] in str(services[plain[0]])
    else:
        assert set(plain) <= set(services)
