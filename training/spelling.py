"""How is a group said as a rule? Its population's rule and its bounds, exhaustive to the unknown, and no longer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sqlglot import exp

from models.wording import Words
from segments.predicate import Predicate
from training.partition import Bounds

_COMPARISONS = (exp.GT, exp.GTE, exp.LT, exp.LTE, exp.EQ, exp.Between)


def certain(rule: Predicate | None, measures: Sequence[str], words: Words, X: pd.DataFrame) -> set[str]:
    """Measures of which the population cannot lack a value, so that rules need not say where the unknown belongs.

    Their view says that there always is one, or the population's rule compares it (a comparison with the unknown
    selects nobody), or it is unknown for the same reason as one that is compared, and of nobody here.
    """
    asked = [rule.tree] if rule else []
    compared: set[str] = set()
    while asked:
        node = asked.pop()
        if isinstance(node, exp.And | exp.Paren):
            asked += [part for part in (node.args.get("this"), node.args.get("expression")) if part is not None]
        elif isinstance(node, _COMPARISONS):
            compared |= {side.name.lower() for side in node.args.values() if isinstance(side, exp.Column)}
    why = {name: words[name]["null"] for name in words}
    reasons = {why[name] for name in compared if why.get(name)} | {""}
    return {name for name in measures if name in compared or (why.get(name) in reasons and not X[name].isna().any())}


def spelled(population: Predicate | None, limits: dict[str, Bounds], sure: set[str]) -> str:
    """The rule of a group: that of the population, and the group's bounds. sure: measures that nobody can lack."""
    parts = []
    if population:
        parts = [f"({population.text})" if isinstance(population.tree, exp.Or) else population.text]
    for name, bound in limits.items():
        known = [f"{name} > {_number(bound.above)}"] if bound.above > -np.inf else []
        known += [f"{name} <= {_number(bound.most)}"] if bound.most < np.inf else []
        said = " and ".join(known)
        if bound.above == np.inf:
            parts.append(f"{name} is null")
        elif said and bound.unknown and name not in sure:
            parts.append(f"({said} or {name} is null)")
        elif said:
            parts.append(said)
        elif not bound.unknown and name not in sure:
            parts.append(f"{name} is not null")
    return " and ".join(parts)


def _number(value: float) -> str:
    """As rules write it. More than 15 digits only in scientific notation are the very same number again."""
    text = repr(value).removesuffix(".0")
    return text if float(f"{value:.15g}") == value else f"{value:.17e}"
