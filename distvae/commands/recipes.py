"""`distvae recipes` and `distvae spaces`: list what can be trained and tuned by name."""

from distvae.config import to_dict
from distvae.config.recipes import load, read_tree, recipe_names, recipe_path


def print_recipes(name: str | None) -> None:
    """Print the list of recipes, or one recipe as written and as resolved."""
    import yaml

    if name is None:
        for known in recipe_names():
            print(f"{known:18}{read_tree(recipe_path(known)).get('about', '')}")
        return
    resolved = to_dict(load(name))
    print(recipe_path(name).read_text(encoding="utf-8").rstrip())
    print("\n# which resolves to:")
    print(yaml.safe_dump(resolved, sort_keys=False).rstrip())


def print_spaces() -> None:
    """Print the list of search spaces."""
    from distvae.tune.space import space_names

    for name, about in space_names().items():
        print(f"{name:16}{about}")
