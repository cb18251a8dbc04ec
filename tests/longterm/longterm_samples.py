"""Streams made of scenes: vectors near one direction a scene, the same in every process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sample_moments import SECOND, SPACE, observation

from streammem.model import Observation


def scene_vectors(lengths: Sequence[int], *, dim: int = 32, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """(sum of lengths, dim) float32 unit vectors; scene i is ``lengths[i]`` frames around a direction of its own."""
    rng = np.random.default_rng(seed)
    out = []
    for length in lengths:
        direction = rng.normal(size=dim)
        out.append(direction / np.linalg.norm(direction) + noise * rng.normal(size=(length, dim)) / dim**0.5)
    vectors = np.concatenate(out)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def moments(vectors: np.ndarray, *, start: int = 0, stream: str = "cam", **changes: object) -> list[Observation]:
    """One observation a second."""
    return [
        observation(
            start + i,
            stream,
            embedding=vector,
            space=SPACE,
            capture_ns=(start + i) * SECOND,
            dim=len(vector),
            **changes,
        )
        for i, vector in enumerate(vectors)
    ]
