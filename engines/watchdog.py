"""Whether an engine process is stuck, told by its signs of life alone. No processes here: figures in, a verdict out.

Three things give a stuck process away: it sends no beats; it has a batch in hand and uses no processor time; or it
works on a batch for far longer than one of that size has ever taken, as it does when it waits in a loop for a GPU that
never answers. The last is counted on two clocks, this machine's and the process's own processor time, and both must run
out: a busy machine makes the first one late, a second thread the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds on both clocks: this machine's, and the engine process's processor time (all of its threads)."""

    wall: float
    cpu: float

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.wall - other.wall, self.cpu - other.cpu)

    def beyond(self, limit: Spent) -> bool:
        """Whether both clocks have run out."""
        return self.wall > limit.wall and self.cpu > limit.cpu


# How often a process gives a sign of life, and how often the server looks for one.
BEAT_SECONDS = 0.5
# So many looks in a row without a sign: it is stuck. Counted in looks, not in seconds: when this whole machine was
# asleep, that is one look.
STUCK_LOOKS = 8
LEAST_CPU_SECONDS = 0.003  # between two beats; the beats alone use a tenth of that

# A batch may take this long whatever its size, so that with beat and look a stuck one is noticed within 5 s, also where
# other work leaves the process half a processor.
LEAST_LIMIT = Spent(wall=3.5, cpu=1.5)
# On the CPU nothing waits in a loop for a GPU; but on a busy machine a model's threads may wait for each other in one,
# and an honest batch then takes ten times as long on both clocks.
CPU_LEAST_LIMIT = Spent(wall=30.0, cpu=30.0)
# Beyond that, so many times what a batch of its size has taken at most.
PATIENCE = 4.0
# The first batch of a size may prepare something: a compiled kernel, a captured graph, a larger cache.
FIRST_LIMIT = Spent(wall=30.0, cpu=10.0)
# The longest time for a size is forgotten slowly, this share with each batch.
FORGET = 0.05


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life, every `BEAT_SECONDS`.

    Attributes:
        cpu_seconds: processor time of the process so far.
        looks: forward passes that it has begun so far; a batch that fails is halved and takes several.
        gpu_bytes: GPU memory that it holds; None on the CPU.
    """

    cpu_seconds: float
    looks: int
    gpu_bytes: int | None = None


class Pace:
    """The longest that batches of each size have taken, the size to a factor of two."""

    def __init__(self) -> None:
        self._longest: dict[int, Spent] = {}

    def measured(self, tokens: int, spent: Spent) -> None:
        """Learn from a batch that was answered."""
        size = tokens.bit_length()
        old = self._longest.get(size, Spent(0, 0))
        keep = 1 - FORGET
        self._longest[size] = Spent(max(spent.wall, keep * old.wall), max(spent.cpu, keep * old.cpu))

    def limit(self, tokens: int, *, on_cpu: bool = False) -> Spent:
        """What a batch of so many tokens may take."""
        size = tokens.bit_length()
        smaller = max((known for known in self._longest if known <= size), default=None)
        if smaller is None:
            return CPU_LEAST_LIMIT if on_cpu else FIRST_LIMIT
        least = FIRST_LIMIT if smaller < size else LEAST_LIMIT
        if on_cpu:
            least = CPU_LEAST_LIMIT
        longest, times = self._longest[smaller], PATIENCE * 2 ** (size - smaller)
        return Spent(max(least.wall, times * longest.wall), max(least.cpu, times * longest.cpu))


class Watchdog:
    """Follows one process.

    Args:
        now: this machine's clock, in seconds.

    Attributes:
        on_cpu: whether the model runs on the CPU.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.on_cpu = False
        self._pace = Pace()
        self._beat: Beat | None = None
        self._seen: Beat | None = None
        self._tokens: dict[int, int] = {}
        self._began = Spent(0, 0)
        self._looks = 0

    @property
    def busy(self) -> bool:
        """Whether a batch is in hand."""
        return bool(self._tokens)

    def begin(self, number: int, tokens: int) -> None:
        """A batch is handed over."""
        if not self._tokens:
            self._start_clocks()
        self._tokens[number] = tokens

    def end(self, number: int, spent: Spent | None = None) -> None:
        """A batch is answered, in the time that the process measured; None: it is given up."""
        tokens = self._tokens.pop(number)
        if spent is not None:
            self._pace.measured(tokens, spent)
        self._start_clocks()

    def on_beat(self, beat: Beat) -> None:
        """The process lives."""
        next_look = self._beat is not None and beat.looks != self._beat.looks
        self._beat = beat
        if next_look:
            self._start_clocks()

    def look(self) -> str | None:
        """Called every `BEAT_SECONDS`: why the process is stuck; None while it is not."""
        self._looks = 0 if self._has_moved() else self._looks + 1
        self._seen = self._beat
        if self._looks >= STUCK_LOOKS:
            return "it gives no sign of life"
        if self._tokens:
            tokens = max(self._tokens.values())
            limit = self._pace.limit(tokens, on_cpu=self.on_cpu)
            if (self._clocks() - self._began).beyond(limit):
                return f"a batch of {tokens} tokens takes longer than {limit.wall:.1f} s"
        return None

    def _has_moved(self) -> bool:
        if self._beat is None or self._beat is self._seen:
            return False
        seen = self._seen or Beat(0, 0)
        used = self._beat.cpu_seconds - seen.cpu_seconds
        return not self._tokens or used >= LEAST_CPU_SECONDS or self._beat.looks != seen.looks

    def _start_clocks(self) -> None:
        self._began = self._clocks()

    def _clocks(self) -> Spent:
        return Spent(self._now(), self._beat.cpu_seconds if self._beat else 0)
