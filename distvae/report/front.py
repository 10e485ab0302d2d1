"""Two figures at once: which points no other beats, and how much they cover. Larger is better in
both.
"""

from collections.abc import Sequence

Point = tuple[float, float]


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats, each once, the best in the first figure first."""
    kept: list[Point] = []
    for point in sorted(set(points), reverse=True):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The area of what some point beats and what itself beats the reference.

    Of two sets of trials seen from the same reference, the one with more found the better
    compromises.
    """
    area, floor = 0.0, reference[1]
    for across, up in front(
        [point for point in points if point[0] > reference[0] and point[1] > reference[1]]
    ):
        area += (across - reference[0]) * (up - floor)
        floor = up
    return area
