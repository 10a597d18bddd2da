"""The Feast repository: generated from the definitions, offline on DuckDB, online packed."""

from __future__ import annotations

from typing import Any

import typeguard


def _as_it_is(target: Any = None, **_: object) -> Any:
    return target if target is not None else _as_it_is


# Feast has typeguard compile its classes anew at import, which is half of what importing it costs every command
# and the service. What we hand to it is checked when a view is declared.
typeguard.typechecked = _as_it_is
