"""How the processes that train a fold together divide a batch. Arithmetic alone: no torch, no processes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ranks:
    """The processes that train a fold together, and which of them this is. One alone needs no other."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0: the job itself, which alone takes signals, saves, logs and writes."""
        return self.rank == 0

    def own(self, length: int) -> slice:
        """This rank's part of a batch; the whole if it has fewer images than there are ranks."""
        if length < self.count:
            return slice(0, length)
        cuts = [length * rank // self.count for rank in range(self.count + 1)]
        return slice(cuts[self.rank], cuts[self.rank + 1])

    def share(self, length: int) -> float:
        """The weight of that part in the mean over a batch; over all ranks they add up to 1."""
        return 1 / self.count if length < self.count else self.sizes(length)[self.rank] / length

    def sizes(self, length: int) -> list[int]:
        """The number of images in each rank's part of a batch."""
        parts = [Ranks(rank, self.count).own(length) for rank in range(self.count)]
        return [part.stop - part.start for part in parts]


ALONE = Ranks()
