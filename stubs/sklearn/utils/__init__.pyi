from dataclasses import dataclass

from numpy.random import RandomState

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
