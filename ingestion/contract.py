"""How do a file's rows become facts? A source contract, compiled to SQL over the table `raw`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from foretell.declarations import Source
from foretell.roles import REQUIRED
from ingestion.files import Raw
from ingestion.normalise import identifier
from ingestion.traits import trait
from lake.catalogue import CONSENT
from lake.engine import instant, quote

_YES = "('yes', 'y', 'true', 't', '1', 'granted', 'given', 'opt_in', 'opt-in', 'opted_in', 'subscribed')"
_NO = """('no', 'n', 'false', 'f', '0', 'withdrawn', 'denied', 'revoked', 'opt_out', 'opt-out', 'opted_out',
    'unsubscribed')"""
# A clock may be ahead of ours by this much before we say that a fact comes from the future.
CLOCK_SKEW = "INTERVAL 10 MINUTE"


@dataclass(frozen=True)
class Plan:
    """SQL that makes a table `stamped`: every row of `raw` that the source counts among its facts, with its stamps,
    columns and, if it is bad, its reason."""

    sql: str
    columns: list[str]


def plan(
    source: Source,
    raw: Raw,
    *,
    file: str,
    batch: int,
    received_at: str,
    again: bool = False,
    asked: Collection[str] = (),
) -> Plan:
    """Compile a contract for one file. A column that the file lacks is refused, with the nearest name.

    again: the rows were received before, at `_received`, and may know their `_fact_id`; received_at is when they are
    read again, before which a live fact was not known. asked: identifier types of which the table `forms` has some.
    """
    where = f"source {source.name}, {file}"
    raw = told(raw, source)

    def sql(text: str) -> str:
        return raw.expression(text, what=where)

    checks: list[str] = []
    columns: list[str] = []
    for name, kind in source.fields.items():
        expression = source.columns.get(name) or source.traits.get(name) or source.account_columns.get(name)
        value = sql(expression) if expression else "NULL"
        cast = (
            f"TRY_CAST(nullif(trim(({value})::VARCHAR), '') AS {kind})" if kind != "VARCHAR" else f"({value})::VARCHAR"
        )
        if kind == "DOUBLE":  # one NaN would make every sum NaN
            cast = f"CASE WHEN isfinite({cast}) THEN {cast} END"
        if name in source.traits:
            cast = trait(source.kind_of(name), value, source.country)
        columns.append(f'{cast} AS "{name}"')
        if source.role and name in REQUIRED[source.role]:
            said = name if expression == name else f"{name} ({quote(expression)})"
            got = f"""coalesce('"' || ({value})::VARCHAR || '"', 'nothing')"""
            checks.append(
                f"""WHEN {cast} IS NULL OR trim(({cast})::VARCHAR) = ''
                    THEN '{said}: expected {kind}, got ' || {got}"""
            )
        elif expression and kind != "VARCHAR":
            checks.append(
                f"""WHEN {cast} IS NULL AND nullif(trim(({value})::VARCHAR), '') IS NOT NULL
                    THEN '{name}: expected {kind}, got "' || ({value})::VARCHAR || '"'"""
            )
    for purpose, expression in source.consents.items():
        value = f"nullif(trim(({sql(expression)})::VARCHAR), '')"
        agreed = f"CASE WHEN lower({value}) IN {_YES} THEN true WHEN lower({value}) IN {_NO} THEN false END"
        columns.append(f'{agreed} AS "{CONSENT}{purpose}"')
        checks.append(
            f"""WHEN {value} IS NOT NULL AND ({agreed}) IS NULL
                THEN 'consent to {purpose}: expected yes or no, got "' || {value} || '"'"""
        )
    identifiers = {
        kind: identifier(kind, sql(text), source.country, lookup=kind in asked)
        for kind, text in source.identifiers.items()
    }
    columns += [f'{expression} AS "id_{kind}"' for kind, expression in identifiers.items()]
    anchors = ", ".join(f"'{kind}:' || ({expression})" for kind, expression in identifiers.items())
    columns.append(f"{f'coalesce({anchors})' if anchors else 'NULL::VARCHAR'} AS node")

    if source.key:  # rows of one key, in one batch, are versions in their order
        said = f"nullif(trim(({sql(source.key)})::VARCHAR), '')"
        columns += [f'{said} AS "row_key"', 'CAST(_row AS BIGINT) AS "row_nr"']
        checks.append(f"WHEN {said} IS NULL THEN 'no key: {quote(source.key)} is empty'")

    now = f"TIMESTAMPTZ '{received_at}'"
    received = "_received" if again else now
    if source.stream and not again:  # the collector had it before it was loaded, and says when
        received = f"coalesce(TRY_CAST(json_extract_string(_payload, '$.receivedAt') AS TIMESTAMPTZ), {now})"
    if source.event_at:
        text = sql(source.event_at)
        happened = _time(text, source.times_in or source.timezone)
        shown, column = f"({text})::VARCHAR", quote(source.event_at)
        checks[:0] = [
            f"WHEN ({text}) IS NULL OR trim({shown}) = '' THEN 'no time: {column} is empty'",
            f"WHEN {happened} IS NULL THEN '{column}: expected a time, got \"' || {shown} || '\"'",
            f"WHEN {happened} < TIMESTAMPTZ '1970-01-02' THEN '{column}: expected a time after 1970, got ' || {shown}",
            f"WHEN {happened} > {received} + {CLOCK_SKEW} THEN 'happens in the future: ' || {shown}",
        ]
    else:
        happened = instant(source.known_since) if source.known_since else received
    if source.known_at:
        said, column = sql(source.known_at), quote(source.known_at)
        instant_known = _time(said, source.times_in or source.timezone)
        known = f"coalesce({instant_known}, {now})"  # a file that leaves it empty was known when it came
        checks.append(
            f"""WHEN {instant_known} IS NULL AND nullif(trim(({said})::VARCHAR), '') IS NOT NULL
                THEN '{column}: expected a time, got "' || ({said})::VARCHAR || '"'"""
        )
    elif source.delay is None:
        known = now if again else received
    elif source.event_at:
        known = f"{happened} + to_microseconds({int(source.delay.total_seconds() * 1e6)})"
    else:
        known = happened if source.known_since else now
    for name, condition in source.rules.items():
        checks.append(f"""WHEN NOT TRY({sql(condition)}) THEN 'rule "{quote(name)}": {quote(condition)} is false'""")
    day = f"timezone('{source.timezone}', {happened})::DATE"
    stamps = [
        f"{batch}::BIGINT AS batch",
        f"{happened} AS event_at",
        f"{received} AS received_at",
        f"{known} AS known_at",
        f"{day} AS event_day",
    ]
    if source.kind == "events":
        stamps.append(f"date_trunc('month', {day})::DATE AS event_month")
    reason = f"CASE {' '.join(checks)} END" if checks else "NULL::VARCHAR"
    body = ", ".join([*stamps, *columns])
    # The same line twice in one file is two facts; the same line in two files, or in a file loaded twice, is one.
    fact_id = f"""md5('{source.name}' || chr(31) || _payload) || '-' || {raw.copy}"""
    if source.unique:
        told_by = f"({sql(source.unique)})::VARCHAR"
        fact_id = f"md5('{source.name}' || chr(31) || {told_by})"
        empty = f"trim(coalesce({told_by}, '')) = ''"
        reason = f"CASE WHEN {empty} THEN 'no key: {quote(source.unique)} is empty' ELSE {reason} END"
    if again:
        fact_id = f"coalesce(_fact_id, {fact_id})"
    facts = f"raw WHERE {sql(source.only)}" if source.only else "raw"
    return Plan(
        f"SELECT _row, {fact_id} AS fact_id, {body}, _payload AS payload, {reason} AS _reason FROM {facts}",
        ["fact_id", *(c.rsplit(" AS ", 1)[1].strip('"') for c in [*stamps, *columns]), "payload"],
    )


def told(raw: Raw, source: Source) -> Raw:
    """The rows read, and what the contract says of their columns' names."""
    return replace(raw, aliases=source.aliases, optional=source.optional)


def _time(text: str, zone: str) -> str:
    """SQL for an instant: values with an offset as they are, naive ones in the source's zone.

    A time that the zone's clock skipped in spring is read as if it had not been put forward yet (02:30 is 03:30); one
    that it showed twice in autumn is the second, which is winter's. Where that matters, files should say the offset.
    """
    value = f"trim(({text})::VARCHAR)"
    # an offset, or the name of a zone, after a time of day; "epoch" and "infinity" are no times of a fact
    aware = f"regexp_matches({value}, '[0-9]:[0-9].*([A-Za-z]|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$')"
    no_offset = f"regexp_matches({value}, ':[0-9.]+ ?[+-](1[6-9]|[2-9][0-9])(:?[0-9]{{2}})?$')"  # none is that far
    return (
        f"CASE WHEN NOT regexp_matches({value}, '^[0-9]') OR {no_offset} THEN NULL "
        f"WHEN {aware} THEN TRY_CAST({value} AS TIMESTAMPTZ) "
        f"ELSE timezone('{zone}', TRY_CAST({value} AS TIMESTAMP)) END"
    )
