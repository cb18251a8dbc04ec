"""How much a memory service takes in, how soon it acknowledges, and what questions, keys and time cost.

    streammem bench service [flood] [paced] [curve] [soak] [--seconds 10]

Every part starts a real service (``streammem serve``) on loopback and producers as processes of their own; an
acknowledgement means synced to disk.

    flood   4 producers as fast as they can, then 4 producers at 500 packets/s each: acknowledgements of 46 KB packets
    paced   8 streams of 30 pictures/s and 10 searches/s beside them: ingest lag, from capture to synced
    curve   the flood once more with CURVE keys, as a ratio
    soak    small packets for as long as --seconds says: resident memory of the service by tenths
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from streammem.cli.output import write_document
from streammem.errors import InputError

PARTS = ("flood", "paced", "curve", "soak")
PRODUCERS = 4


class Served:
    """``streammem serve`` on a fresh directory, as a process."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "streammem", "serve", str(folder / "memory"), "--bind", "tcp://127.0.0.1:*"]
        self.process = subprocess.Popen([*command, "--json", *options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError("the service didn't start")
            text += line
        self.address = json.loads(text)["address"]

    def rss_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0.0

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


def produce(
    address: str, streams: list[list[str]], *, rate: float, seconds: float, size: int, window: int = 32, key: str = ""
) -> list[dict[str, Any]]:
    """One producer process for each list of streams, started together; ``rate`` a second each, 0 for all they can."""
    running = []
    for names in streams:
        plan = {
            "address": address,
            "streams": names,
            "rate": rate,
            "seconds": seconds,
            "bytes": size,
            "window": window,
            "key": key,
        }
        command = [sys.executable, "-m", "streammem.benchmarks._producer", json.dumps(plan)]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in running:
        assert process.stdout is not None and process.stdin is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("a producer didn't connect")
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate(timeout=seconds + 120)[0]) for process in running]


def summed(reports: list[dict[str, Any]]) -> dict[str, float]:
    acks = sorted(second for report in reports for second in report["acks"])
    count = sum(report["acknowledged"] for report in reports)
    return {
        "acknowledged": count,
        "per_s": round(count / max(report["seconds"] for report in reports), 1),
        "ack_p50_ms": round(acks[len(acks) // 2] * 1e3, 1),
        "ack_p99_ms": round(acks[int(len(acks) * 0.99)] * 1e3, 1),
        "ack_max_ms": round(acks[-1] * 1e3, 1),
        "unacknowledged": sum(report["held"] for report in reports),
    }


def flood(seconds: float, size: int, options: list[str], *, keys: Path | None = None) -> dict[str, Any]:
    streams = [[f"camera-{n}"] for n in range(PRODUCERS)]
    options = [*options, *(["--keys", str(keys)] if keys is not None else [])]
    key = str(keys / "bench.key_secret") if keys is not None else ""
    result: dict[str, Any] = {"packet_bytes": size, "producers": PRODUCERS}
    with tempfile.TemporaryDirectory() as folder, Served(Path(folder), *options) as service:
        before = service.cpu_s()
        result["full_speed"] = summed(produce(service.address, streams, rate=0, seconds=seconds, size=size, key=key))
        spent = service.cpu_s() - before
        result["service_cpu_ms_a_packet"] = round(spent * 1e3 / result["full_speed"]["acknowledged"], 3)
    if keys is None:
        with tempfile.TemporaryDirectory() as folder, Served(Path(folder), *options) as service:
            result["at_2000_a_second"] = summed(
                produce(service.address, streams, rate=500, seconds=seconds, size=size, window=256)
            )
    return result


def paced(seconds: float, size: int, options: list[str]) -> dict[str, Any]:
    """Two processes of four cameras each: eight processes would measure the scheduler of a small machine."""
    from streammem.client import connect

    streams = [[f"camera-{half}{n}" for n in range(4)] for half in range(2)]
    asked: list[float] = []
    failed: list[str] = []
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder, Served(Path(folder), *options) as service:

        def ask() -> None:
            with connect(service.address) as client:
                due = time.perf_counter()
                while not stop.is_set():
                    due += 0.1
                    begun = time.perf_counter()
                    try:
                        client.search("red mug", k=5)
                    except Exception as error:  # noqa: BLE001  (counted and shown)
                        failed.append(str(error))
                    asked.append(time.perf_counter() - begun)
                    time.sleep(max(0.0, due - time.perf_counter()))

        asker = threading.Thread(target=ask, daemon=True)
        asker.start()
        reports = produce(service.address, streams, rate=120, seconds=seconds, size=size, window=512)
        stop.set()
        asker.join(10)
    lag = summed(reports)
    asked.sort()
    return {
        "streams": 8,
        "rate_hz": 30,
        "packets_a_second": lag["per_s"],
        "ingest_lag_p50_ms": lag["ack_p50_ms"],
        "ingest_lag_p99_ms": lag["ack_p99_ms"],
        "ingest_lag_max_ms": lag["ack_max_ms"],
        "producer_late_max_ms": round(max(report["late_s"] for report in reports) * 1e3, 1),
        "searches": len(asked),
        "searches_failed": len(failed),
        "search_p50_ms": round(statistics.median(asked) * 1e3, 1),
        "search_p99_ms": round(asked[int(len(asked) * 0.99)] * 1e3, 1),
        "failures": sorted(set(failed))[:3],
    }


def curve(seconds: float, size: int, options: list[str]) -> dict[str, Any]:
    from streammem.keys import new_key

    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        new_key(keys, "bench", role="admin")
        plain = flood(seconds, size, options)["full_speed"]["per_s"]
        coded = flood(seconds, size, options, keys=keys)["full_speed"]["per_s"]
    return {"plain_per_s": plain, "curve_per_s": coded, "cost": round(plain / coded, 2)}


def soak(seconds: float) -> dict[str, Any]:
    """2 KB packets under a budget of 64 MB of disk and RAM each, so that sealing and demotion go round many times."""
    caps = ["--set", "budget.disk_bytes=64MB", "--set", "budget.ram_bytes=64MB"]
    resident: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Served(Path(folder), *caps) as service:
        done = threading.Event()

        def look() -> None:
            while not done.wait(seconds / 50):
                resident.append(service.rss_mb())

        looker = threading.Thread(target=look, daemon=True)
        looker.start()
        streams = [["camera-0", "camera-1"], ["camera-2", "camera-3"]]
        result = summed(produce(service.address, streams, rate=0, seconds=seconds, size=6000))
        done.set()
        looker.join(10)
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    fifth = max(1, len(resident) // 5)
    late = resident[fifth:]
    half = len(late) // 2
    growth = statistics.median(late[half:]) / statistics.median(late[:half]) - 1 if half else 0.0
    return {
        **result,
        "disk_mb": round(disk / 1e6, 1),
        "rss_mb": [round(value) for value in resident[:: max(1, len(resident) // 10)]],
        "rss_growth_second_half": round(growth, 4),
    }


def main(arguments: list[str], as_json: bool = False) -> int:
    parser = argparse.ArgumentParser("streammem bench service", description="What a service takes in.")
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: flood paced curve")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--bytes", type=int, default=46_000, help="of a packet")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the service")
    chosen = parser.parse_args(arguments)
    options = [word for assignment in chosen.set for word in ("--set", assignment)]
    unknown = sorted(set(chosen.parts) - set(PARTS))
    if unknown:
        raise InputError(f"there is no part {unknown[0]!r}", hint=f"one of {', '.join(PARTS)}")
    result: dict[str, Any] = {}
    for part in chosen.parts or PARTS[:3]:
        if part == "soak":
            result[part] = soak(chosen.seconds)
        else:
            measure = {"flood": flood, "paced": paced, "curve": curve}[part]
            result[part] = measure(chosen.seconds, chosen.bytes, options)
    if as_json:
        write_document(result)
        return 0
    for part, numbers in result.items():
        print(part)
        for name, value in numbers.items():
            print(f"{name:>26}  {value}")
    return 0
