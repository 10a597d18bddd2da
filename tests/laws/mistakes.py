"""The product as it would be if somebody had written a line of it otherwise: a function's text edited, or replaced."""

from __future__ import annotations
import __future__

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest

ROOMS = frozenset({
    "foretell", "lake", "ingestion", "unification", "features", "segments", "models", "training", "serving",
})  # fmt: skip


class Edit:
    """A function of the product in whose text `said` becomes `instead`, wherever it is."""

    def __init__(self, function: Any, said: str, instead: str):
        self.function, self.said, self.instead = function, said, instead


class Swap:
    """A function of the product, and the one that somebody wrote in its place."""

    def __init__(self, function: Any, by: Any):
        self.function, self.by = function, by


class Mistake:
    """Changes of the product that are one mistake. name: a few words, for the names of tests."""

    def __init__(self, name: str, *changes: Edit | Swap):
        self.name, self.changes = name, changes

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    __repr__ = __str__

    @contextmanager
    def made(self) -> Iterator[None]:
        """Make it for a while, in every module that has one of the functions."""
        edits: dict[Any, list[Edit]] = {}
        with pytest.MonkeyPatch.context() as patch:
            for change in self.changes:
                if isinstance(change, Swap):
                    _put(patch, change.function, change.by)
                else:
                    edits.setdefault(change.function, []).append(change)
            for function, of_it in edits.items():
                _put(patch, function, _rewritten(function, of_it))
            yield


def making(mistake: Mistake | None) -> AbstractContextManager[None]:
    """Make a mistake for a while, or none."""
    return mistake.made() if mistake else nullcontext()


def _rewritten(function: Any, edits: list[Edit]) -> Callable:
    text = inspect.getsource(function)
    for edit in edits:
        assert edit.said in text, f"{function.__module__}.{function.__name__} does not say {edit.said!r} any more"
        text = text.replace(edit.said, edit.instead)
    flags, made = __future__.annotations.compiler_flag, {}
    exec(compile(text, f"<{function.__name__}, edited>", "exec", flags, dont_inherit=True), function.__globals__, made)
    return made[function.__name__]


def _put(patch: pytest.MonkeyPatch, function: Any, by: Any) -> None:
    modules = [module for name, module in list(sys.modules.items()) if name.split(".")[0] in ROOMS]
    places = [(module, name) for module in modules for name, value in vars(module).items() if value is function]
    assert places, f"{function.__name__} is in no module"
    for module, name in places:
        patch.setattr(module, name, by)
