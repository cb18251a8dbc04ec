"""Key files, the list of clients, and the rules of the roles."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq.auth

from streammem.errors import AccessDenied, KeyFileError
from streammem.keys import ACTIONS, AllowList, Grant, allowed, load_keys, new_key, read_allow, require, revoke, visible


def test_a_new_key_is_let_in_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    pair = new_key(tmp_path / "keys", "kitchen", role="produce", streams=("kitchen*",))
    secret_file = tmp_path / "keys" / "kitchen.key_secret"
    for name in ("kitchen.key_secret", "server.key_secret", "allow.yaml"):
        assert stat.S_IMODE((tmp_path / "keys" / name).stat().st_mode) == 0o600
    assert load_keys(secret_file) == pair
    server = load_keys(tmp_path / "keys" / "server.key_secret")
    assert pair.server == server.public
    assert read_allow(tmp_path / "keys" / "allow.yaml") == (Grant("kitchen", "produce", ("kitchen*",), pair.public),)
    assert pair.secret not in repr(pair) and pair.secret not in (tmp_path / "keys" / "allow.yaml").read_text()
    assert pair.secret not in (tmp_path / "keys" / "kitchen.key").read_text()
    # The field's own tools read the same file.
    assert zmq.auth.load_certificate(secret_file) == (pair.public.encode(), pair.secret.encode())


def test_the_second_client_keeps_the_service_and_the_first(tmp_path: Path) -> None:
    first = new_key(tmp_path, "a", role="produce")
    second = new_key(tmp_path, "b", role="query", streams=("x", "y z"))
    assert first.server == second.server and first.public != second.public
    assert [grant.name for grant in read_allow(tmp_path / "allow.yaml")] == ["a", "b"]
    gone = revoke(tmp_path, "a")
    assert gone.key == first.public and not (tmp_path / "a.key_secret").exists()
    assert [grant.name for grant in read_allow(tmp_path / "allow.yaml")] == ["b"]


def test_bad_names_roles_and_scopes_are_refused(tmp_path: Path) -> None:
    for name in ("../evil", "", "a/b", "-x", "x" * 65, "a\nb", "server"):
        with pytest.raises(KeyFileError):
            new_key(tmp_path, name, role="query")
    with pytest.raises(KeyFileError, match="one of produce, query, admin"):
        new_key(tmp_path, "a", role="root")
    for scopes in ((), ("",), ("a\nb",), ("x" * 201,)):
        with pytest.raises(KeyFileError):
            new_key(tmp_path, "a", role="query", streams=scopes)
    new_key(tmp_path, "a", role="query")
    with pytest.raises(KeyFileError, match="already"):
        new_key(tmp_path, "a", role="admin")


def test_damaged_and_readable_key_files_are_refused(tmp_path: Path) -> None:
    pair = new_key(tmp_path, "a", role="query")
    path = tmp_path / "a.key_secret"
    with pytest.raises(KeyFileError, match="streammem keys new"):
        load_keys(tmp_path / "nobody.key_secret")
    os.chmod(path, 0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_keys(path)
    os.chmod(path, 0o600)
    text = path.read_text()
    path.write_text(text.replace(pair.secret, new_key(tmp_path, "b", role="query").secret))
    with pytest.raises(KeyFileError, match="don't belong together"):
        load_keys(path)
    path.write_text(text.replace(pair.public, "short"))
    with pytest.raises(KeyFileError, match="40 characters"):
        load_keys(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(KeyFileError, match="not a key file"):
        load_keys(path)


BAD_LISTS = [
    ("not YAML", "clients: [", "not YAML"),
    ("not a list", "clients: 3", "Expected"),
    ("unknown field", "clients: [{name: a, role: query, key: k, sudo: yes}]", "sudo"),
    ("unknown role", "clients: [{name: a, role: root, key: k}]", "root"),
    ("short key", "clients: [{name: a, role: query, key: abc}]", "40 characters"),
    ("hostile name", "clients: [{name: ../x, role: query, key: abc}]", "name of a key"),
    ("a Python object", "clients: !!python/object/apply:os.system ['true']", "not YAML"),
]


@pytest.mark.parametrize(("case", "text", "says"), BAD_LISTS, ids=[row[0] for row in BAD_LISTS])
def test_bad_lists_of_clients_are_refused(case: str, text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "allow.yaml"
    path.write_text(text)
    with pytest.raises(KeyFileError, match=says):
        read_allow(path)


def test_the_list_is_read_again_keeps_the_last_good_one_and_closes_when_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = new_key(tmp_path, "a", role="produce")
    allow = AllowList(tmp_path / "allow.yaml")
    assert allow.grant(first.public) is not None
    second = new_key(tmp_path, "b", role="query")
    assert allow.grant(second.public) == Grant("b", "query", ("*",), second.public)
    good = (tmp_path / "allow.yaml").read_text()
    (tmp_path / "allow.yaml").write_text("clients: [")
    assert allow.grant(first.public) is not None and "not YAML" in allow.problem
    (tmp_path / "allow.yaml").write_text(good)
    assert allow.grant(first.public) is not None and allow.problem == ""
    revoke(tmp_path, "a")
    assert allow.grant(first.public) is None and allow.grant(second.public) is not None
    (tmp_path / "allow.yaml").unlink()
    assert allow.grant(second.public) is None and len(allow) == 0
    assert len([line for line in caplog.messages if "last good one" in line]) == 1


RULES = [
    # role, scopes, action, stream, allowed
    ("produce", ("*",), "write", "kitchen", True),
    ("produce", ("kitchen*",), "write", "kitchen-2", True),
    ("produce", ("kitchen*",), "write", "garage", False),
    ("produce", ("*",), "search", "kitchen", False),
    ("produce", ("*",), "search", None, False),
    ("produce", ("*",), "forget", "kitchen", False),
    ("query", ("*",), "write", "kitchen", False),
    ("query", ("kitchen",), "search", "kitchen", True),
    ("query", ("kitchen",), "search", "KITCHEN", False),
    ("query", ("kitchen",), "search", None, True),
    ("query", ("kitchen",), "digest", None, False),
    ("query", ("*",), "forget", None, False),
    ("admin", ("kitchen",), "forget", "kitchen", True),
    ("admin", ("kitchen",), "forget", "garage", False),
    ("admin", ("kitchen",), "forget", None, False),
    ("admin", ("kitchen",), "digest", None, False),
    ("admin", ("*",), "forget", None, True),
    ("admin", ("*",), "format_disk", None, False),
    ("root", ("*",), "ping", None, False),
    ("query", (), "search", "kitchen", False),
    ("query", ("a", "b*"), "search", "bee", True),
]


@pytest.mark.parametrize(("role", "scopes", "action", "stream", "expected"), RULES)
def test_who_may_do_what(role: str, scopes: tuple[str, ...], action: str, stream: str | None, expected: bool) -> None:
    assert allowed(role, scopes, action, stream) is expected


def test_admin_may_do_what_the_others_may() -> None:
    assert ACTIONS["produce"] | ACTIONS["query"] < ACTIONS["admin"]


def test_fault_18_another_tenants_stream_is_denied_and_its_existence_not_told() -> None:
    grant = Grant("tenant-a", "query", ("a/*",), "k")
    texts = set()
    for stream in ("b/secret", "b/never-was", "no such stream"):
        with pytest.raises(AccessDenied) as refused:
            require(grant, "search", stream)
        texts.add(str(refused.value))
        assert stream not in str(refused.value)
    assert len(texts) == 1
    assert visible(grant, ["a/1", "b/secret", "a/2"]) == ["a/1", "a/2"]
