"""Who may talk to a service: CURVE key pairs on disk, and the list of the clients that are let in.

    keys/
      allow.yaml            the clients, their roles and streams; only public keys
      server.key            the service's public key (give it away)
      server.key_secret     the service's secret key, mode 0600
      kitchen.key           a client's public key
      kitchen.key_secret    a client's secret key and the service's public key, mode 0600: all that the client needs

The key files are ZeroMQ certificates (ZPL), which ``zmq.auth.load_certificate`` and czmq read as well.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import msgspec

from streammem.errors import AccessDenied, KeyFileError
from streammem.paths import config_dir

log = logging.getLogger("streammem.keys")

Role = Literal["produce", "query", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
ALLOW_FILE = "allow.yaml"
SERVER = "server"

# What each role may do. admin may do everything that is named here or under another role.
_PRODUCE = frozenset(
    {"hello", "ping", "write", "flush", "set_stream", "put_state", "get_state", "stream_status", "attend"}
)
_QUERY = frozenset(
    {"hello", "ping", "search", "ask", "status", "streams", "record", "thumbnail", "frame", "stream_status", "feed"}
)
_ADMIN = frozenset({"digest", "forget", "pin", "unpin", "seal", "compact", "verify", "revoke", "stop"})
ACTIONS: dict[Role, frozenset[str]] = {
    "produce": _PRODUCE,
    "query": _QUERY,
    "admin": _PRODUCE | _QUERY | _ADMIN,
}
# These ask about all streams at once and get only those in scope back (`visible`); the others act on the one named.
LISTING = frozenset({"hello", "ping", "flush", "search", "ask", "status", "streams", "feed"})

# A name becomes a file name; the same rule as for Debian packages and host names, plus capitals.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FIELD = re.compile(r'^\s*(?P<key>[a-z-]+)\s*=\s*"(?P<value>[^"\n]*)"\s*$')
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
# 10,000 clients take about 1.5 MB.
_LARGEST_ALLOW = 4 << 20


@dataclass(frozen=True, slots=True)
class Grant:
    """What one client may do. ``streams`` are globs (``kitchen*``); ``key`` is its public key in Z85."""

    name: str
    role: Role
    streams: tuple[str, ...] = ("*",)
    key: str = ""


LOCAL = Grant(name="local", role="admin")
"""Who comes over loopback or ipc without a key: a user of this machine, whom the file system's rights already trust."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One party's keys in Z85 (40 characters each). ``server`` is the service's public key in a client's file.

    The secret never shows in ``repr``."""

    name: str
    public: str
    secret: str = field(repr=False, default="")
    server: str = ""


class _Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    role: Role
    key: str
    streams: tuple[str, ...] = ("*",)


class _Allow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    clients: tuple[_Client, ...] = ()


def allowed(role: str, scopes: Sequence[str], action: str, stream: str | None = None) -> bool:
    """May a client with this role and these stream scopes do this to that stream? Decided by its arguments alone: it
    never asks whether the stream exists, so that a refusal can't tell.

    ``stream`` None means no stream in particular: allowed for the actions in ``LISTING``, whose results the service
    must filter with :func:`visible`; for all others only where the scopes hold ``*``. Unknown roles and actions get no.
    """
    if action not in ACTIONS.get(role, frozenset()):  # type: ignore[call-overload]
        return False
    if stream is None:
        return action in LISTING or "*" in scopes
    return any(fnmatch.fnmatchcase(stream, scope) for scope in scopes)


def require(grant: Grant, action: str, stream: str | None = None) -> None:
    """Raise AccessDenied unless ``allowed``. The text is the same for streams that exist and that don't."""
    if allowed(grant.role, grant.streams, action, stream):
        return
    what = f"{action!r} on that stream" if stream is not None else f"{action!r}"
    raise AccessDenied(
        f"the key {grant.name!r} may not do {what}", hint="ask the keeper of the memory: streammem keys list"
    )


def visible(grant: Grant, streams: Iterable[str]) -> list[str]:
    """Those of ``streams`` that the client may know of, in their order."""
    return [name for name in streams if any(fnmatch.fnmatchcase(name, scope) for scope in grant.streams)]


def default_directory() -> Path:
    """``$STREAMMEM_KEYS``, else ``$XDG_CONFIG_HOME/streammem/keys`` (``~/.config/streammem/keys``)."""
    chosen = os.environ.get("STREAMMEM_KEYS", "")
    return Path(chosen).expanduser() if chosen else config_dir() / "keys"


def new_key(directory: Path, name: str, *, role: str, streams: Sequence[str] = ("*",)) -> KeyPair:
    """Make a client's key pair, write its files, and let it in. The service's own pair is made on the first call.

    Nothing is overwritten. Raises KeyFileError for a bad or taken name, an unknown role, an empty scope or a
    directory that can't be written."""
    _check(name, role, streams)
    directory = directory.expanduser()
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        server = load_keys(directory / f"{SERVER}.key") if _exists(directory, SERVER) else _make(directory, SERVER)
        clients = read_allow(directory / ALLOW_FILE) if (directory / ALLOW_FILE).exists() else ()
        if name == SERVER or _exists(directory, name) or any(client.name == name for client in clients):
            raise KeyFileError(
                f"there is a key {name!r} in {directory} already",
                hint=f"choose another name, or streammem keys revoke {name} first",
            )
        pair = _make(directory, name, server=server.public, role=role)
        grant = Grant(name, role, tuple(streams), pair.public)  # type: ignore[arg-type]
        _write_allow(directory / ALLOW_FILE, (*clients, grant))
    except OSError as error:
        raise KeyFileError(
            f"{directory}: {error.strerror or error}", hint="name a directory of your own with --keys"
        ) from None
    return pair


def revoke(directory: Path, name: str) -> Grant:
    """Take a client off the list and remove its files here. A running service notices within a second.

    Raises KeyFileError where no such client is listed."""
    clients = read_allow(directory / ALLOW_FILE)
    gone = next((client for client in clients if client.name == name), None)
    if gone is None:
        known = ", ".join(client.name for client in clients) or "nobody"
        raise KeyFileError(f"no client {name!r} is in {directory / ALLOW_FILE}", hint=f"it lists {known}")
    _write_allow(directory / ALLOW_FILE, tuple(client for client in clients if client.name != name))
    for suffix in (".key", ".key_secret"):
        (directory / f"{name}{suffix}").unlink(missing_ok=True)
    return gone


def load_keys(path: Path | str) -> KeyPair:
    """Read a key file. ``path`` may be a ``.key``, a ``.key_secret`` or a name in the default directory.

    Raises KeyFileError where nothing is there, it isn't a key, or others on the machine could read a secret."""
    found = Path(path).expanduser()
    if not found.exists() and os.sep not in str(path):
        found = default_directory() / f"{path}.key_secret"
    try:
        with found.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(1 << 16).decode("utf-8")
    except OSError as error:
        raise KeyFileError(
            f"{found}: {error.strerror or error}", hint="make one with streammem keys new NAME --role ROLE"
        ) from None
    except UnicodeDecodeError:
        raise KeyFileError(f"{found}: not a key file", hint="name a .key or .key_secret file") from None
    fields = {match["key"]: match["value"] for match in map(_FIELD.match, text.splitlines()) if match}
    public, secret = fields.get("public-key", ""), fields.get("secret-key", "")
    for what, key in (("public", public), ("secret", secret), ("server", fields.get("server-key", ""))):
        if (key or what == "public") and not _Z85.fullmatch(key):
            raise KeyFileError(f"{found}: its {what} key isn't 40 characters of Z85", hint="make a new pair")
    if secret and mode & (stat.S_IRWXG | stat.S_IRWXO) and os.name == "posix":
        raise KeyFileError(f"{found}: others can read this secret key", hint=f"chmod 600 {found}")
    if secret and _public_of(secret) != public:
        raise KeyFileError(f"{found}: its secret and public key don't belong together", hint="make a new pair")
    return KeyPair(fields.get("name", found.stem), public, secret, fields.get("server-key", ""))


def read_allow(path: Path) -> tuple[Grant, ...]:
    """The clients that are let in. Raises KeyFileError that names what is wrong."""
    import yaml

    try:
        if path.stat().st_size > _LARGEST_ALLOW:
            raise KeyFileError(f"{path}: too large for a list of clients", hint=f"at most {_LARGEST_ALLOW} bytes")
        text = path.read_text(encoding="utf-8")
        listed = msgspec.convert(yaml.safe_load(text) or {}, _Allow)
    except OSError as error:
        raise KeyFileError(
            f"{path}: {error.strerror or error}", hint="streammem keys new NAME --role ROLE makes one"
        ) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise KeyFileError(f"{where}: not YAML", hint="mend it, or take the last backup") from None
    except msgspec.ValidationError as error:
        raise KeyFileError(f"{path}: {error}", hint="a client has name, role, key and streams") from None
    grants = []
    for client in listed.clients:
        _check(client.name, client.role, client.streams)
        if not _Z85.fullmatch(client.key):
            raise KeyFileError(f"{path}: the key of {client.name!r} isn't 40 characters of Z85", hint="copy it again")
        grants.append(Grant(client.name, client.role, client.streams, client.key))
    for what, values in (("name", [grant.name for grant in grants]), ("key", [grant.key for grant in grants])):
        twice = [value for value, times in Counter(values).items() if times > 1]
        if twice:
            raise KeyFileError(f"{path}: the {what} {twice[0]!r} is listed twice", hint="keep one of them")
    return tuple(grants)


class AllowList:
    """The clients of ``allow.yaml``, read again when the file changes, so that a revocation needs no restart.

    A file that became unreadable keeps the last good list (an editor writes in steps; ``problem`` says so, it is
    logged once); a file that was removed lets nobody in. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Raises KeyFileError where the file can't be used at the start."""
        self.path = path
        self.problem = ""
        self._version = self._stat()
        self._grants = {grant.key: grant for grant in read_allow(path)}

    def __len__(self) -> int:
        return len(self._grants)

    def grants(self) -> list[Grant]:
        """Everyone who is let in now, by name."""
        self.refresh()
        return sorted(self._grants.values(), key=lambda grant: grant.name)

    def grant(self, key: str) -> Grant | None:
        """What the client with this public key (Z85) may do; None: nothing."""
        self.refresh()
        return self._grants.get(key)

    def refresh(self) -> bool:
        """Read the file again if it changed (one ``stat``, about 2 us). True if the list is another one now."""
        version = self._stat()
        if version == self._version:
            return False
        self._version = version
        try:
            grants = {grant.key: grant for grant in read_allow(self.path)} if version is not None else {}
        except KeyFileError as error:
            if str(error) != self.problem:
                log.error("the list of clients can't be read, the last good one stays in force: %s", error)
            self.problem = str(error)
            return False
        if version is None:
            log.error("the list of clients %s is gone: nobody is let in", self.path)
        self.problem = ""
        changed = grants != self._grants
        self._grants = grants
        return changed

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _check(name: str, role: str, streams: Sequence[str]) -> None:
    if not _NAME.fullmatch(name):
        raise KeyFileError(
            f"{name[:80]!r} can't be the name of a key", hint="letters, digits, dot, dash and underscore; at most 64"
        )
    if role not in ROLES:
        raise KeyFileError(f"there is no role {role[:80]!r}", hint=f"one of {', '.join(ROLES)}")
    for scope in streams:
        if not scope or len(scope) > 200 or not scope.isprintable():
            raise KeyFileError(f"{scope[:80]!r} can't be a scope", hint="a stream's name or a glob such as 'kitchen*'")
    if not streams:
        raise KeyFileError(f"the key {name!r} has no streams", hint="give --streams GLOB, '*' for all")


def _exists(directory: Path, name: str) -> bool:
    return any((directory / f"{name}{suffix}").exists() for suffix in (".key", ".key_secret"))


def _public_of(secret: str) -> str:
    import zmq

    return zmq.curve_public(secret.encode()).decode()


def _make(directory: Path, name: str, *, server: str = "", role: str = "") -> KeyPair:
    import zmq

    public, secret = (key.decode() for key in zmq.curve_keypair())
    about = [f'    name = "{name}"'] + ([f'    role = "{role}"'] if role else [])
    about += [f'    server-key = "{server}"'] if server else []
    head = ["metadata", *about, "curve", f'    public-key = "{public}"']
    warning = "#  SECRET: whoever has this file is this client. Copy it over a safe channel, mode 0600.\n"
    _create(directory / f"{name}.key_secret", warning + "\n".join([*head, f'    secret-key = "{secret}"', ""]), 0o600)
    _create(directory / f"{name}.key", "\n".join([*head, ""]), 0o644)
    return KeyPair(name, public, secret, server)


def _create(path: Path, text: str, mode: int) -> None:
    # O_EXCL: two commands at once can't overwrite each other's key; the mode is set before a byte is written.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _write_allow(path: Path, grants: Sequence[Grant]) -> None:
    import yaml

    clients = [
        {"name": grant.name, "role": grant.role, "streams": list(grant.streams), "key": grant.key} for grant in grants
    ]
    text = "# Who may talk to this service. Written by `streammem keys`; edit by hand if you like.\n"
    text += yaml.safe_dump({"clients": clients}, sort_keys=False, allow_unicode=True)
    # Written new, synced, renamed: a service that reads it at the same moment sees the old list or the new one.
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    _create(fresh, text, 0o600)
    os.replace(fresh, path)
