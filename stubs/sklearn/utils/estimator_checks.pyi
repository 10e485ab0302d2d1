from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., None])

def parametrize_with_checks(
    estimators: Sequence[object],
    *,
    expected_failed_checks: Callable[[object], Mapping[str, str]] | None = None,
) -> Callable[[F], F]: ...
