"""A project of one source, for tests of loading: write a file, load it, look at what came of it."""

from __future__ import annotations

from pathlib import Path

from foretell import Source
from foretell.discovery import Definitions
from foretell.errors import ForetellError
from foretell.project import Project
from ingestion.load import Loaded, load
from lake.engine import session


def project(folder: Path, *sources: Source) -> Project:
    """A project with these sources and no file that declares them."""
    (folder / "exports").mkdir(parents=True, exist_ok=True)
    (folder / "foretell.toml").write_text("[foretell]\n")
    made = Project(folder)
    made.__dict__["definitions"] = Definitions({s.name: s for s in sources}, {}, {})
    return made


def sales(**changes) -> Source:
    """Order lines in CSV files: at, order, amount, email."""
    fields = {
        "name": "sales", "files": "*.csv", "role": "order_line", "event_at": "at", "identifiers": {"email": "email"},
        "columns": {"order_id": "order_no", "amount": "amount"},
    }  # fmt: skip
    return Source(**{**fields, **changes})


HEADER = "at,order_no,amount,email\n"


def line(n: int = 1, at: str = "2024-03-05 10:00:00", amount: str = "9.90", email: str = "ann@example.org") -> str:
    return f"{at},{n},{amount},{email}\n"


def write(made: Project, name: str, content: str | bytes) -> Path:
    file = made.exports / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def loaded(made: Project) -> list[Loaded | ForetellError]:
    return list(load(made, list(made.definitions.sources)))


def ask(made: Project, query: str) -> list[tuple]:
    with session(made) as con:
        return con.execute(query).fetchall()


def quarantined(made: Project) -> list[tuple[str, int, str]]:
    """file, line and reason of every row in quarantine."""
    return ask(made, "SELECT file, line, reason FROM quarantine ORDER BY ALL")
