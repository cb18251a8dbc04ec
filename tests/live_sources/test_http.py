"""HTTP: motion JPEG as web cameras send it, and a film on a web server."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from perception.sources.address import AddressSource
from streammem.config import LiveConfig
from streammem.errors import SourceError


def jpeg(number: int) -> bytes:
    import cv2

    picture = np.full((48, 64, 3), 60, np.uint8)
    picture[8:40, (number * 4) % 48 : (number * 4) % 48 + 16] = (0, 0, 255)
    done, data = cv2.imencode(".jpg", picture)
    assert done
    return bytes(data)


def mp4(seconds: int, folder: Path) -> bytes:
    # faststart moves the index to the front, which needs a real file.
    path = folder / "film.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(seconds * 10):
            picture = np.full((48, 64, 3), n % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


class Web(ThreadingHTTPServer):
    """``/live``: 12 pictures a second for ``parts`` pictures; ``/frozen``: always the same; ``/film.mp4``: a file."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.parts, self.film = 10_000, mp4(6, folder)
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        if self.path.startswith("/film"):
            film = self.server.film
            self.send_response(200)
            self.send_header("Content-Length", str(len(film)))
            self.end_headers()
            self.wfile.write(film)
            return
        if self.path.startswith("/silent"):
            time.sleep(3)
            return
        if not self.path.startswith(("/live", "/frozen")):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for n in range(self.server.parts):
                data = jpeg(0 if self.path.startswith("/frozen") else n)
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(1 / 12)
        except OSError:
            pass

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    made = Web(tmp_path)
    yield made
    made.shutdown()
    made.server_close()


QUICK = LiveConfig(stall_seconds=4.0, frozen_seconds=1.0, backoff_seconds=0.05, reconnect_seconds=5.0)


def test_motion_jpeg_is_live_and_timed_by_its_arrival(web: Web) -> None:
    source = AddressSource(f"{web.url}/live?token=hunter2", fps=4, config=QUICK)
    assert source.info.live and source.info.clock == "wall" and "hunter2" not in repr(source.info)
    frames = []
    for frame in itertools.islice(source.frames(), 9):
        assert 0 <= time.time_ns() - frame.capture_ns < 1_000_000_000
        frames.append(frame)
    source.close()
    # FFmpeg would claim 25 pictures a second; 12 were sent. Nine quarters of a second are two seconds.
    assert (frames[-1].capture_ns - frames[0].capture_ns) / 1e9 == pytest.approx(2.0, abs=0.3)


def test_a_server_that_ends_each_stream_is_connected_again(web: Web) -> None:
    web.parts = 6
    source = AddressSource(f"{web.url}/live", fps=20, config=QUICK)
    frames = list(itertools.islice(source.frames(), 15))
    source.close()
    assert len(frames) == 15 and source.health.reconnects >= 2
    assert all(b.index > a.index for a, b in itertools.pairwise(frames))


def test_fault_16_a_frozen_web_camera_is_told(web: Web) -> None:
    source = AddressSource(f"{web.url}/frozen", fps=12, config=QUICK)
    states = set()
    for _ in itertools.islice(source.frames(), 30):
        states.add(source.state)
    source.close()
    assert states == {"live", "frozen"}


def test_a_file_on_a_server_is_a_recording(web: Web) -> None:
    source = AddressSource(f"{web.url}/film.mp4", fps=2)
    assert not source.info.live and source.info.clock == "media"
    frames = list(source.frames())
    assert [frame.media_ns for frame in frames] == [n * 500_000_000 for n in range(12)]
    source.close()


def test_addresses_that_fail_say_what_and_hide_the_password(web: Web) -> None:
    address = web.url.replace("http://", "http://admin:hunter2@")
    for path, says in (("/nothing", "404 Not Found"), ("/silent", "can't be opened")):
        with pytest.raises(SourceError, match=says) as refused:
            AddressSource(f"{address}{path}?key=hunter2", config=QUICK)
        assert "hunter2" not in str(refused.value)
