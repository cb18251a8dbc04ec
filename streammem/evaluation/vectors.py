"""Sentence vectors of many texts, made once, in batches of like length: a batch costs what its longest text costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

BATCH = 256

Embed = Callable[[Sequence[str]], np.ndarray]


def vectors_of(texts: Iterable[str], embed: Embed, cache: Path, told: Callable[[str], None]) -> dict[str, np.ndarray]:
    """Every text's vector (d,) float32, L2-normalised; kept in ``cache`` (npz, float16), where those of an earlier run
    are taken from. ``told`` hears how far it is. A cache that can't be read is made anew."""
    known: dict[str, np.ndarray] = {}
    if cache.is_file():
        try:
            with np.load(cache, allow_pickle=False) as kept:
                known = dict(zip(kept["texts"].tolist(), kept["vectors"].astype(np.float32), strict=True))
        except (OSError, ValueError, KeyError):
            told(f"{cache} can't be read and is made anew")
    missing = sorted(set(texts) - set(known), key=lambda text: (len(text), text))
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        known.update(zip(batch, np.asarray(embed(batch), np.float32), strict=True))
        told(f"{min(start + BATCH, len(missing))} of {len(missing)} texts")
    if missing:
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, texts=np.array(list(known)), vectors=np.stack(list(known.values())).astype(np.float16))
    return {text: vector / max(float(np.linalg.norm(vector)), 1e-9) for text, vector in known.items()}
