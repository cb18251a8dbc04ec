"""Where hub models come from, and everything that can be wrong with one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the extra `models` isn't installed")

import torch
from tiny_hub_models import pictures

from perception.encoders import hub_files
from perception.encoders.hub import open_clip, open_siglip2
from perception.encoders.hub_files import find_model
from streammem.errors import ConfigError, ModelUnavailable


class Hub(BaseHTTPRequestHandler):
    """One repository, ``tiny/clip``, as the hub serves it: its tree, and files with ETag and commit."""

    folder: Path
    asked: list[str]

    def log_message(self, format: str, *arguments: object) -> None:
        self.asked.append(f"{self.command} {self.path}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        file = self.folder / path.rpartition("/")[2]
        if path.startswith("/api/models/tiny/clip/tree/"):
            files = [(each.name, each.read_bytes()) for each in sorted(self.folder.iterdir())]
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha256(data).hexdigest()[:40]}
                for name, data in files
            ]
            self._send(json.dumps(tree).encode())
        elif path.startswith("/api/models/tiny/clip"):
            names = [{"rfilename": each.name} for each in sorted(self.folder.iterdir())]
            self._send(json.dumps({"id": "tiny/clip", "sha": "b" * 40, "siblings": names, "tags": []}).encode())
        elif "/resolve/" in path and file.is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            self._send(file.read_bytes(), **{"ETag": f'"{digest}"', "X-Repo-Commit": "b" * 40})
        else:
            self.send_error(404)

    def _send(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(folders: dict[str, Path], tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a running hub, and what it was asked for. Its repository also holds a pickle."""
    folder = Path(shutil.copytree(folders["clip"], tmp_path / "repository"))
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("TinyHub", (Hub,), {"folder": folder, "asked": asked}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def elsewhere(program: str, **environment: str) -> str:
    """Run in a process of its own, since the hub library reads its address when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", f"from perception.encoders.hub import open_clip\n{program}"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_download_where_it_is_allowed_and_never_again(
    hub: tuple[str, list[str]], folders: dict[str, Path], tmp_path: Path
) -> None:
    address, asked = hub
    here = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    program = "space = open_clip('tiny/clip')\nprint(space.id, space.files.revision, space.embed_text(['a cup']).shape)"
    wanted = f"{open_clip(folders['clip']).id} {'b' * 40} (1, 24)\n"
    assert elsewhere(program, STREAMMEM_ALLOW_DOWNLOAD="1", **here) == wanted
    assert any("model.safetensors" in line for line in asked) and not any(".bin" in line for line in asked)
    asked.clear()
    assert elsewhere(program, **here) == wanted
    assert asked == []  # what is in the cache costs no request


def test_nothing_is_asked_without_permission(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = hub
    program = "try: open_clip('tiny/clip')\nexcept Exception as error: print(type(error).__name__)"
    assert elsewhere(program, HF_ENDPOINT=address, HF_HOME=str(tmp_path / "home")) == "ModelUnavailable\n"
    assert asked == []


def test_offline_error_names_files_and_command(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        open_clip(hub_cache=tmp_path)
    assert str(caught.value) == (
        "model openai/clip-vit-base-patch32 isn't on this machine (needed: config.json, preprocessor_config.json, "
        "tokenizer.json, model.safetensors), and no download: it takes allow_download=True or "
        "STREAMMEM_ALLOW_DOWNLOAD=1 (with a network, run: hf download openai/clip-vit-base-patch32 "
        "--revision c237dc49a33fc61debc9276459120b7eac67e7ef --include '*.json' --include 'model*.safetensors'; "
        "or give a folder)"
    )


def test_hub_offline_wins_over_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("STREAMMEM_ALLOW_DOWNLOAD", "1")
    with pytest.raises(ModelUnavailable, match=r"google/siglip2-base-patch16-224.*HF_HUB_OFFLINE is set"):
        open_siglip2(hub_cache=tmp_path)
    with pytest.raises(ModelUnavailable, match="allow_download is False"):
        open_siglip2(hub_cache=tmp_path, allow_download=False)


def in_cache(root: Path, source: Path, repository: str, commit: str) -> Path:
    """``source`` as the hub cache keeps it: blobs named by hash, a snapshot of links, a ref."""
    base = root / f"models--{repository.replace('/', '--')}"
    snapshot = base / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (base / "blobs").mkdir()
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(commit)
    for file in source.iterdir():
        name = hub_files.sha256_of(file) if file.suffix == ".safetensors" else f"{abs(hash(file.name)):040x}"[:40]
        shutil.copy(file, base / "blobs" / name)
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / name)
    return snapshot


def test_model_of_the_local_hub_cache(folders: dict[str, Path], tmp_path: Path) -> None:
    commit = "a" * 40
    snapshot = in_cache(tmp_path, folders["clip"], "tiny/clip", commit)
    for name in ("tiny/clip", "hf:tiny/clip", f"tiny/clip@{commit}"):
        space = open_clip(name, hub_cache=tmp_path)
        assert space.id == open_clip(folders["clip"]).id  # the same content, the same space
        assert space.identity().model == "tiny/clip" and space.identity().revision == commit
    assert np.isfinite(space.embed_text(["a cup"])).all()
    with pytest.raises(ModelUnavailable, match="--revision v9"):
        open_clip("tiny/clip@v9", hub_cache=tmp_path)
    (snapshot / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"lacks tokenizer\.json \(run: hf download tiny/clip"):
        open_clip("tiny/clip", hub_cache=tmp_path)


def test_failed_download_is_one_clear_error(tmp_path: Path) -> None:
    """Nothing listens on port 9."""
    program = "try: open_clip('tiny/clip', allow_download=True)\nexcept Exception as error: print(repr(error), error)"
    printed = elsewhere(program, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert printed.startswith("ModelUnavailable") and "model tiny/clip couldn't be downloaded" in printed
    assert "hf download tiny/clip" in printed


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"])
def test_incomplete_folder(folders: dict[str, Path], tmp_path: Path, missing: str) -> None:
    copy = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    (copy / missing).unlink()
    with pytest.raises(ModelUnavailable, match=f"lacks {missing}"):
        open_clip(copy)


def test_pickled_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match="pickles and never read"):
        open_clip(copy)


def test_wrong_folders(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"type 'siglip'; the space clip needs clip"):
        open_clip(folders["siglip"])
    with pytest.raises(ModelUnavailable, match=r"type 'clip'; the space siglip2 needs siglip or siglip2"):
        open_siglip2(folders["clip"])
    with pytest.raises(ModelUnavailable, match="there is no folder"):
        open_clip(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="neither a folder nor a model"):
        open_clip("just-a-word")
    with pytest.raises(ConfigError, match="neither a folder nor a model"):
        open_clip("etc/passwd/../x\x00")
    with pytest.raises(ConfigError, match="contradict"):
        find_model("a/b@one", revision="two")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", b"{", "can't be read"),
        ("config.json", b"[]", "can't be read"),
        ("config.json", b'{"model_type": "clip", "vision_config": {"hidden_size": "x"}}', "can't be used"),
        ("preprocessor_config.json", b'{"size": "large"}', "can't be used"),
        ("tokenizer.json", b"{}", "can't be read"),
        ("model.safetensors", b"\x00" * 100, "can't be loaded"),
    ],
)
def test_damaged_files(folders: dict[str, Path], tmp_path: Path, file: str, content: bytes, says: str) -> None:
    copy = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    (copy / file).write_bytes(content)
    with pytest.raises(ModelUnavailable, match=says):
        open_clip(copy).embed_frames(pictures(1))


def test_weights_of_another_model_are_not_filled_with_random_numbers(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    shutil.copy(folders["siglip"] / "model.safetensors", copy / "model.safetensors")
    with pytest.raises(ModelUnavailable, match="can't be loaded"):
        open_clip(copy).embed_text(["a"])
    config = json.loads((copy / "config.json").read_text())
    config["projection_dim"] = 12
    (copy / "config.json").write_text(json.dumps(config))
    shutil.copy(folders["clip"] / "model.safetensors", copy / "model.safetensors")
    with pytest.raises(ModelUnavailable, match="can't be loaded"):
        open_clip(copy).embed_text(["a"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "tpu"}, "unknown device"),
        ({"threads": 0}, "threads is 0"),
        ({"prompt": "a photo"}, "no place for the query"),
    ],
)
def test_bad_options(folders: dict[str, Path], options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_clip(folders["clip"], **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        open_clip(folders["clip"], device="cuda").embed_text(["a"])
    assert np.isfinite(open_clip(folders["clip"], device="auto").embed_text(["a"])).all()


def test_missing_extra(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = hub_files.importlib.util.find_spec
    monkeypatch.setattr(
        hub_files.importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else real(name, *rest)
    )
    with pytest.raises(ModelUnavailable, match=r"need transformers.*pip install 'streammem\[models\]'"):
        open_clip(folders["clip"])
