"""The subcommands of ``streammem eval``: one module each, with a typer ``app``; their lines are in ``cli/eval.py``."""
