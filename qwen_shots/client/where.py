"""The words of `--where`: `motion > 0.5 and not audio == "silent"` as a test of one shot after another.

They look like Python and are read by its parser, but never run: only what stands below is known.

- numbers (a score, `duration`), texts (`caption`, `audio`), constants of both kinds;
- `<`, `<=`, `>`, `>=`, `==`, `!=`, also in a chain: `0.2 < motion < 0.6`;
- `"night" in caption`, `audio in ("music", "dialog")`, and both with `not in`;
- `and`, `or`, `not` and brackets.

Texts are compared without regard to case. A comparison with a value that a shot does not have is false.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TypeAlias

from qwen_shots.errors import InvalidInput

Value: TypeAlias = float | str | None
Values: TypeAlias = Mapping[str, Value]
Test: TypeAlias = Callable[[Values], bool]
Constant: TypeAlias = float | str | tuple[float | str, ...]
Getter: TypeAlias = Callable[[Values], Constant | None]

# Far above what anybody writes, far below what Python's parser or this one could trip over.
MAX_LENGTH = 500

_ORDER: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_SAME: dict[type[ast.cmpop], Callable[[object, object], bool]] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}

_LONE_EQUALS = re.compile(r"(?<![<>=!])=(?!=)")


class InvalidWhere(InvalidInput):
    """The condition can't be read. The detail shows it with a mark under the place."""

    slug = "invalid-where"
    title = "The condition is not valid"


def parse_where(text: str, numbers: Iterable[str], texts: Iterable[str]) -> Test:
    """Read a condition.

    Args:
        text: at most MAX_LENGTH characters.
        numbers: the names of values that are numbers.
        texts: the names of values that are texts.

    Returns:
        Whether a shot with these values meets it.

    Raises:
        InvalidWhere: it can't be read, names what is not there, or compares a number with a text.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidWhere(f"the condition has {len(text)} characters; at most {MAX_LENGTH} are allowed")
    reader = _Reader(text, dict.fromkeys(numbers, float) | dict.fromkeys(texts, str))
    return reader.test(reader.tree())


class _Reader:
    """Turns the parsed text into functions, piece by piece, and knows where each stands."""

    def __init__(self, text: str, kinds: Mapping[str, type]) -> None:
        # Line breaks would end the condition for Python's parser.
        self._text = re.sub(r"\s", " ", text).strip()
        self._kinds = kinds

    def tree(self) -> ast.expr:
        try:
            with warnings.catch_warnings():
                # Python's advice on odd constants (`1and`, "\d") is for programmers.
                warnings.simplefilter("ignore")
                return ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            # Python counts from 1, and says 0 where the text ends too early.
            place = min((error.offset or MAX_LENGTH + 1) - 1, len(self._text))
            hint = " (== compares)" if _LONE_EQUALS.search(self._text) else ""
            raise self._wrong(f"this can't be read{hint}", place) from None
        except (ValueError, MemoryError, RecursionError):
            raise self._wrong("this can't be read", 0) from None

    def test(self, node: ast.expr) -> Test:
        """A condition."""
        if isinstance(node, ast.BoolOp):
            tests = [self.test(value) for value in node.values]
            together = all if isinstance(node.op, ast.And) else any
            return lambda values: together(test(values) for test in tests)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.test(node.operand)
            return lambda values: not inner(values)
        if isinstance(node, ast.Compare):
            return self._chain(node)
        raise self._at(node, "a comparison is expected here, such as motion > 0.5")

    def _chain(self, node: ast.Compare) -> Test:
        sides = [node.left, *node.comparators]
        steps = [self._comparison(*step) for step in zip(sides, node.ops, node.comparators, strict=False)]
        return lambda values: all(step(values) for step in steps)

    def _comparison(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> Test:
        kinds = self._kind(left), self._kind(right)
        compare = self._compare(sign, kinds, right)
        get_left, get_right = self._getter(left), self._getter(right)

        def test(values: Values) -> bool:
            one, other = get_left(values), get_right(values)
            return one is not None and other is not None and compare(one, other)

        return test

    def _compare(self, sign: ast.cmpop, kinds: tuple[type, type], right: ast.expr) -> Callable[..., bool]:
        """How two values of these kinds are compared."""
        one, other = kinds
        if isinstance(sign, ast.In | ast.NotIn):
            wanted = isinstance(sign, ast.In)
            if other is tuple or (one, other) == (str, str):
                return lambda part, whole: (part in whole) is wanted
            raise self._at(right, "in looks into a text or a list: audio in ('music', 'dialog')")
        if tuple in kinds:
            raise self._at(right, "a list goes with in alone")
        if one is not other:
            raise self._at(right, "a number can't be compared with a text")
        if type(sign) in _SAME:
            return _SAME[type(sign)]
        if type(sign) in _ORDER and one is float:
            return _ORDER[type(sign)]
        raise self._at(right, "texts know ==, != and in; numbers also <, <=, > and >=")

    def _kind(self, node: ast.expr) -> type:
        if isinstance(node, ast.Name):
            return self._kinds[self._known(node)]
        constant = self._constant(node)
        return float if isinstance(constant, int | float) else type(constant)

    def _getter(self, node: ast.expr) -> Getter:
        if not isinstance(node, ast.Name):
            constant = self._constant(node)
            return lambda _: constant
        name = node.id

        def get(values: Values) -> Value:
            value = values.get(name)
            return value.casefold() if isinstance(value, str) else value

        return get

    def _known(self, node: ast.Name) -> str:
        if node.id in self._kinds:
            return node.id
        near = get_close_matches(node.id, self._kinds, n=1)
        hint = f" (is {near[0]} meant?)" if near else ""
        raise self._at(node, f"this name is not known{hint}; known are {', '.join(sorted(self._kinds))}")

    def _constant(self, node: ast.expr) -> Constant:
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(self._single(each) for each in node.elts)
        return self._single(node)

    def _single(self, node: ast.expr) -> float | str:
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            node = node.operand
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                raise self._at(node, "a text has no sign")
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                return node.value.casefold()
            if isinstance(node.value, int | float) and not isinstance(node.value, bool):
                return sign * float(node.value) if abs(node.value) < 1e300 else sign * 1e300
        raise self._at(node, "a name, a number or a text in quotes is expected here")

    def _at(self, node: ast.expr, detail: str) -> InvalidWhere:
        # Python counts bytes.
        return self._wrong(detail, len(self._text.encode()[: node.col_offset].decode()))

    def _wrong(self, detail: str, place: int) -> InvalidWhere:
        return InvalidWhere(f"{detail}\n  {self._text}\n  {' ' * place}^")
