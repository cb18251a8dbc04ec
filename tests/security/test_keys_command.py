"""``streammem keys`` as a person and as a script use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from streammem.keys import load_keys


def keys(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streammem", "keys", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_new_list_revoke(tmp_path: Path) -> None:
    home = str(tmp_path / "keys")
    made = keys(
        "new", "cam", "--role", "produce", "--streams", "kitchen*", "--streams", "hall", "--keys", home, "--json"
    )
    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout)
    pair = load_keys(document["secret_file"])
    assert document["public_key"] == pair.public and document["streams"] == ["kitchen*", "hall"]
    assert keys("new", "anna", "--role", "query", "--keys", home).returncode == 0
    listed = keys("list", "--keys", home)
    assert listed.stdout.split() == ["cam", "produce", "kitchen*,", "hall", "anna", "query", "*"]
    assert keys("revoke", "cam", "--keys", home).returncode == 0
    assert [client["name"] for client in json.loads(keys("list", "--keys", home, "--json").stdout)["clients"]] == [
        "anna"
    ]
    for result in (made, listed):
        assert pair.secret not in result.stdout + result.stderr


def test_mistakes_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    home = str(tmp_path / "keys")
    keys("new", "cam", "--role", "produce", "--keys", home)
    for args, says in (
        (("new", "cam", "--role", "query", "--keys", home), "already"),
        (("new", "x", "--role", "root", "--keys", home), "one of produce, query, admin"),
        (("new", "../x", "--role", "query", "--keys", home), "name of a key"),
        (("revoke", "nobody", "--keys", home), "it lists cam"),
        (("list", "--keys", str(tmp_path / "nowhere")), "streammem keys new"),
    ):
        result = keys(*args)
        assert result.returncode == 2 and says in result.stderr, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1 and "Traceback" not in result.stderr
