"""What a fused picture depends on, as hashes: the code of its method, the pair, everything together."""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from fusionrepro.data.pairs import Pair

_PACKAGE = Path(__file__).resolve().parents[1]
# They speak, count and keep files; no pixel depends on them.
_BESIDE = ("errors", "files", "settings", "progress", "registry", "data.hashes", "data.published", "data.download", "data.manifests")


def digest(values: Any) -> str:
    """16 hex digits of plain values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def pair_hash(pair: Pair) -> str:
    """12 hex digits of the pixels of a pair as a method sees them; labels do not count."""
    found = hashlib.sha256()
    for x in (pair.ir, pair.vi, pair.cbcr, pair.ir_cbcr):
        found.update(_bytes(x))
    return found.hexdigest()[:12]


def _bytes(x: Tensor | None) -> bytes:
    return b"none" if x is None else str(tuple(x.shape)).encode() + x.detach().cpu().contiguous().numpy().tobytes()


@cache
def code_hash(modules: Iterable[str]) -> str:
    """16 hex digits of what these modules of the package and all that they import from it say.

    Comments, docstrings and layout do not count: a better explanation makes no new picture.
    """
    waiting, seen = list(modules), {}
    while waiting:
        name = waiting.pop()
        if name in seen or (path := _source(name)) is None:
            continue
        tree = _bare(ast.parse(path.read_text(encoding="utf-8")))
        seen[name] = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
        waiting += _imports(tree, name, path.name == "__init__.py")
    return digest(seen)


def _source(name: str) -> Path | None:
    """The file of a module of this package; None for others and for those that no pixel depends on."""
    if name != "fusionrepro" and not name.startswith("fusionrepro."):
        return None
    own = name.removeprefix("fusionrepro").strip(".")
    base = _PACKAGE.joinpath(*own.split(".")) if own else _PACKAGE
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return path if path.is_file() and own and own not in _BESIDE else None


def _bare(tree: ast.Module) -> ast.Module:
    """The tree without docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str))]
            node.body = kept
    return tree


def _imports(tree: ast.Module, name: str, package: bool) -> list[str]:
    """The modules that a module names in its imports; a name imported from a package may be a module too."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")[: None if package and node.level == 1 else -(node.level - package) or None] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found += [base, *(f"{base}.{a.name}" for a in node.names)]
    return found


def slug(text: str) -> str:
    """Text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.").lower() or "x"


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that JSON gives back as they were."""
    return json.loads(json.dumps(dict(values), sort_keys=True, default=str))

