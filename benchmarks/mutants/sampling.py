"""The mutants that `benchmarks/mutants` tries: mutmut's operators, put anywhere in the chosen modules."""

import ast
import difflib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from mutmut.mutation import mutators

LEFT_OUT = (cst.Annotation, cst.Raise, cst.Decorator, cst.Import, cst.ImportFrom)


@dataclass(frozen=True)
class Mutant:
    """A module with one mistake: its path in the checkout, text, the lines of the statement that has it, and diff."""

    file: str
    text: str
    lines: range
    diff: str


def mutations(node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    """Yield every node below this one that mutmut changes, with what it becomes."""
    all_names = isinstance(node, cst.Assign) and cst.Module([]).code_for_node(node.targets[0].target) == "__all__"
    if isinstance(node, LEFT_OUT) or all_names:
        return
    for kind, operator in mutators.mutation_operators:
        if isinstance(node, kind) and operator is not mutators.operator_string:
            yield from ((node, mutated) for mutated in operator(node))
    for child in node.children:
        yield from mutations(child)


def sample(root: Path, names: str, seed: int) -> Iterator[Mutant]:
    """Yield all mutants of the modules in an order that `seed` decides."""
    paths = [path for name in names.split() for path in (root / "rkdkit" / f"{name}.py", root / "rkdkit" / name)]
    paths = sorted(found for path in paths for found in (path.rglob("*.py") if path.is_dir() else [path]))
    modules = {path: cst.parse_module(path.read_text()) for path in paths if path.exists()}
    every = [(path, *mutation) for path, module in modules.items() for mutation in mutations(module)]
    print(f"{len(every)} mutants of {len(modules)} modules")
    random.Random(seed).shuffle(every)
    seen = set()
    for path, node, mutated in every:
        before, after = modules[path].code, modules[path].deep_replace(node, mutated).code
        try:
            same = ast.dump(ast.parse(before)) == ast.dump(ast.parse(after))
        except SyntaxError:
            continue
        if same or (path, after) in seen:
            continue
        seen.add((path, after))
        file, old, new = str(path.relative_to(root)), before.splitlines(), after.splitlines()
        line = next((i for i, (a, b) in enumerate(zip(old, new, strict=False), 1) if a != b), min(len(old), len(new)))
        diff = "\n".join(difflib.unified_diff(old, new, file, file, lineterm="", n=1))
        yield Mutant(file, after, statement(before, line), diff)


def statement(source: str, line: int) -> range:
    """Return the lines of the innermost statement around a line; of an `if`, `for` or `def`, those of its head."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):  # outer ones come first
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            body = getattr(node, "body", None)
            found = range(node.lineno, max(body[0].lineno, node.lineno + 1) if body else (node.end_lineno or 0) + 1)
            if line not in found:  # an `else:` or a decorator: whatever runs the whole
                found = range(node.lineno, (node.end_lineno or 0) + 1)
    return found
