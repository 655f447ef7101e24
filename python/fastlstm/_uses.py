"""The uses of LSTMs on real data, which are the scripts in examples/, as the command runs them."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path


def folder() -> Path:
    """Where the scripts are: in the installed package, or in the clone that it is run from.

    Raises
    ------
    FileNotFoundError
        Nowhere.
    """
    package = Path(__file__).parent
    for place in (package / "examples", package.parents[1] / "examples"):
        if (place / "common.py").exists():
            return place
    raise FileNotFoundError(f"no examples in {package}, nor in a clone around it")


def uses() -> dict[str, str]:
    """Name and first line of each use: of the scripts that `common.run` makes commands of."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder().glob("*.py"))}
    docs = {name: ast.get_docstring(ast.parse(text)) for name, text in texts.items()}
    return {
        name: (docs[name] or "").partition("\n")[0]
        for name, text in texts.items()
        if "\n    common.run(" in text
    }


def run(name: str, argv: Sequence[str]) -> int:
    """Run a use as a script.

    Parameters
    ----------
    name : str
        One of `uses`.
    argv : sequence of str
        Its arguments.

    Returns
    -------
    int
        Its exit code.
    """
    path = folder() / f"{name}.py"
    before = sys.argv, sys.path
    sys.argv, sys.path = [str(path), *argv], [str(path.parent), *sys.path]
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    finally:
        sys.argv, sys.path = before
    return 0
