"""Settings: what can be set, its default, its unit and its bounds. Loading and explaining is in ``settings.py``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MB = 1024 * 1024
GB = 1024 * MB


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PerceptionConfig(Section):
    """What is looked at and what is made of it. Every field but ``threads`` changes what is remembered."""

    fps: Annotated[float, Field(gt=0, le=240)] = 1.0
    """Frames a second that are looked at."""
    sampling: Literal["fixed", "adaptive"] = "adaptive"
    """fixed: every sampled frame is kept in full; adaptive: full detail only where the picture changed."""
    decoder: Literal["pyav", "decord", "opencv"] = "pyav"
    space: str = "imagenet-conse"
    """Embedding space by name (``streammem doctor`` lists them)."""
    model: str = ""
    """Path or hub name of the weights, for the spaces that need one (clip, siglip2)."""
    ocr: bool = True
    """Read text in the scene."""
    speech: Literal["auto", "on", "off"] = "auto"
    """auto: where the speech extra is installed."""
    faces: Literal["auto", "off"] = "auto"
    """auto: where the face model's file is present. Finds faces, never recognises a person."""
    colours: bool = True
    detector: str = ""
    """Path of an ONNX detector with COCO's kinds (YOLOX-nano): people and other things without a class become
    answerable; about 25 ms a kept frame. Empty: none (docs/quality.md)."""
    tokens: Literal["off", "stride16", "stride8"] = "off"
    """Patch features of every sampled frame, for clips: 196 of 112 numbers or 784 of 40; 151 or 215 MB an hour at 1
    frame/s, about 10 ms a frame."""
    thumbnail_px: Annotated[int, Field(ge=0, le=4096)] = 320
    """Longest side of kept thumbnails; 0 keeps none."""
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Encoder workers, one thread each."""


class MemoryConfig(Section):
    """The engine."""

    seal_bytes: Annotated[int, Field(ge=4096)] = 32 * MB
    """The open part is sealed when its content reaches this size."""
    seal_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """... or when it spans this much stream time."""
    index_rows: Annotated[int, Field(ge=0)] = 0
    """Segments with so many vectors get an approximate index; 0: every search is exact (docs/storage.md)."""
    sync_every: Annotated[int, Field(ge=1, le=65536)] = 64
    """Observations in one group commit."""
    sync_ms: Annotated[float, Field(ge=0, le=10000)] = 50.0
    """Longest wait for a group commit."""
    short_term_seconds: Annotated[float, Field(ge=0)] = 60.0
    short_term_bytes: Annotated[int, Field(ge=0)] = 64 * MB


class BudgetConfig(Section):
    """Caps. 0 means no cap. When a cap is reached, detail is demoted by ``policy``; pins are exempt."""

    disk_bytes: Annotated[int, Field(ge=0)] = 0
    ram_bytes: Annotated[int, Field(ge=0)] = 1 * GB
    policy: Literal["graded", "fifo", "uniform", "decay", "recurrence", "diversity"] = "diversity"
    """Whose detail goes next; docs/storage.md compares them."""


class RecallConfig(Section):
    """From a question to moments."""

    k: Annotated[int, Field(ge=1, le=1000)] = 5
    candidates: Annotated[int, Field(ge=16)] = 4096
    """Rows that the first-stage scan hands to the full score."""
    merge_seconds: Annotated[float, Field(ge=0)] = 3.0
    """Hits closer than this become one moment."""
    max_question: Annotated[int, Field(ge=16)] = 2000
    """Longest question in characters."""


class TimelineConfig(Section):
    """What happened, as lists of 20 to 40 entries: nodes of a binary pyramid over capture time."""

    on: bool = True
    leaf_seconds: Annotated[float, Field(ge=1, le=600)] = 10.0
    """The shortest stretch that is kept as a record of its own; twice as long, four times ... above it."""


class EventsConfig(Section):
    """Where the stream is cut into events. Written with the stream: changing it later changes new events only."""

    on: bool = True
    """Cut the stream into events; about 0.1 ms a moment."""
    threshold: Literal["median_mad", "mean_std"] = "median_mad"
    """A surprise is a boundary above median + gamma * 1.4826 MAD, or mean + gamma * std, of the window before it."""
    gamma: Annotated[float, Field(ge=0, le=100)] = 3.0
    window_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    forecast_seconds: Annotated[float, Field(gt=0, le=60)] = 1.5
    """Time constant of the running average that a moment is compared with."""
    least: Annotated[float, Field(ge=0, le=2)] = 0.25
    """No cosine distance below this is a surprise. For the default space; CLIP's pictures are nearer to each other."""
    min_seconds: Annotated[float, Field(ge=0, le=600)] = 2.0
    """Shortest event."""
    max_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Longest event."""
    refine: Literal["none", "modularity", "conductance"] = "none"
    """Move a boundary to the best split of the similarity graph around it; known min_seconds later."""
    scene_cut: Annotated[float, Field(ge=0, le=255)] = 40.0
    """Mean change of the 16x16 gray picture from which on a moment counts as a cut."""


class PerceptualCognitiveConfig(Section):
    """Tokens of an episode in a few entries (MemoryVLA), for streams and for robot policies. Needs torch."""

    on: bool = False
    preset: Literal["paper", "openvla_code", "dexbotic_code"] = "openvla_code"
    """Where the paper and its code bases differ: docs/perceptual-cognitive.md."""
    length: Annotated[int, Field(ge=0, le=4096)] = 0
    """Entries of one bank; 0: what the weights' config.yaml says, or 16."""
    consolidation: Literal["merge", "fifo"] = "merge"
    weighting: Literal["equal", "count"] = "equal"
    """How two entries are averaged: equally as published (newer ones weigh more), or by how many are in each."""
    weights: str = ""
    """A released MemoryVLA checkpoint (.pt, config.yaml beside it); empty: a training-free substitute retrieves."""
    device: str = "cpu"
    observe: bool = True
    """Keep a bank of every stream's tokens too; off where only policies use it."""
    most_episodes: Annotated[int, Field(ge=1, le=65536)] = 64
    """Policies' episodes that may be open."""
    most_bytes: Annotated[int, Field(ge=1 * MB)] = 512 * MB
    """RAM of all banks: half for streams, half for policies."""
    idle_seconds: Annotated[float, Field(ge=0)] = 600.0
    """An episode that was idle for so long makes room for a new one where there is none."""


class SpatialConfig(Section):
    """Where things are and how to get there. Only streams that send poses are mapped; depth adds the octree."""

    on: bool = True
    voxel_m: Annotated[float, Field(gt=0.001, le=10)] = 0.05
    """Side of a leaf of the octree in metres."""
    farthest_m: Annotated[float, Field(gt=0)] = 5.0
    """Depth readings beyond this are left out."""
    points: Annotated[int, Field(ge=100)] = 20_000
    """Depth readings of a moment that are put into the map; a larger depth map is thinned evenly."""
    place_m: Annotated[float, Field(gt=0)] = 1.0
    """A moment further than this from every place founds one, whatever it looks like."""
    place_delta: Annotated[float, Field(ge=0, le=2)] = 0.7
    """... and so does one that looks less alike than this: L2 distance of unit vectors."""
    room_m: Annotated[float, Field(gt=0)] = 6.0
    """Places that are at most so far apart on foot may be one room."""
    jump_m: Annotated[float, Field(gt=0)] = 1.5
    """A pose this far from the one before is refused until three in a row agree."""
    long_term: Literal["log", "slot", "chain", "fold"] = "log"
    """How views of places are kept for recall: as they are, or as reversible tokens (needs torch; for ablations)."""
    label_score: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Labels of whole pictures with less score are put nowhere."""
    bytes: Annotated[int, Field(ge=0)] = 256 * MB
    """RAM for all maps. Above it the oldest submaps are kept in coarser leaves, with their labels. 0: no cap."""


class EntitiesConfig(Section):
    """Which things there were and what was known of them, with intervals. Changing it later changes new facts only."""

    on: bool = True
    """Keep a history of things; about 0.05 ms a moment with five detections."""
    settle_seconds: Annotated[float, Field(ge=0, le=600)] = 0.5
    """A new value that isn't certain must be seen twice, so far apart, before it takes over."""
    late_seconds: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """Statements that come late by this much of capture time are taken as if they had come in order."""
    absent_seconds: Annotated[float, Field(ge=0, le=86400)] = 10.0
    """A thing that wasn't seen for longer is seen anew: another sighting."""
    least_score: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Detections and texts below this aren't sightings."""
    stream_bytes: Annotated[int, Field(ge=64 * 1024)] = 8 * MB
    """RAM of one stream's histories; above it the oldest become counts."""


class TracksConfig(Section):
    """Objects that a tracker or detector names: detections with ``track`` set (docs/tracking.md)."""

    on: bool = True
    frames: Annotated[int, Field(ge=1, le=64)] = 8
    """Frames kept of each object, besides its first."""
    duplicate: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Frames whose descriptors have a larger cosine count as the same view."""
    gap_seconds: Annotated[float, Field(gt=0)] = 2.0
    """Not seen for so long ends a stretch; it becomes a record."""
    max_objects: Annotated[int, Field(ge=1, le=100_000)] = 512
    """Objects of a stream; then the one seen longest ago makes room. About 20 KB each."""
    viewpoints: Annotated[int, Field(ge=0, le=64)] = 12
    """Moments kept of each object that show it best, with pose and depth; they outlive the moments' detail. 0: none."""


class ClipsConfig(Section):
    """Compressed clips of patch tokens. Needs tokens: ``perception.tokens``, or a producer that sends them."""

    on: bool = False
    compressor: Literal["pool", "merge", "qwen"] = "merge"
    """pool: means of cells; merge: alike tokens melt; qwen: the weights of InternLM-XComposer2.5-OmniLive."""
    slots: Annotated[int, Field(ge=1, le=1024)] = 4
    """Slots a frame (pool: a square number). qwen has its own."""
    model: str = ""
    """Folder of the weights, for qwen."""
    boundary: Literal["neighbours", "surprise"] = "neighbours"
    """Where a clip ends: at two unlike neighbours after 3 frames, or at a surprise."""
    max_frames: Annotated[int, Field(ge=3, le=255)] = 16
    """Longest clip."""


class ReasonConfig(Section):
    """The model of ``ask --reasoner llm``. Its key is read from STREAMMEM_API_KEY or OPENAI_API_KEY."""

    endpoint: str = ""
    """Address of an OpenAI-compatible server (vLLM, Ollama, llama.cpp): http://127.0.0.1:8000/v1."""
    model: str = ""
    """The model's name there; without an endpoint, the folder of a local model (transformers)."""
    sees: bool = True
    """Send frames to an endpoint's model. Off for one that reads text alone."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait for one reply, tries included."""


class LiveConfig(Section):
    """Cameras and streams: when one counts as ill, and how long it is tried again."""

    stall_seconds: Annotated[float, Field(gt=0)] = 10.0
    """A connection that gives no picture for so long is closed and made anew."""
    frozen_seconds: Annotated[float, Field(gt=0)] = 10.0
    """The very same picture for so long is a frozen image."""
    reconnect_seconds: Annotated[float, Field(ge=0)] = 600.0
    """A stream that is away for so long ends the watch with an error."""
    backoff_seconds: Annotated[float, Field(gt=0)] = 0.5
    """First wait before connecting again; it doubles each time, with jitter."""
    backoff_limit_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Longest such wait."""
    queue: Annotated[int, Field(ge=1, le=1024)] = 8
    """Pictures that wait for the encoders; then the oldest is dropped and counted."""


class ServiceConfig(Section):
    """``streammem serve``. Sizes bound what clients can make the service hold."""

    bind: str = "tcp://127.0.0.1:5570"
    """Where clients connect. Other than loopback and ipc:// needs keys."""
    credits: Annotated[int, Field(ge=1, le=4096)] = 32
    """Packets that one client may have unacknowledged. Twice as many double the wait for an acknowledgement and bring
    no more through (Little's law; streammem bench service flood)."""
    credit_bytes: Annotated[int, Field(ge=1 * MB)] = 32 * MB
    """... and their bytes; one packet alone may be larger."""
    queue_bytes: Annotated[int, Field(ge=1 * MB)] = 256 * MB
    """Packets of all clients that wait to be written. Above it clients are told to come back."""
    group: Annotated[int, Field(ge=1, le=4096)] = 128
    """Packets in one group commit."""
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Threads that answer questions."""
    waiting: Annotated[int, Field(ge=1)] = 256
    """Requests that wait for a worker. Above it clients are told to come back."""
    flush_seconds: Annotated[float, Field(gt=0)] = 10.0
    """After SIGTERM, what was received is written within this time."""


class Config(Section):
    """Everything. One YAML file, ``STREAMMEM__SECTION__KEY`` in the environment, flags; the last one wins."""

    perception: PerceptionConfig = PerceptionConfig()
    memory: MemoryConfig = MemoryConfig()
    budget: BudgetConfig = BudgetConfig()
    recall: RecallConfig = RecallConfig()
    timeline: TimelineConfig = TimelineConfig()
    events: EventsConfig = EventsConfig()
    entities: EntitiesConfig = EntitiesConfig()
    perceptual_cognitive: PerceptualCognitiveConfig = PerceptualCognitiveConfig()
    spatial: SpatialConfig = SpatialConfig()
    clips: ClipsConfig = ClipsConfig()
    tracks: TracksConfig = TracksConfig()
    reason: ReasonConfig = ReasonConfig()
    live: LiveConfig = LiveConfig()
    service: ServiceConfig = ServiceConfig()
    cache_dir: str = ""
    """Where watched memories and converted models are kept; empty: $XDG_CACHE_HOME/streammem."""
