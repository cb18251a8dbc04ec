"""What a run needs of an experience, whatever simulator it was in: questions, frames, a judge, a robot of today."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from nav.env import AgentPose
from nav.findingdory.driving import Body
from nav.findingdory.goals import Profile
from nav.findingdory.offline import Frames
from nav.findingdory.predicates import Judge, Reading
from nav.findingdory.tasks import Question, questions
from nav.homes.simulation import HomeSimulation
from nav.source import HomeSource
from perception.frames import Frame


class Truth(Judge, Protocol):
    """The judge, and what would have been right. Never in an agent's hands."""

    def reading_at(self, entity_id: str, pose: AgentPose) -> Reading:
        """From any pose, for driven robots."""
        ...

    def answer(self, question: Question) -> Frames:
        """Every frame that solves each goal; ``[[-1]]`` where some goal has none."""
        ...


class World(Protocol):
    """One experience. ``name`` is safe as a file's; ``interactions`` says how many there were."""

    @property
    def name(self) -> str: ...

    @property
    def interactions(self) -> int: ...

    @property
    def truth(self) -> Truth: ...

    def questions(self, profile: Profile) -> list[Question]: ...

    def watch(self) -> Iterator[Frame]:
        """Yesterday's frames, as a robot's sensors give them; ``index`` is what answers are made of."""
        ...

    def body(self) -> Body:
        """Today's robot, in the house as yesterday left it, at the place where yesterday ended."""
        ...

    def picture(self, path: Path, goals: Sequence[str], answers: Sequence[int]) -> None:
        """From above: the way, the goals, the places of the answers."""
        ...

    def close(self) -> None: ...


class HomeWorld:
    """A procedural home. ``scene`` as in ``mujoco:SCENE``."""

    def __init__(self, seed: int, scene: str) -> None:
        self.source = HomeSource(scene, fps=1000.0)
        self.name, self._seed = str(seed), seed
        self.interactions = len(self.source.experience.interactions)

    @property
    def truth(self) -> Truth:
        return self.source.experience.truth

    def questions(self, profile: Profile) -> list[Question]:
        return questions(self.source.experience.log, seed=self._seed, profile=profile)

    def watch(self) -> Iterator[Frame]:
        return self.source.frames()

    def body(self) -> Body:
        experience = self.source.experience
        body = HomeSimulation(experience.home, clock=experience.clock)
        body.arrange(experience.placements()[0])
        body.pose = experience.final_pose
        return body

    def picture(self, path: Path, goals: Sequence[str], answers: Sequence[int]) -> None:
        from nav.homes.picture import from_above, save

        save(path, from_above(self.source.experience, goals=goals, answers=answers))

    def close(self) -> None:
        """Nothing is held open."""


def said_to(rows: Mapping[str, Mapping[str, object]], key: str, frames: int) -> tuple[list[str], list[int]]:
    """Goals of a result's row and the frames that were said to it, as far as they exist: for a picture."""
    row = rows.get(key, {})
    goals, said = row.get("goals") or [], row.get("said") or []
    assert isinstance(goals, list) and isinstance(said, list)
    return goals, [frame for frame in said if isinstance(frame, int) and 0 <= frame < frames]
