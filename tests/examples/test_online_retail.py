"""The second example: any copy of the file makes the same facts, and the walk goes from a file to a segment."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from examples.online_retail import run as example
from examples.online_retail.generate import generate, sheets, write
from foretell.errors import ForetellError
from foretell.project import Project
from ingestion.load import Loaded, load
from lake.engine import session

FACTS = """SELECT event_at, node, order_id, product_id, quantity, amount, cancelled FROM invoices ORDER BY ALL"""


@pytest.fixture(scope="module")
def lines() -> pd.DataFrame:
    return generate(customers=300, seed=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example without what it has made, in a folder of its own."""
    return Path(shutil.copytree(example.HERE, tmp_path / "shop", ignore=shutil.ignore_patterns(".foretell", "*.pyc")))


def loaded(folder: Path, file: Path) -> tuple[Project, list[Loaded]]:
    project = Project(folder)
    results = []
    for result in load(project, ["invoices"], example.one_sheet_each(file, project.home / "sheets")):
        if isinstance(result, ForetellError):
            raise result
        results.append(result)
    return project, results


def counting(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines that count, by another way than the contract's."""
    cancelled = lines["Invoice"].str.startswith("C")
    product = lines["StockCode"].str[:5].str.isdigit()
    signed = (lines["Quantity"] < 0) == cancelled
    return lines[lines["Customer ID"].notna() & (lines["Price"] > 0) & product & signed & (lines["Quantity"] != 0)]


def older(lines: pd.DataFrame, file: Path) -> None:
    """As a copy of the first data set: one sheet, other names, month first."""
    second = sheets(lines)["Year 2010-2011"]
    named = second.rename(columns={"Invoice": "InvoiceNo", "Price": "UnitPrice", "Customer ID": "CustomerID"})
    times = named["InvoiceDate"].dt
    month_first = times.month.astype(str) + "/" + times.strftime("%d/%Y %H:%M").str.lstrip("0")
    named.assign(InvoiceDate=month_first).astype({"CustomerID": "float"}).to_csv(file, index=False)


def test_the_file_is_of_the_real_shape(lines: pd.DataFrame) -> None:
    kept = counting(lines)
    assert 0.6 < len(kept) / len(lines) < 0.95
    assert kept["Customer ID"].nunique() > 290
    assert lines["Invoice"].str.startswith("C").any()
    assert lines.duplicated().any()
    first, second = sheets(lines).values()
    assert len(first) + len(second) > len(lines) == len(pd.concat([first, second]).index.unique())
    pd.testing.assert_frame_equal(lines, generate(customers=300, seed=1))
    assert not lines.equals(generate(customers=300, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".xlsx", ".csv", ".parquet"])
def test_every_copy_makes_the_same_facts(lines: pd.DataFrame, folder: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"retail{suffix}"
    write(lines, file)
    project, results = loaded(folder, file)
    kept = counting(lines)
    with session(project) as con:
        found = con.execute(FACTS).df()
    assert len(found) == len(kept) == sum(r.added for r in results)
    assert len(results) == (1 if suffix == ".parquet" else 2)
    assert all(not r.quarantined and not r.anonymous for r in results)
    assert set(found["node"]) == {f"customer:{n}" for n in kept["Customer ID"]}
    assert float(found["amount"].sum()) == pytest.approx((kept["Quantity"] * kept["Price"]).sum())
    assert found["cancelled"].sum() == kept["Invoice"].str.startswith("C").sum()
    london = found["event_at"].dt.tz_convert("Europe/London").dt.tz_localize(None)
    assert (london.sort_values().to_numpy() == kept["InvoiceDate"].sort_values().to_numpy()).all()


def test_the_first_data_sets_names_and_times(lines: pd.DataFrame, folder: Path, tmp_path: Path) -> None:
    older(lines, tmp_path / "data.csv")
    project, (result,) = loaded(folder, tmp_path / "data.csv")
    kept = counting(sheets(lines)["Year 2010-2011"])
    assert (result.added, result.quarantined) == (len(kept), 0)
    with session(project) as con:
        days = con.execute("SELECT DISTINCT event_day FROM invoices").df()["event_day"]
    assert set(pd.to_datetime(days)) == set(kept["InvoiceDate"].dt.normalize())


@pytest.mark.slow
def test_walk_from_a_workbook(
    lines: pd.DataFrame, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORETELL_CUTOFFS", "2")
    file = tmp_path / "my retail.xlsx"
    write(lines, file)
    example.walk(file, folder=folder, tasks=("clv",))
    said = capsys.readouterr().out
    parts = [
        "Year 2009-2010: ",
        "Year 2010-2011: ",
        "left out by `only`",
        "Nothing is in quarantine",
        "-> 300 profiles",
    ]
    for text in [*parts, "Champion: ", "best_customers", "slipping_away", "Open next:"]:
        assert text in said
    assert {p.name for p in folder.iterdir()} - {p.name for p in example.HERE.iterdir()} <= {".foretell"}
    write(lines, tmp_path / "retail.csv")
    with pytest.raises(SystemExit):
        example.walk(tmp_path / "retail.csv", folder=folder, tasks=("clv",))
    assert "holds the lines of my retail.xlsx#Year 2009-2010, and the same lines" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        example.walk(tmp_path / "gone.xlsx", folder=folder)
    assert "gone.xlsx: no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_walk_with_all_tasks(lines: pd.DataFrame, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "retail.csv"
    write(lines, file)
    example.walk(file, folder=folder)
    said = capsys.readouterr().out
    assert "retail.csv holds 2 sheets one after the other" in said
    for task in example.TASKS:
        assert re.search(rf"^{task} .* v1 .* (learned|baseline)$", said, flags=re.M), task
    assert "cannot be sized" not in said


@pytest.mark.slow
def test_the_real_file(data_folder: Path, folder: Path) -> None:
    project, (result,) = loaded(folder, data_folder / "online_retail_ii" / "transactions.parquet")
    assert (result.added, result.quarantined, result.anonymous) == (805_828, 0, 0)
    with session(project) as con:
        assert con.execute("SELECT count(DISTINCT node) FROM invoices").fetchall() == [(5_875,)]
