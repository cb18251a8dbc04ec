"""Where each setting comes from: defaults, one YAML file, the environment, flags. The last one wins.

    defaults < YAML file < STREAMMEM__SECTION__KEY < flags (--set section.key=value, --fps ...)

One file is read: ``--config``, else ``$STREAMMEM_CONFIG``, else ``./streammem.yaml`` where it exists. Everything that
was given and lost is kept, so that ``streammem config explain`` can say who won against whom.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from streammem.config import Config
from streammem.errors import ConfigError
from streammem.redact import HIDDEN
from streammem.redact import redact as redact_text

DEFAULT_FILE = "streammem.yaml"
FILE_VARIABLE = "STREAMMEM_CONFIG"
PREFIX = "STREAMMEM__"
# A configuration of everything there is has under 4 kB; a file of this size is something else.
LARGEST_FILE = 1 << 20

Layer = Literal["default", "file", "environment", "flag"]

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_UNITS = {
    "_seconds": "seconds",
    "_ms": "milliseconds",
    "_bytes": "bytes",
    ".bytes": "bytes",
    "_px": "pixels",
    "fps": "frames a second",
}
# "tokens" are patch features here.
_SECRET = re.compile(r"(?:^|[._])(?:(?:key|secret|password|credential)s?|token)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Origin:
    """One value for one key. ``where`` is ``streammem.yaml:3``, ``$STREAMMEM__PERCEPTION__FPS``, ``--fps`` ..."""

    layer: Layer
    where: str
    value: object


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a value, where, and what to do."""

    where: str
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting: its value, what it may be, and where it came from. ``lost`` is strongest first."""

    key: str
    value: object
    default: object
    kind: str
    bounds: str
    unit: str
    doc: str
    winner: Origin
    lost: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration in force and the origins of each key, weakest first. ``file`` is the YAML file, if any."""

    config: Config
    origins: Mapping[str, tuple[Origin, ...]]
    file: Path | None = None

    def explain(self, key: str | None = None) -> list[Explained]:
        """All settings, or the one called ``key``, or those of a section. Raises ConfigError for an unknown key."""
        keys = [known for known in self.origins if key in (None, known) or known.startswith(f"{key}.")]
        if not keys:
            raise ConfigError(f"there is no setting {key!r}", hint=_nearest(key or "", list(self.origins)))
        docs = field_docs()
        return [self._explain(known, docs.get(known, "")) for known in keys]

    def _explain(self, key: str, doc: str) -> Explained:
        *lost, winner = self.origins[key]
        field = fields()[key]
        kind, bounds = _kind(field.annotation), _bounds(field.metadata)
        unit = next((unit for suffix, unit in _UNITS.items() if key.endswith(suffix)), "")
        value = redact(key, value_at(self.config, key))
        shown = [Origin(origin.layer, origin.where, redact(key, origin.value)) for origin in (*lost, winner)]
        return Explained(
            key, value, redact(key, field.default), kind, bounds, unit, doc, shown[-1], tuple(shown[-2::-1])
        )

    def redacted(self) -> dict[str, object]:
        """The configuration as nested dictionaries of plain values, secrets replaced."""
        return _nest({key: redact(key, value_at(self.config, key)) for key in self.origins})


def load_settings(
    *,
    file: str | Path | None = None,
    flags: Mapping[str, str] | None = None,
    assignments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    directory: str | Path = ".",
) -> Settings:
    """Put the four layers together.

    ``file`` is what ``--config`` named; ``flags`` maps the name of a flag and its key, ``"--fps perception.fps"``, to
    the value given; ``assignments`` are ``section.key=value`` as given to ``--set``. ``environment`` defaults to the
    process's. Raises ConfigError that names the first wrong value, where it was given and the nearest known key."""
    environment = os.environ if environment is None else environment
    origins: dict[str, list[Origin]] = {
        key: [Origin("default", "default", field.default)] for key, field in fields().items()
    }
    path = find_file(file, environment, Path(directory))
    problems: list[Problem] = []
    if path is not None:
        given, problems = read_file(path)
        _raise(problems)
        for key, origin in given.items():
            origins[key].append(origin)
    for origin_key, origin in _from_environment(environment) + _from_flags(flags or {}, assignments):
        if origin_key not in origins:
            raise ConfigError(
                f"{origin.where}: there is no setting {origin_key!r}", hint=_nearest(origin_key, list(origins))
            )
        origins[origin_key].append(origin)
    config, problems = _validate({key: given[-1] for key, given in origins.items()})
    _raise(problems)
    assert config is not None
    return Settings(config, {key: tuple(given) for key, given in origins.items()}, path)


def find_file(named: str | Path | None, environment: Mapping[str, str], directory: Path) -> Path | None:
    """The one YAML file that is read, or None. Raises ConfigError where a file that was named isn't there."""
    variable = environment.get(FILE_VARIABLE, "")
    for chosen, who in ((named, "--config"), (variable, f"${FILE_VARIABLE}")):
        if chosen:
            path = Path(chosen).expanduser()
            if not path.is_file():
                raise ConfigError(f"{who}: no file is at {path}", hint="streammem config show prints one to start from")
            return path
    default = directory / DEFAULT_FILE
    return default if default.is_file() else None


def validate_file(path: str | Path) -> list[Problem]:
    """Everything that is wrong with a YAML file, in the order of its lines; empty when it can be used.

    Raises ConfigError where the file can't be read at all."""
    given, problems = read_file(Path(path))
    merged = {key: Origin("default", "default", field.default) for key, field in fields().items()} | given
    return sorted([*problems, *_validate(merged)[1]], key=lambda problem: _line(problem.where))


def fields() -> dict[str, Any]:
    """Every setting as ``section.key`` with its pydantic field, in the order of ``config.py``."""
    found: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for key, inner in field.annotation.model_fields.items():
                found[f"{name}.{key}"] = inner
        else:
            found[name] = field
    return found


def value_at(config: Config, key: str) -> object:
    """The value of ``section.key``."""
    value: object = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def field_docs() -> dict[str, str]:
    """The string under each field in ``config.py``: what it means. Read from the source, only when asked for."""
    docs: dict[str, str] = {}
    sections = {Config: ""} | {
        field.annotation: f"{name}."
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    for model, prefix in sections.items():
        body = ast.parse(inspect.getsource(model)).body[0]
        assert isinstance(body, ast.ClassDef)
        for before, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(before, ast.AnnAssign)
                and isinstance(before.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                docs[prefix + before.target.id] = " ".join(after.value.value.split())
    return docs


def redact(key: str, value: object) -> object:
    """The value as it may be shown: secrets become ``***``, also a user and password inside an address."""
    if _SECRET.search(key) and value:
        return HIDDEN
    return redact_text(value) if isinstance(value, str) else value


def read_file(path: Path) -> tuple[dict[str, Origin], list[Problem]]:
    """The settings in a YAML file by key, with their lines, and what isn't a setting. Raises ConfigError where the
    file can't be read or isn't YAML."""
    import yaml

    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path}: too large for a configuration", hint=f"at most {LARGEST_FILE} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", hint="name a YAML file that can be read") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8", hint="name a YAML file") from None
    try:
        # Composing instead of loading keeps the lines, and the words: YAML 1.1 would read `speech: off` as False.
        aliased = [event for event in yaml.parse(text, Loader=yaml.SafeLoader) if isinstance(event, yaml.AliasEvent)]
        if aliased:
            start = aliased[0].start_mark
            where = f"{path}:{start.line + 1}" if start else str(path)
            raise ConfigError(f"{where}: aliases (*{aliased[0].anchor}) aren't read", hint="write the value out")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise ConfigError(f"{where}: {what}", hint="mend the YAML") from None
    given: dict[str, Origin] = {}
    problems: list[Problem] = []
    if root is not None:
        _walk(root, "", path, given, problems)
    return given, problems


def _walk(node: Any, prefix: str, path: Path, given: dict[str, Origin], problems: list[Problem]) -> None:
    import yaml

    where = f"{path}:{node.start_mark.line + 1}"
    known = fields()
    if not isinstance(node, yaml.MappingNode):
        if not (isinstance(node, yaml.ScalarNode) and node.value == ""):
            problems.append(
                Problem(where, prefix, f"{prefix or 'the file'} holds settings by name", "write key: value")
            )
        return
    for name_node, value_node in node.value:
        key = f"{prefix}.{name_node.value}" if prefix else str(name_node.value)
        where = f"{path}:{name_node.start_mark.line + 1}"
        if any(other.startswith(f"{key}.") for other in known):
            _walk(value_node, key, path, given, problems)
        elif key not in known:
            problems.append(Problem(where, key, f"there is no setting {key!r}", _nearest(key, list(known))))
        elif key in given:
            problems.append(Problem(where, key, f"{key} is set twice", f"first at {given[key].where}"))
        elif not isinstance(value_node, yaml.ScalarNode) or value_node.tag == "tag:yaml.org,2002:null":
            problems.append(Problem(where, key, f"{key} needs one value", f"expected {_kind(known[key].annotation)}"))
        else:
            given[key] = Origin("file", where, value_node.value)


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, Origin]]:
    return [
        (name[len(PREFIX) :].lower().replace("__", "."), Origin("environment", f"${name}", value))
        for name, value in sorted(environment.items())
        if name.startswith(PREFIX)
    ]


def _from_flags(flags: Mapping[str, str], assignments: Sequence[str]) -> list[tuple[str, Origin]]:
    found: list[tuple[str, Origin]] = []
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment!r} has no value", hint="write --set section.key=value")
        found.append((key.strip(), Origin("flag", "--set", value.strip())))
    for name_and_key, value in flags.items():
        name, key = name_and_key.split()
        found.append((key, Origin("flag", name, value)))
    return found


def _validate(origins: Mapping[str, Origin]) -> tuple[Config | None, list[Problem]]:
    problems: list[Problem] = []
    values: dict[str, object] = {}
    for key, origin in origins.items():
        values[key] = _sized(key, origin.value)
    try:
        return Config.model_validate(_nest(values)), problems
    except ValidationError as error:
        for item in error.errors(include_url=False):
            key = ".".join(str(part) for part in item["loc"])
            origin = origins[key]
            what = item["msg"].removeprefix("Input ").removeprefix("Value error, ")
            shown = redact(key, origin.value)
            bounds = _bounds(fields()[key].metadata)
            hint = ", ".join(
                filter(None, [_kind(fields()[key].annotation), bounds, f"default {fields()[key].default}"])
            )
            problems.append(Problem(origin.where, key, f"{key} = {shown!r} {what}", hint))
        return None, problems


def _sized(key: str, value: object) -> object:
    """``512MB`` for the keys that count bytes. 1 MB is 1024 kB here, as in ``config.py``."""
    if key.endswith(("_bytes", ".bytes")) and isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match:
            return int(float(match[1]) * 1024 ** _POWER[match[2].lower()])
    return value


def _nest(values: Mapping[str, object]) -> dict[str, object]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section, dot, name = key.partition(".")
        if dot:
            nested.setdefault(section, {})[name] = value
        else:
            nested[key] = value
    return nested


def _raise(problems: Sequence[Problem]) -> None:
    if problems:
        more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
        first = problems[0]
        raise ConfigError(f"{first.where}: {first.message}{more}", hint=first.hint)


def _nearest(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.5)
    # A key that is right but for its section is further away in letters than it is in meaning.
    tail = [other for other in known if other.rsplit(".", 1)[-1] == key.lower().rsplit(".", 1)[-1]]
    best = (tail or close or [""])[0]
    return f"did you mean {best}?" if best else "streammem config explain lists them all"


def _line(where: str) -> int:
    number = where.rsplit(":", 1)[-1]
    return int(number) if number.isdigit() else 0


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(annotation))
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(annotation, str(annotation))


def _bounds(metadata: Sequence[Any]) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return ", ".join(
        f"{sign} {_plain(getattr(item, name))}"
        for item in metadata
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    )


def _plain(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)
