"""Hours of stream under a small budget: bytes on the disk and in RAM stay flat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streammem.benchmarks.soak import soak
from streammem.config import BudgetConfig, Config


@pytest.mark.slow
def test_six_hours_stay_flat(tmp_path: Path) -> None:
    """21,600 looks of 10 KB, 225 MB in all, through 32 MB of disk and 64 MB of RAM."""
    vectors = np.random.default_rng(5).standard_normal((1200, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    config = Config(budget=BudgetConfig(disk_bytes=32 << 20, ram_bytes=64 << 20))
    result = soak(tmp_path / "memory", vectors, config, hours=6, rate=1)
    assert result["observations"] == 21_600, "demotion merges, it never loses count"
    assert result["disk_max_mb"] <= 32
    assert result["rss_anon_growth"] <= 0.1
    last = result["curve"][-1]["segments"]
    assert last <= 2 * result["curve"][len(result["curve"]) // 2]["segments"]
