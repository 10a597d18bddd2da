"""How is a reason said? What a feature tells about one profile, in words that travel with the model.

A service that answers needs no file of a view, and an old model keeps its own words when a feature is edited.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from foretell.views import OPTIONAL, PLACE, FeatureView
from models.encoding import Categories, decode

Words = Mapping[str, Mapping[str, str]]

NOUNS = {"days": "day", "years": "year", "hours": "hour", "minutes": "minute", "bits": "bit"}
ENORMOUS = 1e15  # from here on all digits of a number say less than their count
MOST_KNOWN = 50_000  # sentences that are kept for the next who has the same values
LONGEST_TEXT = 30  # characters of a value that a source holds


def words(views: Iterable[FeatureView]) -> dict[str, dict[str, str]]:
    """Feature -> what it says, as text (JSON can keep it): says, what, unit, null, window.

    A feature that is a plain expression says nothing about itself, and is left out.
    """
    return {
        name: {"says": doc.says, "what": doc.what, "unit": doc.unit, "null": doc.null, "window": view.window(name)}
        for view in views
        for name in view.features
        if (doc := view.docs.get(name))
    }


Place = tuple[str, str | None, str | None]
"""Of a value in a sentence: its name, and the noun that it counts, of one and of many."""


@dataclass(frozen=True)
class _Plan:
    """Of a column: its typical value in words, whether its sentence says that itself, the parts of the sentence, and of
    which columns values stand in it."""

    typical: str | None
    shows_typical: bool
    parts: list[list[str | Place]]
    reads: list[str]


def _pieces(part: str) -> list[str | Place]:
    """Text and places of a part of a sentence, in order."""
    found: list[str | Place] = []
    end = 0
    for place in PLACE.finditer(part):
        name, one, many = place.groups()
        found += [part[end : place.start()], (name, one, many)]
        end = place.end()
    return [*found, part[end:]]


@dataclass(frozen=True)
class Wording:
    """The sentences of one model.

    words: of `words`; categories: what the codes of text columns stand for; typical: column -> its typical value.
    """

    words: Words
    categories: Categories
    typical: Mapping[str, float]
    _plans: dict[str, _Plan] = field(default_factory=dict, init=False, repr=False, compare=False)
    _known: dict[tuple, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def text(self, column: str, row: Mapping[str, float]) -> str:
        """What a column tells about the profile of a row (column -> encoded value, NaN: unknown), typical value behind.

        It hangs on the values of this row alone. A column without words is called by its name.
        """
        plan = self._planned(column)
        return self._kept(plan, (column, *[row.get(name) for name in plan.reads]))

    def texts(self, column: str, rows: np.ndarray, columns: Sequence[str]) -> list[str]:
        """The same of many rows, whose columns are named in order."""
        plan, unknown = self._planned(column), [None] * len(rows)
        reads = [rows[:, columns.index(name)].tolist() if name in columns else unknown for name in plan.reads]
        return [self._kept(plan, same) for same in zip([column] * len(rows), *reads, strict=True)]

    def _kept(self, plan: _Plan, same: tuple) -> str:
        """The sentence of a column and of what it reads, kept for the next who has the same values."""
        if (said := self._known.get(same)) is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            row = dict(zip(plan.reads, same[1:], strict=True))
            said = self._known[same] = self._sentence(plan, same[0], row)
        return said

    def _planned(self, column: str) -> _Plan:
        return self._plans.get(column) or self._plans.setdefault(column, self._plan(column))

    def _sentence(self, plan: _Plan, column: str, row: Mapping[str, float]) -> str:
        known = self._said(column, row.get(column))
        if known is None:
            sentence = self._unknown(column)
        elif plan.parts:
            sentence = "".join([self._filled(part, column, row) for part in plan.parts])
        else:
            sentence = self._plain(column, known)
        shown = known is not None and plan.shows_typical
        return sentence if shown or plan.typical is None else f"{sentence} (typical: {plan.typical})"

    def _plan(self, column: str) -> _Plan:
        """What is the same of a column in every sentence, looked up once: they are said of thousands."""
        says = self.words.get(column, {}).get("says", "")
        parts = [_pieces(part) for part in OPTIONAL.split(says)] if says else []
        names = [name for name, *_ in PLACE.findall(says)]
        reads = [column, *sorted(set(names) - {"value", "typical", column})]
        return _Plan(self._said(column, self.typical.get(column)), "typical" in names, parts, reads)

    def _said(self, column: str, value: float | None) -> str | None:
        """A value for people, None if it is unknown."""
        if value is None or not math.isfinite(value):
            return None
        text = decode(column, value, self.categories)
        return number(value, self.words.get(column, {}).get("unit", "")) if text is None else _short(text)

    def _filled(self, part: list[str | Place], column: str, row: Mapping[str, float]) -> str:
        """A part of a sentence with its values put in; nothing if one of them is unknown."""
        made = []
        for piece in part:
            if isinstance(piece, str):
                made.append(piece)
                continue
            name, one, many = piece
            of = column if name in ("value", "typical") else name
            known = (self.typical if name == "typical" else row).get(of)
            said = self._said(of, known)
            if said is None or known is None:
                return ""
            counted = one is not None and of not in self.categories
            made.append(_counted(number(known, "count"), one, many) if counted and one is not None else said)
        return "".join(made)

    def _plain(self, column: str, said: str) -> str:
        """A sentence of what a feature is: "3 orders in 90 days", "the longest gap: 40 days"."""
        unit = self.words.get(column, {}).get("unit")
        if unit == "money" or (unit == "count" and said != "1"):  # of one, the noun would have to be another
            return f"{'no' if unit == 'count' and said == '0' else said} {self._what(column)}"
        return f"{self._what(column)}: {said}"

    def _unknown(self, column: str) -> str:
        word = self.words.get(column, {})
        null = word.get("null", "")
        if null and word.get("says"):  # who writes the sentence writes what stands in its place
            return null if " and " in word["window"] else _within(null, word["window"])
        return f"{self._what(column)}: unknown{', ' if null else ''}{null}"

    def _what(self, column: str) -> str:
        word = self.words.get(column)
        return _within(word["what"], word["window"]) if word else column


def number(value: float, unit: str) -> str:
    """A finite number in its unit, for people: "74 days", "1,234.50", "37%", "yes", "3".

    unit: of foretell.views.UNITS. Without one there is no telling how small a number matters: three digits of it.
    """
    match unit:
        case "money":
            return _digits(value, 2, whole=True)
        case "share":
            return f"{_digits(100 * value, _places(100 * value))}%"
        case "yes/no":
            return "yes" if value >= 0.5 else "no"
        case "":
            return _digits(value, 2) if abs(value) >= 1 else f"{value + 0.0:.3g}"
        case _ if unit in NOUNS:
            said = _digits(value, _places(value))
            return f"{said} {NOUNS[unit]}{'' if said == '1' else 's'}"
        case _:
            return _digits(value, 2)


def _places(value: float) -> int:
    """Decimals of what is known well enough by two digits."""
    return 0 if abs(value) >= 10 else 1


def _digits(value: float, places: int, whole: bool = False) -> str:
    """At most so many decimals; whole: all of them or none, as money is written."""
    if abs(value) >= ENORMOUS:
        return f"{value:.3g}"
    before, _, after = f"{value:,.{places}f}".partition(".")
    kept = after if whole and after.strip("0") else after.rstrip("0")
    said = f"{before}.{kept}" if kept else before
    return "0" if said == "-0" else said


def _counted(said: str, one: str, many: str | None) -> str:
    """So many of a noun: "no orders", "1 order", "2.5 orders"."""
    return f"1 {one}" if said == "1" else f"{'no' if said == '0' else said} {many or f'{one}s'}"


def _within(text: str, window: str) -> str:
    """What is of a window: "orders in 90 days"; one that compares several says which: "… (30 and 60 days)"."""
    if window == "ever":
        return text
    if " and " in window:
        return f"{text} ({window})"
    return f"{text}{',' if ',' in text else ''} in {'1 day' if window == '1 days' else window}"


def _short(text: str) -> str:
    """A source's text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1].rstrip()}…"
