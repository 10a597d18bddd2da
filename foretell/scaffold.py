"""What does a new project folder hold? A settings file, the folders for definitions, and one contract to start from."""

from __future__ import annotations

from pathlib import Path

from foretell.errors import DataError

_FILES = {
    "foretell.toml": """\
# Settings of this project; an environment variable FORETELL_<NAME> overrides each. `foretell status` shows them all.
[foretell]
exports = "exports"        # folder that the sources' file patterns start from
# as_of = "2024-01-01"     # the project's "now", if its data end in the past
""",
    "sources/orders.py": '''\
"""The shop's order lines: one contract a file. `foretell source new FILE` proposes one for a file of yours."""

from foretell import Source

orders = Source(
    name="shop",
    files="orders/*.csv",              # .csv, .jsonl, .parquet or .xlsx below exports/
    role="order_line",                 # what the standard views are written against
    event_at="ordered_at",             # when it happened
    timezone="Europe/Oslo",            # the shop's: "a day" is the shop's day
    currency="NOK",
    identifiers={"email": "email"},    # identifier type -> column, the strongest first
    columns={                          # the role's column -> SQL over the row's columns
        "order_id": "order_id",
        "amount": "quantity * price",
        "quantity": "quantity",
        "product_id": "sku",
    },
)
''',
    "views/README.md": "One feature view a file; see “Add a feature” in Foretell's README.\n",
    "tasks/README.md": "One prediction task a file; see “Add a prediction” in Foretell's README.\n",
    "attributes/README.md": "Which value of an attribute survives; see “The golden record” in Foretell's README.\n",
    "segments/likely_to_leave.yaml": """\
name: likely_to_leave
description: The fifth most likely to place no order in the next 90 days
rule: top(churn, 0.2)
""",
    ".gitignore": ".foretell/\nexports/\n",
}


def write(folder: Path) -> list[str]:
    """Write a new project folder; refuses to touch one that is a project already. Returns the files written."""
    if (folder / "foretell.toml").exists():
        raise DataError(str(folder), "is a project already", "choose another folder, or edit this one")
    for name, text in _FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(text)
    (folder / "exports" / "orders").mkdir(parents=True, exist_ok=True)
    return list(_FILES)
