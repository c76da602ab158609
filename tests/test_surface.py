"""The public surface and the floors."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import cellwright
from cellwright import cells, nn

PACKAGE = Path(cellwright.__file__).parent
FLOORS = {"errors": 0, "lang": 1, "cells": 2, "emit": 2, "nn": 3, "convert": 4, "topologies": 4, "tasks": 5, "train": 5}
FLOORS |= {"app": 6, "onnx_backend": 6}


def test_all_is_complete_and_importable() -> None:
    assert len(set(cellwright.__all__)) == len(cellwright.__all__)
    for name in cellwright.__all__:
        assert getattr(cellwright, name) is not None
    source = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = {a.name for n in ast.walk(source) if isinstance(n, ast.ImportFrom) and n.level for a in n.names}
    assert imported == set(cellwright.__all__)


def test_every_operation_and_activation_is_public() -> None:
    from cellwright.lang import ACTIVATIONS, OPS

    operators = {"add", "sub", "mul", "div", "neg", "less", "abs", "sum", "spread"}
    assert set(OPS) - operators <= set(cellwright.__all__)
    assert set(ACTIVATIONS) <= set(cellwright.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LTSM'"):
        cellwright.LTSM  # type: ignore[attr-defined]


def _imports(path: Path) -> set[str]:
    """The floors that a file imports from."""
    here = path.relative_to(PACKAGE.parent).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        targets: list[tuple[str, ...]] = []
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level]
            inner = (*base, *(node.module or "").split(".")) if node.module else base
            targets = [inner] if node.module else [(*inner, a.name) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            targets = [tuple((node.module or "").split("."))]
        elif isinstance(node, ast.Import):
            targets = [tuple(a.name.split(".")) for a in node.names]
        found |= {t[1] for t in targets if t[0] == "cellwright" and len(t) > 1}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_floors_import_downwards_only(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    own = parts[0]
    if own in ("__init__", "__main__"):
        return  # the public surface and the command stand above all floors
    for other in _imports(path) - {own, "__version__"}:
        assert other in FLOORS, f"{path.name} imports cellwright.{other}, which is no floor"
        assert FLOORS[other] < FLOORS[own], f"{path.name} on floor {FLOORS[own]} imports {other} on {FLOORS[other]}"


def test_the_language_imports_no_torch() -> None:
    modules = "cellwright, cellwright.cells, cellwright.lang.show, cellwright.emit.to_latex"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "False"


def test_cells_and_emit_are_siblings() -> None:
    for path in (PACKAGE / "cells").glob("*.py"):
        assert "emit" not in _imports(path)
    for path in (PACKAGE / "emit").glob("*.py"):
        assert "cells" not in _imports(path)


def test_every_cell_has_its_class_with_weights() -> None:
    """By its public name, which pickle finds again; without a line of its own in `nn`."""
    for kind in cells.CELLS:
        name = "RNNCell" if kind is cells.Elman else f"{kind.__name__}Cell"
        assert name in cellwright.__all__
        made = getattr(cellwright, name)
        assert issubclass(made, cellwright.Cell) and issubclass(made, kind) and made.__doc__ == kind.__doc__
        assert pickle.loads(pickle.dumps(made)) is made
        assert pickle.loads(pickle.dumps(made(2, 4))).definition() == made(2, 4).definition()
    with pytest.raises(AttributeError, match="no attribute 'LTSMCell'"):
        nn.built_in.LTSMCell
