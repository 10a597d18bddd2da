"""Which values did a profile's attributes have over time? Who said each, and when it was the one that survived.

Nothing is kept for this. The facts are asked once more, and the rule of the golden record decides at every instant at
which something became known of the profile: an identifier joined or left it, or a fact came in.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from foretell.declarations import Attribute
from foretell.errors import UnknownName, unknown
from foretell.project import Project
from lake.engine import instant, session
from unification.golden import attributes_of, loaded, long_sql
from unification.survivorship import decide, said


@dataclass
class Value:
    """A value as one source said it. first_seen, last_seen: of its facts, when they happened; known_at: of the first
    that was known. survived: (from, to) of each time it stood in the golden record; to is None: it does now. It holds
    for every T with from < T <= to."""

    attribute: str
    value: str
    source: str
    facts: int
    first_seen: datetime
    last_seen: datetime
    known_at: datetime
    survived: list[tuple[datetime, datetime | None]] = field(default_factory=list)


def history(project: Project, profile_id: str, attribute: str | None = None) -> list[Value]:
    """Every value of the traits (or of one) of a profile of today, up to the project's now; the latest said first."""
    now = instant(project.now)
    with session(project) as con:
        sources = loaded(con, project)
        traits, kinds = attributes_of(sources)
        if attribute in kinds and attribute not in traits:
            raise UnknownName(attribute, "is an identifier", f"`foretell profile {profile_id}` says since when each is")
        if attribute is not None and attribute not in traits:
            raise unknown("trait", attribute, traits)
        traits = [attribute] if attribute else traits
        rules = [project.definitions.attributes.get(name, Attribute(name)) for name in traits]
        con.execute(
            f"""CREATE TEMP TABLE own AS SELECT node, known_from, coalesce(known_to, {now}) AS known_to FROM member
                WHERE profile_id = ? AND known_from < {now}""",
            [profile_id],
        )
        parts = " UNION ALL BY NAME ".join(
            f"""SELECT DISTINCT s.* EXCLUDE (node) FROM ({said(i, source, rules, table)}) s SEMI JOIN own USING (node)
                WHERE known_at < {now} AND event_at < {now}"""
            for i, source in enumerate(sources)
            for table in [f'"{source.name}"']
        )
        con.execute(f"CREATE TEMP TABLE seen AS {parts}")
        con.execute(
            f"""CREATE TEMP TABLE moment AS SELECT row_number() OVER (ORDER BY turn)::INTEGER AS p, turn FROM (
                SELECT greatest(known_at, event_at) AS turn FROM seen UNION SELECT known_from FROM own
                UNION SELECT known_to FROM own) WHERE turn < {now};
            CREATE TEMP TABLE golden_owner AS SELECT node, p, known_from AS known_at,
                turn + INTERVAL 1 MICROSECOND AS cutoff
                FROM own JOIN moment ON known_from <= turn AND turn < known_to"""
        )
        counted = " UNION ALL ".join(
            f"""SELECT '{name}' AS attribute, v{i} AS value, src, count(*), min(event_at), max(event_at), min(known_at)
                FROM seen WHERE v{i} IS NOT NULL GROUP BY ALL"""
            for i, name in enumerate(traits)
        )
        names = [source.name for source in sources]
        found = {
            (trait, value, names[src]): Value(trait, value, names[src], *rest)
            for trait, value, src, *rest in con.execute(counted).fetchall()
        }
        decide(con, project, sources, rules, "o.cutoff")
        moments = [turn for (turn,) in con.execute("SELECT turn FROM moment ORDER BY p").fetchall()]
        won = con.execute(f"SELECT attribute, p, value, source FROM ({long_sql(rules, sources)})").fetchall()
    standing: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)
    for trait, p, value, source in won:
        standing[trait][p - 1] = (value, source)
    for trait, by_moment in standing.items():
        turns = [i for i in range(len(moments)) if i == 0 or by_moment.get(i) != by_moment.get(i - 1)]
        for begin, end in zip(turns, [*turns[1:], None], strict=True):
            if said_by := by_moment.get(begin):
                until = None if end is None else moments[end]
                found[(trait, *said_by)].survived.append((moments[begin], until))
    return sorted(found.values(), key=lambda v: (v.attribute, -v.last_seen.timestamp(), v.source, v.value))
