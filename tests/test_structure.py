"""Imports go one way, and what a module keeps to itself stays there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {"fastlstm": ROOT / "python", "fastlstm_bench": ROOT / "benchmarks"}
# Private by name, public by documentation.
OF_PYTHON = {"_replace", "_fields", "_asdict", "_make", "_exit"}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(path, root): path
    for package, root in SOURCES.items()
    for path in sorted((root / package).rglob("*.py"))
}
# The package's extension modules.
MODULES = {*FILES, "fastlstm._core", "fastlstm._scipy_blas"}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in FILES.items()}


def imports(module: str) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of all imports, those in functions and for type checks included.

    The name is empty where a module is imported.
    """
    is_package = FILES[module].name == "__init__.py"
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found = (inner, "") if inner in MODULES else (base, alias.name)
                yield node.lineno, *found


GRAPH = {name: {to for _, to, _ in imports(name) if to in FILES} for name in FILES}


def a_circle(graph: dict[str, set[str]]) -> list[str] | None:
    """Modules of which each imports the next, and the last the first."""
    done: set[str] = set()

    def search(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return None
        for other in sorted(graph[module]):
            if found := search(other, [*path, module]):
                return found
        done.add(module)
        return None

    return next((found for module in graph if (found := search(module, []))), None)


def test_no_module_is_imported_in_a_circle() -> None:
    assert a_circle(GRAPH) is None


def test_a_circle_would_be_found() -> None:
    assert a_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert a_circle({"a": {"a"}}) == ["a"]
    assert a_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_layers_import_in_the_order_that_their_package_lists() -> None:
    package = "fastlstm.layers"
    text = ast.get_docstring(TREES[package]) or ""
    order = [f"{package}.{name}" for name in re.findall(r":mod:`\.(\w+)`", text)]
    there = {name for name in FILES if name.startswith(f"{package}.")}
    assert sorted(order) == sorted(there)
    for place, name in enumerate(order):
        assert GRAPH[name] & there <= set(order[place + 1 :]), name


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in OF_PYTHON


def defined_names(tree: ast.Module) -> set[str]:
    """All names that a module gives to something: functions, classes, variables, attributes."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.arg(arg=name):
                names.add(name)
    return names


def private_imports(module: str) -> Iterator[str]:
    """Names that a module imports although they are another's own.

    Modules with such names may be imported: they are private to the distribution.
    """
    for line, base, name in imports(module):
        if base.partition(".")[0] in SOURCES and is_private(name):
            yield f"line {line}: {name} of {base}"


def reaches(tree: ast.Module) -> Iterator[str]:
    """Attributes that a module uses although nothing in it is called so."""
    own = defined_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not is_private(node.attr) or node.attr in own:
            continue
        # A class may use what its bases have for it.
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            continue
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super":
            continue
        yield f"line {node.lineno}: {ast.unparse(node)}"


# Which says of each why, and keeps it from the others.
OF_PYTORCH = "fastlstm.torch._internals"


@pytest.mark.parametrize("module", [name for name in FILES if name != OF_PYTORCH])
def test_no_module_uses_what_another_keeps_to_itself(module: str) -> None:
    assert [*private_imports(module), *reaches(TREES[module])] == []


def test_a_reach_would_be_found() -> None:
    code = """
class A(B):
    def _own(self): self._of_a_base; cls._of_a_base; super()._of_a_base()
A()._own(); A().__doc__; A()._replace()
other._name; f(x)._names[0]
"""
    assert list(reaches(ast.parse(code))) == ["line 5: other._name", "line 5: f(x)._names"]
