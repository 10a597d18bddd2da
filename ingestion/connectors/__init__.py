"""How do rows of other systems come in? They are pulled into Parquet files below the home, which then load as files do.

A pull lands all it can get before anything is loaded: the other system is done with soon, and what was landed whole
stays loaded when it goes away midway. Landed files are scratch: a killed pull is repaired by pulling again, from the
watermark in the ledger.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

from foretell.connectors import SQL
from foretell.declarations import Source
from foretell.project import Project
from ingestion.connectors.landing import Piece

__all__ = ["Piece", "pull"]


def pull(project: Project, source: Source, since: str | None, say: Callable[[str], None]) -> Iterator[Piece]:
    """Land what the source's system has: everything, or what is new since the watermark (JSON text).

    Raises ForetellError when it cannot go on; pieces given before that are whole.
    """
    connector, folder = source.connector, project.home / "landing" / source.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if isinstance(connector, SQL):
        from ingestion.connectors.sql import pull as read
    else:
        from ingestion.connectors.rest import pull as read
    yield from read(project, source, since, folder, say)
