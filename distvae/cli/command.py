"""Commands whose options are the fields of dataclasses instead of a long list of parameters."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, TypeGuard, get_type_hints

import typer

from distvae.cli.errors import errors_reported

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Function = Callable[..., None]


def command(app: typer.Typer) -> Callable[[Function], Function]:
    """Register a function as a command of the same name, whose errors are reported.

    Help lists it in the panel of its app.

    Where a parameter of the function is annotated with a dataclass, the command line has an option
    for each field of that class, and the function receives an instance made of them.
    """

    def register(function: Function) -> Function:
        hints = get_type_hints(function, include_extras=True)
        groups = {name: hint for name, hint in hints.items() if _is_group(hint)}

        @wraps(function)
        def call(**values: object) -> None:
            with errors_reported():  # here, as Typer would end at Ctrl-C without a word
                function(**_grouped(values, groups))

        parameters = list(_parameters(function, hints))
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        vars(call)["__signature__"] = inspect.Signature(parameters)
        words = (function.__doc__ or "").split()
        app.command(help=" ".join(words), rich_help_panel=app.rich_help_panel)(call)
        return function

    return register


def _grouped(
    values: Mapping[str, object], groups: Mapping[str, type["DataclassInstance"]]
) -> dict[str, object]:
    """Put the values that belong to the field of a dataclass into an instance of it."""
    arguments = dict(values)
    for name, group in groups.items():
        arguments[name] = group(
            **{field.name: arguments.pop(field.name) for field in fields(group)}
        )
    return arguments


def _parameters(function: Function, hints: Mapping[str, object]) -> Iterator[inspect.Parameter]:
    """Yield the parameters of the command line, in the order of the function's."""
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if _is_group(hint):
            types = get_type_hints(hint, include_extras=True)
            for field in fields(hint):
                yield _parameter(field.name, _default(field), types[field.name])
        else:
            yield _parameter(parameter.name, parameter.default, hint)


def _is_group(hint: object) -> TypeGuard[type["DataclassInstance"]]:
    return isinstance(hint, type) and is_dataclass(hint)


def _parameter(name: str, default: object, annotation: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _default(field: "Field[object]") -> object:
    return inspect.Parameter.empty if field.default is MISSING else field.default
