"""The services of compose.yaml as processes of this machine: their commands, environments and health checks as
they stand there, with only the addresses and directories put in place of a container's own."""

import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path

from compose_file import ROOT, container_ports, health_command, ours, seconds

from infra.local.clickhouse import clickhouse
from infra.local.kafka import java
from infra.local.kafka_jars import cache_dir, ensure_jars
from infra.local.part import LOOPBACK, Part, free_port, spawn, stop, wait_ready
from infra.local.postgres import Database, postgres
from infra.local.valkey import server_binary

_BLOCKER = """
import sys
NOT_IN_THE_IMAGE = {names!r}
class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in NOT_IN_THE_IMAGE:
            raise ModuleNotFoundError(f"{{name}} is not in the image", name=name)
sys.meta_path.insert(0, Blocker)
"""


def modules_not_in_the_image():
    """Top-level modules of this environment that requirements-services.lock does not bring."""
    lock = (ROOT / "requirements-services.lock").read_text(encoding="utf-8")
    locked = {_normal(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    own = {"crypto-asset-tracker"}
    return {
        module
        for module, distributions in packages_distributions().items()
        if not {_normal(name) for name in distributions} & (locked | own)
    }


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


class Containers:
    """`up(name)` starts a service after those it depends on; `name#2` is another container of the same service."""

    def __init__(self, model, directory):
        self._model = model
        self.directory = directory
        self._ports = {}
        self._running = {}
        directory.mkdir()
        blocker = directory / "blocker"
        blocker.mkdir()
        (blocker / "sitecustomize.py").write_text(_BLOCKER.format(names=modules_not_in_the_image()))
        self._base = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        self._image = {**self._base, "PYTHONPATH": str(blocker)}

    def port(self, name, port):
        """Where the container's port is on this machine."""
        return self._ports.setdefault((name, str(port)), free_port())

    def log(self, name):
        """The file with its output."""
        return self.directory / f"{name}.log"

    def up(self, name):
        """Start it and what it needs, and wait until its health check says yes."""
        if name in self._running:
            return
        service = self._service(name)
        for needed in service.get("depends_on", {}):
            self.up(needed)
        part = self._part(name)
        part.prepare()
        process = spawn(part, self.log(name), self._image if self._is_ours(name) else self._base)
        self._running[name] = part, process
        if part.probe:
            wait_ready(part, process)
        else:
            self._wait_healthy(name, process)

    def down(self, name):
        """SIGTERM, and its exit code; raises TimeoutExpired when it outlives its grace period."""
        _, process = self._running.pop(name)
        process.terminate()
        try:
            return process.wait(seconds(self._service(name)["stop_grace_period"]))
        finally:
            process.kill()
            process.wait()

    def close(self):
        """Stop everything that runs, last first."""
        for part, process in reversed(self._running.values()):
            stop(part, process)

    def healthy(self, name):
        """Run the health check once, as the container would: (exit code, output)."""
        command = [self._here(name, word) for word in health_command(self._service(name))]
        done = subprocess.run(command, env=self._image, capture_output=True, text=True, timeout=10, check=False)
        return done.returncode, done.stdout + done.stderr

    def environment(self, name):
        """Its environment, with the addresses of this machine."""
        given = self._service(name).get("environment", {})
        here = {variable: self._here(name, value) for variable, value in given.items()}
        if host := given.get("POSTGRES_HOST"):
            here |= {"POSTGRES_HOST": LOOPBACK, "POSTGRES_PORT": str(self.port(host, given["POSTGRES_PORT"]))}
        return here

    def _service(self, name):
        return self._model["services"][name.partition("#")[0]]

    def _is_ours(self, name):
        return name.partition("#")[0] in ours(self._model)

    def _wait_healthy(self, name, process):
        check = self._service(name)["healthcheck"]
        patience = seconds(check["start_period"]) + check["retries"] * seconds(check["interval"])
        deadline = time.monotonic() + patience
        while (answer := self.healthy(name))[0] != 0:
            tail = self.log(name).read_text(errors="replace")[-3000:]
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{tail}"
            assert time.monotonic() < deadline, f"{name} is not healthy: {answer[1]}\n{tail}"
            time.sleep(0.1)

    def _part(self, name):
        if name.startswith("postgres-"):
            database = Database(
                self.directory / name, self.port(name, 5432), self._service(name)["environment"]["POSTGRES_DB"], "own"
            )
            return postgres(name, database)
        match name:
            case "clickhouse":
                return clickhouse(self.directory / name, self.port(name, 8123))
            case "redis":
                return self._redis()
            case "kafka":
                return self._kafka()
        assert self._is_ours(name)
        command = [self._here(name, word) for word in self._service(name)["command"]]
        volume = self._volume(name)
        return Part(name, command, env=self.environment(name), prepare=lambda: volume.mkdir(exist_ok=True))

    def _redis(self):
        place = ["--port", str(self.port("redis", 6379)), "--bind", LOOPBACK, "--dir", str(self._volume("redis"))]
        command = [str(server_binary()), *self._service("redis")["command"][1:], *place]
        prepare = self._volume("redis").mkdir
        return Part("redis", command, probe=f"redis://{LOOPBACK}:{self.port('redis', 6379)}", prepare=prepare)

    def _kafka(self):
        """As the image's own start script: its wrapper makes server.properties and formats the log, then the broker."""
        environment = self.environment("kafka")
        heap = environment["KAFKA_HEAP_OPTS"].split()
        home = self._volume("kafka")
        environment |= {"KAFKA_LOG_DIRS": str(home / "log"), "CLUSTER_ID": "5L6g3nShT-eMCtK--X86sw"}
        del environment["PATH"]
        jvm = [java(), *heap, "-cp", f"{cache_dir()}/*"]

        def prepare():
            ensure_jars(lambda done, total: None)
            (home / "config").mkdir(parents=True)
            arguments = []
            for option, folder in (("default", "default"), ("mounted", "mounted"), ("final", "config")):
                (home / folder).mkdir(exist_ok=True)
                arguments += [f"--{option}-configs-dir", str(home / folder)]
            (home / "config" / "server.properties").touch()
            setup = [*jvm, "kafka.docker.KafkaDockerWrapper", "setup", *arguments]
            done = subprocess.run(setup, env={**self._base, **environment}, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

        return Part(
            "kafka", [*jvm, "kafka.Kafka", str(home / "config" / "server.properties")], env=environment, prepare=prepare
        )

    def _volume(self, name):
        return self.directory / f"{name}.volume"

    def _here(self, name, text):
        """A value of the compose file with the ports of this machine: others' `host:port`, and its own."""
        service = self._service(name)
        own = container_ports(service) | {service.get("environment", {}).get("HEALTH_PORT")}
        own |= {"9092", "9093"} if name == "kafka" else set()
        published = {p.split(":")[1]: p.split(":")[2] for p in service.get("ports", ())}
        hosts = "|".join(map(re.escape, self._model["services"]))

        def place(found):
            if host := found["host"]:
                return f"{LOOPBACK}:{self.port(host, found['port'])}"
            if outside := found["outside"]:  # what the host of the containers would see
                return f"localhost:{self.port(name, published.get(outside, outside))}"
            return str(self.port(name, found["own"])) if found["own"] in own else found["own"]

        pattern = rf"(?<![\w.-])(?:(?P<host>{hosts}):(?P<port>\d+)|localhost:(?P<outside>\d+)|(?P<own>\d+))(?![\w.])"
        return re.sub(pattern, place, text).replace("/var/lib/tracker", str(self._volume(name)))


def have(program):
    """Whether a program is installed here."""
    return shutil.which(program) is not None
