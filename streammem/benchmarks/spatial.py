"""Numbers of the spatial memory: speed, size, geometry, places, things, routes, tokens. Prints one JSON document.

    streammem bench spatial --recording ../shared/data/redkitchen --recording ../shared/data/icl_livingroom

Geometry is measured against a TSDF fused by open3d, where that is installed (the ``3d`` extra); things against a
rendered room whose every box is known; routes against networkx. The part ``--tokens`` needs torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import platform
import tempfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

import streammem.memory  # noqa: E402
from streammem.banks.spatial.geometry import camera_for, matrix_of  # noqa: E402
from streammem.banks.spatial.spatial_memory import SpatialBank  # noqa: E402
from streammem.banks.spatial.topology import Topology  # noqa: E402
from streammem.benchmarks import _boxes  # noqa: E402
from streammem.cli.output import write_document  # noqa: E402
from streammem.config import Config, SpatialConfig  # noqa: E402
from streammem.model import Observation  # noqa: E402
from streammem.storage.open_part import record_from_observation  # noqa: E402

if TYPE_CHECKING:
    from perception.sources.rgbd import RgbdFolder

APART = 15
"""Frames between two looks at a place that make the second one a revisit (half a second of these recordings)."""


def observations(source: RgbdFolder, largest: int) -> list[Observation]:
    """Every frame with depth of at most ``largest`` pixels a side, its thumbnail, no encoders."""
    import cv2

    from perception.observing import thumbnail

    found = []
    for number, path in enumerate(source.paths):
        picture = cv2.imread(path, cv2.IMREAD_COLOR_RGB)
        sensed = source.sensed(number)
        found.append(
            Observation(
                stream=source.info.stream,
                seq=number,
                capture_ns=number * 33_333_333,
                depth_m=source.depth_m(number, largest=largest),
                pose=sensed.pose,
                intrinsics=sensed.intrinsics,
                thumbnail=None if picture is None else thumbnail(picture, 320),
            )
        )
    return found


def of_recording(folder: str) -> dict[str, Any]:
    from perception.sources.rgbd import RgbdFolder

    source = RgbdFolder(folder, text=f"rgbd:{folder}")
    made = observations(source, 320)
    result: dict[str, Any] = {"frames": len(made)}
    with tempfile.TemporaryDirectory() as place, streammem.memory.open(place) as memory:
        started = time.perf_counter()
        memory.write(made)
        result["frames_per_second_to_memory"] = round(len(made) / (time.perf_counter() - started), 1)
        summary = memory.query("spatial", "summary")[0]
        memory.seal()
        disk = {bank.bank: bank.disk_bytes for bank in memory.status().banks}["spatial"]
        result["state_bytes_at_a_seal"] = len(memory.bank("spatial").state(source.info.stream))
    result |= {name: summary[name] for name in ("leaves", "occupied", "submaps", "places", "volume_m3")}
    result["disk_bytes_per_m3"] = round(disk / summary["volume_m3"])
    result["ram_bytes_per_m3"] = round(summary["bytes"] / summary["volume_m3"])
    result["bank_milliseconds"] = per_observation(made)
    result["bank_milliseconds_pose_only"] = per_observation([replace(each, depth_m=None) for each in made])
    result["surface"] = against_tsdf(source, made)
    result["places_by_looks_at_1_m"] = revisits(made, 1.0, looks=True)
    result["places_at"] = {f"{metres:g} m": revisits(made, metres) for metres in (0.25, 0.5, 1.0)}
    return result


def per_observation(made: list[Observation]) -> dict[str, float]:
    """What one observation costs the bank; ``processor``: this thread's own time, for a busy machine."""
    bank = SpatialBank()
    seconds: list[float] = []
    processor: list[float] = []
    for record in [record_from_observation(each) for each in made]:
        started, spent = time.perf_counter(), time.thread_time()
        bank.observe(record)
        seconds.append(time.perf_counter() - started)
        processor.append(time.thread_time() - spent)
    return {
        "median": round(float(np.median(seconds)) * 1e3, 3),
        "p95": round(float(np.percentile(seconds, 95)) * 1e3, 3),
        "median_processor": round(float(np.median(processor)) * 1e3, 3),
    }


def against_tsdf(source: RgbdFolder, made: list[Observation]) -> dict[str, Any]:
    """Distances of occupied leaves (mean point, and centre) to the surface that open3d fuses from the full depth."""
    if importlib.util.find_spec("open3d") is None:
        return {"skipped": "open3d is not installed (the 3d extra)"}
    import open3d
    from scipy.spatial import cKDTree

    bank = SpatialBank()
    for each in made:
        bank.observe(record_from_observation(each))
    tree = bank.maps[source.info.stream].view(made[0].pose.frame_id).tree  # type: ignore[union-attr]
    core = open3d.core
    volume = open3d.t.geometry.VoxelBlockGrid(
        ("tsdf", "weight"), (core.float32, core.float32), ((1), (1)), 0.01, 16, 40_000, core.Device("CPU:0")
    )
    for number in range(0, len(made), 4):
        depth, pose, camera = source.depth_m(number, largest=1 << 20), made[number].pose, made[number].intrinsics
        if depth is None or pose is None or camera is None:
            continue
        own = camera_for(camera, depth.shape)
        inside = core.Tensor(np.array([[own.fx, 0.0, own.cx], [0.0, own.fy, own.cy], [0.0, 0.0, 1.0]]))
        camera_from_map = core.Tensor(np.linalg.inv(matrix_of(pose)))
        image = open3d.t.geometry.Image(core.Tensor(depth))
        blocks = volume.compute_unique_block_coordinates(image, inside, camera_from_map, 1.0, 5.0)
        volume.integrate(blocks, image, inside, camera_from_map, 1.0, 5.0)
    surface = cKDTree(volume.extract_point_cloud(1.0).point.positions.numpy())
    rows = np.flatnonzero(tree.occupied)
    result: dict[str, Any] = {"voxel_m": tree.voxel_m, "surface_points": int(surface.n), "leaves": len(rows)}
    for name, points in (("mean_points", tree.surface(rows)), ("centres", tree.centres(rows))):
        away = surface.query(points)[0]
        result[name] = {
            "mean_m": round(float(away.mean()), 4),
            "median_m": round(float(np.median(away)), 4),
            "p95_m": round(float(np.percentile(away, 95)), 4),
        }
    return result


def revisits(made: list[Observation], place_m: float, *, looks: bool = False) -> dict[str, Any]:
    """Pairs of frames at least :data:`APART` apart: same place by the graph, against nearer than ``place_m`` by the
    poses (``looks``: and turned by less than 45 degrees). A place reaches ``place_m`` to every side of its mean, so two
    moments of it may be twice as far from each other: ``precision_twice`` takes that as truth.

    By pose alone, or by pose and what a 16 x 16 gray picture looks like."""
    graph = Topology(gate_m=place_m, same_spot_m=0.0 if looks else place_m / 2)
    posed = [(each, each.pose) for each in made if each.pose is not None]
    places = np.array(
        [
            graph.observe(p.position_m, _tiny(each) if looks else None, n, n).place_id
            for n, (each, p) in enumerate(posed)
        ]
    )
    where = np.array([pose.position_m for _, pose in posed])
    ahead = np.array([matrix_of(pose)[:3, 2] for _, pose in posed])
    a, b = np.triu_indices(len(posed), APART)
    away = np.linalg.norm(where[a] - where[b], axis=1)
    alike = (ahead[a] * ahead[b]).sum(axis=1) > math.cos(math.radians(45)) if looks else np.ones(len(a), bool)
    same, near = places[a] == places[b], (away <= place_m) & alike
    return {
        "places": len(graph),
        "pairs": len(a),
        "precision": round(int((same & near).sum()) / max(int(same.sum()), 1), 3),
        "precision_twice": round(int((same & alike & (away <= 2 * place_m)).sum()) / max(int(same.sum()), 1), 3),
        "recall": round(int((same & near).sum()) / max(int(near.sum()), 1), 3),
    }


def _tiny(observation: Observation) -> np.ndarray | None:
    """A unit vector of 256 numbers: the picture, small, gray, without its mean."""
    import cv2

    if observation.thumbnail is None:
        return None
    picture = cv2.imdecode(np.frombuffer(observation.thumbnail, np.uint8), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        return None
    small = cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def planted(seeds: int = 3) -> dict[str, Any]:
    """Things of a rendered room: from a perfect detector's boxes and depth to a position."""
    errors, missing, wrong = [], 0, 0
    for seed in range(seeds):
        room = _boxes.furnished(seed)
        with tempfile.TemporaryDirectory() as place, streammem.memory.open(place) as memory:
            for number, matrix in enumerate(_boxes.walk()):
                pose = _boxes.pose(matrix)
                depth, which = room.render(pose, matrix)
                found = room.detections(which)
                memory.write(
                    Observation(
                        stream="room",
                        seq=number,
                        capture_ns=number * 10**9,
                        depth_m=depth,
                        pose=pose,
                        intrinsics=_boxes.CAMERA,
                        detections=found,
                    )
                )
            for box, name in zip(room.boxes, room.names, strict=True):
                if name:
                    answers = memory.query("spatial", "where", text=name)
                    missing += not answers
                    wrong += max(0, len(answers) - 1)
                    errors += [math.dist(answers[0]["point_m"], box.mean(axis=0))] if answers else []
            missing += len(memory.query("spatial", "where", text="elephant"))
    return {
        "things": len(errors) + missing,
        "missing": missing,
        "split_in_two": wrong,
        "error_m": {"median": round(float(np.median(errors)), 3), "max": round(max(errors), 3)},
    }


def routes(places: int = 300, asked: int = 200) -> dict[str, Any]:
    """Length of our routes over the shortest ones by networkx, on a random graph of places; 1.0 is optimal."""
    import networkx

    rng = np.random.default_rng(0)
    graph, oracle = Topology(gate_m=0.01, beta=0.0), networkx.Graph()
    where = rng.uniform(0, 40, (places, 3))
    for number, point in enumerate(where):
        graph.observe((float(point[0]), float(point[1]), 0.0), None, number, number, linked=False)
    for a, b in rng.integers(0, places, (places * 3, 2)).tolist():
        if a != b:
            weight = graph.add_edge(a, b, float(np.linalg.norm(where[a, :2] - where[b, :2]))).weight
            oracle.add_edge(a, b, weight=weight)
    ratios, seconds = [], []
    for a, b in rng.integers(0, places, (asked, 2)).tolist():
        started = time.perf_counter()
        way, cost = graph.route(a, b)
        seconds.append(time.perf_counter() - started)
        if a != b and a in oracle and b in oracle and networkx.has_path(oracle, a, b):
            ratios.append(cost / networkx.dijkstra_path_length(oracle, a, b))
            assert way[0] == a and way[-1] == b
    return {
        "routes": len(ratios),
        "length_over_shortest": {"mean": round(float(np.mean(ratios)), 9), "max": round(max(ratios), 9)},
        "median_milliseconds": round(float(np.median(seconds)) * 1e3, 2),
    }


def tokens() -> dict[str, Any]:
    """Errors of the reversible tokens by dtype, depth, length of chain and scale of the weights."""
    from streammem.banks.spatial.reversible import ReversibleTokenStore, round_trip_error

    trips = {
        dtype: {blocks: float(f"{round_trip_error(384, blocks, dtype):.1e}") for blocks in (2, 6, 12)}
        for dtype in ("float64", "float32", "float16", "bfloat16")
    }
    scaled = {f"x{scale}": float(f"{round_trip_error(384, 6, 'float32', scale=scale):.1e}") for scale in (3, 10)}
    chains: dict[str, dict[int, float]] = {}
    for dtype in ("float32", "float64"):
        for count in (1, 5, 20, 50, 100):
            store = ReversibleTokenStore(64, "chain", dtype=dtype, spill=1000)
            vectors = np.random.default_rng(0).normal(size=(count, 64))
            for vector in vectors:
                store.write(("node", 0), vector)
            error = float(np.abs(store.read(("node", 0)).vectors - vectors).max())
            chains.setdefault(dtype, {})[count] = float(f"{error:.1e}")
    folds = {}
    for count in (1, 5, 20, 50):
        store = ReversibleTokenStore(64, "fold")
        vectors = np.random.default_rng(0).normal(size=(count, 64))
        for vector in vectors:
            store.write(("node", 0), vector)
        folds[count] = float(f"{np.sqrt(((store.read(('node', 0)).vectors - vectors) ** 2).mean()):.2g}")
    return {"round_trip_width_768": trips, "weights_scaled_float32": scaled, "chain_d64": chains, "fold_rms_d64": folds}


def main(arguments: list[str], as_json: bool) -> int:
    parser = argparse.ArgumentParser(prog="streammem bench spatial", description=__doc__)
    parser.add_argument("--recording", action="append", default=[], help="a folder as rgbd: reads it; may be repeated")
    parser.add_argument("--tokens", action="store_true", help="the reversible tokens too (torch)")
    given = parser.parse_args(arguments)
    document: dict[str, Any] = {
        "recordings": {os.path.basename(os.path.abspath(folder)): of_recording(folder) for folder in given.recording},
        "planted_things": planted(),
        "routes": routes(),
    }
    if given.tokens:
        document["tokens"] = tokens()
    document["settings"] = Config(spatial=SpatialConfig()).spatial.model_dump(mode="json")
    document["machine"] = f"{platform.machine()}, {os.cpu_count()} CPUs, NumPy {np.__version__}"
    write_document(document)
    return 0
