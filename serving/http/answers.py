"""What goes in and out over HTTP? The types of the API, from which its documentation is made."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

MOST_PROFILES = 1_000
MOST_ROWS = 100
MOST_ALIKE = 10_000

Name = Annotated[str, Field(min_length=1, max_length=500)]
# 2.0 is an integer by JSON Schema, which pydantic's strict mode forgets.
Whole = Annotated[int, BeforeValidator(lambda said: int(said) if isinstance(said, float) and said % 1 == 0 else said)]


class ScoresRequest(BaseModel):
    """Whose scores, of which tasks?"""

    model_config = ConfigDict(
        extra="forbid", strict=True,
        json_schema_extra={"example": {"profiles": ["jo@home.org", "card:400001"], "tasks": ["churn"]}},
    )  # fmt: skip

    profiles: list[Name] = Field(
        min_length=1, max_length=MOST_PROFILES,
        description="Profile ids (former ones too) or identifiers: an e-mail, a card number, `phone:6145550123`.",
    )  # fmt: skip
    tasks: list[Name] | None = Field(
        None, min_length=1, max_length=100, description="Task names; without them, all that have been scored."
    )
    reasons: bool = Field(False, description="Say why, too: this takes several times as long.")
    features: bool = Field(False, description="Hand out the very row that was scored, too.")


class WhatIf(BaseModel):
    """Rows of features to be scored as if they were somebody's."""

    model_config = ConfigDict(
        extra="forbid", strict=True,
        json_schema_extra={"example": {"task": "churn", "rows": [{"orders_90d": 3, "days_since_order": 12.5}]}},
    )  # fmt: skip

    task: Name
    rows: list[dict[Name, float | bool | str | None]] = Field(
        min_length=1, max_length=MOST_ROWS, description="Features by name; null: unknown."
    )
    profile: Name | None = Field(None, description="Whose row the features that are not said are taken from.")


class LookalikesRequest(BaseModel):
    """Who is like whom?"""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"example": {"seed": "best_customers", "top": 500}}
    )

    seed: Annotated[
        Annotated[Name, Tag("segment")]
        | Annotated[list[Name], Field(min_length=1, max_length=MOST_PROFILES), Tag("profiles")],
        Discriminator(lambda said: "profiles" if isinstance(said, list) else "segment"),
    ] = Field(description="A declared segment; or profile ids or identifiers, of ten people at least.")
    among: Name | None = Field(None, description="A declared segment; only its members are found.")
    top: Whole = Field(100, ge=1, le=MOST_ALIKE, description="How many, the likest first.")


class Reason(BaseModel):
    """What a feature adds to a prediction: the log-odds of a probability, the log of an amount."""

    feature: str
    value: float | None
    effect: float
    text: str


class Score(BaseModel):
    """One score with its contract."""

    score_id: str = Field(description="The same for the same question: task, model, profile, cutoff and features.")
    task: str
    kind: str = Field(description="probability or amount")
    profile_id: str
    value: float = Field(description="The probability, the expected amount, or the expected days.")
    value_low: float | None = Field(description="Nine in ten amounts so foretold came to this or more.")
    value_high: float | None = Field(description="And to this or less. Null for a probability.")
    percentile: float = Field(description="Share of everyone eligible whose score is no higher, in %.")
    base_rate: float = Field(description="What a guess without a model would say.")
    reasons: list[Reason] | None = Field(description="The largest effects; null unless asked for.")
    model_version: str
    estimator: str
    feature_service: str
    features: dict[str, float | None] | None = Field(
        description="The very row that was scored, text as the model's codes; null unless asked for."
    )
    cutoff: datetime = Field(description="Nothing that became known at or after this instant is in it.")
    scored_at: datetime
    expires_at: datetime
    batch: int = Field(description="The last ingest batch that was known.")
    purpose: str = Field(description="What the score may be used for.")


class WhatIfScore(BaseModel):
    """What the model says of a row."""

    value: float
    value_low: float | None
    value_high: float | None
    percentile: float = Field(description="Share of everyone eligible whose score is no higher, in %.")
    reasons: list[Reason]
    features: dict[str, float | None] = Field(description="The row as the model reads it.")


class WhatIfAnswer(BaseModel):
    """One result per row asked for, in that order."""

    task: str
    profile_id: str | None = Field(description="Whose row was begun with.")
    kind: str
    base_rate: float
    model_version: str
    estimator: str
    cutoff: datetime = Field(description="Of the batch that the percentiles are counted in.")
    results: list[WhatIfScore]


class Rescored(BaseModel):
    """What the very model says of the very row now."""

    value: float
    identical: bool = Field(description="To the last bit what it said then.")
    difference: float


class Change(BaseModel):
    """A feature that is another than in the row that was scored, as the model reads it."""

    feature: str
    was: float | None
    now: float | None
    why: list[str] = Field(description="What is known to have changed it.")


class Rebuilt(BaseModel):
    """The row, made again from the facts."""

    agrees: bool = Field(description="The same comes out of the facts of its cutoff and batch.")
    then: list[Change] = Field(description="What is another, by these.")
    today: list[Change] = Field(description="What is another by all that is known now of before its cutoff.")
    problem: str | None = Field(description="Why it cannot be made again; null if it can.")
    batch: int = Field(description="The last ingest batch that is known by now.")


class Behind(BaseModel):
    """The facts behind a feature, the latest first."""

    feature: str
    value: Any
    seen: int
    behind: int = 0
    facts: list[dict[str, Any]]
    problem: str | None


class Explained(BaseModel):
    """A past score: its contract as it was written, whether it comes out again, and whence."""

    score: dict[str, Any] = Field(description="As it was written: see Score.")
    rescored: Rescored
    reasons: list[Reason]
    same_reasons: bool | None = Field(description="Whether those are as they were written; null if none were.")
    rebuilt: Rebuilt
    behind: list[Behind] = Field(description="Of the features of the reasons.")


class Judged(BaseModel):
    """How well a candidate found the seeds that were held out."""

    model: str
    metric: str
    value: float | None
    low: float | None
    high: float | None


class Mark(BaseModel):
    """What tells the seed apart: a feature, and what is typical of the seed and of the others."""

    feature: str
    weight: float
    seed: float | str | None
    others: float | str | None


class Alike(BaseModel):
    """Somebody who is no seed, and the probability of being one."""

    profile_id: str
    likeness: float


class Lookalikes(BaseModel):
    """A seed expanded, the likest first."""

    cutoff: datetime = Field(description="The features are as of the last batch.")
    seeds: int
    others: int = Field(description="How many were ranked.")
    unknown: list[str] = Field(description="Those of the seed that nobody has.")
    estimator: str = Field(description="The candidate that ranks.")
    why: str = Field(description="And why it was chosen.")
    evaluation: list[Judged]
    marks: list[Mark]
    results: list[Alike]


class TaskProblem(BaseModel):
    """Why there is no score of a task for a profile."""

    task: str
    problem: str
    fix: str


class Scores(BaseModel):
    """A profile's scores, and the tasks that it has none of."""

    profile: str = Field(description="As it was asked for.")
    profile_id: str
    scores: list[Score]
    problems: list[TaskProblem]


class NoProfile(BaseModel):
    """What was asked for means no profile, or several."""

    profile: str
    problem: str
    fix: str


class ScoresAnswer(BaseModel):
    """One result per profile asked for, in that order."""

    cutoff: datetime | None = Field(description="The latest cutoff among the tasks; each score says its own.")
    results: list[Scores | NoProfile]


class Trait(BaseModel):
    """What is held to be true about a person, and where it comes from."""

    attribute: str
    value: str
    source: str
    known_at: datetime
    distinct_values: int


class Identifier(BaseModel):
    """How a person is known somewhere."""

    identifier: str
    known_since: datetime
    source: str | None


class Profile(BaseModel):
    """Everything about a person, as published; scores as of now."""

    profile_id: str
    former_ids: list[str]
    traits: list[Trait]
    identifiers: list[Identifier]
    segments: list[str]
    scores: list[Score]
    problems: list[TaskProblem]
    published_at: datetime


class ErrorBody(BaseModel):
    """What the error is about, what was expected and what came, and how to mend it."""

    subject: str
    problem: str
    fix: str


class Error(BaseModel):
    """Every error looks like this."""

    error: ErrorBody


class ChampionFacts(BaseModel):
    """The model that answers, and the batch that it is compared with."""

    version: str
    estimator: str
    base_rate: float
    feature_service: str
    cutoff: datetime
    expires_at: datetime
    eligible: int


class TaskFacts(BaseModel):
    """What is predicted, for whom, how far ahead, and by which model."""

    name: str
    kind: str | None
    description: str
    population: str
    horizon_days: float
    metric: str
    purpose: str
    champion: ChampionFacts | None
    problem: ErrorBody | None


class Tasks(BaseModel):
    """Every declared task."""

    tasks: list[TaskFacts]


class SegmentFacts(BaseModel):
    """A rule, and how many profiles satisfied it when it was published."""

    name: str
    rule: str
    description: str
    size: int | None
    problem: str | None


class Segments(BaseModel):
    """Every declared segment."""

    segments: list[SegmentFacts]
    published_at: datetime


class Ready(BaseModel):
    """What is served now."""

    status: str
    published_at: datetime
    tasks: dict[str, ChampionFacts]
    problems: list[TaskProblem]
