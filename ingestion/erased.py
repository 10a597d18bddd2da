"""What do we hold, or get, of people who have been erased? Their facts removed, their past kept out when loaded again.

A row belongs to the person of its strongest identifier. Where an identifier of an erased person stands in a row of
somebody else, as after a wrong link was undone, that row stays and the identifier is blanked. An identifier that many
others use too, a device at a counter, is nobody's: it stays.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb

from foretell.declarations import Source
from foretell.project import Project
from ingestion.normalise import plain
from lake.catalogue import tables
from lake.engine import connect, instant, table
from lake.erasure import Person, digest, mine, tombstones

BLANK = "[erased]"
# In rows of how many other profiles an identifier must stand to be nobody's.
SHARED = 3
_FIELDS = re.compile(r"""[^,;|"'\t\r\n{}\[\]<>=]+""")
_WORDS = re.compile(r"""[^\s,;|"'{}\[\]<>()=]+""")
LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".torn")


class Mentions:
    """Finds the identifiers of erased people in text, however they are spelt, by their digests."""

    def __init__(self, key: str, kinds: Iterable[str], digests: Iterable[str]):
        self._key, self._kinds, self._digests = key, sorted(set(kinds)), frozenset(digests)
        self._known: dict[str, bool] = {}

    def find(self, text: str | None) -> list[str]:
        """The pieces of a text that spell one of these identifiers, the longest first."""
        if not text or not self._digests:
            return []
        pieces = {m[0].strip() for pattern in (_FIELDS, _WORDS) for m in pattern.finditer(text)}
        # the value after a colon: key:value in a log, or JSON's
        pieces |= {piece.split(":", 1)[1].strip() for piece in pieces if ":" in piece}
        pieces |= {piece.rstrip(".!?:") for piece in pieces}
        found = sorted(filter(self._is_theirs, pieces), key=lambda piece: (-len(piece), piece))
        # a phone number is one with words around it too: what is around stays
        return [piece for piece in found if not any(other != piece and other in piece for other in found)]

    def blank(self, text: str | None) -> str | None:
        """The text without them."""
        for piece in self.find(text):
            text = (text or "").replace(piece, BLANK)
        return text

    def _is_theirs(self, piece: str) -> bool:
        if not piece or len(piece) > 320:
            return False
        if piece not in self._known:
            normal = ((kind, plain(kind, piece)) for kind in self._kinds)
            self._known[piece] = any(
                value is not None and digest(self._key, f"{kind}:{value}") in self._digests for kind, value in normal
            )
        return self._known[piece]


def kinds_of(project: Project) -> set[str]:
    """Every type of identifier that is declared, or that some table of facts has."""
    found = {kind for source in project.definitions.sources.values() for kind in source.identifiers}
    for name in _fact_tables(project):
        found |= {column.removeprefix("id_") for column in _id_columns(project, name)}
    return found


def leave_out(con: duckdb.DuckDBPyConnection, project: Project, source: Source) -> int:
    """Drop from `stamped` the rows that an erasure keeps out: of the person, and not dated after it.

    A record without a time of its own may be as old as any: it stays out. Returns how many rows were dropped.
    """
    known = tombstones(project)
    if not known or not source.identifiers:
        return 0
    values = {kind: f"'{kind}:' || \"id_{kind}\"" for kind in source.identifiers}
    listed = " UNION ".join(f"SELECT {node} AS node FROM stamped" for node in values.values())
    nodes = [node for (node,) in con.execute(listed).fetchall() if node is not None]
    hits = [(node, found[0]) for node in nodes if (found := known.get(digest(project.key, node)))]
    if not hits:
        return 0
    con.execute(
        """CREATE OR REPLACE TEMP TABLE erased AS
           SELECT unnest(?::VARCHAR[]) AS node, unnest(?::TIMESTAMPTZ[]) AS before""",
        [[node for node, _ in hits], [before for _, before in hits]],
    )
    theirs = " OR ".join(f"e.node = {value}" for value in values.values())
    before = "coalesce(event_at < e.before, true)" if source.event_at else "true"
    dropped = con.execute(f"DELETE FROM stamped WHERE EXISTS (SELECT 1 FROM erased e WHERE {before} AND ({theirs}))")
    return int(dropped.fetchall()[0][0])


def mentions(project: Project) -> Mentions | None:
    """For text that could not be read as rows; None as long as nobody was erased."""
    known = tombstones(project)
    return Mentions(project.key, kinds_of(project), known) if known else None


def forget(project: Project, person: Person) -> dict[str, int]:
    """Remove a person's facts and quarantined rows, and blank their identifiers in rows of others. What -> rows."""
    finder = Mentions(person.key, kinds_of(project), person.digests)
    gone: dict[str, int] = {}
    for name in _fact_tables(project):
        gone[name], blanked = _forget_facts(project, name, person, finder)
        if blanked:
            gone[f"{name}, blanked in rows of others"] = blanked
        table(project, name).vacuum()
    stored = table(project, "quarantine")
    if files := stored.files():
        con = connect(project)
        try:
            rows = con.execute(f"SELECT quarantine_id, raw, reason FROM {stored.scan(files)}").fetchall()
            mine(con, "mentioned", [row for row, *texts in rows if any(map(finder.find, texts))])
            theirs = "quarantine_id IN (SELECT value FROM mentioned)"
            gone["quarantine"] = stored.rewrite(con, theirs, why="erase")
        finally:
            con.close()
        stored.vacuum()
    return gone


def _forget_facts(project: Project, name: str, person: Person, finder: Mentions) -> tuple[int, int]:
    """(rows removed, rows of others in which identifiers were blanked) of one source's facts."""
    stored, columns = table(project, name), _id_columns(project, name)
    if not (files := stored.files()):
        return 0, 0
    con = connect(project)
    try:
        scan = stored.scan(files)
        own = [n for (n,) in con.execute(f"SELECT DISTINCT node FROM {scan}").fetchall()]
        mine(con, "own", person.nodes_among(own))
        theirs = []
        for column in columns:
            node = f"'{column.removeprefix('id_')}:' || t.\"{column}\""
            values = [v for (v,) in con.execute(f"SELECT DISTINCT {node} FROM {scan} t").fetchall()]
            mine(con, f"own_{column}", person.nodes_among(values))
            theirs.append(f"{node} IN (SELECT value FROM own_{column})")
        early = f"t.event_at < {instant(person.before)}"
        gone = f"coalesce(t.node IN (SELECT value FROM own) AND {early}, false)"
        others = f"({' OR '.join(theirs) or 'false'}) AND t.node NOT IN (SELECT value FROM own) AND {early}"
        strange = f"coalesce({others}, false)"
        blanked = _blanked(con, scan, strange, finder)
        if not blanked:
            return stored.rewrite(con, gone, why="erase"), 0
        new = {
            column: f'CASE WHEN {test} THEN NULL ELSE t."{column}" END'
            for column, test in zip(columns, theirs, strict=True)
        }
        for column in blanked:
            new[column] = f'(SELECT b."{column}" FROM blanked b WHERE b.fact_id = t.fact_id)'
        count = int(con.execute("SELECT count(*) FROM blanked").fetchall()[0][0])
        return stored.rewrite(con, gone, changed=strange, columns=new, why="erase"), count
    finally:
        con.close()


def _blanked(con: duckdb.DuckDBPyConnection, scan: str, strange: str, finder: Mentions) -> list[str]:
    """Make the table `blanked`: the texts of others' rows without the identifiers. Its columns; none without rows."""
    shape = con.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()
    texts = [n for n, kind, *_ in shape if kind == "VARCHAR" and n not in ("fact_id", "node") and n[:3] != "id_"]
    listed = ", ".join(f't."{name}"' for name in texts)
    rows = con.execute(f"SELECT t.fact_id, {listed} FROM (SELECT * FROM {scan}) t WHERE {strange}").fetchall()
    if not rows:
        return []
    made = [[row[0], *map(finder.blank, row[1:])] for row in rows]
    columns = ", ".join(f'unnest(?::VARCHAR[]) AS "{name}"' for name in ["fact_id", *texts])
    con.execute(f"CREATE TEMP TABLE blanked AS SELECT {columns}", [list(values) for values in zip(*made, strict=True)])
    return texts


def shared(con: duckdb.DuckDBPyConnection, project: Project, nodes: Iterable[str]) -> set[str]:
    """Those of a person's identifiers that stand in rows of many other profiles: they are nobody's. Needs `member`."""
    mine(con, "asked", nodes)
    parts = []
    for name in _fact_tables(project):
        scan = table(project, name).scan()
        for column in _id_columns(project, name):
            value = f"'{column.removeprefix('id_')}:' || \"{column}\""
            parts.append(f"SELECT {value} AS value, node FROM {scan} WHERE {value} IN (SELECT value FROM asked)")
    if not parts:
        return set()
    query = f"""SELECT r.value FROM ({" UNION ".join(parts)}) r JOIN member m ON m.node = r.node AND m.known_to IS NULL
        WHERE r.node NOT IN (SELECT value FROM asked) GROUP BY 1 HAVING count(DISTINCT m.profile_id) >= {SHARED}"""
    return {value for (value,) in con.execute(query).fetchall()}


def forget_files(project: Project, person: Person) -> dict[str, int]:
    """Remove a person from files that came in below the home: what was pulled, and collected lines. Folder -> how many.

    What was pulled is scratch, and goes whole. A collected file is replaced at once; one of another kind is left, and
    is searched like all others when the erasure is verified.
    """
    finder = Mentions(person.key, kinds_of(project), person.digests)
    landed = [file for file in (project.home / "landing").rglob("*") if file.is_file()]
    shutil.rmtree(project.home / "landing", ignore_errors=True)
    collected = sorted((project.home / "collected").rglob("*"))
    lines = sum(_forget_lines(f, finder) for f in collected if f.is_file() and f.name.endswith(LINES))
    return {"landing": len(landed), "collected": lines}


def _forget_lines(file: Path, finder: Mentions) -> int:
    lines = list(_lines(file))
    kept = [line for line in lines if not finder.find(_plain_text(line))]
    if len(kept) < len(lines):
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        data = "".join(kept).encode("utf-8", "surrogateescape")
        draft.write_bytes(gzip.compress(data) if file.name.endswith(".gz") else data)
        os.replace(draft, file)
    return len(lines) - len(kept)


def _lines(file: Path) -> Iterator[str]:
    opener = gzip.open if file.name.endswith(".gz") else open
    with opener(file, "rb") as stream:
        for line in stream:
            yield line.decode("utf-8", "surrogateescape")


def _plain_text(line: str) -> str:
    """A JSON line with its escapes resolved; any other line as it is."""
    try:
        return json.dumps(json.loads(line), ensure_ascii=False)
    except ValueError:
        return line


def _fact_tables(project: Project) -> list[str]:
    return [name for name in tables(project) if name.startswith("facts/")]


def _id_columns(project: Project, name: str) -> list[str]:
    if not (files := table(project, name).files()):
        return []
    shape: list[Any] = duckdb.execute(f"DESCRIBE SELECT * FROM {table(project, name).scan(files)}").fetchall()
    return [column for column, *_ in shape if column.startswith("id_")]
