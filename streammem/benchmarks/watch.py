"""How fast and in how much memory is a video watched, in a fresh process?

    streammem bench watch [VIDEO] [--hours 2]

``--hours`` makes a stream of that length by repeating the video's packets (nothing is encoded again). Prints the rate
over real time, the share of each stage, the frames looked at and kept in full, and the peak RSS of the process.
Without VIDEO the clip of ``streammem demo`` is used; it is cut every second or two, which is the slow end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from streammem.cli.output import write_document
from streammem.errors import SourceNotFound


def repeat(video: Path, out: Path, seconds: float) -> float:
    """Write the packets of ``video``'s pictures again and again until ``out`` is ``seconds`` long; the length in s."""
    import av

    with av.open(str(out), "w", format="matroska") as target:
        stream = None
        base = 0
        while True:
            with av.open(str(video)) as source:
                picture = source.streams.video[0]
                if stream is None:
                    stream = target.add_stream_from_template(picture)
                    stream.time_base = picture.time_base
                last = 0
                for packet in source.demux(picture):
                    if packet.dts is None or packet.pts is None:
                        continue
                    last = max(last, packet.pts + (packet.duration or 1))
                    packet.pts += base
                    packet.dts += base
                    packet.stream = stream
                    target.mux(packet)
                base += last
                length = float(base * picture.time_base) if picture.time_base else 0.0
            if length >= seconds or not last:
                return length


def measure(video: Path, folder: Path, options: list[str]) -> dict[str, Any]:
    """Watch ``video`` with an empty memory in a process of its own."""
    command = [sys.executable, "-m", "streammem", "watch", str(video), "--memory", str(folder / "memory"), "--json"]
    run = subprocess.run([*command, *options], stdout=subprocess.PIPE, check=False)
    document: dict[str, Any] = json.loads(run.stdout or b"{}")
    if run.returncode:
        raise SourceNotFound(f"watching {video} failed: {document.get('error', {}).get('message', run.returncode)}")
    # Linux counts in KiB. The largest child so far: nothing larger ran before.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"peak_rss_mb": round(peak / 2**20), **document}


def main(arguments: list[str], as_json: bool = False) -> int:
    parser = argparse.ArgumentParser("streammem bench watch", description="Speed and memory of watching a video.")
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--hours", type=float, default=0.0, help="repeat the video to this length")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="assign")
    chosen = parser.parse_args(arguments)
    video = chosen.video
    if video is None:
        from streammem.cli.demo import clip_path

        video = clip_path()
    if not video.is_file():
        raise SourceNotFound(f"{video}: no such file")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.hours:
            longer = folder / "long.mkv"
            print(f"repeating {video.name} to {chosen.hours:g} h", file=sys.stderr)
            repeat(video, longer, chosen.hours * 3600)
            video = longer
        result = measure(video, folder, [part for each in chosen.assign for part in ("--set", each)])
    result["cpus"] = os.cpu_count()
    if as_json:
        write_document(result)
        return 0
    for key, value in result.items():
        print(f"{key:>16}  {value}")
    return 0
