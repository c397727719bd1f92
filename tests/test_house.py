"""Rules of the house that a machine can check."""

import ast
import re
from pathlib import Path

import pytest

import bridge
from bridge import errors

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("bridge", "consumers", "demo", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 50
ERRORS = ROOT / "bridge" / "errors.py"
"""A list, and by rule one page: it may be as long as there are errors."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_and_its_functions_are_short_enough_to_be_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    functions = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= MAX_FUNCTION_LINES]

    assert len(text.splitlines()) <= MAX_FILE_LINES or path == ERRORS
    assert long == []


def test_the_tree_of_errors_is_drawn_as_it_is_written() -> None:
    drawn = re.findall(
        r"^\s*(?:[│ ]*[├└]── )?([A-Z]\w+Error)\b", errors.__doc__ or "", re.MULTILINE
    )
    written = [
        cls.__name__
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.BridgeError)
    ]

    assert drawn == written


def test_statuses_are_drawn_as_they_are() -> None:
    drawn = dict(re.findall(r"(\w+Error) +(\d{3}) ", errors.__doc__ or ""))

    assert {k: int(v) for k, v in drawn.items()} == {
        cls: getattr(errors, cls).status for cls in drawn
    }


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.is_relative_to(ROOT / "bridge")], ids=name
)
def test_errors_are_on_one_page(path: Path) -> None:
    if path == ERRORS:
        return
    defined = [
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Exception"))
    ]

    assert defined == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_module_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_the_public_names_of_the_package_are_these() -> None:
    assert bridge.__all__ == ["Context", "PermanentError", "RetryableError"]
    assert all(hasattr(bridge, public) for public in bridge.__all__)


def test_nothing_names_a_package_host_or_a_path_of_one_machine() -> None:
    hosts = re.compile(
        r"https?://[^\s\"']*(pypi|pythonhosted|maven|npmjs|golang\.org|crates\.io|deb\.debian)"
    )
    found = [
        name(path)
        for path in ROOT.rglob("*")
        if path.is_file()
        and path.suffix in {".py", ".md", ".txt", ".toml", ".yml", ".sh", ""}
        and not {".git", ".venv", ".bridge"} & set(path.relative_to(ROOT).parts)
        and path != Path(__file__)
        and hosts.search(path.read_text(encoding="utf-8", errors="ignore"))
    ]

    assert found == []


def test_two_of_the_three_handlers_that_ship_need_nothing_but_the_bridge() -> None:
    for service in ("greeter", "work"):
        tree = ast.parse((ROOT / "consumers" / service / "__init__.py").read_text(encoding="utf-8"))
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} | {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert imported <= {"bridge", "asyncio"}
