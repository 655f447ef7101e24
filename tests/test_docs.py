"""Examples in the documentation are run: doctests of all modules, and Python code of pages."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
from pathlib import Path

import fastlstm
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def modules() -> list[str]:
    """All modules of the package in Python; __main__ modules run when they are imported."""
    walk = pkgutil.walk_packages(fastlstm.__path__, "fastlstm.")
    names = [m.name for m in walk if not m.name.endswith(("._core", "._scipy_blas", "__main__"))]
    return ["fastlstm", *names]


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        # An extra's requirement, say matplotlib; never a part of this package.
        if (error.name or "").partition(".")[0] == "fastlstm":
            raise
        pytest.skip(f"needs {error.name}")
    # The module's own names and these; what an example imports it shows.
    globs = {**vars(module), "fastlstm": fastlstm, "np": np}
    results = doctest.testmod(module, globs=globs, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_the_public_classes_have_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for thing in (fastlstm.LSTM, fastlstm.Stream, fastlstm.LSTM.forward, fastlstm.LSTM.trace):
        examples = [e for test in finder.find(thing) for e in test.examples]
        assert examples, thing


def test_every_public_name_has_a_docstring() -> None:
    for name in fastlstm.__all__:
        thing = getattr(fastlstm, name)
        if name != "__version__":
            assert thing.__doc__, name
        if isinstance(thing, type):
            for member in vars(thing):
                if not member.startswith("_"):
                    assert getattr(thing, member).__doc__, f"{name}.{member}"


# Whose Python blocks are whole programs.
PAGES = ("README.md", "docs/embeddings.md", "docs/interchange.md")
FRAMEWORKS = ("torch", "keras", "onnx", "onnxruntime")
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
@pytest.mark.parametrize("page", PAGES)
def test_pages(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks run one after the other, as a reader would type them."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    monkeypatch.chdir(tmp_path)  # for the files that they write
    blocks = PYTHON_BLOCK.findall((ROOT / page).read_text())
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        for framework in FRAMEWORKS:
            if f"import {framework}\n" in block:
                pytest.importorskip(framework)
        if block.startswith(">>> "):
            test = doctest.DocTestParser().get_doctest(block, names, page, page, 0)
            assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
            names.update(test.globs)
        else:
            exec(compile(block, page, "exec"), names)
