"""The scan against brute force, and files that are damaged in every place."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammem.errors import CorruptData, FormatVersion, MemoryClosed, ObservationError, QueryError, SpaceMismatch
from streammem.storage import vectors as module
from streammem.storage.vectors import FOOTER, HEADER, VectorFile, scan, write_vectors


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    x = rng.standard_normal((n, d)).astype(np.float32)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def brute(x: np.ndarray, query: np.ndarray, k: int, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray]:
    """Float64, sorted by score and then by row: written apart from the module on purpose."""
    scores = [np.float32(sum(float(a) * float(b) for a, b in zip(row, query, strict=True))) for row in x[lo:hi]]
    order = sorted(range(hi - lo), key=lambda i: (-scores[i], i))[:k]
    return np.array([scores[i] for i in order], np.float32), np.array(order, np.int64) + lo


@pytest.fixture(params=["numpy", "faiss"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every property holds for either kernel."""
    use_faiss = request.param == "faiss"
    monkeypatch.setattr(module, "_compiled", lambda count: use_faiss)
    return request.param


@pytest.mark.parametrize("use_faiss", [False, True])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_equals_brute_force_with_ties_and_windows(use_faiss: bool, data: st.DataObject) -> None:
    n, d = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 20))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    # Few distinct values: many rows are equal or have equal scores.
    x = rng.integers(-2, 3, (n, d)).astype(np.float16)
    query = rng.integers(-2, 3, d).astype(np.float32)
    k, lo = data.draw(st.integers(1, 70)), data.draw(st.integers(0, n))
    hi = data.draw(st.integers(lo, n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_compiled", lambda count: use_faiss)
        scores, rows = scan(x, query, k, lo, hi, max_norm=2.0 * np.sqrt(d))
    want_scores, want_rows = brute(x, query, k, lo, hi)
    assert rows.tolist() == want_rows.tolist()
    assert scores.tolist() == want_scores.tolist()
    assert scores.dtype == np.float32 and rows.dtype == np.int64


@pytest.mark.parametrize("dim", [3, 8, 20, 384, 385])
def test_both_kernels_give_the_same_bytes(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(dim)
    x, query = unit(rng, 5000, dim), rng.standard_normal(dim).astype(np.float32)
    answers = []
    for use_faiss in (False, True):
        monkeypatch.setattr(module, "_compiled", lambda count, use=use_faiss: use)
        answers.append([scan(x, query, k, lo, hi) for k in (1, 10, 700) for lo, hi in ((0, 5000), (17, 900))])
    for by_numpy, by_faiss in zip(*answers, strict=True):
        assert by_numpy.rows.tolist() == by_faiss.rows.tolist()
        assert by_numpy.scores.tobytes() == by_faiss.scores.tobytes()


def test_frozen_camera_gives_the_first_rows(kernel: str) -> None:
    """20,000 equal vectors: more ties than any heap holds; the earliest rows win."""
    x = np.repeat(unit(np.random.default_rng(1), 1, 64), 20_000, axis=0)
    scores, rows = scan(x, x[0].astype(np.float32), 7, lo=11)
    assert rows.tolist() == list(range(11, 18))
    assert len(set(scores.tolist())) == 1


def test_nearly_equal_rows_are_ranked_by_the_exact_score(kernel: str) -> None:
    """Rows that differ by one float16 step: float32 sums alone put some of them in the wrong order."""
    rng = np.random.default_rng(2)
    x = np.repeat(unit(rng, 1, 384), 3000, axis=0)
    x[np.arange(3000), rng.integers(0, 384, 3000)] += np.float16(2e-5)
    query = x[0].astype(np.float32)
    scores, rows = scan(x, query, 50)
    exact = (x.astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    want = np.lexsort((np.arange(3000), -exact))[:50]
    assert rows.tolist() == want.tolist()
    assert scores.tolist() == exact[want].tolist()


def test_zero_and_tiny_queries(kernel: str) -> None:
    x = unit(np.random.default_rng(3), 300, 16)
    assert scan(x, np.zeros(16, np.float32), 3).rows.tolist() == [0, 1, 2]
    tiny = np.full(16, 1e-42, np.float32)
    assert scan(x, tiny, 5).rows.tolist() == brute(x, tiny, 5, 0, 300)[1].tolist()


def test_file_round_trip(tmp_path: Path, kernel: str) -> None:
    rng = np.random.default_rng(4)
    x = unit(rng, 20_000, 48)
    write_vectors(tmp_path / "v", x.astype(np.float32))
    with VectorFile(tmp_path / "v") as file:
        assert (file.n, file.dim, len(file)) == (20_000, 48, 20_000)
        assert file.as_array().tobytes() == x.tobytes()
        assert not file.as_array().flags.writeable
        file.verify()
        query = rng.standard_normal(48).astype(np.float32)
        for lo, hi in ((0, None), (5, 1005), (19_999, 20_000), (7, 7)):
            got, want = file.search(query, 10, lo, hi), scan(x, query, 10, lo, hi)
            assert got.rows.tolist() == want.rows.tolist() and got.scores.tolist() == want.scores.tolist()


def test_empty_file(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v", np.empty((0, 384), np.float32))
    file = VectorFile(tmp_path / "v")
    scores, rows = file.search(np.ones(384, np.float32), 5)
    assert (file.n, file.dim, scores.shape, rows.shape) == (0, 384, (0,), (0,))
    file.verify()
    file.close()


def test_view_outlives_close(tmp_path: Path) -> None:
    x = unit(np.random.default_rng(5), 10, 8)
    write_vectors(tmp_path / "v", x)
    file = VectorFile(tmp_path / "v")
    view = file.as_array()
    file.close()
    file.close()
    assert view.tobytes() == x.tobytes()
    with pytest.raises(MemoryClosed, match="is closed"):
        file.search(np.ones(8, np.float32), 1)


def test_threads_search_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled scanner holds the query: a shared one would mix the answers up."""
    monkeypatch.setattr(module, "_compiled", lambda count: True)
    rng = np.random.default_rng(6)
    x = unit(rng, 30_000, 64)
    write_vectors(tmp_path / "v", x)
    wrong: list[int] = []
    with VectorFile(tmp_path / "v") as file:

        def ask(start: int) -> None:
            for row in range(start, start + 50):
                if file.search(x[row].astype(np.float32), 1).rows[0] != row:
                    wrong.append(row)

        threads = [threading.Thread(target=ask, args=(i * 1000,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "error", "call"),
    [
        ("k is zero", QueryError, lambda x: scan(x, np.ones(8, np.float32), 0)),
        ("k is negative", QueryError, lambda x: scan(x, np.ones(8, np.float32), -1)),
        ("a short query", SpaceMismatch, lambda x: scan(x, np.ones(7, np.float32), 1)),
        ("a matrix as query", SpaceMismatch, lambda x: scan(x, np.ones((1, 8), np.float32), 1)),
        ("NaN in the query", QueryError, lambda x: scan(x, np.full(8, np.nan, np.float32), 1)),
        ("infinity in the query", QueryError, lambda x: scan(x, np.full(8, np.inf, np.float32), 1)),
        ("a query that overflows", QueryError, lambda x: scan(x, np.full(8, 1e38, np.float32), 1)),
        ("a negative start", QueryError, lambda x: scan(x, np.ones(8, np.float32), 1, -1)),
        ("an end past the rows", QueryError, lambda x: scan(x, np.ones(8, np.float32), 1, 0, 11)),
        ("float32 rows", ObservationError, lambda x: scan(x.astype(np.float32), np.ones(8, np.float32), 1)),
        ("one row only", ObservationError, lambda x: scan(x[0], np.ones(8, np.float32), 1)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input(name: str, error: type[Exception], call: object) -> None:
    with pytest.raises(error):
        call(unit(np.random.default_rng(0), 10, 8))  # type: ignore[operator]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 70_000.0])
def test_values_that_float16_can_not_hold(tmp_path: Path, bad: float) -> None:
    x = np.zeros((9000, 4), np.float32)
    x[8500, 2] = bad
    with pytest.raises(ObservationError, match="vector 8500"):
        write_vectors(tmp_path / "v", x)
    with pytest.raises(CorruptData):
        VectorFile(tmp_path / "v")


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2), (3, 0)])
def test_shapes_that_are_no_matrix(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ObservationError, match="shape"):
        write_vectors(tmp_path / "v", np.zeros(shape, np.float32))
    with pytest.raises(ObservationError, match="float64"):
        write_vectors(tmp_path / "v", np.zeros((2, 2)))


def test_every_flipped_byte_and_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "v"
    write_vectors(path, unit(np.random.default_rng(7), 5, 4))
    good = path.read_bytes()
    assert len(good) == HEADER.size + 5 * 4 * 2 + FOOTER.size
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        with pytest.raises(CorruptData) as caught, VectorFile(path) as file:
            file.verify()
        assert caught.value.path == str(path) and caught.value.offset is not None
    for size in range(len(good)):
        path.write_bytes(good[:size])
        with pytest.raises(CorruptData):
            VectorFile(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(CorruptData):
        VectorFile(path)
    path.unlink()
    with pytest.raises(CorruptData, match="missing"):
        VectorFile(path)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v"
    write_vectors(path, unit(np.random.default_rng(8), 2, 4))
    path.write_bytes(module._sealed(HEADER, module.MAGIC, module.VERSION + 1, 4, 2) + path.read_bytes()[HEADER.size :])
    with pytest.raises(FormatVersion, match="upgrade"):
        VectorFile(path)


def test_writing_goes_through_the_file_layer(tmp_path: Path) -> None:
    class Recording:
        calls: list[str] = []  # noqa: RUF012

        def open(self, path: Path, mode: str) -> IO[bytes]:
            self.calls.append(f"open {path.name} {mode}")
            return open(path, mode)

        def fsync(self, handle: IO[bytes]) -> None:
            self.calls.append("fsync")
            handle.flush()

    layer = Recording()
    write_vectors(tmp_path / "v", np.zeros((2, 2), np.float16), layer)
    assert layer.calls == ["open v wb", "fsync"]
    VectorFile(tmp_path / "v").close()


def test_one_short_question_imports_neither_faiss_nor_torch(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v", unit(np.random.default_rng(9), 7200, 32))  # two hours at one frame a second
    program = (
        "import sys, numpy as np\n"
        "from streammem.storage.vectors import VectorFile, scan\n"
        f"file = VectorFile({str(tmp_path / 'v')!r})\n"
        "file.search(np.ones(32, np.float32), 5)\n"
        "assert not {'faiss', 'torch', 'scipy'} & set(sys.modules)\n"
        "for _ in range(20): file.search(np.ones(32, np.float32), 5)\n"
        "assert 'faiss' in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
