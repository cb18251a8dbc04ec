"""The rules of the house, held by the source itself: import arrows, forbidden calls, sizes, public names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("streammem", "perception", "nav")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
CODE = [*FILES, *sorted((ROOT / "tools").rglob("*.py"))]

LONGEST = 450
"""Lines of a file. The house aims at 100 to 400 around one noun; what is longer is two nouns."""

SUBCLASSES = "perception.trackers.sam2"
"""Modules that subclass a model of transformers."""

PUBLIC = (
    "Answer",
    "Client",
    "Config",
    "Evidence",
    "Memory",
    "Observation",
    "Record",
    "StreammemError",
    "__version__",
    "connect",
    "open",
    "open_space",
)

# Lower may not import higher. What isn't named here is at the bottom: errors, model, clock, spaces, config, paths,
# settings, printable ... Modules of one height may import each other.
HEIGHT = {
    "wire": 1,
    "protocol": 2,
    "window": 2,
    "link": 3,
    "calls": 5,
    "storage": 2,
    "banks": 3,
    "recall": 4,
    "reason": 5,
    "evaluation": 6,
    "health": 5,
    "memory": 5,
    "render": 5,
    "doctor": 6,
    "feed": 6,
    "metrics": 6,
    "selftest": 6,
    "reembedding": 6,
    "service": 6,
    "relay": 7,
    "client": 6,
    "web": 7,
    "benchmarks": 8,  # commands too: `streammem bench NAME`
    "cli": 8,
    "__init__": 9,
    "__main__": 9,
}


def module_level_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Modules that are imported when ``path`` is: not those inside functions, nor those only for type checkers."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module or ""
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
        else:
            todo += ast.iter_child_nodes(node)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def part_of(module: str) -> str:
    """``streammem.storage.blocks`` -> ``storage``."""
    return [*module.split("."), "__init__"][1]


def test_imports_go_one_way_between_packages() -> None:
    wrong = []
    allowed = {"streammem": {"streammem"}, "perception": {"streammem", "perception"}, "nav": set(PACKAGES)}
    for path in FILES:
        package = path.relative_to(ROOT).parts[0]
        for line, module in module_level_imports(path):
            top = module.split(".")[0]
            if top in PACKAGES and top not in allowed[package]:
                wrong.append(f"{shown(path)}:{line}: {package} imports {module}")
    assert wrong == []


def test_only_the_command_line_knows_perception() -> None:
    """Inside functions too: whatever else needs encoders gets them through a protocol or an entry point."""
    wrong = []
    for path in sorted((ROOT / "streammem").rglob("*.py")):
        part = path.relative_to(ROOT / "streammem").parts[0].removesuffix(".py")
        if part in ("cli", "benchmarks"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [
                f"{shown(path)}:{node.lineno}: imports {name}"  # type: ignore[attr-defined]
                for name in names
                if name.split(".")[0] in ("perception", "nav")
            ]
    assert wrong == []


def test_imports_go_down_inside_streammem() -> None:
    wrong = []
    for path in sorted((ROOT / "streammem").rglob("*.py")):
        part = path.relative_to(ROOT / "streammem").parts[0].removesuffix(".py")
        height = HEIGHT.get(part, 0)
        for line, module in module_level_imports(path):
            if not module.startswith("streammem."):
                continue
            other = part_of(module)
            if other != part and HEIGHT.get(other, 0) > height:
                wrong.append(f"{shown(path)}:{line}: {part} imports {other}")
    assert wrong == []


def bank_modules() -> set[str]:
    """The modules that ``memory.py`` takes banks from, "module:maker" in its table; whatever else is in ``banks/`` is a
    helper that banks share."""
    tree = ast.parse((ROOT / "streammem" / "memory.py").read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    made = {text.partition(":")[0] for text in texts if re.fullmatch(r"[a-z_.]+:[A-Za-z]+", text)}
    assert len(made) >= 8
    return {f"streammem.banks.{module}" for module in made}


def test_no_bank_knows_another_bank() -> None:
    wrong = []
    banks = bank_modules()
    assert banks
    for path in sorted((ROOT / "streammem" / "banks").rglob("*.py")):
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for line, module in module_level_imports(path):
            other = next((bank for bank in banks if f"{module}.".startswith(f"{bank}.")), None)
            if other is not None and other != own and not own.startswith(f"{other}."):
                wrong.append(f"{shown(path)}:{line}: imports {module}")
    assert wrong == []


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def test_forbidden_calls() -> None:
    """Data is never run: no eval, no pickle, no shell, no SQL made of strings, torch weights as weights only."""
    wrong = []
    for path in CODE:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for line, module in module_level_imports(path):
            if module.split(".")[0] in ("pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"):
                wrong.append(f"{shown(path)}:{line}: imports {module}")
        for node, name in calls(tree):
            where = f"{shown(path)}:{node.lineno}: {name}"
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            if name in ("eval", "exec", "builtins.eval", "builtins.exec", "os.system", "os.popen", "yaml.load"):
                wrong.append(where)
            if name == "compile" and len(node.args) >= 3:
                wrong.append(where)
            if name == "torch.load" and not is_true(keywords.get("weights_only")):
                wrong.append(f"{where} without weights_only=True")
            if "shell" in keywords and not is_false(keywords["shell"]):
                wrong.append(f"{where} with shell")
            if "trust_remote_code" in keywords and not is_false(keywords["trust_remote_code"]):
                wrong.append(f"{where} with trust_remote_code")
            if "allow_pickle" in keywords and not is_false(keywords["allow_pickle"]):
                wrong.append(f"{where} with allow_pickle")
            if name in ("np.load", "numpy.load") and "allow_pickle" not in keywords:
                wrong.append(f"{where} without allow_pickle=False")
            if name.rsplit(".", 1)[-1] in ("execute", "executemany", "executescript") and node.args:
                wrong += [f"{where} with SQL made of values"] if is_made_of_values(node.args[0]) else []
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f"{shown(path)}:{node.lineno}: bare except")
            if isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node):
                wrong.append(f"{shown(path)}:{node.lineno}: NotImplementedError")
    assert wrong == []


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def is_made_of_values(node: ast.expr) -> bool:
    """An f-string whose braces hold anything but question marks counted out (``",".join("?" * n)``) or a constant of
    the module (an UPPER_CASE name), a ``%`` or a ``.format``."""
    if isinstance(node, ast.JoinedStr):
        values = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        return any(not harmless(value) for value in values)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Mod) or is_made_of_values(node.left) or is_made_of_values(node.right)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"


def harmless(value: ast.expr) -> bool:
    text = ast.unparse(value)
    return "'?'" in text or (isinstance(value, ast.Name) and value.id.lstrip("_").isupper())


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("f'SELECT {name}'", True),
        ("'SELECT %s' % name", True),
        ("'SELECT {}'.format(name)", True),
        ("'SELECT ' + f'{name}'", True),
        ("'SELECT ?'", False),
        ("f\"IN ({','.join('?' * n)})\"", False),
        ("f'{TABLE}'", False),
    ],
)
def test_the_rule_about_sql_itself(sql: str, expected: bool) -> None:
    assert is_made_of_values(ast.parse(sql, mode="eval").body) is expected


def test_files_stay_around_one_noun() -> None:
    long = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    assert {name: lines for name, lines in long.items() if lines > LONGEST} == {}


def test_every_file_says_what_it_is() -> None:
    silent = [
        shown(path) for path in CODE if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_streammem_is_light_and_silent() -> None:
    """No torch, no decoder, no network: a robot imports this at boot, and a test of a test imports it a thousand
    times."""
    out = run_python(
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network at import')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "import streammem\n"
        "heavy = {'torch', 'cv2', 'av', 'transformers', 'onnxruntime', 'faiss', 'perception', 'nav'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert out.strip() == "[]"


def test_every_module_can_be_imported_without_the_network() -> None:
    """And none needs torch to be imported: only what really runs a torch model imports it, when it does. Subclasses of
    a model of transformers can't be written otherwise; whatever uses those imports them inside functions."""
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES if path.name != "__main__.py"]
    modules = [name for name in modules if not name.startswith(SUBCLASSES)]
    out = run_python(
        "import importlib, socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network at import')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        f"for name in {[name.removesuffix('.__init__') for name in modules]!r}:\n"
        "    importlib.import_module(name)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert out.strip() == "[]"


def test_the_public_names() -> None:
    import streammem

    assert tuple(sorted(streammem.__all__)) == tuple(sorted(PUBLIC))
    assert [name for name in PUBLIC if getattr(streammem, name, None) is None] == []
