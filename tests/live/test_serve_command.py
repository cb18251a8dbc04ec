"""``serve``, and ``watch --to``, ``ask``, ``search``, ``status``, ``forget`` with an address, as people call them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from live_process import ROOT, ServiceProcess
from live_samples import moment, until

from streammem.client import connect
from streammem.feed import FeedReader
from streammem.keys import new_key


def command(*arguments: str, code: int | None = 0, timeout: int = 120) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "streammem", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code in (None, 0, 1) else done.stderr


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path / "memory") as running:
        yield running


@pytest.fixture
def filled(service: ServiceProcess) -> ServiceProcess:
    with connect(service.address) as client:
        client.write([moment(i) for i in range(30)])
    return service


def test_status_for_people_and_for_programs(filled: ServiceProcess) -> None:
    text = command("status", filled.address)
    assert "kitchen" in text and "gone" in text and "up " in text
    document = json.loads(command("status", filled.address, "--json"))
    assert document["memory"]["observations"] == 30
    assert document["streams"][0]["stream"] == "kitchen"
    assert len(command("status", filled.address, "--digest").strip()) == 32


def test_ask_search_and_forget(filled: ServiceProcess) -> None:
    found = json.loads(command("search", filled.address, "EXIT 10", "--json", "--k", "2"))
    assert found["moments"][0]["stream"] == "kitchen"
    answer = json.loads(command("ask", filled.address, "EXIT 10", "--json", code=None))
    assert answer["status"] in ("found", "unsure", "not_seen") and answer["closest"]
    gone = json.loads(command("forget", filled.address, "--stream", "kitchen", "--all", "--yes", "--json"))
    assert gone["forgotten"]["observations"] == 30
    command("search", filled.address, "EXIT 10", code=1)


@pytest.mark.slow
def test_watch_into_a_service_and_resume(service: ServiceProcess) -> None:
    first = json.loads(command("watch", "synthetic:shapes", "--to", service.address, "--json"))
    assert first["watched"]["complete"] and first["watched"]["frames"] > 0
    again = json.loads(command("watch", "synthetic:shapes", "--to", service.address, "--json"))
    assert again["watched"]["frames"] == 0
    status = json.loads(command("status", service.address, "--json"))
    assert status["memory"]["observations"] == first["watched"]["frames"]
    assert status["streams"][0]["state"] == "gone", "the producer said goodbye"


@pytest.mark.parametrize("arguments", [["status"], ["search", "mug"], ["ask", "mug"], ["watch"]])
def test_nobody_there_is_exit_code_3(arguments: list[str]) -> None:
    name, *words = arguments
    if name == "watch":
        said = command("watch", "synthetic:shapes", "--to", "tcp://127.0.0.1:9", code=3)
    else:
        said = command(name, "tcp://127.0.0.1:9", *words, code=3)
    assert "no memory service answers at tcp://127.0.0.1:9" in said
    assert len(said.strip().splitlines()[-1]) < 300


def test_wrong_use(tmp_path: Path) -> None:
    assert "can be reached by other machines" in command(
        "serve", str(tmp_path / "m"), "--bind", "tcp://0.0.0.0:5570", code=2
    )
    assert not (tmp_path / "m").exists(), "a refused address makes no directory"
    assert "isn't an address of a service" in command("serve", str(tmp_path / "m"), "--bind", "udp://x", code=2)
    assert "--to takes the address" in command("watch", "synthetic:shapes", "--to", "somewhere", code=2)


@pytest.mark.slow
def test_keys_from_the_command_line(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    new_key(keys, "boss", role="admin")
    with ServiceProcess(tmp_path / "m", "tcp://127.0.0.1:*", "--keys", str(keys)) as service:
        key = str(keys / "boss.key_secret")
        assert "0 streams" in command("status", service.address, "--key", key)
        assert "answers, but not in this way" in command("status", service.address, code=3)


def test_metrics_and_feed(tmp_path: Path) -> None:
    options = ("--metrics", "127.0.0.1:0", "--feed", "tcp://127.0.0.1:*")
    with ServiceProcess(tmp_path / "m", "tcp://127.0.0.1:*", *options) as service:
        with connect(service.address) as client:
            client.write([moment(i) for i in range(5)])

        def scraped() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{service.told['metrics_port']}/metrics", timeout=5) as page:
                return str(page.read().decode())

        until(lambda: 'stream="kitchen"' in scraped(), 10)
        assert "streammem_journal_unsynced_bytes" in scraped()

        with zmq.Context() as context:
            reader = FeedReader(context, service.told["feed"])
            message = reader.read(5.0)
            assert message is not None and message.snapshot is not None
            assert message.snapshot.epoch == service.told["epoch"]
            reader.close()


def test_ctrl_c_is_a_clean_end(service: ServiceProcess) -> None:
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(20) == 0
