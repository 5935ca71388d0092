"""compose.yaml as Docker Compose would read it: anchors, several files merged, variables filled in."""

import importlib.util
import re
import shlex
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"JWT_SECRET": "a-secret-of-the-compose-tests-of-40-bytes"}
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<operator>:?[-?])(?P<word>[^}]*))?\})")


class NotSet(Exception):
    """A variable that must be set is not; the text says what Compose would say."""


def interpolate(value, environment):
    """`${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `$$` in every string of a document."""
    if isinstance(value, dict):
        return {key: interpolate(one, environment) for key, one in value.items()}
    if isinstance(value, list):
        return [interpolate(one, environment) for one in value]
    return _VARIABLE.sub(lambda found: _filled(found, environment), value) if isinstance(value, str) else value


def _filled(found, environment):
    if found["escaped"]:
        return "$"
    value, operator = environment.get(found["name"]), found["operator"] or ""
    missing = value is None or (operator.startswith(":") and not value)
    if missing and operator.endswith("?"):
        raise NotSet(f"{found['name']} {found['word']}")
    return (found["word"] or "" if missing and operator else value) or ""


def merged(base, over):
    """Mappings are merged, lists joined, other values replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merged(base[key], value) if key in base else value for key, value in over.items()}}
    return base + over if isinstance(base, list) and isinstance(over, list) else over


def compose(*files, environment=None):
    """The model of `docker compose -f … -f …`, without the x- extensions."""
    model = {}
    for name in files or ("compose.yaml",):
        model = merged(model, yaml.safe_load((ROOT / name).read_text(encoding="utf-8")))
    filled = interpolate(model, ENVIRONMENT if environment is None else environment)
    return {key: value for key, value in filled.items() if not key.startswith("x-")}


def raw(name="compose.yaml"):
    """The text of a file."""
    return (ROOT / name).read_text(encoding="utf-8")


def variables(text):
    """Names of the variables that a file takes from outside."""
    return {found["name"] for found in _VARIABLE.finditer(text) if found["name"]}


def ours(model):
    """The services that are built from this repository."""
    return {name: service for name, service in model["services"].items() if "build" in service}


def programs(service):
    """The commands a service runs one after the other, each as a list."""
    command = service["command"]
    if command[:2] != ["sh", "-c"]:
        return [command]
    words = [part.split() for part in command[2].split("&&")]
    assert words[-1][0] == "exec", "the last command must replace the shell, or SIGTERM ends the shell only"
    return [*words[:-1], words[-1][1:]]


def container_ports(service):
    """What the container listens on."""
    published = [port.rpartition(":")[2] for port in service.get("ports", ())]
    return {*published, *service.get("expose", ())}


def health_command(service):
    """The health check as a command that the container runs."""
    kind, *rest = service["healthcheck"]["test"]
    return ["sh", "-c", *rest] if kind == "CMD-SHELL" else rest


def seconds(text):
    """A duration of the compose file."""
    found = re.fullmatch(r"(\d+)(s|m)", text)
    return int(found[1]) * {"s": 1, "m": 60}[found[2]]


def megabytes(text):
    """A size of the compose file."""
    found = re.fullmatch(r"(\d+)([MG])", text)
    return int(found[1]) * {"M": 1, "G": 1024}[found[2]]


def options(command):
    """`--name value` pairs of a command."""
    words = shlex.split(shlex.join(command))
    return {words[i][2:]: words[i + 1] for i in range(len(words) - 1) if words[i].startswith("--")}


def exists(module):
    """Whether a module can be found, without running it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
