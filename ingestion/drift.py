"""Did a source's columns change since it was last loaded? Columns that are new, gone, or of another kind, in words.

Nothing is lost by a change: a row's payload keeps whatever came. What the contract reads must be there.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from foretell.declarations import Source
from foretell.errors import UnknownName
from ingestion.files import Raw

_SAMPLE = 10_000  # rows that say of which kind a column is
_WIDE = 500
_WORDS = {
    "integer": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    "number": ("FLOAT", "DOUBLE", "DECIMAL"),
    "true/false": ("BOOLEAN",),
    "time": ("TIMESTAMP", "DATE"),
    "nested": ("STRUCT", "MAP", "OBJECT", "ARRAY"),
}
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words}
# Before a kind in the ledger: the column was not in the last rows; it comes and goes, of which no word is said.
_GONE, _LOOSE = "-", "?"


def drift(
    con: duckdb.DuckDBPyConnection, raw: Raw, before: Mapping[str, str], source: Source
) -> tuple[list[str], dict[str, str]]:
    """What changed, in words, and the columns with their kinds as they are to be remembered. Compares table `raw`."""
    now, read = kinds(con, raw), _read_by(source)
    if not before:
        return [], {column: kind or "" for column, kind in now.items()}
    changes, kept = [], dict(before)
    for column, kind in now.items():
        if column not in before:
            changes.append(
                f"column {column} is new" + ("" if column in read else ": not in the contract, kept in the row")
            )
            kept[column] = kind or ""
            continue
        mark, was = before[column][:1], before[column].lstrip(_GONE + _LOOSE)
        if kind and was and not _fits(kind, was):
            changes.append(f"column {column} was {was}, is {kind}")
            was = kind
        elif kind and (not was or (was, kind) == ("integer", "number")):
            was = kind
        kept[column] = (_LOOSE if mark in {_GONE, _LOOSE} else "") + was
    for column in before.keys() - now.keys():
        if before[column][:1] in {_GONE, _LOOSE}:
            continue
        if raw.columns is not None or column in read:  # a JSON row may lack any key
            changes.append(f"column {column} is gone" + (", which the contract reads" if column in read else ""))
            kept[column] = _GONE + before[column]
    return sorted(changes), kept


def _fits(kind: str, was: str) -> bool:
    return kind == was or was == "text" or {kind, was} == {"integer", "number"}


def with_news(error: UnknownName, changes: list[str]) -> UnknownName:
    """An error about a missing column that says what else changed."""
    if not changes:
        return error
    problem = f"{error.problem} ({'; '.join(changes)})"
    fix = error.fix + "; or mend the contract: aliases={…} for a new name, optional=(…) if rows may lack it"
    return UnknownName(error.subject, problem, fix, where=error.where)


def kinds(con: duckdb.DuckDBPyConnection, raw: Raw) -> dict[str, str | None]:
    """Column (or top-level key) -> its kind; None where no row has a value."""
    if raw.columns is None:
        return _of_json(con)
    if not raw.columns:
        return {}
    as_text = all(kind == "VARCHAR" for kind in raw.columns.values())  # a format that knows nothing but text
    found: dict[str, str | None] = {}
    if as_text and len(raw.columns) > _WIDE:
        return dict.fromkeys(raw.columns) | _of_wide(con, len(raw.columns))
    asked = ", ".join(_question(column, as_text) for column in raw.columns)
    (answer,) = con.execute(f"SELECT {asked} FROM (SELECT * FROM raw LIMIT {_SAMPLE})").fetchall()
    for (column, kind), said in zip(raw.columns.items(), answer, strict=True):
        found[column] = said if said is None or as_text else _KINDS.get(kind.split("(")[0].split(" ")[0], "text")
    return found


def _of_wide(con: duckdb.DuckDBPyConnection, columns: int) -> dict[str, str | None]:
    """The same of very many columns of text, where a query that names each would take minutes to be understood."""
    rows = max(1, 1_000_000 // columns)
    value = "nullif(trim(e.value->>'$'), '')"
    return dict(
        con.execute(
            f"""SELECT e.key, {_kind_of(value)} FROM (SELECT _payload FROM raw LIMIT {rows}), json_each(_payload) e
                GROUP BY 1"""
        ).fetchall()
    )


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _question(column: str, as_text: bool) -> str:
    name = _quoted(column)
    return _kind_of(f"nullif(trim({name}), '')") if as_text else f"CASE WHEN count({name}) > 0 THEN 'some' END"


def _kind_of(value: str) -> str:
    """SQL aggregate: the kind that all of these texts have."""

    def all_are(kind: str) -> str:
        return f"count(*) FILTER ({value} IS NOT NULL AND TRY_CAST({value} AS {kind}) IS NULL) = 0"

    return (
        f"CASE WHEN count({value}) = 0 THEN NULL WHEN {all_are('BIGINT')} THEN 'integer' "
        f"WHEN {all_are('DOUBLE')} THEN 'number' WHEN {all_are('TIMESTAMP')} THEN 'time' "
        f"WHEN bool_and(coalesce(lower({value}) IN ('true', 'false'), true)) THEN 'true/false' ELSE 'text' END"
    )


def _of_json(con: duckdb.DuckDBPyConnection) -> dict[str, str | None]:
    keys = con.execute("SELECT DISTINCT unnest(json_keys(_payload)) AS key FROM raw ORDER BY key").fetchall()
    found: dict[str, str | None] = dict.fromkeys((key for (key,) in keys), None)
    rows = con.execute(
        f"""SELECT e.key, list(DISTINCT e.type) FROM (SELECT _payload FROM raw LIMIT {_SAMPLE}), json_each(_payload) e
            WHERE e.type <> 'NULL' GROUP BY 1"""
    ).fetchall()
    for key, types in rows:
        said = {_KINDS.get(kind, "text") for kind in types}
        found[key] = "number" if said == {"integer", "number"} else said.pop() if len(said) == 1 else "text"
    return found


def _read_by(source: Source) -> set[str]:
    """The columns that a contract reads, under any of their names."""
    texts = [*source.columns.values(), *source.identifiers.values(), *source.traits.values()]
    texts += [text for text in (source.event_at, source.known_at, source.only) if text]
    found = set(texts)
    for text in texts:
        try:
            found |= {c.parts[0].name for c in sqlglot.parse_one(text, dialect="duckdb").find_all(exp.Column)}
        except SqlglotError:
            continue
    return found | {name for column in found for name in source.aliases.get(column, ())}
