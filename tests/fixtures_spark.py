"""Spark for tests: who has it, how a project is told to use it, and when what it says is what DuckDB says.

A test module that imports from here stays in one process with the others: they share one Spark.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from foretell.project import Project
from foretell.settings import Value

# A machine with little to do: one part, and a virtual machine that does not optimise what runs once.
CONF = {
    "spark.sql.shuffle.partitions": "2", "spark.default.parallelism": "2", "spark.sql.adaptive.enabled": "false",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC", "spark.driver.memory": "1g",
}  # fmt: skip

_JAVA = bool(os.environ.get("JAVA_HOME")) or shutil.which("java") is not None
needs_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or not _JAVA, reason="pyspark or Java is not installed"
)


def on_spark(project: Project) -> Project:
    """The same project, told to ask Spark."""
    other = Project(project.folder)
    said = {"engine": "spark", "spark_master": "local[2]", "spark_conf": CONF}
    other.settings.update({name: Value(value, "test") for name, value in said.items()})
    return other


def unlike(names: Sequence[str], made: Iterable[Sequence[Any]], wanted: Iterable[Sequence[Any]]) -> list[Any]:
    """Where rows differ: floats by more than a part in 10⁹, everything else, types too, at all."""
    made, wanted = list(made), list(wanted)
    if len(made) != len(wanted):
        return [f"{len(made)} rows, not {len(wanted)}"]
    return [
        (name, one, other)
        for row, right in zip(made, wanted, strict=True)
        for name, one, other in zip(names, row, right, strict=True)
        if not same(one, other)
    ]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9) or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other
