"""Small random histories of a few people: what they do, when, and when it is known, with a liking for edges.

Every identifier and account of a history has "§" in its name, which `together` replaces: so that many histories are
people of one shop, who have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from conftest import MORE_SOURCES, SOURCES, Facts, Row, call, click, letter, page, record, sale
from naive_views import COMPANY

History = list[tuple[str, Row]]  # of source and row

TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
# The instants at which clocks in Oslo go forward and, but for 7 microseconds, back.
CUTOFFS = (datetime(2024, 3, 31, 1, tzinfo=UTC), datetime(2024, 10, 27, 1, 0, 0, 7, tzinfo=UTC))
# When days begin in Oslo around the leap day and around both changes, and the leap day's own midnight in UTC.
MIDNIGHTS = [
    datetime(2024, month, day, hour, tzinfo=UTC)
    for month, day, hour in [(2, 28, 23), (2, 29, 0), (2, 29, 23), (3, 30, 23), (3, 31, 22), (10, 26, 22), (10, 27, 23)]
]
_PAUSES = [timedelta(seconds=1), timedelta(minutes=3), timedelta(minutes=30), timedelta(hours=2), DAY, 7 * DAY]

# The mail source also has letters of other channels.
ORACLE_SOURCES = MORE_SOURCES | {"mail": SOURCES["mail"].replace("\"'email'\"", '"kind"')}

_CARDS, _DEVICES = ["§a", "§b", "§c"], ["§d1", "§d2"]
_EMAILS = [f"anna@§{COMPANY}", f"bo@§{COMPANY}", "§cim@gmail.com"]
_DETAILS = {
    "born": ["1990-05-17", "2000-02-29", "2001-02-29", ""], "gender": ["f", " m ", " ", ""],
    "city": ["Oslo", "Bergen", ""], "country": ["NO", "SE", ""], "language": ["no", "en", ""],
    "opt_in": ["yes", "no", ""], "age_group": ["§19-24", "§65+", ""], "income": ["§low", "", ""],
    "kids": ["§0", "", ""], "household_size": ["1", "5+", ""],
}  # fmt: skip


class _Teller:
    """Makes up what is told in one history; edge: an instant at which, or a moment before which, much happens."""

    def __init__(self, draw: Random, edges: Sequence[datetime], edge: datetime):
        self.draw = draw
        others = [self.moment(edges) for _ in range(draw.randrange(1, 7))]
        self.pool = [edge, edge, edge - TICK, draw.choice(CUTOFFS), *others]
        self.products = ["p1", "p2", "p3", ""][: draw.randrange(1, 5)]
        self.people = [
            {"card": draw.choice(_CARDS), "email": draw.choice(_EMAILS), "device": draw.choice(_DEVICES)}
            for _ in range(draw.choice([1, 1, 2, 3]))
        ]

    def moment(self, edges: Sequence[datetime]) -> datetime:
        chance = self.draw.random()
        if chance < 0.2:
            return CUTOFFS[1] - self.draw.randrange(660 * 86_400 * 10**6) * TICK
        return self.draw.choice(edges if chance < 0.6 else MIDNIGHTS) + self.ticks()

    def ticks(self) -> timedelta:
        return self.draw.choice([-1, 0, 0, 0, 1]) * TICK

    def when(self) -> datetime:
        if self.draw.random() < 0.6:
            return self.draw.choice(self.pool)
        return self.draw.choice(self.pool) + self.draw.choice([-1, 1]) * self.draw.choice(_PAUSES) + self.ticks()

    def recorded(self, at: datetime) -> datetime:
        """A minute later, or at once, or before it happens, or days later, or about a cutoff."""
        if self.draw.random() < 0.15:
            return self.draw.choice(CUTOFFS) + self.ticks()
        minute = timedelta(minutes=1)
        return at + self.draw.choice([minute, minute, minute, -minute, 0 * DAY, TICK, 5 * DAY, 40 * DAY])

    def who(self, *kinds: str) -> dict[str, str]:
        """A person shows one identifier, seldom several or none; two of them may have the same one."""
        person = self.draw.choice(self.people)
        shown = self.draw.sample(kinds, self.draw.choice([0, *[1] * 14, 2, 2, min(3, len(kinds))]))
        found = {kind: person[kind] if kind in shown else "" for kind in kinds}
        return {kind: self.written(text) if text else "" for kind, text in found.items()}

    def written(self, text: str) -> str:
        form = self.draw.random()
        return text if form < 0.8 or text.startswith("§d") else f" {text} " if form < 0.9 else text.upper()

    def row(self) -> tuple[str, Row]:
        at, pick = self.when(), self.draw.choice
        email = pick(self.people)["email"]
        source = pick(
            ["shop"] * 5 + ["crm", "crm", "web", "web", "mail", "mail", "desk", "desk", "site", "site", "site"]
        )
        if source == "shop":
            cents = pick([0, 1, 999, 1000, 1000, 2550, self.draw.randrange(-20_000, 20_000)])
            categories = ["c1", "c1", "c2", "c3", "BEERS/ALES", "COFFEE", "FROZEN PIZZA", ""]
            return source, sale(
                at, amount=f"{cents / 100:.2f}", recorded_at=self.recorded(at), order_id=pick(["o1", "o2", "o3", "o4"]),
                product=pick(self.products), category=pick(categories), brand=pick(["b1", "b2", ""]),
                quantity=pick(["1", "2", "0.5", ""]), discount=pick(["0.00", "0.50", "12.25", ""]),
                cancelled=pick(["false"] * 4 + ["true", ""]), **self.who("card", "email", "device"),
            )  # fmt: skip
        if source == "crm":
            return source, record(
                at, **self.who("card", "email"), **{name: pick(values) for name, values in _DETAILS.items()}
            )
        if source == "web":
            kind, campaign = pick(["view", "login", "coupon_redeemed"]), pick(["m1", "m2", "m3", None])
            return source, click(
                at, **self.who("device", "email"), type=kind, recorded_at=self.recorded(at), campaign=campaign,
                coupon=pick(["k1", None]),
            )  # fmt: skip
        if source == "mail":
            return source, letter(at, email, pick(["m1", "m2", "m3", ""])) | {"kind": pick(["email", "sms", "app", ""])}
        if source == "desk":
            kind, rating = pick(["opened", "answered", "closed", "rated"]), pick(["", "", "1", "2.5", "5"])
            return source, call(at, email, pick(["t1", "t2", "t3"]), kind, rating=rating, recorded_at=self.recorded(at))
        kind = pick(["page", "page", "screen", "track", ""])
        return source, page(at, **self.who("email", "device"), kind=kind, recorded_at=self.recorded(at))


def histories(count: int, windows: Iterable[timedelta]) -> list[History]:
    """So many histories of 1 to 40 rows, the same ones each time. windows: lengths back from a cutoff whose edges
    matter."""
    edges = [cutoff - window for cutoff in CUTOFFS for window in sorted({timedelta(0), *windows})]
    found = []
    for number in range(count):
        draw = Random(number)
        teller = _Teller(draw, edges, edges[number % len(edges)])
        found.append([teller.row() for _ in range(draw.choice([1, 2, 4, 8, 12, 16, 20, 30, 40]))])
    return found


def together(shop: Iterable[History]) -> Facts:
    """The rows of many histories by source; "§" in those of the n-th becomes h<n>x."""
    facts: Facts = {source: [] for source in (*SOURCES, *MORE_SOURCES)}
    for n, history in enumerate(shop):
        for source, row in history:
            facts[source].append(_named(row, f"h{n}x"))
    return facts


def _named(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {k: _named(v, name) for k, v in value.items()}
    return value.replace("§", name) if isinstance(value, str) else value
