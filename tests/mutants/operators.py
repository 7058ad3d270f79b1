"""Small changes of a module's meaning, one at a time: the operators of mutation testing, on the syntax tree."""

from __future__ import annotations

import ast
import builtins
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_PAIRS = [
    ("min", "max"),
    ("amin", "amax"),
    ("argmin", "argmax"),
    ("minimum", "maximum"),
    ("ceil", "floor"),
    ("sum", "mean"),
    ("any", "all"),
    ("tril", "triu"),
    ("sin", "cos"),
]
_NAMES = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
# a call of the first two says nothing on a CPU; without one of the others nothing runs
_NOT_DROPPED = {"contiguous", "cpu", "items", "keys", "values", "tolist"}
# neither types nor what an error says change what is computed
_NOT_CHANGED = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        file: path from the root of the tree.
        name: ``folder/file.py::qualified.name: old -> new``; the same after lines have moved, and unique.
        node: index of the changed node among those that :func:`_nodes` yields.
        variant: index among the changes of that node.
        lines: those of the old code, and the first one of its statement.
    """

    file: str
    name: str
    node: int
    variant: int
    lines: frozenset[int]


def mutants(source: str, file: str) -> list[Mutant]:
    """All mutants of a file's text, in the order of the text."""
    seen: Counter[str] = Counter()
    found = []
    for i, (qualified, statement, node) in enumerate(_nodes(ast.parse(source))):
        for j, new in enumerate(_variants(node)):
            name = f"{'/'.join(file.split('/')[-2:])}::{qualified or 'module'}: {_short(node)} -> {_short(new)}"
            seen[name] += 1
            if seen[name] > 1:
                name += f" ({seen[name]})"
            lines = frozenset(range(node.lineno, (node.end_lineno or node.lineno) + 1)) | {statement}
            found.append(Mutant(file, name, i, j, lines))
    return found


def mutate(source: str, mutant: Mutant) -> str:
    """The file's text with the change made; comments and layout are lost."""
    tree = ast.parse(source)
    target = [node for _, _, node in _nodes(tree)][mutant.node]
    new = list(_variants(target))[mutant.variant]

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return ast.copy_location(new, node) if node is target else self.generic_visit(node)

    return ast.unparse(ast.fix_missing_locations(Replace().visit(tree)))


def _nodes(node: ast.AST, qualified: str = "", statement: int = 0) -> Iterator[tuple[str, int, ast.expr | ast.stmt]]:
    """Every node whose change could matter, with the function it is in and the first line of its statement."""
    if isinstance(node, _NOT_CHANGED) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
        return
    if isinstance(node, ast.stmt):
        statement = node.lineno
    if isinstance(node, ast.expr | ast.stmt):
        yield qualified, statement, node
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        qualified = f"{qualified}.{node.name}".lstrip(".")
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        return  # of a number its sign is changed
    for name, field in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in field if isinstance(field, list) else [field]:
            if isinstance(child, ast.AST):
                yield from _nodes(child, qualified, statement)


def _variants(node: ast.expr | ast.stmt) -> Iterator[ast.expr | ast.stmt]:
    """What may stand in a node's place."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=[op, *_]) if type(op) in _COMPARISONS:
            new.ops[0] = _COMPARISONS[type(op)]()
            yield new
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _ARITHMETIC and not _is_text(new):
            new.op = _ARITHMETIC[type(op)]()
            yield new
        case ast.BoolOp(op=op):
            new.op = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield new
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.IfExp(test=test) | ast.If(test=test) if not isinstance(test, ast.Compare | ast.UnaryOp):
            new.test = ast.UnaryOp(ast.Not(), test)
            yield new
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float() as value):
            yield ast.Constant(2 * value or 1.0)
        case ast.Call(func=ast.Name(id=name) as function) if name in _NAMES and hasattr(builtins, _NAMES[name]):
            function.id = _NAMES[name]
            yield new
        case ast.Call(func=ast.Attribute(attr=name) as function) if name in _NAMES:
            function.attr = _NAMES[name]
            yield new
        case ast.Expr(value=ast.Call()) | ast.Continue() | ast.Break() | ast.Assign(targets=[ast.Subscript()]):
            yield ast.Pass()
    match node:
        case ast.AugAssign():
            yield ast.Pass()
        case ast.Call(func=ast.Attribute(value=value, attr=name), args=[], keywords=[]) if name not in _NOT_DROPPED:
            yield value


def _is_text(node: ast.BinOp | ast.AugAssign) -> bool:
    parts = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.value]
    return any(
        isinstance(p, ast.JoinedStr) or (isinstance(p, ast.Constant) and isinstance(p.value, str)) for p in parts
    )


def _short(node: ast.AST) -> str:
    if isinstance(node, ast.Pass):
        return "(removed)"
    text = " ".join(ast.unparse(node.test if isinstance(node, ast.If) else node).split())
    return text if len(text) <= 70 else f"{text[:50]}..{text[-18:]}"
