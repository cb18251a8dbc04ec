"""Measure the ranges that the int8 Lite0 needs, and write perception/encoders/data/lite0_ranges.json.

    python tools/calibrate_lite0.py [--frames 12] [--check]

Runs the float32 network over crops of evenly spaced frames of every development recording and keeps the outermost
values of each activation that ReLU6 doesn't bound. ``--check`` compares the two networks on the frames between.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

REPOSITORY = Path(__file__).resolve().parent.parent
for folder in (REPOSITORY, REPOSITORY / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from perception.encoders import lite0_graph  # noqa: E402
from perception.encoders.crops import cut  # noqa: E402
from perception.encoders.lite0 import load_state  # noqa: E402
from perception.encoders.runtime import options  # noqa: E402
from queries import Clip, load_queries, read_frames  # noqa: E402

OUTER = (0.01, 99.99)
"""Percentiles of one frame; the outermost frame counts. Against smallest and largest: same best class .81 for .79."""
OUT = REPOSITORY / "perception" / "encoders" / "data" / lite0_graph.RANGES


def frames(clip: Clip, count: int, offset: float) -> Iterator[np.ndarray]:
    """``count`` evenly spaced frames (h, w, 3) uint8 RGB; ``offset`` in steps."""
    times = [t_s for t_s, _ in read_frames(clip)]
    wanted = {min(int((index + offset) * len(times) / count), len(times) - 1) for index in range(count)}
    for index, (_, image) in enumerate(read_frames(clip)):
        if index in wanted:
            yield image


def unbounded(state: dict[str, np.ndarray]) -> tuple[onnxruntime.InferenceSession, dict[str, str]]:
    """The float32 network with the activations to be measured as outputs, and their layers by output name."""
    model = onnx.load_from_string(lite0_graph.float32(state))
    bounded = {node.input[0] for node in model.graph.node if node.op_type == "Clip"}
    names = {
        node.output[0]: node.output[0].removesuffix(".out")
        for node in model.graph.node
        if node.op_type in ("Conv", "Add") and node.output[0] not in bounded
    }
    for name in names:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return onnxruntime.InferenceSession(model.SerializeToString(), options()), names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=12, help="of each recording")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    state = load_state()
    clips = {part.clip.name: part.clip for source in load_queries().sources.values() for part in source.parts}
    if not arguments.check:
        session, names = unbounded(state)
        low, high = dict.fromkeys(names.values(), 0.0), dict.fromkeys(names.values(), 0.0)
        for clip in clips.values():
            for image in frames(clip, arguments.frames, 0.0):
                for name, values in zip(names, session.run(list(names), {"pixels": cut(image)}), strict=True):
                    layer = names[name]
                    least, most = np.percentile(values[:, :, ::2, ::2], OUTER)
                    low[layer], high[layer] = min(low[layer], float(least)), max(high[layer], float(most))
        ranges = {layer: [round(low[layer], 3), round(high[layer], 3)] for layer in names.values()}
        OUT.write_text(json.dumps(ranges, indent=0) + "\n", "utf-8")
        print(f"{len(ranges)} ranges from {len(clips)} recordings")
    rough = onnxruntime.InferenceSession(lite0_graph.int8(state, lite0_graph.load_ranges()), options())
    exact = onnxruntime.InferenceSession(lite0_graph.float32(state), options())
    correlations, agree = [], []
    for clip in clips.values():
        for image in frames(clip, 3, 0.5):
            crops = {"pixels": cut(image)}
            a, b = rough.run(["logits"], crops)[0], exact.run(["logits"], crops)[0]
            correlations += [float(np.corrcoef(x, y)[0, 1]) for x, y in zip(a, b, strict=True)]
            agree += list(a.argmax(1) == b.argmax(1))
    worst = np.percentile(correlations, 1)
    print(f"logits: correlation {np.median(correlations):.4f} (1 %: {worst:.4f}); same best class {np.mean(agree):.3f}")


if __name__ == "__main__":
    main()
