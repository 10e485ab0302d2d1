"""Pareto fronts of two figures. Larger is better in both."""

from collections.abc import Sequence

Point = tuple[float, float]


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats, each once, the best in the first figure first."""
    best: list[Point] = []
    for point in sorted(set(points), reverse=True):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Return the area between the reference and the front of the points.

    Of two sets of trials, the one with the larger area has the better trade-offs. The reference
    must be the same.
    """
    above = [point for point in points if point[0] > reference[0] and point[1] > reference[1]]
    area, floor = 0.0, reference[1]
    for across, up in front(above):
        area += (across - reference[0]) * (up - floor)
        floor = up
    return area
