"""How fast are the models of customer lifetime fitted? Ours against the MAP fits of pymc-marketing.

On the CDNOW sample (if FORETELL_TEST_DATA is set) and on simulated shops, whose customers behave as Pareto/NBD and
Gamma-Gamma say:

  btyd.bg_nbd_speedup       its `BetaGeoModel(data).fit(method="map")` over our `BGNBD.fit`
  btyd.pareto_nbd_speedup   its `ParetoNBDModel` over our `ParetoNBD`
  btyd.gamma_gamma_speedup  its `GammaGammaModel` over our `GammaGamma`

Each bar is of the data set on which the ratio is the smallest. Both take turns. The peer has fitted the same model to
the same data before, so that what it compiles is not held against it (details: peer_first_s); ours has nothing to
compile, and as it takes milliseconds a turn of it is ten fits, of which the mean counts.

They do not look for quite the same: ours is the largest likelihood, the peer's the largest posterior under its own weak
priors (for Gamma-Gamma flat ones). So our log-likelihood must be the higher one, up to 0.001 a customer; details, gain,
say by how much it is per customer. The peer cannot live beside Foretell, as it needs an older numba: it is installed on
first use into an environment of its own below the temporary directory. Where that fails, and with --quick, there are
our times and no bars.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import report
from benchmarks.report import progress
from benchmarks.sdks import Missing, _once, _run
from models.estimators.lifetime import BGNBD, GammaGamma, ParetoNBD

PEER = "pymc-marketing==0.19.2"
MODELS: dict[str, Any] = {"bg_nbd": BGNBD, "pareto_nbd": ParetoNBD, "gamma_gamma": GammaGamma}
FULL, QUICK = (2_000, 10_000), (2_000,)
PURCHASES, VALUES = ParetoNBD(r=0.6, alpha=30.0, s=0.5, beta=100.0), GammaGamma(p=6.0, q=4.0, gamma=15.0)  # in days
FITS, WITHIN = 10, 1e-3

Ask = Callable[[str, Path], dict[str, Any]]


@dataclass(frozen=True)
class Customers:
    """histories: frequency, recency, T; values: frequency, monetary_value; both by customer_id, as the peer has it."""

    histories: pd.DataFrame
    values: pd.DataFrame

    def table(self, model: str) -> pd.DataFrame:
        """What this model reads."""
        return self.values if model == "gamma_gamma" else self.histories

    def arrays(self, model: str) -> list[np.ndarray]:
        """The same as the arguments of our models."""
        return list(self.table(model).drop(columns="customer_id").to_numpy(float).T.copy())

    @staticmethod
    def of(x: np.ndarray, t_x: np.ndarray, T: np.ndarray, n: np.ndarray, mean: np.ndarray) -> Customers:
        histories = pd.DataFrame({"frequency": x, "recency": t_x, "T": T})
        values = pd.DataFrame({"frequency": n, "monetary_value": mean})
        return Customers(*(t.rename_axis("customer_id").reset_index() for t in (histories, values)))


def simulated(customers: int, seed: int = 0) -> Customers:
    """A shop whose customers first came 1 to 400 days ago; the values are of those who came back."""
    rng = np.random.default_rng(seed)
    T = rng.integers(1, 400, customers).astype(float)
    rate = rng.gamma(PURCHASES.r, 1 / PURCHASES.alpha, customers)
    leaves = rng.exponential(1 / rng.gamma(PURCHASES.s, 1 / PURCHASES.beta, customers))
    there = np.minimum(T, leaves)
    x = rng.poisson(rate * there)
    t_x = np.where(x > 0, there * rng.random(customers) ** (1 / np.maximum(x, 1)), 0.0)  # the last of x uniform times
    n = x[x > 0]
    each = rng.gamma(VALUES.q, 1 / VALUES.gamma, len(n))
    return Customers.of(x, t_x, T, n, rng.gamma(VALUES.p * n) / (n * each))


def cdnow(folder: Path) -> Customers:
    """The sample's first 39 weeks, in weeks, and the values of the repeat purchases in them."""
    lines = pd.read_parquet(folder / "cdnow" / "sample.parquet").assign(date=lambda t: pd.to_datetime(t["date"]))
    last = pd.Timestamp("1997-09-30")
    days = lines[lines["date"] <= last].groupby(["sample_id", "date"], as_index=False)["value"].sum()
    seen = days.groupby("sample_id")["date"].agg(["size", "min", "max"])
    repeat = days[days["date"] > days["sample_id"].map(seen["min"])].groupby("sample_id")["value"].agg(["size", "mean"])
    repeat = repeat[repeat["mean"] > 0]
    weeks = ((seen["max"] - seen["min"]).dt.days / 7, (last - seen["min"]).dt.days / 7)
    columns = (seen["size"] - 1, *weeks, repeat["size"], repeat["mean"])
    return Customers.of(*(column.to_numpy() for column in columns))


def data_sets(sizes: tuple[int, ...]) -> dict[str, Customers]:
    """Name -> customers."""
    found = {f"shop_{size}": simulated(size) for size in sizes}
    if folder := os.environ.get("FORETELL_TEST_DATA"):
        return {"cdnow": cdnow(Path(folder)), **found}
    progress("without the CDNOW sample: FORETELL_TEST_DATA is not set")
    return found


def interpreter() -> Path:
    """The Python of an environment that has the peer. Raises Missing where it cannot be had."""
    folder = Path(tempfile.gettempdir()) / "foretell-bench-cache" / PEER
    uv, python = Path(sys.executable).parent / "uv", folder / "bin" / "python"

    def install() -> None:
        progress(f"installing {PEER} into {folder}")
        _run([str(uv), "venv", "-q", "--python", sys.executable, str(folder)])
        _run([str(uv), "pip", "install", "-q", "--python", str(python), PEER])

    _once(folder, install)
    return python


@contextmanager
def peer(python: Path) -> Iterator[Ask]:
    """A process of the peer that lives as long as the block; what comes asks it for a fit."""
    script = Path(__file__).with_name("_btyd_peer.py")
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [str(python), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
        ) as process,
    ):  # fmt: skip
        asked, answers = process.stdin, process.stdout
        assert asked is not None
        assert answers is not None

        def ask(model: str, table: Path) -> dict[str, Any]:
            print(json.dumps({"model": model, "table": str(table)}), file=asked, flush=True)
            if line := answers.readline():
                return json.loads(line)
            said.seek(0)
            raise RuntimeError(f"expected an answer of pymc-marketing, got none: {said.read()[-1000:]}")

        try:
            yield ask
        finally:
            asked.close()


def fit(model: str, customers: Customers) -> tuple[Any, float]:
    """Our model and the mean seconds of a fit."""
    arrays = customers.arrays(model)
    ones = np.ones(len(arrays[0]))
    start = time.perf_counter()
    fitted = [MODELS[model].fit(*arrays, ones) for _ in range(FITS)]
    return fitted[0], (time.perf_counter() - start) / FITS


def gain(model: str, customers: Customers, ours: Any, theirs: list[float]) -> float:
    """By how much our log-likelihood is above that of the peer's parameters, per customer; never below by WITHIN."""
    arrays = customers.arrays(model)
    found = float(np.mean(ours.log_likelihood(*arrays) - MODELS[model](*theirs).log_likelihood(*arrays)))
    if not found > -WITHIN:
        raise RuntimeError(f"expected {model} to be as likely as with the peer's {theirs}, got {ours}, {-found} less")
    return found


def compare(ask: Ask, model: str, name: str, customers: Customers, repeats: int) -> tuple[list[float], dict[str, Any]]:
    """The rounds' ratios of the peer's seconds to ours, and what else there is to say."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as folder:
        table = Path(folder) / "customers.csv"
        customers.table(model).to_csv(table, index=False)
        first, (fitted, _) = ask(model, table), fit(model, customers)
        for turn in range(1, repeats + 1):
            ours.append(fit(model, customers)[1])
            theirs.append(ask(model, table)["seconds"])
            progress(f"round {turn} of {repeats}: {model}, {name}: {1e3 * ours[-1]:.1f} ms, peer {theirs[-1]:.2f} s")
    return [b / a for a, b in zip(ours, theirs, strict=True)], {
        "ours_ms": 1e3 * statistics.median(ours), "peer_s": statistics.median(theirs), "peer_first_s": first["seconds"],
        "gain": gain(model, customers, fitted, first["parameters"]),
    }  # fmt: skip


def measure(quick: bool, repeats: int | None = None) -> dict[str, Any]:
    """Simulate, let both take turns, and report: the object that `report.Report.as_json` makes."""
    return found(quick, repeats or (report.QUICK_REPEATS if quick else report.REPEATS)).as_json()


def found(quick: bool, repeats: int) -> report.Report:
    """What was measured."""
    data = data_sets(QUICK if quick else FULL)
    bars, details, versions = [], {}, report.versions("numpy", "scipy")
    try:
        if quick:
            raise Missing("with --quick nothing is installed")
        python = interpreter()
    except Missing as why:
        progress(f"without pymc-marketing, so without bars: {why}")
        for model in MODELS:
            for name, customers in data.items():
                times = [fit(model, customers)[1] for _ in range(repeats)]
                details[f"{model}.{name}"] = {"ours_ms": 1e3 * statistics.median(times)}
    else:
        versions["pymc-marketing"] = PEER.partition("==")[2]
        with peer(python) as ask:
            for model in MODELS:
                ratios = []
                for name, customers in data.items():
                    ratio, details[f"{model}.{name}"] = compare(ask, model, name, customers, repeats)
                    ratios.append(ratio)
                bars.append(report.bar(f"btyd.{model}_speedup", min(ratios, key=statistics.median), ">=20"))
    customers = {name: len(each.histories) for name, each in data.items()}
    return report.Report("btyd", {**customers, "repeats": repeats}, bars, versions, details)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, report."""
    parser = report.options(__doc__ or "", "btyd")
    parser.epilog = f"Full size: shops of {' and '.join(f'{n:,}' for n in FULL)} customers. Quick: {QUICK[0]:,}."
    given = parser.parse_args(arguments)
    found(given.quick, report.repeats(given)).show()


if __name__ == "__main__":
    sys.exit(main())
