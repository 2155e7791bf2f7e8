"""Figures about the size and shape of the package.

`python tools/code_metrics.py [--json] [--check]` reads the source alone and imports nothing of it;
--check exits with 1 beyond the limits below. --json has the names of what is only counted here.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGE = "memo_habitat"
LIMITS = {"lines": 21_000, "files": 135, "module_lines": 400, "function_lines": 60}
MAX_ARGUMENTS = 8
# The order in which data flows: a folder or module imports those before it, not those behind.
# Beneath the stations lies what all of them use, behind them what starts them.
STATIONS = (
    *("errors", "utils", "compat", "config"),
    *("simulator", "tasks", "scenes", "rollout", "memory", "policy", "ppo"),
    *("trainer", "evaluation", "report", "sweep", "export", "cli"),
)
# These import anything: the one place that registers classes, and what helps to test own ones.
ANYWHERE = ("register", "testing", "__init__")
NOT_COMMENTS = ("# noqa", "# type:", "#!", "# mypy:")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """What is known of one file."""

    name: str
    path: Path
    lines: int = 0
    comments: int = 0
    functions: list[tuple[str, int, int]] = field(default_factory=list)  # name, lines, arguments
    used_once: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)

    @property
    def station(self) -> str:
        """The folder or module below the package that it belongs to."""
        return [*self.name.split("."), "__init__"][1]


def read_modules(root: Path) -> dict[str, Module]:
    """The modules below `root`, by dotted name."""
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path)
    for module in modules.values():
        _read(module, set(modules))
    return modules


def _read(module: Module, names: set[str]) -> None:
    source = module.path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    module.lines = len(source.splitlines())
    with module.path.open("rb") as file:
        comments = (
            t.string for t in tokenize.tokenize(file.readline) if t.type == tokenize.COMMENT
        )
        module.comments = sum(not text.startswith(NOT_COMMENTS) for text in comments)
    functions = [node for node in ast.walk(tree) if isinstance(node, FunctionNode)]
    module.functions = [(f.name, _length(f), _arguments(f)) for f in functions]
    uses = Counter(
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    )
    module.used_once = sorted(
        f.name
        for f in functions
        if f.name.startswith("_") and not f.name.startswith("__") and uses[f.name] == 1
    )
    module.imports = set(_imports(tree, module, names)) - {module.name}


def _length(function: FunctionNode) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _arguments(function: FunctionNode) -> int:
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in every)


def _imports(tree: ast.AST, module: Module, names: set[str]) -> Iterator[str]:
    """Modules of the package imported anywhere in a file, but for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module in names:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in names else str(node.module)
        else:
            yield from _imports(node, module, names)


def find_circles(modules: dict[str, Module]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others (Tarjan, 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(modules[name].imports):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            at = stack.index(name)
            group = sorted(stack[at:])
            del stack[at:]
            if len(group) > 1:
                circles.append(group)

    for name in modules:
        if name not in order:
            visit(name)
    return sorted(circles)


def find_upward(modules: dict[str, Module]) -> list[str]:
    """Imports against the order of the stations."""
    rank = {station: index for index, station in enumerate(STATIONS)}
    return [
        f"{module.name} -> {other}"
        for module in modules.values()
        if module.station in rank
        for other in sorted(module.imports)
        if rank.get(modules[other].station, -1) > rank[module.station]
    ]


def measure(root: Path) -> dict[str, Any]:
    """All figures."""
    modules = read_modules(root)
    every = list(modules.values())
    stations = sorted({module.station for module in every})
    functions = [(f"{m.name}.{f}", lines, n) for m in every for f, lines, n in m.functions]
    lines = sum(module.lines for module in every)
    return {
        "lines": lines,
        "files": len(every),
        "comments_per_100_lines": round(100 * sum(m.comments for m in every) / lines, 1),
        "longest_modules": [(m.name, m.lines) for m in sorted(every, key=lambda m: -m.lines)[:10]],
        "long_functions": sorted(
            ((name, n) for name, n, _ in functions if n > LIMITS["function_lines"]),
            key=lambda item: -item[1],
        ),
        # The parameters of a command are its options.
        "many_arguments": [
            (f"{m.name}.{f}", n)
            for m in every
            for f, _, n in m.functions
            if n > MAX_ARGUMENTS and (m.station != "cli" or f.startswith("_"))
        ],
        "private_functions": sum(
            f.startswith("_") and not f.startswith("__") for m in every for f, _, _ in m.functions
        ),
        "private_used_once": [f"{m.name}.{name}" for m in every for name in m.used_once],
        "circles": find_circles(modules),
        "upward_imports": find_upward(modules),
        "stations": {station: _station(station, every) for station in stations},
    }


def _station(name: str, modules: list[Module]) -> dict[str, float]:
    own = [module for module in modules if module.station == name]
    lines = sum(module.lines for module in own)
    comments = sum(module.comments for module in own)
    return {
        "lines": lines,
        "files": len(own),
        "comments_per_100_lines": round(100 * comments / max(lines, 1), 1),
        "private_used_once": sum(len(module.used_once) for module in own),
    }


def beyond_limits(figures: dict[str, Any]) -> list[str]:
    """What is over a limit, one line each."""
    found = [
        f"{figures[key]:,} {key}, the limit is {LIMITS[key]:,}"
        for key in ("lines", "files")
        if figures[key] > LIMITS[key]
    ]
    found += [
        f"{name} has {lines} lines, the limit is {LIMITS['module_lines']}"
        for name, lines in figures["longest_modules"]
        if lines > LIMITS["module_lines"]
    ]
    found += [
        f"{name}() has {lines} lines, the limit is {LIMITS['function_lines']}"
        for name, lines in figures["long_functions"]
    ]
    return found + [f"import circle: {' '.join(circle)}" for circle in figures["circles"]]


def show(figures: dict[str, Any]) -> None:
    """Print the figures for people."""
    print(f"{figures['lines']:,} lines, {figures['files']} files, ", end="")
    print(f"{figures['comments_per_100_lines']} comments per 100 lines, ", end="")
    once, private = len(figures["private_used_once"]), figures["private_functions"]
    print(f"{once} of {private} private functions used once")
    print(f"\n{'':14}{'lines':>8}{'files':>7}{'comments/100':>14}{'used once':>11}")
    for name, own in figures["stations"].items():
        print(f"{name:14}{own['lines']:8,}{own['files']:7}", end="")
        print(f"{own['comments_per_100_lines']:14}{own['private_used_once']:11}")
    for key in ("longest_modules", "long_functions", "many_arguments"):
        print(f"\n{key.replace('_', ' ')}:")
        print("\n".join(f"  {size:5}  {name}" for name, size in figures[key]) or "  none")
    for key in ("circles", "upward_imports"):
        print(f"\n{key.replace('_', ' ')}:")
        lines = [item if isinstance(item, str) else " ".join(item) for item in figures[key]]
        print("\n".join(f"  {line}" for line in lines) or "  none")


def main() -> int:
    """Print the figures; 1 if --check finds one beyond its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--check", action="store_true", help="print what is beyond a limit; exit 1")
    default = Path(__file__).parents[1] / PACKAGE
    parser.add_argument("root", nargs="?", type=Path, default=default, help="the package's folder")
    arguments = parser.parse_args()
    figures = measure(arguments.root)
    if arguments.check:
        found = beyond_limits(figures)
        print("\n".join(found) or "within all limits")
        return int(bool(found))
    if arguments.json:
        print(json.dumps(figures))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
