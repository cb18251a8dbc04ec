"""The occlusion suite: every policy on every made-up clip, clip by clip, so that a run can be stopped and taken up.

A clip's features are computed once for all policies. Scores of one clip and policy are a line of JSON; a file of such
lines says what is done, and what is missing is what is left to do. Means come with the spread of a bootstrap over
seeds: ten clips of one kind differ more than most policies do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from perception.trackers import occlusion
from perception.trackers.evaluate import PolicyRun, Remembered
from perception.trackers.features import GridFeatures, Lite0Maps
from perception.trackers.metrics import jaccard
from perception.trackers.propagation import PropagationSettings
from streammem.errors import SourceError

DRAWS = 2000
"""Bootstrap samples of an interval."""


class ClipOutcome(msgspec.Struct, frozen=True):
    """One policy on one clip: mean J before the absence and after it, the mean and the largest share of the picture
    that is claimed during it. ``settings`` tells runs apart that mustn't be mixed."""

    kind: str
    seed: int
    policy: str
    before: float
    after: float
    false_area: float
    false_most: float
    settings: str = ""


@dataclass(frozen=True, slots=True)
class OcclusionScore:
    """Means over seeds; ``low`` and ``high`` hold 95 % of the bootstrap's means of ``after``."""

    kind: str
    policy: str
    before: float
    after: float
    low: float
    high: float
    false_area: float
    false_most: float
    seeds: int


def play(
    kind: str,
    seed: int,
    policies: Sequence[str],
    *,
    settings: PropagationSettings | None = None,
    features: GridFeatures | None = None,
) -> list[ClipOutcome]:
    """Every policy on one clip, frame by frame beside each other."""
    chosen = settings or PropagationSettings()
    shared = Remembered(features or Lite0Maps(long_side=occlusion.WIDTH))
    runs = [PolicyRun(policy, chosen, shared) for policy in policies]
    scores: dict[str, dict[str, list[float]]] = {policy: defaultdict(list) for policy in policies}
    start: dict[str, np.ndarray] = {}
    for t, frame in enumerate(occlusion.clip(kind, seed)):
        start = start or {"target": frame.mask}
        shared.at = t
        for run in runs:
            mask = run.step(frame.image, t, start).get("target", np.zeros_like(frame.mask))
            if frame.phase == "absent":
                scores[run.policy]["absent"].append(float(mask.mean()))
            elif t and frame.phase in ("before", "after"):
                scores[run.policy][frame.phase].append(jaccard(mask, frame.mask))
    outcomes = []
    for policy in policies:
        mine = scores[policy]
        before, after, absent = (float(np.mean(mine[name] or [0.0])) for name in ("before", "after", "absent"))
        most = max(mine["absent"], default=0.0)
        outcomes.append(ClipOutcome(kind, seed, policy, before, after, absent, most, repr(chosen)))
    return outcomes


def run_suite(
    policies: Sequence[str],
    *,
    kinds: Sequence[str] = occlusion.KINDS,
    seeds: int = 10,
    settings: PropagationSettings | None = None,
    features: GridFeatures | None = None,
    keep: Path | None = None,
    progress: Callable[[str, int, Sequence[ClipOutcome]], None] | None = None,
) -> list[ClipOutcome]:
    """All outcomes of the suite. Those in the file ``keep`` aren't made again; new ones are added to it clip by clip,
    so that a run that is stopped loses one clip. Raises SourceError where it is no such file."""
    chosen = settings or PropagationSettings()
    maps = features or Lite0Maps(long_side=occlusion.WIDTH)
    wanted = {(kind, seed, policy) for kind in kinds for seed in range(seeds) for policy in policies}
    known = {
        (one.kind, one.seed, one.policy): one
        for one in (read_outcomes(keep) if keep is not None and keep.exists() else ())
        if one.settings == repr(chosen)
    }
    done = {name: one for name, one in known.items() if name in wanted}
    # Seed by seed: wherever it is stopped, all kinds and policies were played equally often.
    for seed in range(seeds):
        for kind in kinds:
            missing = [policy for policy in policies if (kind, seed, policy) not in done]
            if not missing:
                continue
            outcomes = play(kind, seed, missing, settings=chosen, features=maps)
            done |= {(kind, seed, one.policy): one for one in outcomes}
            if keep is not None:
                _append(keep, outcomes)
            if progress is not None:
                progress(kind, seed, outcomes)
    return list(done.values())


def read_outcomes(path: Path) -> Iterator[ClipOutcome]:
    """The outcomes in a file, one a line; a torn last line is passed over. Raises SourceError."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            yield msgspec.json.decode(line, type=ClipOutcome)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise SourceError(
                f"{path}, line {number}: not an outcome of the suite: {error}", hint="name another file"
            ) from error


def _append(path: Path, outcomes: Sequence[ClipOutcome]) -> None:
    with path.open("ab+") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)  # what a killed run left of a line
        file.write(b"".join(msgspec.json.encode(one) + b"\n" for one in outcomes))


def summarise(outcomes: Iterable[ClipOutcome]) -> list[OcclusionScore]:
    """Means over seeds by kind and policy, in order of first appearance."""
    groups: dict[tuple[str, str], list[ClipOutcome]] = defaultdict(list)
    for one in outcomes:
        groups[one.kind, one.policy].append(one)
    scores = []
    for (kind, policy), mine in groups.items():
        low, high = interval([one.after for one in mine])
        scores.append(
            OcclusionScore(
                kind,
                policy,
                float(np.mean([one.before for one in mine])),
                float(np.mean([one.after for one in mine])),
                low,
                high,
                float(np.mean([one.false_area for one in mine])),
                max(one.false_most for one in mine),
                len(mine),
            )
        )
    return scores


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of the means of ``DRAWS`` samples with replacement, drawn with a fixed seed."""
    drawn = np.random.default_rng(0).choice(np.asarray(values, float), (DRAWS, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)
