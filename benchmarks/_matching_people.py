"""A table of people to be matched, of any size: names by realistic frequencies, households, records with errors.

A third of the records are further ones of somebody: with slips of typing, names swapped or shortened, values missing, a
new e-mail or a move. Members of a household share address and, mostly, surname; some are twins. Seeded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_ON, _IN = (
    ["b", "br", "c", "ch", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "st", "t", "th", "v", "w"],
    ["a", "e", "i", "o", "u", "ai", "ea", "o", "a", "e"],
)
_OFF = ["n", "r", "l", "s", "t", "nd", "rt", "m", "ck", "ll", "son", "ton", "ley", "by"]


def write(file: Path, records: int, seed: int = 0) -> Path:
    """So many records: person, household_id, and columns as a customer file has them."""
    draw = np.random.default_rng(seed)
    people = max(2, int(records * 2 / 3))
    home = np.sort(draw.integers(0, max(1, int(people / 2.2)), people))
    first, last = _names(draw, 3_000), _names(draw, 40_000)
    streets, cities = _names(draw, 8_000), _names(draw, 600)
    homes = int(home.max()) + 1
    surname = _often(draw, len(last), homes)[home]
    own = draw.random(people) < 0.2
    surname[own] = _often(draw, len(last), int(own.sum()))
    given = _often(draw, len(first), people, 0.9)
    birth = draw.integers(-20_000, 12_000, people)
    twin = np.flatnonzero((home[1:] == home[:-1]) & (draw.random(people - 1) < 0.01)) + 1
    birth[twin], surname[twin] = birth[twin - 1], surname[twin - 1]
    street, number = draw.integers(0, len(streets), homes), draw.integers(1, 400, homes)
    city = _often(draw, len(cities), homes, 0.8)
    area = city * 37 % 90_000 + 10_000 + draw.integers(0, 9, homes)

    who = np.concatenate([np.arange(people), draw.integers(0, people, records - people)])
    again = np.arange(records) >= people
    place = home[who]
    moved = again & (draw.random(records) < 0.08)
    place[moved] = draw.integers(0, homes, int(moved.sum()))
    f, s = first[given[who]], last[surname[who]]
    mail = np.char.add(np.char.add(np.char.add(f, "."), s), np.char.add((who % 97).astype("U2"), "@mail.example"))
    phone = np.char.add("07", (100_000_000 + who * 7919 % 899_999_999).astype("U9"))
    days = (np.datetime64("1970-01-01") + birth[who].astype("timedelta64[D]")).astype("U10")
    columns = {
        "first_name": f, "last_name": s, "birth_date": days, "street_number": number[place].astype("U4"),
        "street": np.char.add(streets[street[place]], " street"), "city": cities[city[place]],
        "postcode": area[place].astype("U5"), "email": mail, "phone": phone,
    }  # fmt: skip
    swap = again & (draw.random(records) < 0.02)
    columns["first_name"], columns["last_name"] = np.where(swap, s, f), np.where(swap, f, s)
    made = {"person": pa.array(who), "household_id": pa.array(home[who])}
    for name, missing in zip(columns, (0.01, 0.01, 0.05, 0.1, 0.1, 0.05, 0.08, 0.4, 0.4), strict=True):
        wrong = np.flatnonzero(again & (draw.random(records) < 0.08))
        values = columns[name].astype(object)
        for i, at, kind in zip(wrong.tolist(), draw.random(len(wrong)), draw.integers(0, 3, len(wrong)), strict=True):
            values[i] = _slip(str(values[i]), int(at * max(1, len(str(values[i])) - 1)), int(kind))
        made[name] = pa.array(values, pa.string(), mask=draw.random(records) < missing)
    table = pa.table(made).take(pa.array(draw.permutation(records)))
    pq.write_table(table, file, compression="zstd")
    return file


def _slip(text: str, at: int, kind: int) -> str:
    """A sign left out, doubled, or turned with the next."""
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at : at + 1] + text[at:]
    return text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]


def _names(draw: np.random.Generator, count: int) -> np.ndarray:
    """So many different names."""
    found: dict[str, None] = {}
    while len(found) < count:
        parts = [draw.choice(x, count) for x in (_ON, _IN, _OFF, _ON, _IN, _OFF)]
        short = draw.random(count) < 0.5
        for a, b, c, d, e, g, brief in zip(*parts, short, strict=True):
            found.setdefault(a + b + c if brief and len(found) < count // 4 else a + b + d + e + (c if brief else g))
    return np.array(list(found)[:count])


def _often(draw: np.random.Generator, count: int, size: int, skew: float = 0.75) -> np.ndarray:
    """Which of so many, a few of them often: the n-th as n to the power -skew."""
    weight = np.arange(1, count + 1) ** -skew
    return draw.choice(count, size, p=weight / weight.sum())
