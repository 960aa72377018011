"""Who may import whom: data and imports go one way.

`converters` imports nothing of ours, `sam2_model` of it only the vocabulary (`types`)
and plain facts of files (`media_kinds`, `frame_names`), `backend` both, and nothing
imports `backend`.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def imported_modules(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it, by full name."""
    package = path.relative_to(ROOT).with_suffix("").parts
    package = package[:-1]  # the folder, also for __init__.py
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), path.name)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *((node.module,) if node.module else ())))
            # A name imported from a package may be a module of it.
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def imports_of(package: str) -> dict[str, set[str]]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"no file in {ROOT / package}"
    return {str(path.relative_to(ROOT)): imported_modules(path) for path in files}


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def wrong_imports(package: str, is_wrong) -> list[tuple[str, str]]:
    return [
        (file, module)
        for file, modules in imports_of(package).items()
        for module in sorted(modules)
        if is_wrong(module)
    ]


def test_sam2_model_imports_nothing_of_the_service():
    forbidden = ("backend", "flask", "label_studio_sdk", "gunicorn")
    assert wrong_imports("sam2_model", lambda module: within(module, *forbidden)) == []


SHARED = ("converters.types", "converters.media_kinds", "converters.frame_names")


def test_sam2_model_imports_only_the_vocabulary_of_the_converters():
    def is_wrong(module):
        return within(module, "converters") and not within(module, *SHARED)

    assert wrong_imports("sam2_model", is_wrong) == []


@pytest.mark.parametrize("module", SHARED[1:])
def test_plain_facts_import_nothing_of_ours(module):
    ours = ("converters", "sam2_model", "backend")
    file = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert [name for name in imported_modules(file) if within(name, *ours)] == []


def test_converters_import_nothing_of_ours_and_no_heavy_package():
    forbidden = ("backend", "sam2_model", "torch", "flask", "label_studio_sdk")
    assert wrong_imports("converters", lambda module: within(module, *forbidden)) == []


@pytest.mark.parametrize("package", ["converters", "sam2_model"])
def test_nothing_imports_the_backend(package):
    assert wrong_imports(package, lambda module: within(module, "backend")) == []


def test_the_rules_see_every_way_to_import(tmp_path, monkeypatch):
    folder = tmp_path / "package" / "inner"
    folder.mkdir(parents=True)
    file = folder / "module.py"
    file.write_text(
        "import one, two.deep as x\n"
        "from three import name\n"
        "from . import beside\n"
        "from ..above import other\n"
        "def late():\n    import four\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    found = imported_modules(file)
    assert {"one", "two.deep", "three", "three.name", "four"} <= found
    assert {"package.inner.beside", "package.above", "package.above.other"} <= found


def loaded_after(statements: str, *packages: str) -> list[str]:
    """Which of `packages` a fresh interpreter has loaded after `statements`."""
    script = (
        f"import sys\n{statements}\n"
        f"print(sorted({{m.split('.')[0] for m in sys.modules}} & {set(packages)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


EVERY_CONVERTER = """
import importlib, pkgutil, converters
names = [m.name for m in pkgutil.walk_packages(converters.__path__, "converters.")]
assert len(names) >= 5, names
for name in names:
    importlib.import_module(name)
"""


@pytest.mark.parametrize(
    "statements, packages",
    [
        # what is imported, what must not be loaded by it
        (EVERY_CONVERTER, ("torch", "flask", "backend", "sam2_model")),
        ("import sam2_model", ("torch", "numpy", "flask", "backend")),
        ("import sam2_model.configs", ("torch", "flask", "backend")),
        ("import sam2_model.checkpoints", ("flask", "backend")),
        ("import sam2_model; sam2_model.SAM2VideoPredictor", ("flask", "backend")),
    ],
    ids=["all of converters", "sam2_model", "configs", "checkpoints", "the predictor"],
)
def test_a_fresh_interpreter_loads_no_more_than_it_needs(statements, packages):
    assert loaded_after(statements, *packages) == []


def test_every_public_name_of_sam2_model_is_there():
    import sam2_model

    assert set(sam2_model.__all__) <= set(dir(sam2_model)) | set(sam2_model._HOME)
    for name in sam2_model.__all__:
        assert getattr(sam2_model, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'SAM3'"):
        sam2_model.SAM3


def opening_without_formats(path: Path) -> list[int]:
    """The lines of a file on which Pillow may open a file of any kind that it knows."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(), path.name))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("Image.open", "PIL.Image.open")
        and "formats" not in [keyword.arg for keyword in node.keywords]
    ]


@pytest.mark.parametrize("package", ["backend", "converters", "sam2_model", "benchmarks", "ops"])
def test_images_are_opened_as_the_kinds_that_are_meant(package):
    """Else a "PNG" that is EPS is a program, which Pillow has Ghostscript run."""
    files = sorted((ROOT / package).rglob("*.py"))
    found = {str(path): lines for path in files if (lines := opening_without_formats(path))}
    assert found == {}


def test_the_rule_sees_an_image_that_is_opened_as_anything(tmp_path):
    path = tmp_path / "a.py"
    path.write_text('Image.open(x)\nPIL.Image.open(x, "r")\nImage.open(x, formats=("PNG",))\n')
    assert opening_without_formats(path) == [1, 2]
