"""Split a batch between the ranks that train a fold. Pure arithmetic: no torch, no processes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ranks:
    """This process's rank, and the number of ranks that train the fold together."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the only one that handles signals, saves, logs and writes."""
        return self.rank == 0

    def own(self, length: int) -> slice:
        """This rank's part of a batch; the whole batch if it has fewer images than there are ranks."""
        if length < self.count:
            return slice(0, length)
        cuts = [length * rank // self.count for rank in range(self.count + 1)]
        return slice(cuts[self.rank], cuts[self.rank + 1])

    def share(self, length: int) -> float:
        """Weight of this rank's part in the batch mean; the weights of all ranks add up to 1."""
        return 1 / self.count if length < self.count else self.sizes(length)[self.rank] / length

    def sizes(self, length: int) -> list[int]:
        """Number of images in each rank's part of a batch."""
        parts = [Ranks(rank, self.count).own(length) for rank in range(self.count)]
        return [part.stop - part.start for part in parts]


ALONE = Ranks()
