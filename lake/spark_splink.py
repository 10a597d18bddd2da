"""How does a Splink model that was made on DuckDB run on Spark? The same levels and weights, in Spark's words.

A saved model holds its conditions as SQL of the engine it was made on, and Splink hands them on as they are: on Spark
"email_l" in double quotes is a text, not a column. What likens texts comes with Splink, as a jar for Spark's own
machine; lake.spark loads it when Spark begins, as it cannot be added later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlglot
from sqlglot import exp

from foretell.errors import DefinitionError, NotReady
from foretell.project import Project
from lake.spark import spark_session

_LIKENESS = {  # as DuckDB calls them -> as Splink's jar does
    "jaro_winkler_similarity": "jaro_winkler", "jaro_similarity": "jaro_sim",
    "damerau_levenshtein": "damerau_levenshtein", "levenshtein": "levenshtein", "jaccard": "jaccard",
}  # fmt: skip


def splink_api(project: Project) -> Any:
    """Splink's backend on this process' Spark, for `Linker(api.register(table), spark_model(model))`.

    A NotReady without pyspark, Java or Splink.
    """
    session = spark_session(project)
    try:
        from splink import SparkAPI
    except ImportError:
        raise NotReady("matching on Spark", "splink is not installed", "pip install foretell") from None
    return SparkAPI(spark_session=session.newSession(), break_lineage_method="parquet")


def spark_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model or its settings as Splink saves them (`save_model_to_json`), made on DuckDB, for Spark.

    A DefinitionError of a condition that says what is not known to mean the same there.
    """
    return {key: _said(key, value) for key, value in model.items()}


def _said(key: str, value: Any) -> Any:
    if key == "sql_dialect":
        return "spark"
    if key in ("sql_condition", "blocking_rule") and isinstance(value, str) and value.strip().upper() != "ELSE":
        return _condition(value)
    if isinstance(value, Mapping):
        return spark_model(value)
    return [_said(key, one) for one in value] if isinstance(value, list) else value


def _condition(text: str) -> str:
    tree = sqlglot.parse_one(text, dialect="duckdb")
    for call in list(tree.find_all(exp.Func)):
        name = call.sql("duckdb").partition("(")[0].lower()
        parts = call.expressions if isinstance(call, exp.Anonymous) else [call.this, call.expression]
        if name in _LIKENESS:
            call.replace(exp.Anonymous(this=_LIKENESS[name], expressions=[part.copy() for part in parts]))
        elif not isinstance(call, _PLAIN):
            raise DefinitionError(
                "matching on Spark", f"expected one of {', '.join(_LIKENESS)}, got {call.sql('duckdb')}",
                "leave it out of the comparison, or match on DuckDB",
            )  # fmt: skip
    return tree.sql(dialect="spark")


_PLAIN = (  # functions by sqlglot's book-keeping, and the same in both
    exp.And, exp.Or, exp.Coalesce, exp.Nullif, exp.Lower, exp.Upper, exp.Substring, exp.Length, exp.Abs, exp.Case,
    exp.If, exp.Cast,
)  # fmt: skip
