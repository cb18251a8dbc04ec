"""Settings: who wins, what is refused, and what a person is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from streammem.config import Config
from streammem.errors import ConfigError
from streammem.settings import field_docs, fields, load_settings, redact, validate_file, value_at

CONFIGS = Path(__file__).parent.parent / "configs"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_the_defaults(tmp_path: Path) -> None:
    settings = load_settings(environment={}, directory=tmp_path)
    assert settings.config == Config()
    assert settings.file is None
    assert {origin[-1].layer for origin in settings.origins.values()} == {"default"}


def test_flags_beat_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    write(tmp_path / "streammem.yaml", "perception:\n  fps: 2\n  ocr: false\nrecall:\n  k: 7\n")
    settings = load_settings(
        environment={"STREAMMEM__PERCEPTION__FPS": "3", "STREAMMEM__RECALL__K": "8"},
        flags={"--fps perception.fps": "4"},
        directory=tmp_path,
    )
    assert (settings.config.perception.fps, settings.config.recall.k, settings.config.perception.ocr) == (4.0, 8, False)
    (explained,) = settings.explain("perception.fps")
    assert explained.winner.where == "--fps"
    assert [(lost.layer, lost.where, lost.value) for lost in explained.lost] == [
        ("environment", "$STREAMMEM__PERCEPTION__FPS", "3"),
        ("file", f"{tmp_path / 'streammem.yaml'}:2", "2"),
        ("default", "default", 1.0),
    ]
    assert (explained.kind, explained.bounds, explained.unit) == ("a number", "> 0, <= 240", "frames a second")
    assert explained.doc == "Frames a second that are looked at."


def test_set_loses_to_the_flag_of_its_own_name() -> None:
    settings = load_settings(environment={}, assignments=["perception.fps=2"], flags={"--fps perception.fps": "5"})
    assert settings.config.perception.fps == 5.0


def test_one_file_is_read_and_the_most_explicit_wins(tmp_path: Path) -> None:
    write(tmp_path / "streammem.yaml", "recall: {k: 1}")
    named = write(tmp_path / "named.yaml", "recall: {k: 2}")
    variable = write(tmp_path / "variable.yaml", "recall: {k: 3}")
    environment = {"STREAMMEM_CONFIG": str(variable)}
    assert load_settings(file=named, environment=environment, directory=tmp_path).config.recall.k == 2
    assert load_settings(environment=environment, directory=tmp_path).config.recall.k == 3
    assert load_settings(environment={}, directory=tmp_path).config.recall.k == 1


def test_explaining_a_section_and_everything() -> None:
    settings = load_settings(environment={})
    assert [item.key for item in settings.explain("budget")] == [
        "budget.disk_bytes",
        "budget.ram_bytes",
        "budget.policy",
    ]
    assert [item.key for item in settings.explain()] == list(fields())
    with pytest.raises(ConfigError, match=r"did you mean perception\.fps\?"):
        settings.explain("perception.fsp")


def test_yaml_words_that_yaml_takes_for_booleans(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "perception:\n  speech: off\n  ocr: no\n  space: yes\n")
    perception = load_settings(file=file, environment={}).config.perception
    assert (perception.speech, perception.ocr, perception.space) == ("off", False, "yes")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4096", 4096), ("32MB", 32 << 20), ("1.5 GiB", 3 << 29), ("64k", 64 << 10), ("2tb", 2 << 40), ("0", 0)],
)
def test_bytes_are_written_as_people_write_them(text: str, expected: int) -> None:
    config = load_settings(environment={}, assignments=[f"budget.disk_bytes={text}"]).config
    assert config.budget.disk_bytes == expected


@pytest.mark.parametrize(
    ("situation", "text", "line", "words"),
    [
        ("a misspelt key", "perception:\n  fsp: 2\n", 2, "did you mean perception.fps?"),
        ("a key without its section", "fps: 2\n", 1, "did you mean perception.fps?"),
        ("a key of nothing known", "perception:\n  zzzzzz: 2\n", 2, "there is no setting"),
        ("out of bounds", "perception:\n\n  fps: -1\n", 3, "greater than 0"),
        ("a word for a number", "recall:\n  k: many\n", 2, "a whole number, >= 1, <= 1000, default 5"),
        ("not one of the choices", "perception:\n  decoder: ffmpeg\n", 2, "one of pyav, decord, opencv"),
        ("a list", "perception:\n  fps: [1, 2]\n", 2, "needs one value"),
        ("no value", "perception:\n  fps:\n", 2, "needs one value"),
        ("a section that is a word", "perception: fast\n", 1, "holds settings by name"),
        ("a list of settings", "- a\n- b\n", 1, "holds settings by name"),
        ("twice", "recall:\n  k: 1\n  k: 2\n", 3, "set twice"),
        ("not a number that JSON knows", "perception:\n  fps: .nan\n", 2, "perception.fps = '.nan'"),
        ("bytes in an unknown unit", "budget:\n  disk_bytes: 3 floppies\n", 2, "a whole number"),
    ],
)
def test_problems_name_the_line(tmp_path: Path, situation: str, text: str, line: int, words: str) -> None:
    file = write(tmp_path / "c.yaml", text)
    problems = validate_file(file)
    assert problems, situation
    assert problems[0].where == f"{file}:{line}", situation
    assert words in str(problems[0]), situation
    with pytest.raises(ConfigError) as caught:
        load_settings(file=file, environment={})
    assert words in str(caught.value)


def test_all_problems_are_listed_in_the_order_of_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "recall:\n  k: 0\nperception:\n  fps: 0\n  nonsense: 1\n")
    assert [problem.key for problem in validate_file(file)] == ["recall.k", "perception.fps", "perception.nonsense"]


@pytest.mark.parametrize(
    ("situation", "content", "words"),
    [
        ("a broken bracket", b"perception: {fps: 2\n", ":2:"),
        ("a tab", b"perception:\n\tfps: 2\n", ":2:1"),
        ("a Python object", b"perception: !!python/object/apply:os.system ['true']\n", "holds settings by name"),
        ("an alias bomb", b"a: &a [1, 1]\nb: [*a, *a]\n", "aliases (*a) aren't read"),
        ("bytes", b"\xff\xfe\x00", "not a text file in UTF-8"),
        ("control characters", b"recall: \x1b\n", "special characters"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, situation: str, content: bytes, words: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(file=file, environment={})
    assert words in str(caught.value), situation
    assert "\n" not in str(caught.value)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "#" * (2 << 20))
    with pytest.raises(ConfigError, match="too large"):
        load_settings(file=file, environment={})


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config: no file is at .*gone\.yaml"):
        load_settings(file=tmp_path / "gone.yaml", environment={})
    with pytest.raises(ConfigError, match=r"\$STREAMMEM_CONFIG: no file is at"):
        load_settings(environment={"STREAMMEM_CONFIG": str(tmp_path)})


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    for text in ("", "# only a comment\n", "perception:\n"):
        assert load_settings(file=write(tmp_path / "c.yaml", text), environment={}).config == Config()


@pytest.mark.parametrize(
    ("environment", "assignments", "words"),
    [
        ({"STREAMMEM__PERCEPTION__FPPS": "2"}, [], "$STREAMMEM__PERCEPTION__FPPS: there is no setting"),
        ({"STREAMMEM__PERCEPTION__FPS": "fast"}, [], "$STREAMMEM__PERCEPTION__FPS: perception.fps = 'fast'"),
        ({}, ["perception.fps"], "has no value"),
        ({}, ["perception.fps=0"], "--set: perception.fps = '0'"),
        ({}, ["perception=fast"], "--set: there is no setting 'perception'"),
    ],
)
def test_wrong_variables_and_flags(environment: dict[str, str], assignments: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(environment=environment, assignments=assignments)
    assert words in str(caught.value)


def test_a_value_that_loses_is_not_checked_by_the_winner(tmp_path: Path) -> None:
    settings = load_settings(
        environment={"STREAMMEM__CACHE_DIR": "/somewhere"}, assignments=["cache_dir=/else=where"], directory=tmp_path
    )
    assert settings.config.cache_dir == "/else=where"


def test_secrets_are_not_shown() -> None:
    assert redact("endpoint.api_key", "sk-123") == "***"
    assert redact("endpoint.api_key", "") == ""
    assert redact("endpoint.url", "https://user:pass@host/v1") == "https://***@host/v1"
    settings = load_settings(environment={}, assignments=["perception.model=https://me:secret@hub/x"])
    assert "secret" not in str(settings.redacted())
    assert "secret" not in str(settings.explain("perception.model"))
    assert settings.config.perception.model.endswith("me:secret@hub/x")


@pytest.mark.parametrize("name", ["default", "robot", "long_video"])
def test_the_shipped_files_are_valid(name: str) -> None:
    assert validate_file(CONFIGS / f"{name}.yaml") == []


def test_the_default_file_is_the_defaults_and_names_every_key() -> None:
    settings = load_settings(file=CONFIGS / "default.yaml", environment={})
    assert settings.config == Config()
    assert [key for key, given in settings.origins.items() if given[-1].layer != "file"] == []


def test_documentation_is_read_from_the_source() -> None:
    docs = field_docs()
    assert set(docs) <= set(fields())
    assert docs["recall.max_question"] == "Longest question in characters."
    assert value_at(Config(), "recall.max_question") == 2000
