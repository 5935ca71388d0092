"""A strategy's class by the name of a built-in one, by import path, or by file."""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from flows.backtest.errors import StrategyError
from flows.backtest.strategies import BUILT_IN


@dataclass(frozen=True, slots=True)
class Loaded:
    """A strategy's class and, where it is no built-in one, the sha256 of the file that it was read from."""

    name: str
    strategy: type
    source_sha256: str | None


def load(name: str) -> Loaded:
    """Find a strategy: `buy_and_hold`, `package.module:Class`, `file.py` or `file.py:Class`. Raises StrategyError.

    Without a class the module must have exactly one with `on_second`.
    """
    if built_in := BUILT_IN.get(name.lower().replace("-", "_")):
        return Loaded(name.lower().replace("-", "_"), built_in, None)
    place, _, wanted = name.partition(":")
    if place.endswith(".py") or os.sep in place:
        module = _of_file(Path(place))
    elif "." in place or wanted:
        module, wanted = _of_path(place, wanted)
    else:
        raise StrategyError(
            f"there is no strategy {name!r}; built in are {', '.join(BUILT_IN)}; "
            "else name a file (my.py, my.py:Class) or an import path (package.module:Class)"
        )
    found = _class_of(module, place, wanted)
    file = inspect.getfile(found) if found.__module__ in sys.modules else module.__file__
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    return Loaded(name, found, digest)


def _of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise StrategyError(f"no such strategy file: {path}")
    # A name of its own, so that a file never hides, or is hidden by, a module that is imported elsewhere.
    name = f"strategy_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StrategyError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there for their annotations
    before = list(sys.path)
    sys.path.insert(0, str(path.resolve().parent))  # its neighbours can be imported
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise StrategyError(f"{path} can't be loaded: {_said(error)}") from error
    finally:
        sys.path[:] = before
    return module


def _of_path(place: str, wanted: str) -> tuple[ModuleType, str]:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place), wanted
    except ModuleNotFoundError as error:
        parent, _, last = place.rpartition(".")
        if wanted or not parent or error.name != place:
            raise StrategyError(f"no module {error.name} (for the strategy {place})") from error
        return _of_path(parent, last)
    except (Exception, SystemExit) as error:
        raise StrategyError(f"{place} can't be imported: {_said(error)}") from error


def _class_of(module: ModuleType, place: str, wanted: str) -> type:
    if wanted:
        found = getattr(module, wanted, None)
        if not isinstance(found, type):
            raise StrategyError(f"{place} has no class {wanted}")
        if not callable(getattr(found, "on_second", None)):
            raise StrategyError(f"{place}: {wanted} has no method on_second(stats, account)")
        return found
    own = [
        one
        for one in vars(module).values()
        if isinstance(one, type) and one.__module__ == module.__name__ and callable(getattr(one, "on_second", None))
    ]
    if len(own) != 1:
        names = ", ".join(one.__name__ for one in own)
        raise StrategyError(
            f"{place} has several strategies ({names}): say which, as {place}:{own[0].__name__}"
            if own
            else f"{place} has no class with a method on_second(stats, account)"
        )
    return own[0]


def _said(error: BaseException) -> str:
    where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
    return f"{type(error).__name__}: {error}{where}"
