"""The keys and values that Ray Train's workers share while they form a group.

The process that holds them imports neither torch nor Ray Train, and so starts in half a second.
"""

import asyncio

POLL_SECONDS = 0.01
"""Seconds between two looks for a key that somebody waits for."""


class KeyValueActor:
    """The keys and values of a store, in an actor of Ray."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def set(self, key: str, value: bytes) -> None:
        """Set a key."""
        self.values[key] = value

    async def get(self, key: str) -> bytes:
        """Wait until a key has a value, and return it."""
        while key not in self.values:
            await asyncio.sleep(POLL_SECONDS)
        return self.values[key]

    async def add(self, key: str, amount: int) -> int:
        """Add to the number that a key has; return the sum."""
        total = int(self.values.get(key, b"0")) + amount
        self.values[key] = str(total).encode()
        return total

    async def compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        """Set a key that has the expected value; return its value afterwards.

        A key without a value is set if an empty value is expected.
        """
        if self.values.get(key, b"") == expected:
            self.values[key] = desired
        return self.values.get(key, expected)

    async def has_all(self, keys: list[str]) -> bool:
        """Return whether all keys have values."""
        return all(key in self.values for key in keys)

    async def delete(self, key: str) -> bool:
        """Delete a key; return whether it had a value."""
        return self.values.pop(key, None) is not None

    async def count(self) -> int:
        """Return the number of keys."""
        return len(self.values)
