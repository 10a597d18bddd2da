"""Segments declared in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretell.errors import DefinitionError
from segments.definitions import load_segments
from segments.predicate import parse


def test_segments_are_loaded_by_name(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text("rule: top(clv, 0.2)\n")
    (tmp_path / "a.yaml").write_text("name: risk\nrule: |\n  churn > 0.6\n  and city = 'Oslo'\ndescription: Leaving.\n")
    (tmp_path / "notes.txt").write_text("no segment")
    found = load_segments(tmp_path)
    assert list(found) == ["best", "risk"]
    assert found["best"].rule == parse("top(clv, 0.2)")
    assert (found["best"].description, found["best"].path) == ("", tmp_path / "best.yaml")
    assert found["risk"].rule.columns == {"churn", "city"}
    assert found["risk"].description == "Leaving."
    (tmp_path / "held.yaml").write_text("rule: x > 1\ncontrol: 0.25\n")
    assert (found["best"].control, load_segments(tmp_path)["held"].control) == (0.0, 0.25)


def test_a_folder_that_does_not_exist_holds_none(tmp_path: Path) -> None:
    assert load_segments(tmp_path / "segments") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected keys and values, got an empty file"),
        ("- rule", "expected keys and values, got a list"),
        ("rule: [", "expected YAML, got"),
        ("rule: 'a\n", "expected YAML, got"),
        ("description: none", "expected a rule, got none; add e.g. rule:"),
        (
            "rules: a > 1",
            "expected the keys name, rule, description, purpose, control, got 'rules'; did you mean \"rule\"?",
        ),
        ("rule: true", "expected text as rule, got True (bool); put the rule in quotes"),
        ("rule:", "expected text as rule, got None"),
        ("rule: a > 1\nname: 5", "expected text as name, got 5 (int)"),
        ("rule: a > 1\nname: ../etc", "expected a name of letters, digits, - and _, got '../etc'"),
        ("rule: a > 1\ncontrol: 0.5", "expected a share above 0 and below 0.5 as control, got 0.5"),
        ("rule: a > 1\ncontrol: 0", "got 0; write control: 0.1 to hold out a tenth"),
        ("rule: a > 1\ncontrol: -0.1", "above 0 and below 0.5 as control, got -0.1"),
        ("rule: a > 1\ncontrol: yes", "above 0 and below 0.5 as control, got True"),
        ("rule: a > 1\ncontrol: a tenth", "above 0 and below 0.5 as control, got 'a tenth'"),
        ("rule: a > 1\ncontrol: .nan", "above 0 and below 0.5 as control, got nan"),
        ("rule: a >", "syntax error at character 3"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(DefinitionError) as caught:
        load_segments(tmp_path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_bytes(b"rule: \xff")
    with pytest.raises(DefinitionError, match=r"odd\.yaml: expected YAML"):
        load_segments(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rule: x > 1\nname: b\n")
    (tmp_path / "b.yaml").write_text("rule: x > 2\n")
    with pytest.raises(DefinitionError) as caught:
        load_segments(tmp_path)
    assert "b.yaml: expected one segment of the name 'b', got a second one beside" in str(caught.value)
    assert "rename one of the two" in str(caught.value)


def test_the_other_ending_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("rule: x > 1\n")
    with pytest.raises(DefinitionError, match=r"rename it a\.yaml"):
        load_segments(tmp_path)
