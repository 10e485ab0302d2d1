from typing import Any

from numpy.typing import NDArray

def check_is_fitted(estimator: object) -> None: ...
def validate_data(
    _estimator: object,
    X: object,
    *,
    reset: bool,
    ensure_all_finite: str,
    ensure_min_samples: int,
) -> NDArray[Any]: ...
