"""Which tables and files does a home have, and how does what they hold belong to a person?

Erasure and export read it here and nowhere else. A table or folder that is not listed is still searched when an erasure
is verified, and a test sees to it that there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foretell.project import Project
from lake.place import names

# Columns of facts that say whether a person agrees to a purpose.
CONSENT = "consent_"


@dataclass(frozen=True)
class Held:
    """What a Delta table holds of people.

    what: in words. node: columns with an identifier in normal form ("email:jo@home.org"). profile: columns with a
    profile id. profiles: columns with lists of profile ids, in which a keyed digest takes the place of one who is
    erased (lake/audit.py). text: columns with text as it came, in which identifiers may be written in any form.
    follows: (column, key) of rows that mean nothing without the row of that key in the same table.
    """

    what: str
    node: tuple[str, ...] = ()
    profile: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    follows: tuple[str, str] | None = None


# Every table of the lake; "facts" stands for each source's.
TABLES: Mapping[str, Held] = {
    "facts": Held("what the sources said", node=("node",), text=("payload",)),
    "quarantine": Held("rows that could not be understood", text=("raw", "reason")),
    "consents": Held("consents given and withdrawn by hand", node=("node",)),
    "decisions": Held("decisions about who is who", node=("a", "b"), follows=("undoes", "decision_id")),
    "matches": Held("pairs of people who are probably one", node=("a", "b")),
    "scores": Held("scores with their contract", profile=("profile_id",)),
    "scored_rows": Held("the rows of features that were scored", profile=("profile_id",)),
    "scored_columns": Held("which features stand in these rows"),
    "memberships": Held("who entered and left which segment", profile=("profile_id",)),
    "exposures": Held("who was in which audience, and who was held out of it", profile=("profile_id",)),
    "outcomes": Held("what became of those who were scored", profile=("profile_id", "person")),
    "training_rows": Held("which models learned from whom", profile=("profile_id",)),
    "audit": Held("who read whose data", profiles=("profiles",)),
    "batches": Held("the ledger of loads: names of files and counts"),
    "erasures": Held("erasures: keyed digests of identifiers, and receipts"),
}

# Every folder and file of a home beside `lake/`: what becomes of it when a person is erased.
FOLDERS: Mapping[str, str] = {
    "derived": "removed, and made again from the facts that are left",
    "graph": "removed, and made again from the facts that are left",
    "features": "written again without the person",
    "scored": "written again without the person",
    "cache": "copies of the files of a lake in a bucket: those that are not of its current version are removed",
    "staging": "removed: a batch that was cut short begins anew",
    "spark": "removed: what was under way on Spark begins anew",
    "feast": "rows removed from the online store, in the home or in Redis",
    "serving": "published again",
    "landing": "removed: what was pulled is pulled again when it is needed",
    "collected": "lines removed",
    "collector": "keys of those who send: stays",
    "access": "keys of those who ask: digests; stays",
    "audit": "reads that are not in the table `audit` yet: taken in without the person's id",
    "journal.db": "names, times and counts of loads: stays",
    "mlflow": "models and their reports: no row of anyone",
    "tuning.db": "parameters that were tried: no row of anyone",
    "key": "stays",
    "writer.lock": "empty",
    "stream.lock": "empty",
    "writer.txt": "the last command",
}


def held(name: str) -> Held | None:
    """What the catalogue says of a table of the lake ("scores", "facts/till"); None: it is not listed."""
    return TABLES.get(name.split("/")[0])


def tables(project: Project) -> list[str]:
    """The Delta tables there are in the lake, those of sources that are declared no more among them."""
    return names(project)
