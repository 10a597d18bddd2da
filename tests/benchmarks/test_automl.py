"""Does the comparison with AutoML tools ask them what it asks our recipe, go on where it stopped, and say so?"""

from __future__ import annotations

import json
import re
import tempfile
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import __main__ as every
from benchmarks import _automl_peer, automl, automl_peers, presets, report
from benchmarks.automl_peers import Place
from benchmarks.sdks import Missing
from benchmarks.shop import Asked
from foretell.errors import DataError

T = datetime(2011, 6, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Nothing that another run has done is found, and nothing is left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def fake(peer, folder):
    """A peer that learned one thing: how the first feature and the outcome go together."""
    job = json.loads((folder / "job.json").read_text())
    learn, asked = pd.read_parquet(folder / "learn.parquet"), pd.read_parquet(folder / "asked.parquet")
    assert list(asked.columns) == job["columns"]
    assert set(learn.columns) == {*job["columns"], "label", "weight", "person"}
    assert set(learn["label"]) == {0, 1}
    p = np.full(len(asked), learn["label"].mean())
    pd.DataFrame({"p": np.clip(p + np.linspace(-0.2, 0.2, len(p)), 0, 1)}).to_parquet(folder / "said.parquet")
    answer = {"seconds": 2.0 * job["seconds"], "chosen": "a line", "versions": {peer: "1.0"}}
    (folder / "answer.json").write_text(json.dumps(answer))


# The command line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--peers", "flaml,autogloun"], "no such peer: 'autogloun'; did you mean \"autogluon\""),
        (["--tasks", "clv90"], "--tasks: expected a yes or no, such as churn90, propensity30, got clv90"),
        (["--tasks", "chrn90"], 'did you mean "churn90"'),
        (["--cutoffs", "soon"], "--cutoffs: expected dates such as 2011-03-01, got 'soon'"),
        (["--seconds", "0"], "--seconds: expected 1 to 86,400, got '0'"),
        (["--seconds", "long"], "--seconds: expected 1 to 86,400, got 'long'"),
        (["--preset", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_a_command_that_cannot_be_is_refused(arguments, expected, capsys):
    with pytest.raises(SystemExit):
        automl.main(["--quick", *arguments], fake)
    assert re.search(expected, capsys.readouterr().err)


def test_without_data_it_says_where_to_get_them(monkeypatch):
    monkeypatch.delenv("FORETELL_TEST_DATA", raising=False)
    with pytest.raises(DataError, match=r"got no file.*archive.ics.uci.edu"):
        automl.main([], fake)


def test_it_is_run_with_all_benchmarks_and_its_other_half_is_not():
    assert "automl" in every.names()
    assert "automl_peers" not in every.names()


# What a peer is asked, and what is kept


@pytest.fixture
def place(tmp_path):
    """A champion's turn is over; four people are asked about."""
    made = Place(tmp_path / "churn90", Asked.parse("churn90"), T)
    made.folder.mkdir()
    X = pd.DataFrame({"orders": [1.0, 2, 3, 4]})
    X.assign(label=[0, 1, 0, 1], weight=1.0, person=range(4)).to_parquet(made.folder / "learn.parquet")
    X.to_parquet(made.folder / "asked.parquet")
    said = pd.DataFrame({"profile_id": list("abcd"), "y": [0.0, 1, 1, 0], "p": [0.1, 0.8, 0.7, 0.3]})
    about = {"seconds": 4.0, "chosen": "blend", "threads": 2, "columns": ["orders"], "categories": [], "profiles": 4}
    made.keep(automl.CHAMPION, said, about)
    return made


def test_a_result_is_there_when_it_is_whole(place):
    automl_peers.theirs(place, "flaml", 3.0, fake)
    assert place.about("flaml")["seconds"] == 6.0
    assert place.about("autogluon") == {}
    judged = place.judged(["flaml"])
    assert list(judged.predictions) == ["champion", "flaml"]
    assert list(judged.profiles) == list("abcd")


@pytest.mark.parametrize("said", [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5, np.nan], [0.5, 0.5, 0.5, 1.1]])
def test_an_answer_that_is_none_is_not_kept(place, said):
    def ask(peer, folder):
        pd.DataFrame({"p": said}).to_parquet(folder / "said.parquet")

    with pytest.raises(RuntimeError, match="flaml: expected 4 probabilities from 0 to 1"):
        automl_peers.theirs(place, "flaml", 3.0, ask)
    assert place.about("flaml") == {}


def python_of(tmp_path, text):
    """In place of the Python of an environment: one that does this whatever it is told to run."""
    made = tmp_path / "python"
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo no such module >&2; exit 3", "flaml: expected an answer, got exit code 3: no such module"),
        ("exit 0", "flaml: expected an answer, got exit code 0"),
        ("exec sleep 60", r"flaml: expected an answer after 1 s, got none in 0\.3"),
    ],
)
def test_a_peer_that_fails_says_how(place, tmp_path, monkeypatch, text, expected):
    monkeypatch.setattr(automl_peers, "interpreter", lambda peer: python_of(tmp_path, text))
    monkeypatch.setattr(automl_peers, "LATE", (0.1, 0.2))
    with pytest.raises(RuntimeError, match=expected):
        automl_peers.theirs(place, "flaml", 1.0, automl_peers.ask)


def test_a_peer_gets_no_more_threads_and_reports_to_nobody(place, tmp_path, monkeypatch):
    python = python_of(tmp_path, 'env > "$2/environ"; exit 1')
    monkeypatch.setattr(automl_peers, "interpreter", lambda peer: python)
    (place.folder / "job.json").write_text(json.dumps({"threads": 2, "seconds": 1.0}))
    with pytest.raises(RuntimeError, match="exit code 1"):
        automl_peers.ask("flaml", place.folder)
    environ = (place.folder / "environ").read_text().splitlines()
    assert {"OMP_NUM_THREADS=2", "DO_NOT_TRACK=1"} <= set(environ)


def test_a_temperature_mends_what_is_too_sure_of_itself():
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 1, 5_000)
    y = (rng.random(5_000) < 1 / (1 + np.exp(-margin))).astype(int)
    sure = 1 / (1 + np.exp(-3 * margin))
    found = _automl_peer.tempered(np.array([0.5, sure[0]]), np.append(sure, np.nan), np.append(y, 1))
    assert found == pytest.approx([0.5, 1 / (1 + np.exp(-margin[0]))], abs=0.02)


def test_the_peers_script_reads_codes_as_categories_and_answers_in_files(place, monkeypatch):
    job = {"peer": "flaml", "seconds": 1.0, "threads": 1, "columns": ["orders"], "categories": ["orders"]}
    (place.folder / "job.json").write_text(json.dumps(job))

    def peer(learn, asked, job):
        assert list(learn["orders"].cat.categories) == ["c1", "c2", "c3", "c4"]
        assert asked["orders"].dtype == learn["orders"].dtype
        return np.full(len(asked), 0.5), 1.5, "a coin"

    monkeypatch.setattr(_automl_peer, "flaml", peer)
    _automl_peer.main(place.folder)
    assert list(pd.read_parquet(place.folder / "said.parquet")["p"]) == [0.5] * 4
    answer = json.loads((place.folder / "answer.json").read_text())
    assert (answer["seconds"], answer["chosen"]) == (1.5, "a coin")
    assert "numpy" in answer["versions"]


# The whole of it


def test_the_generated_shop_goes_through_it_and_on_where_it_was_stopped(tmp_path, capsys, monkeypatch):
    command = ["--quick", "--trials", "0", "--peers", "flaml,autogluon", "--keep", str(tmp_path / "kept.json")]

    def stopped(peer, folder):
        if peer == "autogluon":
            raise KeyboardInterrupt
        fake(peer, folder)

    with pytest.raises(KeyboardInterrupt):
        automl.main(command, stopped)
    assert not (tmp_path / "kept.json").exists()

    def trained(*arguments, **more):
        raise AssertionError("that was done before")

    monkeypatch.setattr(automl, "train", trained)
    asked = []

    def goes_on(peer, folder):
        asked.append(peer)
        fake(peer, folder)

    capsys.readouterr()
    automl.main(command, goes_on)
    assert asked == ["autogluon"]
    found = report.parse(capsys.readouterr().out)
    kept: dict[str, Any] = json.loads((tmp_path / "kept.json").read_text())
    assert {k: kept[k] for k in found} == found
    assert kept["command"].startswith("python -m benchmarks.automl --quick --trials 0 --peers flaml,autogluon")
    assert kept["machine"]["cores"] >= 1
    assert kept["machine"]["load_at_start"] >= 0
    assert kept["machine"]["done_before_start"] == 2
    bars = {b["id"]: b for b in found["bars"]}
    assert set(bars) == {
        f"accuracy.churn90.{what}_{peer}"
        for peer in automl_peers.PEERS for what in ("auc_minus", "log_loss_minus", "seconds_vs")
    }  # fmt: skip
    assert bars["accuracy.churn90.auc_minus_flaml"]["holds"]
    assert bars["accuracy.churn90.log_loss_minus_flaml"]["value"] < 0
    churn = found["details"]["churn90"]
    assert churn["seconds"]["flaml"] == [40.0]
    at = churn["cutoffs"]["2011-06-01"]
    assert at["champion"]["rows"] > at["champion"]["persons"] > 100
    assert max(at["champion"]["cutoffs"]) <= "2011-03-03"  # 90 days before T: all that was learned was known by then
    assert 0.55 < churn["models"]["champion"]["auc"][0] < 0.95
    assert found["details"]["peers"] == {peer: {peer: "1.0"} for peer in automl_peers.PEERS}
    assert not list(tmp_path.glob("foretell-automl-*"))


def test_a_peer_that_cannot_be_had_has_no_bars_and_what_is_done_is_kept(place, tmp_path, monkeypatch, capsys):
    def ask(peer, folder):
        if peer == "flaml":
            raise Missing("the registry does not answer")
        fake(peer, folder)

    missing = automl.run(presets.generate(tmp_path), [place], ["flaml", "autogluon"], 3.0, None, tmp_path, {}, ask)
    assert missing == {"flaml": "the registry does not answer"}
    assert "without flaml, so without bars against it: the registry does not answer" in capsys.readouterr().err
    bars, _ = automl.summary("churn90", [place], ["autogluon"])
    assert {b.id.rpartition("_")[2] for b in bars} == {"autogluon"}


def test_a_horizon_beyond_the_data_is_refused(tmp_path):
    late = Place(tmp_path / "late", Asked.parse("churn90"), T.replace(month=12))
    with pytest.raises(DataError, match="churn90 at 2011-12-01: its horizon ends after the data do"):
        automl.run(presets.generate(tmp_path), [late], [], 3.0, None, tmp_path, {}, fake)
