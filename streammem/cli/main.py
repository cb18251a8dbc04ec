"""The ``streammem`` command: which commands there are, how errors leave it, and its exit codes.

Nothing here imports typer before a command was named, and a command imports what it needs when it runs: the help of
the whole program must appear in under 0.3 s on a slow machine.

Exit codes: 0 done, 1 nothing found, 2 wrong use or bad input, 3 service unreachable, 70 a bug, 130 interrupted,
141 the reader of a pipe went away.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import typer.core

NOTHING_FOUND = 1
WRONG_USE = 2
BUG = 70
INTERRUPTED = 130
PIPE_CLOSED = 141

# Name, one line, by purpose. The module streammem/cli/<name>.py holds the command as `app`.
COMMANDS: dict[str, dict[str, str]] = {
    "Start here": {
        "demo": "a real clip, watched and asked about, on this machine",
        "ask": "a question about a video, a folder of pictures or a memory",
    },
    "Remember": {
        "watch": "watch a source into a memory, with progress; resumes where it stopped",
        "serve": "a memory as a service: producers write to it, people ask it",
        "correct": "an answer was wrong: remember that",
        "forget": "remove a stretch of time from a memory, everywhere it is kept",
    },
    "Look": {
        "search": "the moments closest to a few words",
        "tracks": "objects that were followed, when they were seen, and the frames kept of each",
        "timeline": "what happened, in 20 to 40 entries: a tree, or a picture with -o",
        "show": "a contact sheet of moments as a PNG",
        "map": "where things are: from above as a PNG, as a .ply, --where WORDS",
        "status": "what a memory holds, and its bytes against its budget",
    },
    "Care": {
        "doctor": "what works on this machine and what doesn't, and what to do about it",
        "config": "the settings: show, explain, validate",
        "keys": "who may talk to a service from other machines: new, list, revoke",
        "eval": "how good the answers are, on data that others made",
        "reembed": "another encoder for what is already remembered; resumable, with a way back",
        "selftest": "order, latest state, counts, absence: exact truth, no model",
        "bench": "speed, memory use and recall, measured here",
    },
}

EXAMPLES = """\
  streammem demo
  streammem ask kitchen.mp4 "when is the kettle put down?"
  streammem search kitchen.mp4 "red mug" --between -10m now --k 3
  streammem ask kitchen.mp4 "is there a dog?" --json | jq .status
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and leave the process with its exit code."""
    if argv is None:
        _start_quickly()
    # A descriptor that the caller closed (`>&-`) is None here; it is written to nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  (it lives as long as the process)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    code = run(list(sys.argv[1:] if argv is None else argv))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _close_pipe()
    except OSError as error:
        _close_pipe()
        print(f"streammem: stdout: {error.strerror}", file=sys.stderr)
        code = WRONG_USE
    # Worker threads of the native libraries (ONNX Runtime, FFmpeg) may outlive an interrupt by seconds; everything
    # that has to be durable was synced before run() returned.
    if code == INTERRUPTED:
        os._exit(code)
    if argv is None:
        _leave(code)
    sys.exit(code)


def _start_quickly() -> None:
    """For a process that is this command and nothing else."""
    import gc

    # Importing makes 200,000 objects that live as long as the process: collecting after every 700 of them costs a
    # question 40 ms of CPU and finds nothing.
    if sys.argv[1:2] in (["ask"], ["search"]):
        gc.set_threshold(50_000)
    # pydantic looks through every installed package for plugins of its own, 25 ms; none is wanted here.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _leave(code: int) -> NoReturn:
    """End without taking the interpreter's modules apart one by one, which costs 0.1 to 0.2 s after a question."""
    import atexit
    import threading

    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            sys.exit(code)  # the interpreter waits for it
    atexit._run_exitfuncs()  # what libraries asked for: temporary folders, log handlers, coverage
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def run(args: list[str]) -> int:
    """One command line -> its exit code. Never raises but for SystemExit of the interpreter itself."""
    from streammem.cli.output import protected_stdout

    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character shows "?", it doesn't end the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if not args or args[0] in ("-h", "--help", "help"):
        try:
            print(top_help(), file=sys.stdout if args else sys.stderr)
        except OSError:
            return _close_pipe()
        return 0 if args else WRONG_USE
    if args[0] in ("--version", "-V"):
        print(f"streammem {version()}")
        return 0
    options = args[: args.index("--")] if "--" in args else args
    as_json = "--json" in options
    with protected_stdout(as_json):
        return _guarded(lambda: _dispatch(args), args, as_json)


def _dispatch(args: list[str]) -> int:
    _stop_on_sigterm()
    result = command_group().main(args=args, prog_name="streammem", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _guarded(call: Callable[[], int], args: list[str], as_json: bool) -> int:
    from streammem.cli.output import fail
    from streammem.errors import StreammemError

    try:
        return call()
    except KeyboardInterrupt:
        return fail("interrupted", "", INTERRUPTED, "Interrupted", as_json)
    except BrokenPipeError:
        return _close_pipe()
    except StreammemError as error:
        return fail(error.message, error.hint, error.exit_code, type(error).__name__, as_json, error)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        return fail(what, "", WRONG_USE, type(error).__name__, as_json, error)
    except MemoryError as error:
        return fail(
            "out of memory", "lower perception.threads or budget.ram_bytes", WRONG_USE, "MemoryError", as_json, error
        )
    except Exception as error:  # noqa: BLE001  (the one place: a bug ends as one line and a log, never as a traceback)
        return _usage_or_bug(error, args, as_json)


def _usage_or_bug(error: Exception, args: list[str], as_json: bool) -> int:
    from streammem.cli.output import crash_log, fail

    if "typer" in sys.modules:
        import typer

        # UsageError and ClickException; see group.py for why they are found this way.
        usage, click_error = typer.BadParameter.__mro__[1:3]
        if isinstance(error, typer.Exit):
            return int(error.exit_code)
        if isinstance(error, typer.Abort):
            return fail("interrupted", "", INTERRUPTED, "Interrupted", as_json)
        if isinstance(error, click_error):
            context = getattr(error, "ctx", None) if isinstance(error, usage) else None
            path = context.command_path if context is not None else "streammem"
            message = error.format_message()  # type: ignore[attr-defined]
            return fail(message.rstrip("."), f"see {path} --help", WRONG_USE, "UsageError", as_json)
    where = crash_log(error, args)
    what = f"{type(error).__name__}: {error}"
    return fail(f"this is a bug: {what}", f"the details are in {where}", BUG, "Bug", as_json, error)


def command_group() -> typer.core.TyperGroup:
    """The group of all commands; each is imported when it is called."""
    from streammem.cli.group import LazyGroup

    return LazyGroup({name: line for section in COMMANDS.values() for name, line in section.items()}, load_command)


def load_command(name: str) -> typer.core.TyperCommand | typer.core.TyperGroup:
    """Import ``streammem/cli/<name>.py`` and make its typer app a command."""
    return load_module(f"streammem.cli.{name}", name)


def load_module(module: str, name: str) -> typer.core.TyperCommand | typer.core.TyperGroup:
    """The command in a module: its typer ``app``, or its ``group()``, whose commands are imported when called."""
    import typer.main

    found = import_module(module)
    command = found.group() if hasattr(found, "group") else typer.main.get_command(found.app)
    command.name = name
    return command  # type: ignore[return-value]


def top_help() -> str:
    """The help of the whole program, written without importing the commands."""
    bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if _coloured() else ("", "", "")
    lines = [
        f"{bold}streammem{plain}: a memory for cameras and robots",
        "",
        f"{bold}Usage{plain}  streammem COMMAND ...      streammem COMMAND --help",
    ]
    for section, commands in COMMANDS.items():
        lines += ["", f"{bold}{section}{plain}"]
        lines += [f"  {bold}{name:<8}{plain} {line}" for name, line in commands.items()]
    lines += ["", f"{bold}Examples{plain}", EXAMPLES.rstrip()]
    lines += [
        "",
        f"{dim}--json on any command: one JSON document on stdout. --version. Exit codes: 0 done, 1 nothing found,",
    ]
    lines += [f"2 wrong use or bad input, 3 service unreachable, 130 interrupted.{plain}"]
    return "\n".join(lines)


def version() -> str:
    """The installed version, or the word ``source`` in a checkout that isn't installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("streammem")
    except PackageNotFoundError:
        return "source"


def _coloured() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _close_pipe() -> int:
    # Without this the interpreter writes a second complaint when it flushes stdout at its end.
    # A stdout without a descriptor (a test, an embedding program) has nothing left to flush.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED


def _stop_on_sigterm() -> None:
    """A polite kill is an interrupt: what was watched is flushed, and the next run resumes."""
    import signal
    import threading

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
