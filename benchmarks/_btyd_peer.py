"""What `benchmarks.btyd` runs in the environment of pymc-marketing: it fits what it is asked to, and says how long.

One JSON object per line, in: {"model", "table"}, the path of a CSV file; out: {"seconds", "parameters"}. The seconds
are those of `fit` alone, on a model made anew; what it compiles on the first call it keeps for later ones.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

warnings.simplefilter("ignore")

import pandas as pd  # noqa: E402
from pymc_marketing import clv  # noqa: E402

MODELS = {
    "bg_nbd": (clv.BetaGeoModel, ("r", "alpha", "a", "b")),
    "pareto_nbd": (clv.ParetoNBDModel, ("r", "alpha", "s", "beta")),
    "gamma_gamma": (clv.GammaGammaModel, ("p", "q", "v")),
}


def main() -> None:
    """Answer until nobody asks any more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing else may come between the answers
    for line in sys.stdin:
        asked = json.loads(line)
        kind, names = MODELS[asked["model"]]
        model = kind(data=pd.read_csv(asked["table"]))
        start = time.perf_counter()
        model.fit(method="map", progressbar=False)
        seconds = time.perf_counter() - start
        parameters = [float(model.fit_result[name].mean()) for name in names]
        print(json.dumps({"seconds": seconds, "parameters": parameters}), file=answers, flush=True)


if __name__ == "__main__":
    main()
