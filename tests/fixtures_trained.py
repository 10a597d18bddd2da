"""A small shop in the project's own formats, and one project trained on it that several test modules read.

Import the fixture `trained` where it is needed: the project is made once a run and must not be changed. `copy_of` makes
one that may be.
"""

from __future__ import annotations

import atexit
import csv
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from foretell.project import Project

NOW = datetime(2024, 7, 1, tzinfo=UTC)
HISTORY = 500
KEY = "0" * 64
TASKS = ("churn", "clv", "propensity", "lookalike")

SOURCES = {
    "till": """\
from foretell import Source

till = Source(
    name="till", files="till/*.csv", role="order_line", event_at="sold_at", currency="NOK",
    identifiers={"card": "card_no"},
    columns={"order_id": "receipt", "amount": "amount", "quantity": "quantity", "product_id": "sku"},
)
""",
    "web": """\
from foretell import Source

web = Source(
    name="web", files="web/*.jsonl", role="order_line", event_at="at", currency="NOK",
    identifiers={"email": '"user".email'},
    columns={"order_id": "order_id", "amount": "total", "quantity": "1"},
)
""",
    "crm": """\
from foretell import Source

crm = Source(
    name="crm", files="crm/*.csv", kind="records", event_at="registered_at",
    identifiers={"email": "email", "card": "card_no"},
    traits={"first_name": "first_name", "city": "city"},
)
""",
}
SEGMENTS = {
    "leaving": "name: leaving\ndescription: The fifth most likely to leave\nrule: top(churn, 0.2)\n",
    "osloers": "name: osloers\nrule: city = 'Oslo' and orders_365d > 0\n",
}


def write_shop(folder: Path, people: int = 200, damaged: int = 3, seed: int = 7) -> Path:
    """A project folder with exports: tills by quarter, a web shop, and a CRM that links cards to e-mails.

    People buy at a rate of their own (Poisson) until they lose interest (geometric, after each purchase). Half of them
    buy on the web too, under an e-mail that the CRM links to their card some time later. Those who live in Oslo hardly
    ever leave, and come every sixth week, which no baseline can know. `damaged` rows of each kind of file cannot be
    understood.
    """
    rng = np.random.default_rng(seed)
    start = NOW - timedelta(days=HISTORY)
    tills: dict[str, list[list[str]]] = {}
    web, crm = [], []
    for person in range(people):
        city = ("Oslo", "Bergen", "Tromsø")[person % 3]
        rate, dropout = rng.gamma(1.5, 1 / 30), rng.beta(1.0, 99.0 if city == "Oslo" else 9.0)
        now, mean = float(rng.uniform(0, 300)), float(rng.gamma(6, 40))
        card, email = f"4000{person:04d}", f"person{person}@example.org"
        first = now
        while now < HISTORY:
            at = start + timedelta(days=now)
            receipt, paid = f"r{person}-{now:.3f}", f"{rng.gamma(4, mean / 4):.2f}"
            if person % 2 and rng.random() < 0.3:
                row = {"at": at.isoformat(), "order_id": receipt, "total": paid, "user": {"email": email}}
                web.append(json.dumps(row))
            else:
                for line in range(int(rng.integers(1, 4))):
                    row = [receipt, at.strftime("%Y-%m-%d %H:%M:%S"), card, paid, "1", f"sku{rng.integers(40)}-{line}"]
                    tills.setdefault(f"{at:%Y}-q{(at.month + 2) // 3}", []).append(row)
            if rng.random() < dropout:
                break
            now += float(rng.normal(42, 2) if city == "Oslo" else rng.exponential(1 / max(rate, 1e-3)))
        registered = start + timedelta(days=min(first + float(rng.uniform(0, 60)), HISTORY - 1))
        crm.append([registered.strftime("%Y-%m-%d %H:%M:%S"), email if person % 2 else "", card, f"Name{person}", city])
    for i in range(damaged):
        list(tills.values())[i % len(tills)].append([f"bad{i}", "no time", "4000", "1.00", "1", "sku"])
        list(tills.values())[-1].append([f"bad{i}", "2024-01-01", "4000", "a lot", "1", "sku"])
        web.insert(i * 5, f'{{"at": "2024-02-0{i + 1}T10:00:00", "order_id": broken {i}')
        crm.append(["", f"nobody{i}@example.org", "", "Nobody", "Nowhere"])
    exports = folder / "exports"
    for quarter, rows in tills.items():
        _csv(exports / "till" / f"{quarter}.csv", ["receipt", "sold_at", "card_no", "amount", "quantity", "sku"], rows)
    half = len(web) // 2
    for name, lines in (("a", web[:half]), ("b", web[half:])):
        _text(exports / "web" / f"{name}.jsonl", "\n".join(lines) + "\n")
    _csv(exports / "crm" / "people.csv", ["registered_at", "email", "card_no", "first_name", "city"], crm)
    _text(folder / "foretell.toml", f'[foretell]\nas_of = "{NOW.isoformat()}"\ncutoffs = 2\nfolds = 2\nthreads = 1\n')
    for name, text in SOURCES.items():
        _text(folder / "sources" / f"{name}.py", text)
    for name, text in SEGMENTS.items():
        _text(folder / "segments" / f"{name}.yaml", text)
    return folder


def _text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _csv(file: Path, header: list[str], rows: list[list[str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])


def load_all(project: Project) -> None:
    """Load every source; any error is a failure."""
    from ingestion.load import load

    for result in load(project, list(project.definitions.sources)):
        if isinstance(result, Exception):
            raise result


def copy_of(project: Project, folder: Path) -> Project:
    """The same project elsewhere, with the same key, facts and models (whose files stay where they are)."""
    shutil.copytree(project.folder, folder)
    return Project(folder)


@dataclass(frozen=True)
class TrainedShop:
    """A project with trained and scored tasks: what training and scoring said."""

    project: Project
    trained: dict
    scored: list


@cache
def _trained() -> TrainedShop:
    from serving.score import score
    from training.champion import train

    folder = Path(tempfile.mkdtemp(prefix="foretell-trained-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    project = Project(write_shop(folder))
    _text(project.home / "key", KEY)  # another key, another order of the profiles, and perhaps another champion
    load_all(project)
    trained = {name: train(project, name) for name in TASKS}
    return TrainedShop(project, trained, score(project, list(TASKS)))


@pytest.fixture(scope="session")
def trained() -> TrainedShop:
    """The standard tasks trained and scored on the small shop. Shared by several modules: do not change it."""
    return _trained()


@pytest.fixture
def mine(trained: TrainedShop, tmp_path: Path) -> Callable[[], Project]:
    """Makes a copy of the trained project that may be changed."""
    return lambda: copy_of(trained.project, tmp_path / "mine")
