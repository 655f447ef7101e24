"""One version, in python/fastlstm/_version.py: what else names it says the same."""

from __future__ import annotations

import re
from pathlib import Path

import fastlstm
import pytest

ROOT = Path(__file__).parent.parent
MINOR = fastlstm.__version__.rpartition(".")[0]


@pytest.mark.parametrize(
    ("file", "pattern", "version"),
    [
        ("CITATION.cff", r"^version: (.*)$", fastlstm.__version__),
        ("docs/releases.md", r"^## (\d.*)$", f"{MINOR}.0"),
        ("docs/cpp.md", r"find_package\(fastlstm ([\d.]+)", MINOR),
        ("docs/cpp.md", r"libfastlstm\.so\.([\d.]+\d)", MINOR),
        ("examples/cpp/CMakeLists.txt", r"find_package\(fastlstm ([\d.]+)", MINOR),
    ],
)
def test_the_version_is_everywhere_the_same(file: str, pattern: str, version: str) -> None:
    found = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    assert found[0] == version
    # Of releases, only the first is the present one.
    assert file == "docs/releases.md" or set(found) == {version}


def test_its_parts_are_numbers() -> None:
    assert re.fullmatch(r"\d+[.]\d+[.]\d+", fastlstm.__version__)  # as CMake's and the library's
