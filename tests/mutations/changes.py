"""Changes to Python code that say what is done wrong, not how its lines are spelled.

A pattern is Python in which a single capital letter stands for any expression (for equal ones, if it stands twice), and
`...` for any number of arguments, operands or statements. So a pattern names operators, constants and what is called,
and neither local variables nor the code around it.

    change("A >= B", "A > B")       the one comparison of this kind in the function
    change("A and ...", "...")      the condition without its first part
    drop("A.sort(...)")             without the statement
    words("FULL", "NORMAL")         in a string
"""

from __future__ import annotations

import ast
import copy
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
REST = "..."
Bound = dict[str, Any]  # what a letter stands for: a node; what `...` stands for: a list of nodes


class Change(NamedTuple):
    """Of the `of` things that match `old` the one numbered `at`, from 1, becomes `new`."""

    old: str
    new: str
    at: int = 1
    of: int = 1
    is_in_string: bool = False


def change(old: str, new: str, *, at: int = 1, of: int = 1) -> Change:
    """Turn the expression or the statements that match `old` into `new`."""
    return Change(old, new, at, of)


def drop(old: str, *, at: int = 1, of: int = 1) -> Change:
    """Leave out the statements that match `old`."""
    return Change(old, "pass", at, of)


def words(old: str, new: str, *, at: int = 1, of: int = 1) -> Change:
    """Turn `old` into `new` within a string, which may be one with values in it."""
    return Change(old, new, at, of, is_in_string=True)


class Place(NamedTuple):
    """A node where a change can be made, and what makes it."""

    node: Any
    change: Callable[[], None]

    def order(self) -> tuple[int, int]:
        """Where it stands in the code."""
        return self.node.lineno, self.node.col_offset


class NoPlaceError(Exception):
    """There is nothing to be changed, or another number of things than the change says."""


def changed(code: str, name: str, what: Change) -> ast.Module:
    """A module after a change in one function or class, or in the module's own statements (`name` is "").

    Raises `NoPlaceError` if there is no such function, or if not as many things match as the change says.
    """
    tree = ast.parse(code)
    scope = scope_of(tree, name)
    places = sorted(in_strings(scope, what) if what.is_in_string else in_code(scope, what), key=Place.order)
    if len(places) != what.of:
        raise NoPlaceError(f"{name or 'the module'} holds {len(places)} times, not {what.of}: {what.old}")
    before = ast.unparse(scope)
    places[what.at - 1].change()
    if ast.unparse(ast.fix_missing_locations(scope)) == before:
        raise NoPlaceError(f"this changes nothing: {what.old}")
    return tree


def changed_text(text: str, what: Change) -> str:
    """A file that is no Python after a change of words.

    Raises `NoPlaceError` if the words are not there as many times as the change says.
    """
    before, *rest = text.split(what.old)
    if not what.is_in_string or len(rest) != what.of:
        raise NoPlaceError(f"the file holds {len(rest)} times, not {what.of}: {what.old}")
    words = [what.new if number == what.at else what.old for number in range(1, what.of + 1)]
    return before + "".join(word + part for word, part in zip(words, rest, strict=True))


def scope_of(tree: ast.Module, name: str) -> ast.AST:
    """The function or class of a dotted name."""
    scope: ast.AST = tree
    for part in filter(None, name.split(".")):
        found = [node for node in own_nodes(scope) if isinstance(node, DEFINITIONS) and node.name == part]
        if not found:
            raise NoPlaceError(f"there is no function or class {name}")
        scope = found[-1]  # before it are what a type checker reads: overloads
    return scope


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """All nodes in a scope, with the definitions in it but not what is in these."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, DEFINITIONS):
            yield from own_nodes(node)


def searched(scope: ast.AST) -> list[ast.AST]:
    """Where a change looks: all of a function, of a module or class what is not in a function or class of its own."""
    if isinstance(scope, ast.Module | ast.ClassDef):
        return [scope, *(node for node in own_nodes(scope) if not isinstance(node, DEFINITIONS))]
    return list(ast.walk(scope))


def in_strings(scope: ast.AST, what: Change) -> Iterator[Place]:
    """Each string that has the old words."""
    for node in searched(scope):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and what.old in node.value:
            yield Place(node, partial(setattr, node, "value", node.value.replace(what.old, what.new)))


def in_code(scope: ast.AST, what: Change) -> Iterator[Place]:
    """Each place that matches."""
    old, new = ast.parse(what.old).body, ast.parse(what.new).body
    (first, *more), (made, *others) = old, new
    for node in searched(scope):
        for field, value in ast.iter_fields(node):
            if isinstance(first, ast.Expr) and isinstance(made, ast.Expr) and not more + others:
                yield from in_field(node, field, value, first.value, made.value)
            elif isinstance(value, list) and all(isinstance(each, ast.stmt) for each in value):
                yield from in_block(value, old, new)


def in_block(block: list[ast.stmt], old: list[ast.stmt], new: list[ast.stmt]) -> Iterator[Place]:
    """Each run of statements that matches."""
    for start in range(len(block) - len(old) + 1):
        bound: Bound = {}
        run = slice(start, start + len(old))
        if all(matches(each, statement, bound) for each, statement in zip(old, block[run], strict=True)):
            yield Place(block[start], partial(block.__setitem__, run, filled(new, bound)))


def in_field(node: ast.AST, field: str, value: Any, old: ast.expr, new: ast.expr) -> Iterator[Place]:
    """Each expression of a field that matches."""
    if isinstance(old, ast.BoolOp) and is_rest(new):
        new = ast.BoolOp(old.op, [new])
    for number, each in enumerate(value if isinstance(value, list) else [value]):
        bound: Bound = {}
        if isinstance(each, ast.expr) and matches(old, each, bound):
            made = filled(new, bound)
            put = partial(value.__setitem__, number) if isinstance(value, list) else partial(setattr, node, field)
            yield Place(each, partial(put, made))


def matches(pattern: Any, node: Any, bound: Bound) -> bool:
    """Whether a node is like a pattern; notes in `bound` what its letters stand for."""
    if letter := letter_of(pattern):
        return isinstance(node, ast.expr) and ast.unparse(bound.setdefault(letter, node)) == ast.unparse(node)
    if isinstance(pattern, list):
        return isinstance(node, list) and match_lists(pattern, node, bound)
    if not isinstance(pattern, ast.AST):
        return bool(pattern == node)
    ignored = {"ctx", "kind", "type_comment"}
    if isinstance(pattern, ast.Call) and any(map(is_rest, pattern.args)) and not pattern.keywords:
        ignored = {*ignored, "keywords"}
        bound["keywords"] = getattr(node, "keywords", [])
    return type(pattern) is type(node) and all(
        matches(value, getattr(node, field), bound) for field, value in ast.iter_fields(pattern) if field not in ignored
    )


def match_lists(pattern: list[Any], nodes: list[Any], bound: Bound) -> bool:
    """Whether a list of nodes is like a list of patterns, in which one may be `...`."""
    at = next((number for number, each in enumerate(pattern) if is_rest(each)), None)
    if at is None:
        return len(pattern) == len(nodes) and all(
            matches(each, node, bound) for each, node in zip(pattern, nodes, strict=True)
        )
    after = len(pattern) - at - 1
    if len(nodes) < at + after:
        return False
    bound[REST] = nodes[at : len(nodes) - after]
    ends = zip([*pattern[:at], *pattern[at + 1 :]], [*nodes[:at], *nodes[len(nodes) - after :]], strict=True)
    return all(matches(each, node, bound) for each, node in ends)


def filled(new: Any, bound: Bound) -> Any:
    """A copy of `new` with what its letters and `...` stand for."""
    if (letter := letter_of(new)) and letter in bound:
        return copy.deepcopy(bound[letter])
    if isinstance(new, list):
        lists = (bound[REST] if is_rest(each) and REST in bound else [each] for each in new)
        return [filled(each, bound) for each in itertools.chain(*lists)]
    if not isinstance(new, ast.AST):
        return new
    made: Any = type(new)(**{field: filled(value, bound) for field, value in ast.iter_fields(new)})
    if isinstance(new, ast.Call) and any(map(is_rest, new.args)):
        made.keywords += copy.deepcopy(bound.get("keywords", []))
    if isinstance(made, ast.BoolOp) and len(made.values) == 1:
        return made.values[0]
    return made


def letter_of(node: Any) -> str:
    """The letter that a pattern is, "" if it is none."""
    return node.id if isinstance(node, ast.Name) and len(node.id) == 1 and node.id.isupper() else ""


def is_rest(node: Any) -> bool:
    """Whether a node of a pattern is `...`, as an expression or as a statement."""
    node = node.value if isinstance(node, ast.Expr) else node
    return isinstance(node, ast.Constant) and node.value is ...
