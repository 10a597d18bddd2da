"""Membership in time against oracles: networkx at every T, and what a profile's id, alias and intervals must be."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import networkx as nx
import pandas as pd
import pytest
from graphs import NO_LIMIT, Graph, Kept, connect
from hypothesis import given, settings
from hypothesis import strategies as st

from unification.store import Limits

ZERO = datetime(2024, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
TIMES = 8

Case = tuple[pd.DataFrame, pd.DataFrame]


def at(time: int) -> datetime:
    return ZERO + timedelta(hours=time)


def make(nodes: dict[str, int], edges: list[tuple[str, str, int]]) -> Case:
    """Frames for `connect`; a node is known at its own time or with its first edge, whichever is earlier.

    Each pair once, known since its first edge, the ends in the order of their names.
    """
    known, first = dict(nodes), {}
    for a, b, time in edges:
        pair = (min(a, b), max(a, b))
        first[pair] = min(first.get(pair, time), time)
    edges = [(a, b, time) for (a, b), time in first.items()]
    for a, b, time in edges:
        for node in (a, b):
            known[node] = min(known.get(node, time), time)
    born = pd.DataFrame({"node": list(known), "birth_id": [f"p-{n}" for n in known]})
    born["known_at"] = pd.to_datetime([at(t) for t in known.values()], utc=True).as_unit("us")
    links = pd.DataFrame(edges, columns=["a", "b", "known_at"])
    links["known_at"] = pd.to_datetime([at(t) for _, _, t in edges], utc=True).as_unit("us")
    return born, links


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Up to 25 nodes and 40 edges within eight instants, so that many are known in the same one; parallel edges too."""
    names = [f"n{i:02d}" for i in draw(st.permutations(range(draw(st.integers(1, 25)))))]
    time = st.integers(0, TIMES - 1)
    nodes = {name: draw(time) for name in names}
    ends = st.sampled_from(names)
    edges = [e for e in draw(st.lists(st.tuples(ends, ends, time), max_size=40)) if e[0] != e[1]]
    return make(nodes, edges)


def moments() -> list[datetime]:
    return [at(t) + shift for t in range(TIMES + 1) for shift in (timedelta(0), TICK)]


def members(graph: Graph, moment: datetime) -> pd.DataFrame:
    """The graph at T, as the rest of Foretell asks for it."""
    m = graph.member
    return m[(m["known_from"] < moment) & (m["known_to"].isna() | (m["known_to"] >= moment))]


def partition(frame: pd.DataFrame) -> set[frozenset[str]]:
    return {frozenset(part) for _, part in frame.groupby("profile_id")["node"]}


def expected(nodes: pd.DataFrame, edges: pd.DataFrame, moment: datetime) -> set[frozenset[str]]:
    graph = nx.Graph()
    graph.add_nodes_from(nodes.loc[nodes["known_at"] < moment, "node"])
    known = edges[edges["known_at"] < moment]
    graph.add_edges_from(zip(known["a"], known["b"], strict=True))
    return {frozenset(part) for part in nx.connected_components(graph)}


@settings(max_examples=60, deadline=None)
@given(cases())
def test_members_at_any_time_are_the_components_of_what_was_known(case: Case) -> None:
    nodes, edges = case
    graph = connect(nodes, edges, NO_LIMIT)
    for moment in moments():
        now = members(graph, moment)
        assert now["node"].is_unique
        assert partition(now) == expected(nodes, edges, moment)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_a_profile_has_the_birth_id_of_its_oldest_identifier(case: Case) -> None:
    nodes, edges = case
    age = {n: i for i, n in enumerate(nodes.sort_values(["known_at", "node"])["node"])}
    born = dict(zip(nodes["node"], nodes["birth_id"], strict=True))
    graph = connect(nodes, edges, NO_LIMIT)
    assert all(born[node] == birth for node, birth in zip(graph.member["node"], graph.member["birth_id"], strict=True))
    for moment in moments():
        for profile, part in members(graph, moment).groupby("profile_id")["node"]:
            assert profile == born[min(part, key=age.__getitem__)]


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(1, 8))
def test_intervals_of_a_node_follow_each_other_from_first_known_until_now(case: Case, largest: int) -> None:
    nodes, edges = case
    member = connect(nodes, edges, largest).member
    assert set(member["node"]) == set(nodes["node"])
    first = nodes.set_index("node")["known_at"]
    for node, rows in member.groupby("node"):
        rows = rows.sort_values("known_from")
        assert rows["known_from"].iloc[0] == first[node]
        assert list(rows["known_to"].iloc[:-1]) == list(rows["known_from"].iloc[1:])
        assert pd.isna(rows["known_to"].iloc[-1])
        assert (rows["known_to"].iloc[:-1] > rows["known_from"].iloc[:-1]).all()
        assert (rows["profile_id"] != rows["profile_id"].shift()).all()


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(1, 8))
def test_aliases_lead_to_the_profile_of_now_without_a_cycle(case: Case, largest: int) -> None:
    nodes, edges = case
    graph = connect(nodes, edges, largest)
    assert graph.alias["loser"].is_unique
    winner = dict(zip(graph.alias["loser"], graph.alias["winner"], strict=True))
    assert nx.is_directed_acyclic_graph(nx.DiGraph(list(winner.items())))
    now = graph.member[graph.member["known_to"].isna()]
    for birth, profile in zip(now["birth_id"], now["profile_id"], strict=True):
        found = birth
        while found in winner:
            found = winner[found]
        assert found == profile
    for row in graph.alias.itertuples():  # each names the edge that did it
        ends = {row.a, row.b}
        same = [{a, b} == ends for a, b in zip(edges["a"], edges["b"], strict=True)] & (
            edges["known_at"] == row.known_at
        )
        assert same.any()


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(1, 8))
def test_the_guard_refuses_and_reports_and_never_drops(case: Case, largest: int) -> None:
    nodes, edges = case
    graph = connect(nodes, edges, largest)
    for moment in moments():
        assert (members(graph, moment)["profile_id"].value_counts() <= largest).all()
    now = graph.member[graph.member["known_to"].isna()].set_index("node")["profile_id"]
    apart = edges[edges["a"].map(now).to_numpy() != edges["b"].map(now).to_numpy()]
    columns = ["known_at", "a", "b"]
    refused = graph.refused.sort_values(columns, ignore_index=True)
    pd.testing.assert_frame_equal(refused[columns], apart.sort_values(columns, ignore_index=True)[columns])
    assert all(reason.endswith(f"identifiers, limit {largest}") for reason in graph.refused["reason"])


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(1, 8), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(case: Case, largest: int, shuffle) -> None:
    nodes, edges = case
    one = connect(nodes, edges, largest)
    seed = shuffle.randrange(2**31)
    other = connect(nodes.sample(frac=1, random_state=seed), edges.sample(frac=1, random_state=seed), largest)
    for name in ("member", "alias", "refused"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(1, 8), st.integers(0, TIMES))
def test_what_comes_later_does_not_change_the_past(case: Case, largest: int, time: int) -> None:
    nodes, edges = case
    whole = connect(nodes, edges, largest)
    past = connect(nodes[nodes["known_at"] < at(time)], edges[edges["known_at"] < at(time)], largest)
    for moment in (m for m in moments() if m <= at(time)):
        columns = ["node", "birth_id", "profile_id", "known_from"]
        left, right = (members(g, moment)[columns].reset_index(drop=True) for g in (whole, past))
        assert left.to_dict("list") == right.to_dict("list")


# Decisions: vetoes, links said to be wrong, and both taken back.


def decided(*rows: tuple[str, str, str, int, int | None]) -> pd.DataFrame:
    """Decisions (kind, a, b, made, taken back) for `connect`."""
    frame = pd.DataFrame(rows, columns=["kind", "a", "b", "known_at", "known_to"])
    for name in ("known_at", "known_to"):
        frame[name] = pd.to_datetime([None if pd.isna(t) else at(int(t)) for t in frame[name]], utc=True).as_unit("us")
    return frame


@st.composite
def disputes(draw: st.DrawFn) -> tuple[Case, pd.DataFrame, int]:
    """A graph, up to six decisions about its nodes and links, and a limit."""
    nodes, edges = draw(cases())
    names = st.sampled_from(sorted(nodes["node"]))
    links = list(zip(edges["a"], edges["b"], strict=True))
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        unlink = bool(links) and draw(st.booleans())
        a, b = draw(st.sampled_from(links)) if unlink else (draw(names), draw(names))
        if draw(st.booleans()):
            a, b = b, a
        made = draw(st.integers(0, TIMES))
        back = draw(st.none() | st.integers(made, TIMES))
        if a != b:
            rows.append(("unlink" if unlink else "veto", a, b, made, back))
    return (nodes, edges), decided(*rows), draw(st.sampled_from([2, 3, 4, 6, NO_LIMIT]))


def in_force(start: datetime, end: datetime, moment: datetime) -> bool:
    return start < moment and (pd.isna(end) or end >= moment)


def greedy(
    case: Case, decisions: pd.DataFrame, limits: Limits, moment: datetime, blocked: frozenset[str] = frozenset()
) -> tuple[dict[str, str], list[tuple[datetime, str, str]]]:
    """The oracle: node -> profile at T by uniting plain sets link by link; and the links that were refused."""
    nodes, edges = case
    known = sorted((t, node) for node, t in zip(nodes["node"], nodes["known_at"], strict=True) if t < moment)
    age = {node: i for i, (_, node) in enumerate(known)}
    born = dict(zip(nodes["node"], nodes["birth_id"], strict=True))
    here = [
        row
        for row in decisions.itertuples()
        if in_force(row.known_at, row.known_to, moment) and {row.a, row.b} <= set(age)
    ]
    wrong = [{row.a, row.b} for row in here if row.kind == "unlink"]
    vetoes = [{row.a, row.b} for row in here if row.kind == "veto"]
    links = [link for link in zip(edges["known_at"], edges["a"], edges["b"], strict=True) if link[0] < moment]
    shared = set(blocked)
    for node in age:
        met = Counter((b if a == node else a)[0] for _, a, b in links if node in (a, b))
        if limits.shared.get(node[0], 0) and any(n > limits.shared[node[0]] for n in met.values()):
            shared.add(node)
    parts, refused = {node: {node} for node in age}, []
    for link in sorted(links, key=lambda link: (link[0], *sorted((age[link[1]], age[link[2]])))):
        _, a, b = link
        both = parts[a] | parts[b]
        kinds = Counter(node[0] for node in both)
        if {a, b} in wrong or a in shared or b in shared:
            refused.append(link)
        elif parts[a] is not parts[b]:
            if (
                len(both) > limits.largest
                or any(kinds[kind] > most for kind, most in limits.most.items() if most)
                or any(veto <= both for veto in vetoes)
            ):
                refused.append(link)
            else:
                for node in both:
                    parts[node] = both
    return {node: born[min(part, key=age.__getitem__)] for node, part in parts.items()}, refused


@settings(max_examples=100, deadline=None)
@given(disputes())
def test_the_graph_at_any_time_is_the_greedy_union_under_the_decisions_of_then(
    dispute: tuple[Case, pd.DataFrame, int],
) -> None:
    check(dispute)


def check(dispute: tuple[Case, pd.DataFrame, int]) -> None:
    (nodes, edges), decisions, largest = dispute
    compare(connect(nodes, edges, largest, decisions), (nodes, edges), decisions, Limits(largest))


def compare(
    graph: Graph, case: Case, decisions: pd.DataFrame, limits: Limits, blocked: frozenset[str] = frozenset()
) -> None:
    """The graph at every instant against the oracle: profiles, aliases, refused links."""
    nodes, edges = case
    rows, alias = graph.member.to_dict("records"), graph.alias.to_dict("records")
    births = dict(zip(nodes["node"], nodes["birth_id"], strict=True))
    refused: list[tuple[datetime, str, str]] = []
    for moment in moments():
        now = [row for row in rows if in_force(row["known_from"], row["known_to"], moment)]
        found = {row["node"]: row["profile_id"] for row in now}
        assert len(found) == len(now)
        expected, refused = greedy((nodes, edges), decisions, limits, moment, blocked)
        assert found == expected
        # whoever has an alias in force is no profile of its own, and every other identifier's birth id is one
        force = [row for row in alias if in_force(row["known_at"], row["known_to"], moment)]
        winner = {row["loser"]: row["winner"] for row in force}
        assert len(winner) == len(force)
        assert set(winner) == {births[node] for node, owner in found.items() if owner != births[node]}
        for node, owner in found.items():
            follow = births[node]
            for _ in range(len(winner) + 1):  # no cycle
                follow = winner.get(follow, follow)
            assert follow == owner
    shown = sorted(graph.refused[["known_at", "a", "b"]].itertuples(index=False, name=None))
    assert shown == sorted(refused)


@settings(max_examples=60, deadline=None)
@given(disputes())
def test_decisions_touch_nobody_else_and_once_taken_back_the_graph_is_as_without_them(
    dispute: tuple[Case, pd.DataFrame, int],
) -> None:
    (nodes, edges), decisions, largest = dispute
    plain = connect(nodes, edges, largest)
    graph = connect(nodes, edges, largest, decisions)
    network = nx.Graph(list(zip(edges["a"], edges["b"], strict=True)))
    network.add_edges_from(zip(decisions["a"], decisions["b"], strict=True))
    network.add_nodes_from(nodes["node"])
    near = {n for a in decisions["a"] for n in nx.node_connected_component(network, a)}
    far = [g.member[~g.member["node"].isin(near)].reset_index(drop=True) for g in (plain, graph)]
    pd.testing.assert_frame_equal(*far)
    back = decisions.assign(known_to=decisions["known_to"].fillna(pd.Timestamp(at(TIMES))))
    undone, never = members(connect(nodes, edges, largest, back), at(99)), members(plain, at(99))
    columns = ["node", "profile_id"]
    pd.testing.assert_frame_equal(undone[columns].reset_index(drop=True), never[columns].reset_index(drop=True))


def test_a_veto_refuses_the_link_that_came_last_and_gives_the_id_back() -> None:
    case = make({"a": 0, "b": 1, "c": 2, "d": 3}, [("a", "b", 4), ("c", "d", 4), ("b", "c", 5)])
    graph = connect(*case, decisions=decided(("veto", "a", "d", 6, 7)))
    assert partition(members(graph, at(6))) == {frozenset("abcd")}  # the past stays
    apart = members(graph, at(6) + TICK).set_index("node")["profile_id"].to_dict()
    assert apart == {"a": "p-a", "b": "p-a", "c": "p-c", "d": "p-c"}
    assert partition(members(graph, at(8))) == {frozenset("abcd")}
    history = graph.alias[graph.alias["loser"] == "p-c"]
    assert history["known_to"].tolist()[0] == at(6)
    assert pd.isna(history["known_to"].tolist()[1])


def test_a_link_said_to_be_wrong_parts_what_nothing_else_links() -> None:
    edges = [("a", "b", 1), ("b", "c", 2), ("a", "c", 3), ("c", "d", 4)]
    graph = connect(*make({}, edges), decisions=decided(("unlink", "c", "b", 5, None), ("unlink", "d", "c", 6, None)))
    assert partition(members(graph, at(6))) == {frozenset("abcd")}  # a and c are linked too
    assert partition(members(graph, at(7))) == {frozenset("abc"), frozenset("d")}
    assert graph.refused[["a", "b", "reason"]].to_numpy().tolist() == [
        ["b", "c", "said to be wrong"], ["c", "d", "said to be wrong"]
    ]  # fmt: skip


def test_a_decision_makes_room_for_a_link_that_was_refused() -> None:
    case = make({}, [("a", "b", 1), ("b", "c", 2), ("a", "d", 3)])
    graph = connect(*case, largest=3, decisions=decided(("unlink", "b", "c", 4, None)))
    assert partition(members(graph, at(4))) == {frozenset("abc"), frozenset("d")}
    assert partition(members(graph, at(5))) == {frozenset("abd"), frozenset("c")}


def test_links_of_the_same_instant_merge_at_once() -> None:
    graph = connect(*make({"a": 0, "b": 1, "c": 2, "d": 3}, [("c", "d", 5), ("b", "c", 5), ("a", "b", 5)]))
    assert partition(members(graph, at(5))) == {frozenset("a"), frozenset("b"), frozenset("c"), frozenset("d")}
    now = members(graph, at(5) + TICK)
    assert set(now["profile_id"]) == {"p-a"}
    assert len(graph.member) == 4 + 3  # b, c and d were their own profiles before, and nothing in between
    assert len(graph.alias) == 3


def test_an_identifier_first_met_in_a_link_never_was_a_profile_of_its_own() -> None:
    graph = connect(*make({"a": 0}, [("a", "b", 5)]))
    assert graph.member.loc[graph.member["node"] == "b", "profile_id"].tolist() == ["p-a"]
    assert graph.alias[["loser", "winner"]].to_numpy().tolist() == [["p-b", "p-a"]]


def test_the_refused_link_is_the_later_one_and_says_why() -> None:
    graph = connect(*make({}, [("a", "b", 1), ("b", "c", 2), ("c", "d", 3)]), largest=3)
    assert graph.refused[["a", "b", "reason"]].to_numpy().tolist() == [
        ["c", "d", "profile would hold 4 identifiers, limit 3"]
    ]
    assert partition(members(graph, at(9))) == {frozenset("abc"), frozenset("d")}


@pytest.mark.parametrize("nodes", [{}, {"a": 0}])
def test_a_graph_without_links_is_a_graph(nodes: dict[str, int]) -> None:
    graph = connect(*make(nodes, []))
    assert graph.member["node"].tolist() == list(nodes)
    assert graph.alias.empty
    assert graph.refused.empty


# Batches: whatever comes in whichever order, the graph is what it would be made of all of it at once.


@st.composite
def histories(draw: st.DrawFn) -> tuple[Limits, list[tuple]]:
    """Limits, and operations: batches of identifiers and links (of any time, known ones again too), decisions made and
    taken back, links deleted, limits changed. Names begin with their type: a, b or c."""
    names = [f"{'abc'[i % 3]}{i:02d}" for i in draw(st.permutations(range(draw(st.integers(2, 18)))))]
    name, time = st.sampled_from(names), st.integers(0, TIMES - 1)
    link = st.tuples(name, name, time)
    small = st.sampled_from([0, 1, 2, 3])
    limits = st.builds(
        Limits, st.sampled_from([2, 3, 4, 6, NO_LIMIT]), st.fixed_dictionaries({}, optional={"a": small, "b": small}),
        st.fixed_dictionaries({}, optional={"c": small, "b": small}),
    )  # fmt: skip
    batch = st.tuples(st.just("add"), st.lists(st.tuples(name, time), max_size=4), st.lists(link, max_size=8))
    decide = st.tuples(st.sampled_from(["veto", "unlink"]), name, name, st.integers(0, TIMES))
    other = st.one_of(
        decide, st.tuples(st.just("undo"), st.integers(0, 9), st.integers(0, TIMES)),
        st.tuples(st.just("delete"), st.integers(0, 99)), st.tuples(st.just("limits"), limits),
        st.tuples(st.just("block"), name),
    )  # fmt: skip
    return draw(limits), draw(st.lists(st.one_of(batch, batch, other), min_size=1, max_size=9))


def play(history: tuple[Limits, list[tuple]]) -> None:
    """Carry out a history batch by batch: at each step the graph is the oracle's, and it says whom it touched."""
    limits, steps = history
    kept, blocked = Kept(limits), frozenset()
    since: dict[str, int] = {}
    links: dict[tuple[str, str], int] = {}
    made: list[list] = []
    for step in steps:
        before = kept.frames()
        whole = False  # facts deleted or rules changed: made anew
        batch: tuple[dict[str, int], list[tuple[str, str, int]]] = ({}, [])
        if step[0] == "add":
            pairs = [(a, b, t) for a, b, t in step[2] if a != b]
            for name, t in [*step[1], *((n, t) for a, b, t in pairs for n in (a, b))]:
                batch[0][name] = min(batch[0].get(name, t), t)
                since[name] = min(since.get(name, t), t)
            for a, b, t in pairs:
                pair = (min(a, b), max(a, b))
                links[pair] = min(links.get(pair, t), t)
            batch = (batch[0], pairs)
        elif step[0] in ("veto", "unlink") and step[1] != step[2]:
            made.append([*step, None])
        elif step[0] == "undo" and made:
            made[step[1] % len(made)][4] = max(step[2], made[step[1] % len(made)][3])
        elif step[0] == "delete" and links:
            del links[sorted(links)[step[1] % len(links)]]
            whole = True
        elif step[0] == "limits":
            limits, whole = step[1], True
        elif step[0] == "block":
            blocked, whole = blocked | {step[1]}, True
        decisions = decided(*[tuple(m) for m in made])
        if whole:
            kept = Kept(limits)
            batch = (since, [(a, b, t) for (a, b), t in links.items()])
        raw = pd.DataFrame({"node": list(batch[0]), "known_at": stamps(batch[0].values())})
        ends = pd.DataFrame([e[:2] for e in batch[1]], columns=["a", "b"])
        kept.add(raw, ends.assign(known_at=stamps(t for *_, t in batch[1])), decisions, blocked)
        case = make(since, [(a, b, t) for (a, b), t in links.items()])
        graph = kept.frames()
        compare(graph, case, decisions, limits, blocked)
        if not whole:  # it says which profiles of today gained or lost an identifier
            old, new = ({(r.node, r.profile_id) for r in members(g, at(99)).itertuples()} for g in (before, graph))
            assert {owner for _, owner in old ^ new} <= {kept.births[o] for o in kept.owners}


def stamps(times) -> pd.Series:
    return pd.Series(pd.to_datetime([at(t) for t in times], utc=True), dtype="datetime64[us, UTC]")


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(histories())
def test_batch_by_batch_the_graph_is_that_of_all_at_once(history: tuple[Limits, list[tuple]]) -> None:
    play(history)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(histories())
def test_thousands_of_histories_of_batches_decisions_deletions_and_limits(history: tuple[Limits, list[tuple]]) -> None:
    play(history)


def test_a_device_that_many_share_links_nobody_from_then_on() -> None:
    links = [("a1", "d", 1), ("a2", "d", 2), ("a3", "d", 3), ("a1", "b", 4)]
    graph = connect(*make({}, links), limits=Limits(shared={"d": 2}))
    assert partition(members(graph, at(3))) == {frozenset({"a1", "a2", "d"})}  # as it was known then
    assert partition(members(graph, at(9))) == {
        frozenset({"a1", "b"}),
        frozenset({"a2"}),
        frozenset({"a3"}),
        frozenset("d"),
    }
    assert set(graph.refused["reason"]) == {"d is shared: met with more than 2 of another type"}


def test_a_profile_holds_no_more_of_a_type_than_it_may() -> None:
    graph = connect(*make({}, [("a1", "b", 1), ("a2", "b", 2)]), limits=Limits(most={"a": 1}))
    assert partition(members(graph, at(9))) == {frozenset({"a1", "b"}), frozenset({"a2"})}
    assert graph.refused["reason"].tolist() == ["profile would hold more than 1 identifiers of type a"]


def test_a_blocked_value_links_nobody_at_any_time() -> None:
    graph = connect(*make({}, [("a", "b", 1), ("b", "c", 2)]), blocked={"b"})
    assert partition(members(graph, at(9))) == {frozenset("a"), frozenset("b"), frozenset("c")}
    assert set(graph.refused["reason"]) == {"blocked value"}


def test_a_decision_keeps_two_parts_together_in_every_later_batch() -> None:
    """Also where no link connects them, and another decision or link of theirs comes later."""
    links = [("b10", "c02", 6), ("c05", "a00", 4), ("b01", "a00", 6), ("b01", "c05", 5)]
    more = [
        ("a00", "c11", 2),
        ("b07", "b10", 6),
        ("b07", "a06", 0),
        ("b01", "c05", 5),
        ("c05", "a00", 1),
        ("b07", "c08", 4),
    ]
    names = [("b04", 3), ("c08", 0), ("a03", 1), ("a06", 1)]
    steps = [("veto", "a00", "a06", 3), ("add", [("c05", 0)], links), ("add", names, more), ("veto", "b07", "a06", 3)]
    play((Limits(2), steps))


def test_a_batch_may_bring_nothing() -> None:
    play((Limits(2), [("veto", "a00", "b01", 0), ("add", [], [("a00", "b01", 0)]), ("add", [], [])]))
