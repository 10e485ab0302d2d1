"""Settings from a Python program: by dotted key or section, possibly with NumPy numbers."""

from collections.abc import Mapping

from distvae.files.refusal import Refusal, shown


def named_settings(settings: object) -> dict[str, object]:
    """Return settings by dotted key, with Python numbers. None stands for no settings."""
    if settings is None:
        return {}
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        raise Refusal(
            f"settings: {shown(settings)} is no mapping of dotted keys; such as"
            ' {"train.clip": 1.0} expected'
        )
    found: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):  # a whole section
            found |= {f"{key}.{name}": python_value(each) for name, each in value.items()}
        else:
            found[key] = python_value(value)
    return found


def python_value(value: object) -> object:
    """Return a value with NumPy numbers converted to Python numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [python_value(item) for item in value] if isinstance(value, list | tuple) else value
