"""What would an operator's monitoring ask? How often and how fast each route answered, for Prometheus.

BentoML's own metrics are named by the path of each request, which may name a person; these by the route as declared.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = Histogram(
    "foretell_request_seconds", "Seconds to an answer, by route and status.", ["method", "route", "status"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)  # fmt: skip


def observe(method: str, route: str, status: int, seconds: float) -> None:
    known = method if method in ("GET", "POST") else "other"  # anything may be sent as a method
    _SECONDS.labels(known, route, status).observe(seconds)


def exposition() -> bytes:
    """All workers' counts as Prometheus reads them; they share a folder that BentoML gives them."""
    registry = REGISTRY
    if values.ValueClass is not values.MutexValue:  # decided when it was imported, by PROMETHEUS_MULTIPROC_DIR
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return generate_latest(registry)
