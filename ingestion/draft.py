"""Which contract do understood columns make? A draft of a source, with what should be checked in it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from foretell.connectors import Connector
from foretell.declarations import Source
from foretell.errors import DataError
from ingestion.understand import IDENTIFIERS, NUMBERED, TRAITS, Column, number, time_rank

_FIELDS = {"redemption": ("coupon_id", "campaign_id", "kind"), "message": ("campaign_id", "channel", "kind")}


class Draft:
    """The columns of a file, and what is made of them.

    doubts: what to check, by the argument or key of the contract that it is about. used: column -> what it became.
    """

    def __init__(self, columns: list[Column], known: list[Source], taken: set[str]):
        self.columns, self.known, self.taken = columns, known, taken
        self.doubts: dict[str, str] = {}
        self.notes: list[str] = []
        self.used: dict[str, str] = {}

    def find(self, meaning: str) -> Column | None:
        """The column of a meaning: the one called just that, else the first."""
        found = [c for c in self.columns if c.meaning == meaning]
        return min(found, key=lambda c: (c.said != meaning, self.columns.index(c)), default=None)

    def use(self, column: Column, as_what: str) -> str:
        self.used[column.name] = as_what
        return column.sql

    def source(self, file: Path, name: str, files: str | Connector, kind: str | None) -> Source:
        when = max((c for c in self.columns if c.meaning == "time"), key=time_rank, default=None)
        identifiers = self.identifiers(file, when)
        kind = kind or self.kind(when)
        if kind == "events" and not when:
            raise DataError(
                file.name, "events need a time, and no column reads as one",
                "pass --kind records if a row says who somebody is, or export when each row happened",
            )  # fmt: skip
        where = "files" if isinstance(files, str) else "connector"
        fields: dict = {"name": name, where: files, "identifiers": identifiers}
        if kind == "records":
            fields["kind"] = "records"
        else:
            fields["role"], fields["columns"] = self.role(identifiers, when)
        if when:
            self.use(when, "the time")
            fields["event_at"] = when.time
            if when.doubts:
                self.doubts["event_at"] = when.doubts[0]
        else:
            self.notes.append(
                "No column reads as a time, so these are records: who people are, not what they did. They count as "
                "known from the day they are loaded, and predictions need another file, of events."
            )
        if kind == "records":
            fields["traits"] = self.traits()
        elif not fields["columns"]:
            del fields["columns"]
        zone, currency = self.custom()
        if when:
            aware = re.search(r":.*([Zz]|[+-]\d\d(:?\d\d)?)$", when.values[0])
            self.doubts["timezone"] = 'the shop\'s; it says what "a day" is' + (
                "" if aware else ", and reads these times"
            )
            fields["timezone"] = zone
        if fields.get("role") == "order_line":
            fields["currency"] = currency
            self.doubts["currency"] = "the shop's"
        return Source(**fields)

    def custom(self) -> tuple[str, str]:
        """Time zone and currency: those that most of the project's sources have."""
        zones = [s.timezone for s in self.known]
        currencies = [s.currency for s in self.known if s.role == "order_line"]
        return max(zones, key=zones.count, default="UTC"), max(currencies, key=currencies.count, default="EUR")

    def kind(self, when: Column | None) -> str:
        """Records say who somebody is; events that something happened."""
        if not when:
            return "records"
        happens = {"amount", "price", "order_id", "product_id", "campaign_id", "coupon_id", "kind", "quantity"}
        meanings = {c.meaning for c in self.columns}
        return "records" if len(meanings & set(TRAITS)) >= 2 and len(meanings & happens) < 2 else "events"

    def identifiers(self, file: Path, when: Column | None) -> dict[str, str]:
        found = {}
        for kind in IDENTIFIERS:
            if column := self.find(kind):
                called = self.called(kind)
                found[called] = self.use(column, f"the identifier {called}")
                self.doubts |= dict.fromkeys([called], column.doubts[0]) if column.doubts else {}
                if column.share(lambda v: re.fullmatch(r"\d+\.0", v)) > 0.5:
                    found[called] = f"regexp_replace({column.sql}::VARCHAR, '[.]0$', '')"
        if found:
            return found
        numbered = [
            c for c in self.columns if not c.meaning and re.search(rf"(^|_){NUMBERED}$", c.said) and c.distinct > 9
        ]
        if not numbered:
            nor = "" if when else ", and none when it happened"
            raise DataError(
                file.name, f"no column says who a row is about{nor}: {', '.join(c.name for c in self.columns[:9])} …",
                "export it with a customer number, e-mail, phone, card or device, or write the contract by hand",
            )  # fmt: skip
        self.doubts[self.called("customer")] = "a guess: the first column with a number of its own"
        numbered[0].why = "a guess: its name ends like a number's"
        return {self.called("customer"): self.use(numbered[0], f"the identifier {self.called('customer')}")}

    def called(self, kind: str) -> str:
        """What the project's sources call this type of identifier, so that they link."""
        theirs = Counter(key for s in self.known for key in s.identifiers)
        if kind in theirs:
            return kind
        stem = kind.rsplit("_", 1)[-1]
        return next((key for key, _ in theirs.most_common() if stem in key.split("_")), kind)

    def role(self, identifiers: dict[str, str], when: Column | None) -> tuple[str | None, dict[str, str]]:
        order, amount = self.find("order_id"), self.amount()
        if amount:
            columns = {"amount": amount}
            if order:
                columns = {"order_id": self.use(order, "order_id"), **columns}
            else:
                parts = [next(iter(identifiers.values())), *([when.sql] if when else [])]
                columns = {"order_id": " || ' ' || ".join(f"({part})::VARCHAR" for part in parts), **columns}
                self.doubts["order_id"] = "no order number: what one has at one time counts as one order"
            if quantity := self.find("quantity"):
                columns["quantity"] = number(quantity)
                self.use(quantity, self.used.get(quantity.name, "quantity"))
                if not self.find("cancelled") and quantity.share(lambda v: v.lstrip().startswith("-")) > 0:
                    columns["cancelled"] = f"{number(quantity)} < 0"
                    self.doubts["cancelled"] = "lines with a negative quantity are taken for returns"
            if reductions := [c for c in self.columns if c.meaning == "discount"]:
                columns["discount"] = " + ".join(number(c) for c in reductions)
                for column in reductions:
                    self.use(column, "discount" if len(reductions) == 1 else "discount, a part of it")
            for meaning in ("product_id", "category", "brand", "cancelled"):
                if column := self.find(meaning):
                    columns[meaning] = self.use(column, meaning)
            return "order_line", columns
        role = "redemption" if self.find("coupon_id") else "message" if self.find("campaign_id") else None
        columns = {m: self.use(c, m) for m in _FIELDS.get(role or "", ()) if (c := self.find(m))}
        if role and "kind" not in columns:  # "campaign_type" is a kind too
            loose = (c for c in self.columns if c.said.endswith(("_type", "_kind")) and c.distinct <= 50)
            if column := next(loose, None):
                columns["kind"] = self.use(column, "kind")
        if not role:
            self.notes.append(
                "No role fits (order_line, message, redemption): its identifiers will link people, and a view of your "
                'own can read it by name, with the columns that you add in columns={"…": "…"}.'
            )
        return role, columns

    def amount(self) -> str | None:
        """What a line costs: a total, else quantity × unit price."""
        total, price, quantity = self.find("amount"), self.find("price"), self.find("quantity")
        if total:
            return number(total) if self.use(total, "amount") else None
        if price and quantity:
            self.use(quantity, "quantity; amount, times price")
            self.use(price, "amount, times quantity")
            return f"{number(quantity)} * {number(price)}"
        if price:
            self.doubts["amount"] = "taken for the price of the whole line"
            return number(price) if self.use(price, "amount") else None
        return None

    def traits(self) -> dict[str, str]:
        traits = {}
        for column in self.columns:
            if column.name in self.used or not column.values:
                continue
            known = column.meaning in TRAITS and column.meaning not in traits
            name = column.meaning if known else column.said
            name = f"known_{name}" if name in self.taken else name
            short = column.share(lambda v: len(v) <= 60) >= 0.9
            if short and re.fullmatch(r"[a-z][a-z0-9_]*", name) and name not in traits:
                traits[name] = self.use(column, f"the trait {name}")
        return traits

    def table(self) -> list[tuple[str, str, str, str]]:
        rows = []
        for c in self.columns:
            some = _short(", ".join(_short(v, 24) for v in dict.fromkeys(c.values[:40])), 48)
            used = self.used.get(c.name, "")
            why = c.why if used else "" if c.values else "it is empty"
            rows.append((c.name, some, used or "kept in the row, not used", why))
        return rows


def _short(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
