"""Tells griffe, which reads the sources for the reference, what only shows when the program runs."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

_DECORATORS = {"attrs.frozen", "attrs.define"}
_KINDS = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
}
_PRIVATE_CONSTANT = re.compile(r"_[A-Z_]+")


class Signatures(griffe.Extension):
    """Gives each class made by attrs its `__init__`, and each default that has a private name its value."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called for each class that was read."""
        made_by_attrs = any(decorator.callable_path in _DECORATORS for decorator in cls.decorators)
        if not made_by_attrs or "__init__" in cls.members or cls.is_private:
            return
        signature = inspect.signature(_at_run_time(cls.module.path, cls.name))
        init = griffe.Function("__init__", lineno=cls.lineno, endlineno=cls.endlineno)
        init.parameters = griffe.Parameters(
            griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword),
            *(_parameter(cls.members.get(name), parameter) for name, parameter in signature.parameters.items()),
        )
        cls.set_member("__init__", init)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Called for each function that was read."""
        for parameter in func.parameters:
            if _PRIVATE_CONSTANT.fullmatch(str(parameter.default)):
                parameter.default = repr(_at_run_time(func.module.path, str(parameter.default)))


def _at_run_time(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _parameter(attribute: Any, parameter: inspect.Parameter) -> griffe.Parameter:
    annotation = getattr(attribute, "annotation", None)
    if str(annotation) != parameter.annotation:  # what a converter takes
        annotation = parameter.annotation
    default = None if parameter.default is inspect.Parameter.empty else repr(parameter.default)
    if default is not None and default.startswith("<"):
        default = "..."
    return griffe.Parameter(parameter.name, annotation=annotation, kind=_KINDS[parameter.kind], default=default)
