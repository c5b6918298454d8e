"""The layering of the packages, read from their imports: those inside functions and under TYPE_CHECKING included."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARIES = ("extraction", "editing", "judging")
PACKAGES = (*LIBRARIES, "engine")
HEAVY = {"torch", "transformers", "vllm", "ray", "pyarrow", "pydantic", "numpy", "scipy", "statsmodels", "openai"}

# The rooms of engine/, bottom floor first. A room imports from lower floors only; the libraries stand below all.
FLOORS = (
    ("paths", "errors"),
    ("display", "environment", "cluster", "vllm_compat"),
    ("configs", "runtime"),
    ("models",),
    ("inference",),
    ("runs",),
    ("scoring",),
    ("report",),
    ("rollout",),
    ("evaluate", "checkpoints", "lmeval", "exports"),
    ("sweep", "study", "serving"),
    ("compare",),
    ("benchmarks",),
    ("commands",),
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
LOOSE = {"paths", "errors", "environment", "cluster"}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(file): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))}


def imported_roots(file: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    roots = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return roots | {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def imported_modules(module: str) -> Iterator[str]:
    """Our own modules that a module imports, wherever in the file."""
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


ARROWS = {module: {other for other in imported_modules(module) if other in FILES and other != module} for module in FILES}


def room(module: str) -> str:
    """The room of a module of engine/; "" for the package itself, which is its public face, and for the libraries."""
    return module.split(".")[1] if module.startswith("engine.") else ""


def room_arrows() -> set[tuple[str, str]]:
    found = {(room(module), room(other)) for module, others in ARROWS.items() for other in others}
    return {(one, other) for one, other in found if one and other and one != other}


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


def test_every_room_of_engine_has_a_floor() -> None:
    assert {room(module) for module in FILES} - {""} == set(FLOOR_OF)


def test_four_files_of_engine_are_loose() -> None:
    assert {file.stem for file in (ROOT / "engine").glob("*.py")} - {"__init__"} == LOOSE


def test_no_room_imports_from_its_own_floor_or_a_higher_one() -> None:
    back = sorted(
        f"{module} imports {other}"
        for module, others in ARROWS.items()
        for other in others
        if room(module) and room(other) and room(module) != room(other) and FLOOR_OF[room(module)] <= FLOOR_OF[room(other)]
    )
    assert back == []


def test_no_module_imports_itself_through_others() -> None:
    below: dict[str, set[str]] = {}

    def visit(module: str, path: tuple[str, ...]) -> set[str]:
        assert module not in path, f"a circle of imports: {' -> '.join((*path[path.index(module) :], module))}"
        if module not in below:
            below[module] = set().union(*({other} | visit(other, (*path, module)) for other in ARROWS[module]))
        return below[module]

    for module in FILES:
        visit(module, ())


def test_no_room_imports_the_public_face() -> None:
    assert sorted(module for module, others in ARROWS.items() if "engine" in others and module != "engine") == []


def test_no_two_rooms_import_each_other() -> None:
    arrows = room_arrows()
    assert sorted((one, other) for one, other in arrows if one < other and (other, one) in arrows) == []


PRIVATE = re.compile(r"vllm\.(v1|model_executor|engine|config|platforms|worker)\b|engine_core\.|\.llm_engine\b")


def test_private_names_of_vllm_stand_in_one_room() -> None:
    """vLLM's documented face is `vllm.LLM`, `vllm.SamplingParams` and its command line."""
    code = {module: "\n".join(code_lines(file)) for module, file in FILES.items() if room(module) != "vllm_compat"}
    assert [module for module, text in code.items() if PRIVATE.search(text)] == []


def code_lines(file: Path) -> list[str]:
    """A file's statements that import, and its attribute chains, as text; strings and comments are left out."""
    tree = ast.parse(file.read_text())
    return [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom | ast.Attribute)]
