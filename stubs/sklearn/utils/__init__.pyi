from dataclasses import dataclass
from typing import TypeVar

from numpy.random import RandomState

Array = TypeVar("Array")

@dataclass
class InputTags:
    allow_nan: bool
    positive_only: bool

@dataclass
class TransformerTags:
    preserves_dtype: list[str]

@dataclass
class Tags:
    input_tags: InputTags
    transformer_tags: TransformerTags

def check_random_state(seed: RandomState | None) -> RandomState: ...
def shuffle(array: Array, *, random_state: RandomState) -> Array: ...
