"""`Turns`: which patch each row of a batch fills next, where rows go on at their own pace."""

from __future__ import annotations

from collections.abc import Iterable


class Turns:
    """The places in scan order that each row has to fill, and how far each row has come.

    Args:
        unknown: for each row and place, whether it is to be filled.
    """

    def __init__(self, unknown: list[list[bool]]) -> None:
        self.number = len(unknown[0])
        self.places = [[s for s, fill in enumerate(row) if fill] for row in unknown]
        self.needed = [s for s in range(self.number) if any(row[s] for row in unknown)]
        self._done = [0] * len(unknown)

    def active(self, rows: Iterable[int]) -> list[int]:
        """Return the rows that have something left to fill."""
        return [r for r in rows if self._done[r] < len(self.places[r])]

    def place(self, row: int) -> int:
        """Return the place that a row fills now; the number of places if nothing is left."""
        places, done = self.places[row], self._done[row]
        return places[done] if done < len(places) else self.number

    def last(self, row: int) -> int:
        """Return the place that a row has filled last."""
        return self.places[row][self._done[row] - 1]

    def advance(self, rows: list[int]) -> None:
        """Move some rows on to their next place."""
        for r in rows:
            self._done[r] += 1

    @property
    def reached(self) -> int:
        """The first place that some row still has to fill; the number of places if nothing is left."""
        return min(self.place(r) for r in range(len(self.places)))
