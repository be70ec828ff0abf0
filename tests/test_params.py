import math
from pathlib import Path
from typing import Literal

import pytest
from dvc.utils.hydra import apply_overrides
from pydantic import Field, ValidationError

from intents.params import Params, load_params, load_yaml, read_params
from tests.conftest import REPOSITORY


class Settings(Params):
    rate: float = Field(gt=0, lt=1)
    kind: Literal["a", "b"]
    name: str | None
    layers: int | Literal["none"] | list[str] = "none"
    limits: dict[str, float] = {}


GOOD = "some:\n  rate: 0.5\n  kind: a\n  name: null\n"


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "params.yaml"
        path.write_text(text, encoding="utf-8")
        return load_params("some", Settings, path)

    return load


def test_reads_a_section_and_leaves_others_alone(load):
    settings = load(GOOD + "other:\n  anything: [1, 2]\n")
    assert (settings.rate, settings.kind, settings.name) == (0.5, "a", None)


def test_settings_cannot_be_changed_after_loading(load):
    with pytest.raises(ValidationError, match="frozen"):
        load(GOOD).rate = 0.1


def test_reads_the_exponent_that_dvc_writes_as_a_number(load):
    # `dvc exp run -S some.rate=3e-5` writes 3e-05, a string in YAML 1.1.
    assert load(GOOD.replace("0.5", "3e-05")).rate == 3e-5


@pytest.mark.parametrize(
    ("written", "value"),
    [("off", "off"), ("no", "no"), ("12:30", "12:30"), ("1_000", "1_000"), ("'0'", "0"), ("null", None), ("~", None)],
)
def test_reads_words_as_dvc_writes_them(load, written, value):
    # It writes YAML 1.2, where they need no quotes; in 1.1 they are False, 750, 1000.
    assert load(GOOD.replace("null", written)).name == value


def test_reads_numbers_as_dvc_does():
    found = load_yaml("[010, 0x1F, 0o17, -3, +4, 1e3, .5, 2., -.inf, true, False]")
    assert found == [10, 31, 15, -3, 4, 1000.0, 0.5, 2.0, -math.inf, True, False]
    assert [type(value) for value in found[:6]] == [int] * 5 + [float]


def test_names_every_wrong_setting_once_with_value_and_valid_ones(load):
    with pytest.raises(ValueError) as caught:
        load("some:\n  rate: 1.5\n  kind: c\n  colour: red\n")
    message = str(caught.value)
    assert "4 wrong setting(s)" in message
    lines = message.splitlines()[1:]
    assert any("some.rate: input should be less than 1, got 1.5" in line for line in lines)
    assert any("some.kind" in line and "'a' or 'b'" in line and "got 'c'" in line for line in lines)
    assert any("some.colour: unknown setting; some has: rate, kind, name" in line for line in lines)
    assert any("some.name: missing; add it" in line for line in lines)
    assert len(lines) == 4


def test_a_missing_section_names_those_there_are(load):
    with pytest.raises(ValueError, match=r"no section 'some'; it has: prepare, train"):
        load("prepare: {}\ntrain: {}\n")


def test_an_empty_section_lacks_all_its_settings(load):
    with pytest.raises(ValueError, match=r"3 wrong setting\(s\)\n  some.rate: missing"):
        load("some:\n")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_rejects_a_file_without_sections(load, text):
    with pytest.raises(ValueError, match=r"params.yaml must hold sections of settings"):
        load(text)


def test_broken_yaml_says_where(load):
    with pytest.raises(ValueError, match=r"(?s)params.yaml is not valid YAML.*line 2"):
        load("some:\n  rate: [0.5\n")


def test_what_is_no_utf_8_and_a_date_that_no_calendar_has_name_the_file(tmp_path):
    for content in (GOOD.encode() + b"# caf\xe9\n", GOOD.encode() + b"date: 2020-13-45\n"):
        (tmp_path / "params.yaml").write_bytes(content)
        with pytest.raises(ValueError, match="params.yaml is not (valid YAML: |UTF-8 )"):
            load_params("some", Settings, tmp_path / "params.yaml")


def test_a_missing_file_says_from_where_to_run(tmp_path):
    with pytest.raises(ValueError, match="params.yaml does not exist: run this from the root of the repository"):
        load_params("some", Settings, tmp_path / "params.yaml")


def test_a_setting_of_several_kinds_is_named_once_with_all_that_is_valid(load):
    with pytest.raises(ValueError) as caught:
        load(GOOD + "  layers: {}\n  limits: {a: much}\n")
    title, *lines = str(caught.value).splitlines()
    assert "2 wrong setting(s)" in title
    assert lines[0].startswith("  some.layers: input should be a valid integer, or input should be 'none', or ")
    assert lines[1].startswith("  some.limits.a: input should be a valid number")


def test_true_is_no_number(load):
    with pytest.raises(ValueError) as caught:
        load("some:\n  rate: true\n  kind: a\n  name: null\n  layers: true\n")
    assert str(caught.value).splitlines()[1:] == [
        "  some.rate: is a number, neither true nor false, got True",
        "  some.layers: is a number, neither true nor false, got True",
    ]


def test_a_number_is_a_name_where_a_name_is_meant(load):
    settings = load("some:\n  rate: 0.5\n  kind: a\n  name: 0\n  layers: [1, 2]\n")
    assert (settings.name, settings.layers) == ("0", ["1", "2"])


def test_lists_and_mappings_are_asked_for_in_words_of_yaml(tmp_path, monkeypatch):
    class Shapes(Params):
        names: tuple[str, ...]
        rates: dict[str, float]

    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("shapes: {names: one, rates: [0.1]}")
    with pytest.raises(ValueError) as error:
        load_params("shapes", Shapes)
    assert "shapes.names: must be a list, such as [a, b], got 'one'" in str(error.value)
    assert "shapes.rates: must be a mapping, such as {a: 0.01}, got [0.1]" in str(error.value)


def test_no_comment_is_lost_where_dvc_writes_params_again_and_again(tmp_path):
    copy = tmp_path / "params.yaml"
    copy.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    for seed in range(3):
        apply_overrides(copy, [f"train.seed={seed}"])
    comments = [[line for line in path.read_text().splitlines() if line.strip().startswith("#")]
                for path in (REPOSITORY / "params.yaml", copy)]  # fmt: skip
    assert comments[0] == comments[1]


def test_mappings_may_be_merged_and_override_what_they_merge():
    text = "a: &a {x: 1, y: 1}\nbase:\n  inner: &b {<<: *a, x: 2}\nc: {<<: *b, z: 3}\nd: {1: x, '1': y}\n"
    found = load_yaml(text)
    assert found["base"]["inner"] == {"x": 2, "y": 1} and found["c"] == {"x": 2, "y": 1, "z": 3}
    assert found["d"] == {1: "x", "1": "y"}


def test_a_setting_or_section_that_is_there_twice_says_where(tmp_path):
    for text in ("train: {rate: 1, rate: 2}\n", "train:\n  rate: 1\ntrain:\n  rate: 2\n"):
        (tmp_path / "params.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"(?s)is not valid YAML: '\w+' is there twice.*line \d"):
            read_params(tmp_path / "params.yaml")
