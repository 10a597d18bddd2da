"""The product's own application under uvicorn alone: what BentoML adds to a request is the difference.

`benchmarks/serving.py` starts it, with the project in FORETELL_PROJECT and the port as the only argument.
"""

from __future__ import annotations

import sys

import uvicorn

from serving.http import service


def main() -> None:
    service.engine.start()
    uvicorn.run(service.guarded, port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
