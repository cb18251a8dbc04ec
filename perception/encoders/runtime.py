"""ONNX Runtime sessions as every encoder here opens them: CPU, one thread, quiet."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from streammem.errors import ModelUnavailable

if TYPE_CHECKING:
    import onnxruntime


def options(*, optimise: bool = True) -> onnxruntime.SessionOptions:
    """One thread: streams and workers run beside each other, and a sum split over threads isn't reproducible.

    ``optimise=False`` is for a graph that was stored after optimisation: it halves the time to open."""
    import onnxruntime as ort

    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = 1
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.log_severity_level = 3
    # Spinning wins microseconds on an idle machine and burns a core that the decoder needs on a busy one.
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not _has_vnni():
        # Then the quick 8-bit product saturates at 16 bits: take the exact one, or machines would differ. Where VNNI
        # is, it would only halve the speed.
        chosen.add_session_config_entry("session.x64quantprecision", "1")
    level = ort.GraphOptimizationLevel
    chosen.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    return chosen


@cache
def _has_vnni() -> bool:
    """Whether the processor sums 8-bit products in 32 bits (AVX-512 VNNI, AVX-VNNI); True where nothing says so."""
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return True  # no x86 Linux: the setting is for x86 alone
    return "vnni" in flags


def open_session(path: Path, *, optimise: bool = True) -> onnxruntime.InferenceSession:
    """Open a model file. Raises ModelUnavailable where ONNX Runtime refuses it."""
    import onnxruntime as ort

    try:
        return ort.InferenceSession(str(path), options(optimise=optimise), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes of its own
        raise ModelUnavailable(f"ONNX Runtime can't open {path}: {error}", hint=f"delete {path.parent}") from error
