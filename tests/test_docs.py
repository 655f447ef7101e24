"""Examples in the documentation are run: doctests of all modules, and Python code of pages.

Links of pages lead somewhere, and no option is left out.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
import re
from pathlib import Path

import fastlstm
import numpy as np
import pytest
from fastlstm import nn

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


# Classes that say they are fastlstm's, whatever file they are in: doctest does not find them there.
PUBLIC_CLASSES = [
    name
    for name in fastlstm.__all__
    if getattr(getattr(fastlstm, name), "__module__", "") == "fastlstm"
]


@pytest.mark.parametrize("name", PUBLIC_CLASSES)
def test_doctests_of_public_classes(name: str) -> None:
    globs = {"fastlstm": fastlstm, "np": np}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    cls = getattr(fastlstm, name)
    for test in doctest.DocTestFinder().find(cls, name, module=False, globs=globs):
        assert runner.run(test).failed == 0, test.name


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


def test_every_name_of_blocks_has_a_docstring() -> None:
    for name in nn.__all__:
        thing = getattr(nn, name)
        assert thing.__doc__, name
        members = (
            [m for m in vars(thing) if not m.startswith("_")] if inspect.isclass(thing) else []
        )
        for member in members:
            described = getattr(thing, member)
            assert not callable(described) or described.__doc__, f"{name}.{member}"


# All pages with Python code: their blocks are whole programs. Those of start.md are files of their
# own, which tests/test_start.py runs.
MARKDOWN = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    page for page in MARKDOWN if PYTHON_BLOCK.search(page.read_text()) and page.name != "start.md"
]
# What a block imports -> what must be installed for it.
FRAMEWORKS = {
    **{f"import {name}\n": name for name in ("torch", "keras", "onnx", "onnxruntime")},
    "import fastlstm.torch\n": "torch",
    "from fastlstm.sklearn import ": "sklearn",
    "from fastlstm import plot\n": "matplotlib",
}


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks run one after the other, as a reader would type them."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    monkeypatch.chdir(tmp_path)  # for the files that they write
    name = page_name(page)
    names: dict[str, object] = {}
    for block in PYTHON_BLOCK.findall(page.read_text()):
        for line, framework in FRAMEWORKS.items():
            if line in block:
                pytest.importorskip(framework)
        if block.startswith(">>> "):
            test = doctest.DocTestParser().get_doctest(block, names, name, name, 0)
            assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
            names.update(test.globs)
        else:
            exec(compile(block, name, "exec"), names)


def anchors(page: Path) -> set[str]:
    """What links can point to in a page, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", MARKDOWN, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("layer", [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN])
def test_every_option_is_described(layer: type) -> None:
    """Those that PyTorch does not have: the arguments by keyword."""
    text = (ROOT / "docs" / "options.md").read_text()
    described = inspect.getdoc(layer)  # without indentation, whatever the version of Python
    assert described
    for name, parameter in inspect.signature(layer).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert re.search(rf"^\|.*`{name}\b", text, re.MULTILINE), name
            assert re.search(rf"^{name} : ", described, re.MULTILINE), name
