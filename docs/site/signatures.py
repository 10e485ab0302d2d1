"""Signatures of the API pages, with types as written in the source."""

import ast
import inspect
import textwrap
from collections.abc import Callable


def written_signature(
    app: object, what: str, name: str, found: Callable[..., object], *_: object
) -> tuple[str, str | None] | None:
    """Return the signature of a function as written in the source. Leave out the signature of a
    class.

    Evaluated types would expand aliases such as `ArrayLike`. The attributes of a class are listed
    below it.
    """
    if what == "class":
        return "", None
    if what not in ("function", "method"):
        return None
    function = definition(found)
    if what == "method":
        del function.args.args[0]  # self, or cls
    returned = without_quotes(function.returns)
    return f"({ast.unparse(function.args)})", ast.unparse(returned) if returned else None


def definition(function: Callable[..., object]) -> ast.FunctionDef:
    """Return the syntax tree of a function, without quotes around its types."""
    source = textwrap.dedent(inspect.getsource(function))
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.FunctionDef)
    for each in ast.walk(tree.args):
        if isinstance(each, ast.arg):
            each.annotation = without_quotes(each.annotation)
    return tree


def without_quotes(annotation: ast.expr | None) -> ast.expr | None:
    """Return a type without the quotes of a string annotation."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.Name(annotation.value)
    return annotation
