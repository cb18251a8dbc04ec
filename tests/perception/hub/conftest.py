"""The tiny models on disk, and a machine without a hub cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from perception.encoders.hub import HubSpace


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tiny_hub_models import MAKERS  # not above: without the extra `models` the tests skip, and this must import

    root = tmp_path_factory.mktemp("models")
    return {name: maker(root / name) for name, (maker, _) in MAKERS.items()}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cache of this machine, no permission of this shell."""
    monkeypatch.setenv("STREAMMEM_CACHE", str(tmp_path / "cache"))
    for name in ("STREAMMEM_ALLOW_DOWNLOAD", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["clip", "siglip", "naflex"])
def space(request: pytest.FixtureRequest, folders: dict[str, Path]) -> HubSpace:
    from tiny_hub_models import MAKERS

    return MAKERS[request.param][1](folders[request.param])
