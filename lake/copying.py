"""How does a lake move to a bucket? Table by table and file by file; nothing is switched, and run again it goes on.

Data files go first, then the log, commit by commit: whoever looks meanwhile sees no table, or one that lacks files. At
the end the rows of each table are counted in what was copied, read back from the bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from foretell.errors import DataError
from foretell.project import Project
from lake import place
from lake.bucket import Bucket
from lake.tables import Table

LOG = "_delta_log/"


@dataclass(frozen=True)
class Copied:
    """files: of the table and its log. sent: those that were not there yet."""

    table: str
    files: int
    sent: int
    bytes: int
    rows: int


def copy(project: Project, to: Bucket, say: Callable[[str], None] = lambda _: None) -> Iterator[Copied]:
    """Copy every table of the project's lake to a bucket, and verify it. Nobody may write to the lake meanwhile.

    DataError: the project's lake is there already, or the bucket holds tables that are not earlier states of ours.
    """
    if to == place.bucket_of(project):
        raise DataError(f"lake {to.url}", "is where the lake of this project lies already", "name another address")
    ours = place.names(project)
    if strange := sorted(set(place.names_within(Path(), to)) - set(ours)):
        raise _another(to, f"it has the table {strange[0]}, which this lake has not")
    for name in ours:
        yield _copy(name, place.table(project, name), place.within(project.home, to, name), say)


def _copy(name: str, source: Table, target: Table, say: Callable[[str], None]) -> Copied:
    assert target.at
    there = {found.key: found.size for found in target.at.objects()}
    wanted = dict(_contents(source))
    first = min(filter(_is_commit, wanted))
    for key in sorted(key for key in there if _is_commit(key) and key >= first):
        # of another table it may have as many bytes
        if wanted.get(key) != there[key] or _read(source, key) != target.at.read(key):
            raise _another(target.at, f"its {key} is not ours")
    missing = [key for key, size in wanted.items() if there.get(key) != size]
    for number, key in enumerate(missing, 1):
        say(f"{name}: {number:,} of {len(missing):,} files")
        _send(source, target.at, key)
    for key in there.keys() - wanted.keys():  # of an earlier copy, since when a person may have been erased
        target.at.remove(key)
    rows, expected = target.rows(), source.rows()
    if rows != expected:
        raise DataError(target.uri, f"expected {expected:,} rows, got {rows:,}", "remove it there, and copy again")
    return Copied(name, len(wanted), len(missing), sum(wanted.values()), rows)


def _contents(table: Table) -> Iterator[tuple[str, int]]:
    """(key below the table, bytes): active files, then the log in its order; the pointer to a checkpoint is last."""
    yield from ((file.key, file.size) for file in table.active())
    if table.at:
        yield from ((found.key, found.size) for found in table.at.objects("_delta_log"))
        return
    for file in sorted((table.path / LOG).iterdir()):
        if file.is_file() and not file.name.startswith("."):
            yield LOG + file.name, file.stat().st_size


def _is_commit(key: str) -> bool:
    return key.startswith(f"{LOG}0") and key.endswith(".json")


def _send(source: Table, to: Bucket, key: str) -> None:
    if not source.at:
        to.send(source.path / key, key)
        return
    draft = source.path / f".sent-{key.replace('/', '_')}"
    try:
        source.path.mkdir(parents=True, exist_ok=True)
        source.at.fetch(key, draft)
        to.send(draft, key)
    finally:
        draft.unlink(missing_ok=True)


def _read(table: Table, key: str) -> bytes:
    return table.at.read(key) if table.at else (table.path / key).read_bytes()


def _another(bucket: Bucket, why: str) -> DataError:
    return DataError(
        f"lake {bucket.url}", f"expected nothing there, or an earlier copy of this lake: {why}",
        "name an empty prefix, or remove what is there",
    )  # fmt: skip
