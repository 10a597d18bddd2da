"""Where does the lake lie? In the folder `lake` of the home, or in the bucket that the setting `lake` names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from foretell.project import Project
from lake.bucket import Bucket, parse
from lake.tables import Table

FOLDER = "lake"
CACHE = "cache"  # below it: copies of a bucket's files (lake/held.py), and what is searched
SEARCHED = "searched"


def bucket_of(project: Project) -> Bucket | None:
    """The bucket of a project's lake; None: it lies in the home."""
    return parse(url) if (url := project.setting("lake")) else None


def table(project: Project, name: str) -> Table:
    """A table of the lake: "batches", "quarantine", "scores", or "facts/<source>"."""
    project = project.facts_of if name.startswith("facts/") else project
    return within(project.home, bucket_of(project), name)


def within(home: Path, bucket: Bucket | None, name: str) -> Table:
    """A table of the lake of this home that lies in this bucket, or in its folder."""
    if bucket is None:
        return Table(home / FOLDER / name)
    return Table(_copies(home, bucket) / name, bucket / name)


def names(project: Project) -> list[str]:
    """The Delta tables there are, those of sources that are declared no more among them."""
    return names_within(project.home / FOLDER, bucket_of(project))


def names_within(folder: Path, bucket: Bucket | None) -> list[str]:
    if bucket is None:
        return sorted(str(log.parent.relative_to(folder)) for log in folder.rglob("_delta_log") if log.is_dir())
    return sorted(_names(bucket, ""))


def _names(bucket: Bucket, prefix: str) -> Iterator[str]:
    """Folders with a log; what lies within a table is not looked at."""
    below = bucket.folders(prefix)
    if "_delta_log" in below:
        yield prefix
        return
    for name in below:
        yield from _names(bucket, f"{prefix}/{name}" if prefix else name)


def files_of(tables: Sequence[Table]) -> list[list[str]]:
    """The active files of each table; a bucket is asked for several at once, as each answer takes its time."""
    if not any(stored.at for stored in tables):
        return [stored.files() for stored in tables]
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda stored: stored.files(), tables))


def tidy(project: Project) -> None:
    """Remove all copies but those of the current lake: of one before, and what a search that was killed has left.

    To be called while nothing else of this home is being searched.
    """
    bucket = bucket_of(project)
    kept = _copies(project.home, bucket) if bucket else None
    for folder in (project.home / CACHE).glob("*"):
        if folder != kept:
            shutil.rmtree(folder, ignore_errors=True)
    if kept and kept.is_dir():
        there = {kept / name for name in names(project)}
        for file in [file for file in kept.rglob("*") if file.is_file() and not there.intersection(file.parents)]:
            file.unlink()


def fetched(project: Project) -> Iterator[Path]:
    """Every object of the lake's bucket as a file, one after the other: it is gone when the next is asked for.

    Nothing of a lake that lies in the home. `address` says which object a file was.
    """
    if not (bucket := bucket_of(project)):
        return
    folder = project.home / CACHE / SEARCHED
    try:
        for found in bucket.objects():
            file = folder / found.key
            file.parent.mkdir(parents=True, exist_ok=True)
            bucket.fetch(found.key, file)
            yield file
            file.unlink()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def address(project: Project, file: Path) -> str | None:
    """The address of the object that a file of `fetched` was; None of any other file."""
    folder, bucket = project.home / CACHE / SEARCHED, bucket_of(project)
    return f"{bucket.url}/{file.relative_to(folder)}" if bucket and file.is_relative_to(folder) else None


def _copies(home: Path, bucket: Bucket) -> Path:
    return home / CACHE / sha256(bucket.url.encode()).hexdigest()[:12]
