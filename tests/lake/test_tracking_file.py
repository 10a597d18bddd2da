"""A home's own store of models is there whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.store.db import utils
from sqlalchemy import text

from lake import tracking


def test_killed_while_its_tables_are_made_it_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mlflow.db"

    def die(engine) -> None:
        with engine.begin() as con:
            con.execute(text("CREATE TABLE secrets (secret_id VARCHAR)"))  # one of MLflow's
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(utils, "_safe_initialize_tables", die)
        with pytest.raises(KeyboardInterrupt):
            tracking._file(file)
    assert not file.exists()
    engine = utils.create_sqlalchemy_engine(tracking._file(file))
    assert utils._all_tables_exist(engine)
    engine.dispose()
    assert sorted(path.name for path in tmp_path.iterdir()) in (["mlflow.db"], ["mlflow.db", "mlflow.lock"])


def test_two_at_once_make_one(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(lambda _: tracking._file(file), range(2)))) == 1
    number = file.stat().st_ino
    tracking._file(file)
    assert file.stat().st_ino == number
