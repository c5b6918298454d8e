"""The layering of the packages, read from their imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARIES = ("extraction", "editing", "judging")
PACKAGES = (*LIBRARIES, "engine")
HEAVY = {"torch", "transformers", "vllm", "ray", "pyarrow", "pydantic", "numpy", "scipy", "statsmodels", "openai"}


def imported_roots(file: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    roots = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return roots | {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_import_neither_each_other_nor_engine(library: str) -> None:
    files = sorted((ROOT / library).rglob("*.py"))
    assert files
    edges = {(str(file), root) for file in files for root in imported_roots(file) & set(PACKAGES) - {library}}
    assert edges == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_package_init_imports_nothing_heavy(package: str) -> None:
    assert imported_roots(ROOT / package / "__init__.py", top_level_only=True) & HEAVY == set()


def test_launchers_hold_no_logic() -> None:
    launchers = [file for file in (ROOT / "bin").iterdir() if file.is_file() and "engine.commands" in file.read_text()]
    assert launchers
    assert all(len(file.read_text().splitlines()) <= 3 for file in launchers)
