"""Acceptance 10 of the tracking page, the clauses on refinement and on what a frame costs in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.trackers import occlusion, picture_ops
from perception.trackers.evaluate import Remembered, find_sequences, read_labels, read_picture
from perception.trackers.features import ColourGradients, GridFeatures, Lite0Maps
from perception.trackers.metrics import jaccard
from perception.trackers.propagation import PropagationSettings, PropagationTracker

DAVIS = Path(__file__).parents[3] / "shared" / "data" / "davis16"
REFINEMENTS = ("none", "guided", "grabcut")
WORSE = 0.02
"""What a refinement may cost a clip in J (the page's number)."""


def mean_j(frames: list[tuple[np.ndarray, np.ndarray]], features: GridFeatures) -> dict[str, float]:
    """Mean J of one clip by refinement; features are computed once."""
    shared = Remembered(features)
    runs = {
        how: PropagationTracker(PropagationSettings(refinement=how), features=shared)  # type: ignore[arg-type]
        for how in REFINEMENTS
    }
    scores: dict[str, list[float]] = {how: [] for how in runs}
    for t, (image, truth) in enumerate(frames):
        shared.at = t
        for how, run in runs.items():
            tracked = run.step(image, t=t, prompts={"o": truth} if t == 0 else None)
            if t:
                scores[how].append(jaccard(tracked.masks.get("o", np.zeros_like(truth)), truth))
    return {how: float(np.mean(values)) for how, values in scores.items()}


@pytest.mark.parametrize("kind", occlusion.KINDS)
def test_10_refinement_costs_no_clip_much(kind: str) -> None:
    clip = [(frame.image, frame.mask) for _, frame in zip(range(8), occlusion.clip(kind, 1), strict=False)]
    found = mean_j(clip, ColourGradients(long_side=occlusion.WIDTH))
    assert min(found["guided"], found["grabcut"]) >= found["none"] - WORSE, found
    # These clips have sharp edges: where refinement can help, it does.
    assert found["grabcut"] > found["none"] + 0.02, found


@pytest.mark.parametrize("how", ["guided", "grabcut"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), level=st.floats(-0.2, 0.9))
def test_10_whatever_comes_back_keeps_to_the_coarse_mask(how: picture_ops.Refinement, seed: int, level: float) -> None:
    """The floor rule on noise, where refinement is at its worst: at least FLOOR of IoU, or the coarse mask itself."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (60, 80, 3), np.uint8)
    soft = np.clip(cv2.GaussianBlur(rng.normal(size=(60, 80)).astype(np.float32), (0, 0), 3) * 4 + level, 0, 1)
    refined, agreement = picture_ops.refine(image, soft, how)
    kept = picture_ops.mask_iou(refined > 0.5, soft > 0.5)
    assert kept >= picture_ops.FLOOR or not (soft > 0.5).any()
    assert refined.shape == soft.shape and np.isfinite(refined).all()
    assert kept == agreement if agreement >= picture_ops.FLOOR else refined is soft


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DAVIS.is_dir(), reason=f"the shared recordings aren't here: {DAVIS}")
def test_10_refinement_costs_no_real_clip_much() -> None:
    maps = Lite0Maps()
    for sequence in find_sequences(DAVIS):
        clip = [
            (read_picture(path), read_labels(sequence.masks[t])["1"]) for t, path in enumerate(sequence.frames[:20])
        ]
        found = mean_j(clip, maps)
        assert min(found["guided"], found["grabcut"]) >= found["none"] - WORSE, (sequence.name, found)


MEASURE = """
import json
from pathlib import Path
import numpy as np
from perception.trackers.propagation import PropagationTracker
rng = np.random.default_rng(0)
field = rng.integers(0, 256, (30, 54, 3), np.uint8).repeat(20, axis=0).repeat(20, axis=1)
mask = np.zeros((480, 854), bool)
mask[150:330, 300:520] = True
run, seen = PropagationTracker(), []
for t in range(90):
    picture = np.ascontiguousarray(field[t % 40 : t % 40 + 480, t % 50 : t % 50 + 854])
    run.step(picture, t=t, prompts={"o": mask} if t == 0 else None)
    # VmHWM, for ru_maxrss keeps across exec what the process was as a copy of its parent.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    seen.append((int(peak.split()[1]) / 1024, run.ram_bytes() / 2**20))
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_10_memory_of_a_480p_stream_is_flat() -> None:
    """Peak RSS of the process and the tracker's own count, MB a frame: after the memory is full nothing grows."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=300)
    seen = json.loads(done.stdout)
    peak, counted = [one for one, _ in seen], [two for _, two in seen]
    print(f"peak {peak[-1]:.0f} MB, of which the tracker's memory {counted[-1]:.1f} MB")
    assert peak[-1] - peak[40] < 10, "after 40 frames the policy's slots are full"
    assert max(counted) < 16 and peak[-1] < 600
