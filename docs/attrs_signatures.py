"""Tells griffe, which reads the sources for the reference, how classes made by attrs are called."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import griffe

_DECORATORS = {"attrs.frozen", "attrs.define"}
_KINDS = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
}


class AttrsSignatures(griffe.Extension):
    """Gives each class that attrs makes an `__init__`, as it is at run time."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called for each class that was read."""
        made_by_attrs = any(decorator.callable_path in _DECORATORS for decorator in cls.decorators)
        if not made_by_attrs or "__init__" in cls.members or cls.is_private:
            return
        signature = inspect.signature(getattr(importlib.import_module(cls.module.path), cls.name))
        init = griffe.Function("__init__", lineno=cls.lineno, endlineno=cls.endlineno)
        init.parameters = griffe.Parameters(
            griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword),
            *(self._parameter(cls, parameter) for parameter in signature.parameters.values()),
        )
        cls.set_member("__init__", init)

    @staticmethod
    def _parameter(cls: griffe.Class, parameter: inspect.Parameter) -> griffe.Parameter:
        attribute = cls.members.get(parameter.name)
        annotation = getattr(attribute, "annotation", None)
        if str(annotation) != parameter.annotation:  # what a converter takes
            annotation = parameter.annotation
        has_default = parameter.default is not inspect.Parameter.empty
        default = repr(parameter.default) if has_default else None
        if default is not None and default.startswith("<"):
            default = "..."
        return griffe.Parameter(
            parameter.name, annotation=annotation, kind=_KINDS[parameter.kind], default=default
        )
