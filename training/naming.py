"""What is a group of profiles called? Words for what sets it apart, from its rule and from where it stands.

"frequent big spenders, here lately": who they are, and after a comma what else. A feature of the rule always has a
word, another one where the group's typical value is far from everybody's. Features without words of their own below
speak in those of their view.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.wording import Wording, Words
from training.partition import Bounds

CLEAR = 0.15  # from the middle of everybody (0.5) at which a word needs no "rather"
FAR = 0.3  # at which it is worth a word though the rule does not read the feature
ENOUGH = 3  # words, where the rule does not ask for more
EVERYBODY_ELSE = "everybody else"  # whom nothing sets apart
LONGEST = 60  # characters of a file's name

ADJECTIVE, NOUN, TAIL = range(3)


@dataclass(frozen=True)
class _Said:
    """Words from low to high, the middle ones of who hardly differs from everybody, and where in a name they stand."""

    place: int
    levels: tuple[str, str, str, str]
    one: str = ""  # where a rule allows no more than 1


_OFTEN = _Said(ADJECTIVE, ("occasional", "occasional", "fairly frequent", "frequent"), "one-time")
_SPEND = _Said(NOUN, ("small spenders", "modest spenders", "fair spenders", "big spenders"))
_SAID = {
    "days_since_first_order": _Said(ADJECTIVE, ("new", "rather new", "established", "long-standing")),
    **{f"orders_{window}": _OFTEN for window in ("30d", "90d", "180d", "365d")},
    "order_days_ever": _OFTEN,
    "order_days_90d": _OFTEN,
    **{f"spend_{window}": _SPEND for window in ("30d", "90d", "365d")},
    "mean_spend_per_order_day_ever": _Said(TAIL, ("small baskets", "smallish baskets", "fair baskets", "big baskets")),
    "overdue_ratio_ever": _Said(TAIL, ("not due yet", "hardly due yet", "somewhat overdue", "overdue")),
    "days_since_order": _Said(TAIL, ("here lately", "here not long ago", "here a while ago", "away for long")),
}
_BY_UNIT = {
    "count": ("few", "rather few", "rather many", "many"),
    "money": ("little", "rather little", "rather much", "much"),
    **dict.fromkeys(("days", "years", "hours", "minutes"), ("short", "rather short", "rather long", "long")),
}
_ELSE = ("low", "rather low", "rather high", "high")


def names(
    rules: Sequence[Mapping[str, Bounds]], standing: Sequence[Mapping[str, float]], words: Words
) -> list[str]:  # fmt: skip
    """A name for each group, no two alike.

    rules: what each says of features. standing: feature -> the share of everybody below the group's typical value, NaN
    where its typical profile has none, unlike everybody's; all features, in the order in which they are told.
    words: of models.wording.
    """
    features = list(standing[0])

    def name(group: int, more: int) -> str:
        mine = standing[group]
        told = [f for f in features if f in rules[group] and rules[group][f] != Bounds(unknown=False)]
        rest = sorted((f for f in features if f not in told), key=lambda f: -abs(mine[f] - 0.5))
        far = sum(not abs(mine[f] - 0.5) < FAR for f in rest)
        told = [f for f in features if f in {*told, *rest[: max(more, min(far, ENOUGH - len(told)))]}]
        return _joined([_word(f, mine[f], rules[group].get(f, Bounds()), words) for f in told])

    found = [name(group, 0) for group in range(len(rules))]
    for more in range(1, len(features) + 1):
        twice = {said for said, times in Counter(found).items() if times > 1}
        found = [name(group, more) if said in twice else said for group, said in enumerate(found)]
    seen: Counter[str] = Counter()
    for group, said in enumerate(found):
        seen[said] += 1
        found[group] = said if seen[said] == 1 else f"{said} ({seen[said]})"
    return found


def slugs(names: Sequence[str]) -> list[str]:
    """The names as those of segments and files: letters, digits and hyphens, no two alike."""
    found: list[str] = []
    for name in names:
        text = re.sub(r"[\W_]+", "-", name.lower()).strip("-")
        if len(text) > LONGEST:
            text = text[: LONGEST + 1].rpartition("-")[0] or text[:LONGEST]
        text, number = text or "group", 1
        while (slug := text if number == 1 else f"{text}-{number}") in found:
            number += 1
        found.append(slug)
    return found


def _word(feature: str, standing: float, bounds: Bounds, words: Words) -> tuple[int, str]:
    """(where it stands in a name, the word)."""
    doc = words.get(feature, {})
    said = _SAID.get(feature) or _Said(TAIL, _levels(feature, doc))
    if math.isnan(standing):
        return TAIL, Wording(words, {}, {}).text(feature, {}) if doc else f"unknown {_what(feature, doc)}"
    if said.one and bounds.most == 1:
        return said.place, said.one
    by_rule = (bounds.above > -math.inf) - (bounds.most < math.inf)  # 1: from a value on, -1: up to one, 0: both
    above = standing - 0.5
    clear = abs(above) >= CLEAR
    high = above > 0 if clear or by_rule == 0 else by_rule > 0
    return said.place, said.levels[
        {(False, True): 0, (False, False): 1, (True, False): 2, (True, True): 3}[high, clear]
    ]


def _levels(feature: str, doc: Mapping[str, str]) -> tuple[str, str, str, str]:
    low, lowish, highish, high = (f"{how} {_what(feature, doc)}" for how in _BY_UNIT.get(doc.get("unit", ""), _ELSE))
    return low, lowish, highish, high


def _what(feature: str, doc: Mapping[str, str]) -> str:
    return doc["what"].partition(",")[0] if doc else feature.replace("_", " ")


def _joined(words: Sequence[tuple[int, str]]) -> str:
    by_place = {
        place: list(dict.fromkeys(said for where, said in words if where == place)) for place in (ADJECTIVE, NOUN, TAIL)
    }
    if not (by_place[ADJECTIVE] or by_place[NOUN]):
        return ", ".join(by_place[TAIL]) or EVERYBODY_ELSE
    who = " ".join([*by_place[ADJECTIVE], " and ".join(by_place[NOUN]) or "buyers"])
    return ", ".join([who, *by_place[TAIL]])
