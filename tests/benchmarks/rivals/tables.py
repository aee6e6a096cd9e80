"""The figures of one run as a table, each as the median of its rounds with the spread behind it."""

from __future__ import annotations

from collections import defaultdict
from statistics import median


class Table:
    """Figures by row and column.

    Args:
        title: above it.
        columns: their names, and how many digits follow the point.
    """

    def __init__(self, title: str, columns: dict[str, int]) -> None:
        self._title = title
        self._columns = columns
        self._values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def note(self, row: str, *figures: float) -> None:
        """Add one round's figures of a row, in the order of the columns."""
        for column, figure in zip(self._columns, figures, strict=True):
            self._values[row][column].append(figure)

    def ratios(self, row: str, to: str, column: str) -> list[float]:
        """Return how often one row's figure holds another's, round by round, if both have all."""
        if row not in self._values or to not in self._values:
            return []
        figures, others = self._values[row][column], self._values[to][column]
        if len(figures) != len(others):
            return []
        return [figure / other for figure, other in zip(figures, others, strict=True)]

    def __str__(self) -> str:
        lines = [
            f"| {self._title} | {' | '.join(self._columns)} |",
            f"|---|{'---:|' * len(self._columns)}",
        ]
        for row, figures in self._values.items():
            cells = [
                self._cell(figures.get(name, []), self._columns[name]) for name in self._columns
            ]
            lines.append(f"| {row} | {' | '.join(cells)} |")
        return "\n".join(lines)

    @staticmethod
    def _cell(values: list[float], digits: int) -> str:
        if not values:
            return ""
        return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"
