"""How close is a memory's vector search to a bare scan of the same bytes? Prints one JSON document.

    streammem bench search --rows 100000 1000000 --dim 384 --repeats 31

For every size and window: our call on the mapped file (``ours``), against faiss's fp16 list scanner called by hand,
faiss's ``IndexScalarQuantizer`` (with an id-range selector where there is a window), NumPy in chunks, and the time to
read the bytes once (``bytes``: a sum of 64-bit words), all on one thread, and a LanceDB table of the same float16 rows
without an index, where that is installed (``lancedb``; a filter on the row number is its window). The contestants take
turns, so that a disturbed second hits all of them. ``ratio`` is our median over the fastest bare scan's median.
``recall`` compares rows with the float64 answer over all rows of the window.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LANCE_CPU_THREADS"):
    os.environ.setdefault(_name, "1")

import faiss  # noqa: E402
import numpy as np  # noqa: E402

from streammem.cli.output import write_document  # noqa: E402
from streammem.storage.segment_writer import checksums  # noqa: E402
from streammem.storage.vectors import VectorFile, scan, write_vectors  # noqa: E402


def unit_rows(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """(rows, dim) float16 of norm 1. A random walk with cuts, as video is: neighbours are near-duplicates."""
    out = np.empty((rows, dim), np.float16)
    for start in range(0, rows, 50):
        count = min(50, rows - start)
        shot = rng.standard_normal(dim, dtype=np.float32) * 3 + rng.standard_normal((count, dim), dtype=np.float32)
        out[start : start + count] = shot / np.linalg.norm(shot, axis=1, keepdims=True)
    return out


def exact_rows(part: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    scores = np.concatenate(
        [part[i : i + 8192].astype(np.float64) @ query.astype(np.float64) for i in range(0, len(part), 8192)]
    ).astype(np.float32)
    return np.lexsort((np.arange(len(part)), -scores))[:k]


def bare_scanner(array: np.ndarray, k: int) -> Callable[[np.ndarray, int, int], np.ndarray]:
    quantizer: Any = faiss.ScalarQuantizer(array.shape[1], faiss.ScalarQuantizer.QT_fp16)
    coarse = faiss.IndexFlatIP(array.shape[1])
    scanner = quantizer.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, coarse, True, None, False)
    kept = (quantizer, coarse)

    def search(query: np.ndarray, lo: int, hi: int) -> np.ndarray:
        assert kept
        scores, rows = np.full(k, -np.inf, np.float32), np.full(k, -1, np.int64)
        codes = array[lo:hi].reshape(-1).view(np.uint8)
        scanner.set_query(faiss.swig_ptr(query))
        scanner.set_list(0, 0.0)
        scanner.scan_codes(hi - lo, faiss.swig_ptr(codes), None, faiss.swig_ptr(scores), faiss.swig_ptr(rows), k)
        return rows[np.lexsort((rows, -scores))] + lo

    return search


def faiss_index(array: np.ndarray, k: int) -> Callable[[np.ndarray, int, int], np.ndarray]:
    search_parameters: Any = faiss.SearchParameters
    index: Any = faiss.IndexScalarQuantizer(array.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for start in range(0, len(array), 50_000):
        index.add(array[start : start + 50_000].astype(np.float32))

    def search(query: np.ndarray, lo: int, hi: int) -> np.ndarray:
        if (lo, hi) == (0, index.ntotal):
            return index.search(query[None], k)[1][0]
        window: Any = search_parameters(sel=faiss.IDSelectorRange(lo, hi))
        return index.search(query[None], k, params=window)[1][0]

    return search


def numpy_scan(array: np.ndarray, k: int) -> Callable[[np.ndarray, int, int], np.ndarray]:
    def search(query: np.ndarray, lo: int, hi: int) -> np.ndarray:
        scores = np.concatenate([array[i : min(i + 4096, hi)].astype(np.float32) @ query for i in range(lo, hi, 4096)])
        best = np.argpartition(-scores, k)[:k]
        return best[np.argsort(-scores[best], kind="stable")] + lo

    return search


def lance_table(array: np.ndarray, k: int, folder: str) -> Callable[[np.ndarray, int, int], np.ndarray] | None:
    """LanceDB's exact search over all rows, or over those that a prefilter leaves; None where it isn't installed."""
    if importlib.util.find_spec("lancedb") is None:
        return None
    import lancedb
    import pyarrow

    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(array.reshape(-1)), array.shape[1])
    columns = {"row": pyarrow.array(np.arange(len(array))), "vector": vectors}
    table: Any = lancedb.connect(folder).create_table("vectors", pyarrow.table(columns))

    def search(query: np.ndarray, lo: int, hi: int) -> np.ndarray:
        asked = table.search(query, vector_column_name="vector").distance_type("dot")
        if (lo, hi) != (0, len(array)):
            asked = asked.where(f"row >= {lo} AND row < {hi}", prefilter=True)
        return asked.limit(k).select(["row", "_distance"]).to_arrow()["row"].to_numpy()

    return search


def measure(path: Path, array: np.ndarray, k: int, repeats: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    file = VectorFile(path)
    rows, dim = len(array), array.shape[1]
    contestants: dict[str, Callable[[np.ndarray, int, int], Any]] = {
        "ours": lambda query, lo, hi: file.search(query, k, lo, hi).rows,
        "bytes": lambda query, lo, hi: int(file.as_array()[lo:hi].reshape(-1).view(np.uint64).sum()),
        "faiss_scanner": bare_scanner(array, k),
        "faiss_index": faiss_index(array, k),
        "numpy": numpy_scan(array, k),
    }
    lance = lance_table(array, k, str(path) + ".lance")
    if lance is not None:
        contestants["lancedb"] = lance
    results = []
    for share in (1.0, 0.1, 0.01):
        width = max(k + 1, int(rows * share))
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        right = {name: 0 for name in ("ours", "lancedb") if name in contestants}
        for turn in range(repeats + 2):
            lo = int(rng.integers(0, rows - width + 1))
            near = array[int(rng.integers(0, rows))].astype(np.float32)
            query = near + np.float32(0.03) * rng.standard_normal(dim, dtype=np.float32)
            # In a new order every time: the first to read a window pays for fetching it into the cache.
            for name in rng.permutation(list(contestants)).tolist():
                search = contestants[name]
                if name in ("numpy", "lancedb") and turn > 6:
                    continue  # 20 times slower than the rest: a handful is enough
                start = time.perf_counter()
                found = search(query, lo, lo + width)
                if turn >= 2:  # the first two touch the pages
                    seconds[name].append(time.perf_counter() - start)
                if name in right and turn < 5:
                    wanted = exact_rows(array[lo : lo + width], query, k) + lo
                    right[name] += len(set(found.tolist()) & set(wanted.tolist()))
        p50 = {name: float(np.median(values)) * 1e3 for name, values in seconds.items()}
        p99 = {name: float(np.percentile(values, 99)) * 1e3 for name, values in seconds.items()}
        fastest = min(("faiss_scanner", "faiss_index", "numpy"), key=lambda name: p50[name])
        results.append(
            {
                "rows": rows,
                "dim": dim,
                "k": k,
                "window": share,
                "window_rows": width,
                "p50_ms": {name: round(value, 3) for name, value in p50.items()},
                "p99_ms": {name: round(value, 3) for name, value in p99.items()},
                "fastest_bare_scan": fastest,
                "ratio": round(p50["ours"] / p50[fastest], 3),
                "recall": right["ours"] / (5 * k),
                "recall_lancedb": right["lancedb"] / (5 * k) if "lancedb" in right else None,
            }
        )
    file.close()
    return results


def approximate(array: np.ndarray, k: int, repeats: int, seed: int) -> dict[str, Any]:
    """The index of ``storage/approximate.py`` over all rows, as a segment uses it: build time, recall, milliseconds."""
    from streammem.storage.approximate import ApproximateIndex, build

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        made = build(array, "index.bin")
        built = time.process_time() - begun
        if made is None:
            return {"rows": len(array), "build_cpu_s": round(built, 1), "index": "none: a scan is as quick"}
        entry, data = made
        path = Path(folder) / entry.name
        path.write_bytes(data)
        index = ApproximateIndex(path, entry, checksums(path).crcs)
        seconds: list[float] = []
        right = 0
        for turn in range(repeats + 2):
            near = array[int(rng.integers(0, len(array)))].astype(np.float32)
            query = near + np.float32(0.03) * rng.standard_normal(array.shape[1], dtype=np.float32)
            start = time.perf_counter()
            assert index.useful(k, 0, len(array), len(array))
            found = index.search(array, query, k, 0, len(array)).rows
            if turn >= 2:
                seconds.append(time.perf_counter() - start)
            right += len(set(found.tolist()) & set(scan(array, query, k, max_norm=2.0).rows.tolist()))
    return {
        "rows": len(array),
        "build_cpu_s": round(built, 1),
        "bytes": len(data),
        "share_of_vectors": round(len(data) / array.nbytes, 2),
        "lists": entry.lists,
        "nprobe": entry.nprobe,
        "recall_in_manifest": entry.recall,
        "recall_by_kind": entry.recalls,
        "recall": round(right / (k * (repeats + 2)), 4),
        "p50_ms": round(float(np.median(seconds)) * 1e3, 3),
        "p99_ms": round(float(np.percentile(seconds, 99)) * 1e3, 3),
    }


def first_call_ms(path: Path, dim: int) -> float:
    """Open and search once with cold mappings (the page cache is warm), faiss already imported."""
    query = np.ones(dim, np.float32) / np.float32(dim**0.5)
    start = time.perf_counter()
    with VectorFile(path) as file:
        file.search(query, 10)
    return round((time.perf_counter() - start) * 1e3, 2)


def main(arguments: list[str], as_json: bool = False) -> int:
    parser = argparse.ArgumentParser("streammem bench search", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--approximate", action="store_true", help="build an approximate index too (a minute at 1e6)")
    parser.add_argument("--folder", type=Path, default=None, help="where the files go (default: a temporary folder)")
    chosen = parser.parse_args(arguments)
    faiss.omp_set_num_threads(1)
    results: list[dict[str, Any]] = []
    indexed: list[dict[str, Any]] = []
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for rows in chosen.rows:
            path = Path(folder) / f"{rows}.vec"
            print(f"{rows} rows", file=sys.stderr)
            array = unit_rows(np.random.default_rng(chosen.seed), rows, chosen.dim)
            write_vectors(path, array)
            results += measure(path, array, chosen.k, chosen.repeats, chosen.seed)
            first[str(rows)] = first_call_ms(path, chosen.dim)
            if chosen.approximate:
                indexed.append(approximate(array, chosen.k, 10 * chosen.repeats, chosen.seed))
            path.unlink()
    document = {
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(), "threads": 1},
        "versions": {
            "faiss": faiss.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "lancedb": version("lancedb") if importlib.util.find_spec("lancedb") else "not installed: left out",
        },
        "open_and_first_search_ms": first,
        "results": results,
        "approximate": indexed,
    }
    report(document, as_json)
    return 0


def report(document: dict[str, Any], as_json: bool) -> None:
    """The document, or one line a measurement."""
    if as_json:
        write_document(document)
        return
    names = ("ours ms", "bare", "bytes", "numpy", "lancedb")
    print(f"{'rows':>9} {'window':>7} {''.join(f'{name:>8} ' for name in names)}{'ratio':>6} {'recall':>6}")
    for row in document["results"]:
        ms = row["p50_ms"]
        lance = f"{ms['lancedb']:>8.1f}" if "lancedb" in ms else f"{'none':>8}"
        print(
            f"{row['rows']:>9,} {row['window']:>7.0%} {ms['ours']:>8.2f} {ms[row['fastest_bare_scan']]:>8.2f} "
            f"{ms['bytes']:>8.2f} {ms['numpy']:>8.1f} {lance} {row['ratio']:>6.2f} {row['recall']:>6.2f}"
        )
    print(f"lancedb: {document['versions']['lancedb']}")
    for row in document["approximate"]:
        print("approximate index:", ", ".join(f"{name} {value}" for name, value in row.items()))
