"""A strategy's parameters: its class's annotated attributes and its `__init__`'s arguments, read from text."""

import inspect
import types
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, MutableSet
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from flows.backtest.errors import ParamError, StrategyError

REQUIRED = inspect.Parameter.empty
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter; `default` is REQUIRED where it has none."""

    name: str
    type: Any
    default: Any

    def read(self, text: str) -> Any:
        """Its value from text. Raises ParamError."""
        if self.default is None and text.strip().lower() == "none":
            return None
        try:
            return _read(self.type, text.strip())
        except (ValueError, InvalidOperation) as error:
            raise ParamError(f"{self.name}={text}: not {_named(self.type)}") from error

    def of_default(self) -> Any:
        """The default, its numbers in the declared type. Raises ParamError."""
        try:
            return _typed(self.type, self.default)
        except (ValueError, InvalidOperation) as error:
            raise ParamError(f"{self.name}: its default {self.default} is not {_named(self.type)}") from error


def parameters(strategy: type) -> dict[str, Param]:
    """Every parameter of a strategy's class, in the order of their writing. Raises StrategyError."""
    try:
        hints, of_init = get_type_hints(strategy), _init_hints(strategy)
    except NameError as error:
        raise StrategyError(f"{strategy.__name__}: an annotation can't be read: {error}") from error
    found = {
        name: Param(name, hint, getattr(strategy, name, REQUIRED))
        for name, hint in hints.items()
        if not name.startswith("_") and get_origin(hint) is not ClassVar and hint is not ClassVar
    }
    for name, argument in _init_arguments(strategy).items():
        default = argument.default
        if default is REQUIRED and name in found:
            default = found[name].default
        hint = of_init.get(name, hints.get(name, str if default is REQUIRED else type(default)))
        found[name] = Param(name, hint, default)
    for param in found.values():
        if not _is_readable(param.type):
            raise StrategyError(f"{strategy.__name__}.{param.name}: no parameter can be {_named(param.type)}")
    return found


def read_params(strategy: type, given: Mapping[str, str]) -> dict[str, Any]:
    """The value of every parameter: what is given, or its default. Raises ParamError."""
    known = parameters(strategy)
    for name in given:
        if name not in known:
            there = f"; it has {', '.join(known)}" if known else ""
            raise ParamError(f"{strategy.__name__} has no parameter {name}{there}")
    values = {name: param.read(given[name]) if name in given else param.of_default() for name, param in known.items()}
    if missing := [name for name, value in values.items() if value is REQUIRED]:
        raise ParamError(f"{strategy.__name__} needs --param {missing[0]}=… ({_named(known[missing[0]].type)})")
    return values


def build(strategy: type, values: Mapping[str, Any]) -> Any:
    """An instance: its attributes are set, then its `__init__` is called with what it takes of the values.

    Lists and the like that stand in the class are copied for it: a sweep's runs go side by side, and share nothing.
    """
    arguments = _init_arguments(strategy)
    new: Any = strategy.__new__
    instance = new(strategy)
    values = deepcopy(dict(values))
    if hasattr(instance, "__dict__"):
        vars(instance).update(_class_state(strategy))
    for name, value in values.items():
        if name not in arguments:
            setattr(instance, name, value)
    instance.__init__(**{name: values[name] for name in arguments})
    return instance


def as_text(value: Any) -> str:
    """A value as `read` takes it, for tables and results."""
    if isinstance(value, tuple | list):
        return ",".join(map(as_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        return f"{value:f}"
    return "none" if value is None else str(value)


def as_json(value: Any) -> Any:
    """A value for the results: numbers that JSON has as they are, Decimals as strings."""
    if isinstance(value, tuple | list):
        return [as_json(one) for one in value]
    return f"{value:f}" if isinstance(value, Decimal) else value


def _class_state(strategy: type) -> dict[str, Any]:
    state = {name: value for base in reversed(strategy.__mro__) for name, value in vars(base).items()}
    kinds = (MutableSequence, MutableMapping, MutableSet)
    return {n: deepcopy(v) for n, v in state.items() if isinstance(v, kinds) and not n.startswith("__")}


def _init_arguments(strategy: type) -> dict[str, inspect.Parameter]:
    if strategy.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    arguments = list(inspect.signature(strategy.__init__).parameters.items())[1:]  # type: ignore[misc]
    return {name: one for name, one in arguments if one.kind not in kinds}


def _init_hints(strategy: type) -> dict[str, Any]:
    return {} if strategy.__init__ is object.__init__ else get_type_hints(strategy.__init__)  # type: ignore[misc]


def _flag(text: str) -> bool:
    if text.lower() not in WORDS:
        raise ValueError(text)
    return WORDS[text.lower()]


def _finite(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite():
        raise ValueError(text)
    return value


def _finite_float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(text)
    return value


READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    int: (int, "a whole number"),
    float: (_finite_float, "a number"),
    Decimal: (_finite, "a decimal"),
    bool: (_flag, "true or false"),
    str: (str, "text"),
}


def _choices(wanted: Any) -> list[Any] | None:
    """The types of `A | B`; None for anything else."""
    return list(get_args(wanted)) if get_origin(wanted) in (Union, types.UnionType) else None


def _is_list(wanted: Any) -> bool:
    arguments = get_args(wanted)
    return (get_origin(wanted) is list and len(arguments) == 1) or (
        get_origin(wanted) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis
    )


def _is_readable(wanted: Any) -> bool:
    if (choices := _choices(wanted)) is not None:
        return all(choice is type(None) or _is_readable(choice) for choice in choices)
    if get_origin(wanted) is Literal:
        return all(type(one) in READERS for one in get_args(wanted))
    return _is_readable(get_args(wanted)[0]) if _is_list(wanted) else wanted in READERS


def _read(wanted: Any, text: str) -> Any:
    if (choices := _choices(wanted)) is not None:
        if type(None) in choices and text.lower() == "none":
            return None
        return _first(text, [choice for choice in choices if choice is not type(None)])
    if get_origin(wanted) is Literal:
        for one in get_args(wanted):
            if text == as_text(one):
                return one
        raise ValueError(text)
    if _is_list(wanted):
        return get_origin(wanted)(_read(get_args(wanted)[0], part.strip()) for part in text.split(",") if part.strip())
    return READERS[wanted][0](text)


def _typed(wanted: Any, value: Any) -> Any:
    if _is_list(wanted) and isinstance(value, list | tuple):
        return get_origin(wanted)(_typed(get_args(wanted)[0], one) for one in value)
    return _read(wanted, as_text(value)) if isinstance(value, int | float | Decimal) else value


def _first(text: str, choices: list[Any]) -> Any:
    for choice in choices:
        try:
            return _read(choice, text)
        except (ValueError, InvalidOperation):
            continue
    raise ValueError(text)


def _named(wanted: Any) -> str:
    if (choices := _choices(wanted)) is not None:
        return " or ".join("none" if choice is type(None) else _named(choice) for choice in choices)
    if get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(as_text, get_args(wanted)))
    if _is_list(wanted):
        return f"a list of {_named(get_args(wanted)[0])}"
    return READERS[wanted][1] if wanted in READERS else f"a {getattr(wanted, '__name__', wanted)}"
