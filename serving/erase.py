"""How is a person erased? Everywhere below the home, with a receipt, in steps that can be cut short and run again.

First it is written down that this person is being erased (see lake/erasure.py). Then each room forgets its own part:
facts and quarantine, decisions, scores, whose rows models learned from, files that came in, built features and what is
online. Then graph and profiles are made again from what is left, and the service is told. At last every file below the
home is decoded and searched for what was known of the person, and the receipt is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from features.store import forget as features_forget
from foretell.errors import ForetellError
from foretell.project import Project
from ingestion import erased
from ingestion.erased import Mentions, kinds_of
from lake import audit, catalogue, derived, erasure, place, spark
from lake.engine import session, table
from lake.erasure import Person, mine
from lake.scan import Searched, Words, search
from serving import staging
from serving.access.trail import take_in
from serving.fresh.store import forget as forget_fresh
from serving.http.index import file_of
from serving.publish import publish
from training.lineage import learned_from, untraced
from unification import forget as graph
from unification.forget import Known

# A value of a person's traits that is this long, and that nobody else has, is searched for too.
LONG_ENOUGH = 5
# What a receipt names beside, where the lake lies in a bucket.
_ELSEWHERE = (
    "earlier versions of objects, if the bucket keeps them",
    "copies of the lake's files in homes on other machines, until they read the tables again",
)


@dataclass(frozen=True)
class Plan:
    """What erasing a person will remove: table -> rows. texts: what must not be found afterwards anywhere."""

    known: Known
    counts: dict[str, int]
    models: list[dict[str, Any]]
    texts: list[str] = field(repr=False)


def plan(project: Project, who: str) -> Plan:
    """Look what is held of the person that an id or identifier means; nothing is changed. Raises UnknownName."""
    known = graph.known(project, who)
    digests = [erasure.digest(project.key, node) for node in known.nodes]
    finder = Mentions(project.key, kinds_of(project), digests)
    counts, texts = {}, {node.partition(":")[2] for node in known.nodes}
    with session(project) as con:
        mine(con, "theirs", known.nodes)
        mine(con, "ids", known.profile_ids)
        take_in(project)
        for name in catalogue.tables(project):
            if (held := catalogue.held(name)) is None or not (files := table(project, name).files()):
                continue
            scan = table(project, name).scan(files)
            if held.node or held.profile:
                parts = [f"{column} IN (SELECT value FROM theirs)" for column in held.node]
                parts += [f"{column} IN (SELECT value FROM ids)" for column in held.profile]
                counts[name] = int(
                    con.execute(f"SELECT count(*) FROM {scan} WHERE {' OR '.join(parts)}").fetchall()[0][0]
                )
            elif held.profiles:
                has = " OR ".join(f"list_has_any({c}, (SELECT list(value) FROM ids))" for c in held.profiles)
                counts[f"{name}, where a digest takes the id's place"] = int(
                    con.execute(f"SELECT count(*) FROM {scan} WHERE {has}").fetchall()[0][0]
                )
            elif held.text:
                rows = con.execute(f"SELECT {', '.join(held.text)} FROM {scan}").fetchall()
                counts[name] = sum(any(map(finder.find, row)) for row in rows)
            if name.startswith("facts/"):
                rows = con.execute(f"SELECT DISTINCT payload FROM {scan} WHERE node IN (SELECT value FROM theirs)")
                texts.update(piece for (payload,) in rows.fetchall() for piece in finder.find(payload))
        texts |= _traits(con, project)
    return Plan(
        known, {name: n for name, n in counts.items() if n}, learned_from(project, known.profile_ids), sorted(texts)
    )


def _traits(con: Any, project: Project) -> set[str]:
    """The values of traits in facts of `theirs` that stand in no fact of anybody else: names, streets."""
    found: set[str] = set()
    facts = {n: s for n, s in project.definitions.sources.items() if table(project, f"facts/{n}").exists}
    for name, source in facts.items():
        for trait in source.traits:
            query = f"""SELECT DISTINCT trim("{trait}") FROM "{name}" WHERE node IN (SELECT value FROM theirs)
                AND length(trim("{trait}")) >= {LONG_ENOUGH} AND regexp_matches("{trait}", '\\p{{L}}')"""
            found |= {value for (value,) in con.execute(query).fetchall()}
    for name in facts:
        mine(con, "values", sorted(found))
        others = f'SELECT DISTINCT payload FROM "{name}" WHERE node IS NULL OR node NOT IN (SELECT value FROM theirs)'
        query = f"""SELECT DISTINCT value, o.payload FROM ({others}) o JOIN "values"
            ON contains(lower(o.payload), lower("values".value))"""
        found -= {value for value, payload in con.execute(query).fetchall() if Words([value]).in_text(payload)}
    return found


def erase(project: Project, found: Plan, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Erase the person of a plan. Returns the receipt."""
    known = found.known
    person = erasure.begin(project, known.profile, known.profile_ids, known.nodes, known.until)
    return _carry_out(project, person, found, progress)


def resume(project: Project, progress: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """Finish the erasures that were cut short. Returns their receipts."""
    return [_carry_out(project, person, None, progress) for person in erasure.unfinished(project)]


def _carry_out(project: Project, person: Person, found: Plan | None, progress: Callable[[str], None]) -> dict[str, Any]:
    models = found.models if found else learned_from(project, person.profile_ids)
    gone: dict[str, int] = {}
    forget_fresh(project)  # first: who writes there stops until all is done
    progress("facts and quarantine")
    gone |= erased.forget(project, person)
    progress("files that came in")
    gone |= erased.forget_files(project, person)
    progress("decisions, consents, scores, lineage")
    gone |= erasure.forget(project, person)
    progress("features")
    gone |= features_forget.forget(project, person)
    staging.forget(project)
    spark.forget(project)
    gone["last batches"] = derived.forget(project.home / "scored", person.profile_ids)[0]
    _sweep(project)
    progress("graph and profiles")
    graph.rebuild(project)
    rebuilt = ["derived"]
    if file_of(project).exists():
        publish(project, progress)
        rebuilt.append("serving")
    progress("the trail of who read them")
    take_in(project)  # after the service has been told: what it wrote down until now is among it
    gone["audit, ids made digests"] = audit.forget(project, person)
    progress("searching every file")
    texts = found.texts if found else []
    inside = verify(project, texts)
    outside = search([project.folder], [*texts, *person.profile_ids], skip=[project.home])
    receipt = {
        "erasure_id": person.erasure_id, "profile_id": person.profile_id, "profile_ids": sorted(person.profile_ids),
        "finished_at": datetime.now(UTC).isoformat(), "blocks_facts_before": person.before.isoformat(),
        "identifiers": len(person.digests), "erased": {name: n for name, n in gone.items() if n},
        "rebuilt": rebuilt, "models": models, "models_of_unknown_rows": untraced(project),
        "kept_as_shared": _kinds(found.known.shared if found else []),
        "verified": _verified(project, inside, complete=found is not None),
        "outside_our_control": {
            "files": sorted({_below(project, file) for file, *_ in outside.hits}),
            "also": [
                "what was handed out before", "backups of the home", "the systems that the sources are of",
                *(_ELSEWHERE if place.bucket_of(project) else ()),
            ],
        },
    }  # fmt: skip
    erasure.finish(project, person, receipt)
    return receipt


def verify(project: Project, texts: list[str]) -> Searched:
    """Search every file below the home, and every object of the lake's bucket if it lies in one, for these texts."""
    return search(chain([project.home], place.fetched(project)), texts)


def _verified(project: Project, searched: Searched, complete: bool) -> dict[str, Any]:
    """What a receipt says of a search: counts, and where something was found, never what."""
    return {
        "files": searched.files, "formats": searched.formats, "too_short_to_search": len(searched.short),
        "found": sorted({f"{_below(project, file)}: {place}" for file, place, _ in searched.hits}),
        # of one that was cut short only digests are left to go by
        "by": "identifiers, as they were spelt, and traits nobody else has" if complete else "digests alone",
    }  # fmt: skip


def _kinds(nodes: list[str]) -> dict[str, int]:
    kinds = [node.partition(":")[0] for node in nodes]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def _sweep(project: Project) -> None:
    """Remove drafts that killed writers have left, and copies of a lake before: nobody else writes while we do."""
    place.tidy(project)
    for folder in ("features", "scored", "serving", "landing", "collected"):
        for draft in (project.home / folder).rglob(".*"):
            if draft.is_file() and draft.suffix[1:].isdigit():
                draft.unlink()


def _below(project: Project, file: Path) -> str:
    if address := place.address(project, file):
        return address
    return str(file.relative_to(project.folder)) if file.is_relative_to(project.folder) else file.name


def still_held(receipt: dict[str, Any]) -> ForetellError | None:
    """The error of an erasure after which something was found."""
    if not (places := receipt["verified"]["found"]):
        return None
    return ForetellError(
        receipt["profile_id"], f"is erased, but something of it was found: {'; '.join(places[:5])}",
        "see the receipt for all places; what is not Foretell's own must be removed by hand",
    )  # fmt: skip
