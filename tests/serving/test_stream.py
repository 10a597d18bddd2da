"""However many threads score, in whatever chunks, the scores and their reasons are the same; and threads keep order."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from fixtures_trained import NOW, TrainedShop, copy_of, trained
from test_score import rows_of

from foretell.project import Project
from models.explain import Reasons
from serving import stream
from serving.contract import STORED, reasons_column
from serving.score import score
from serving.stream import ahead

__all__ = ["trained"]


@pytest.mark.parametrize("most", [0, 1, 3])
def test_what_is_made_ahead_comes_in_order_and_is_no_more_than_was_said(most: int) -> None:
    begun: list[int] = []

    def make(item: int) -> int:
        begun.append(item)
        time.sleep(0.002 * (item % 3))  # later ones may be done earlier
        return item * item

    with ThreadPoolExecutor(2) as pool:
        for taken, made in enumerate(ahead(pool, make, iter(range(20)), most)):
            assert made == taken * taken
            assert len(begun) <= taken + 1 + most
    assert sorted(begun) == list(range(20))


def test_what_fails_ahead_fails_in_its_turn() -> None:
    here = threading.get_ident()

    def make(item: int) -> int:
        assert threading.get_ident() != here
        if item == 2:
            raise ValueError("the third")
        return item

    with ThreadPoolExecutor(2) as pool:
        made = ahead(pool, make, range(9), 3)
        assert [next(made), next(made)] == [0, 1]
        with pytest.raises(ValueError, match="the third"):
            next(made)


def test_a_column_of_reasons_is_null_where_there_are_none() -> None:
    said = Reasons(
        ["a", "b"], np.array([2, 0, 1]), np.array([1, 0, 1]), np.array([3.0, np.nan, np.inf]),
        np.array([0.5, -0.25, 1.0]), np.array(["x", "y", "z"], dtype=object),
    )  # fmt: skip
    model = SimpleNamespace(reasons_in_columns=lambda X: said)
    column = reasons_column(model, np.zeros((3, 2)), np.array([1, 2, 4]), 6)  # pyright: ignore[reportArgumentType]
    assert column.type == STORED.field("reasons").type
    first = {"feature": "b", "value": 3.0, "effect": 0.5, "text": "x"}
    second = {"feature": "a", "value": None, "effect": -0.25, "text": "y"}
    third = {"feature": "b", "value": None, "effect": 1.0, "text": "z"}
    assert column.to_pylist() == [None, [first, second], [], None, [third], None]
    pa.table([column], names=["reasons"]).validate(full=True)


def test_threads_and_chunks_change_no_score(
    trained: TrainedShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutoff, found = NOW - timedelta(days=1), []
    for threads, size in [(1, 1 << 24), (4, 1 << 13)]:
        project = copy_of(trained.project, tmp_path / str(threads))
        file = project.folder / "foretell.toml"
        file.write_text(file.read_text().replace("threads = 1", f"threads = {threads}"))
        project = Project(project.folder)
        assert project.setting("threads") == threads
        monkeypatch.setattr(stream, "CHUNK_BYTES", size)
        score(project, ["churn", "clv"], cutoff, reasons="top:0.3")
        rows = [row for task in ("churn", "clv") for row in rows_of(project, task) if row["cutoff"] == cutoff]
        assert {row["reasons"] is None for row in rows} == {True, False}
        # as text, in which what is unknown equals itself
        found.append([str({name: value for name, value in row.items() if name != "scored_at"}) for row in rows])
    assert len(found[0]) > 100
    assert found[0] == found[1]
