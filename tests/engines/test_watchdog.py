"""When an engine process counts as stuck."""

from __future__ import annotations

from engines.watchdog import FIRST_LIMIT, LEAST_LIMIT, PATIENCE, Beat, Pace, Spent, Watchdog


class Process:
    """A process on a clock of its own, followed by a watchdog."""

    def __init__(self) -> None:
        self.now = self.cpu = 0.0
        self.looks = 0
        self.dog = Watchdog(lambda: self.now)

    def live(self, seconds: float, *, cpu: float, beats: bool = True) -> str | None:
        """Half a second after another: `cpu` processor seconds a second; the first verdict."""
        for _ in range(round(2 * seconds)):
            self.now += 0.5
            self.cpu += 0.5 * cpu
            if beats:
                self.dog.on_beat(Beat(self.cpu, self.looks))
            if why := self.dog.look():
                return why
        return None

    def answer(self, tokens: int, seconds: float, *, cpu: float) -> None:
        """Get through one batch."""
        self.dog.begin(0, tokens)
        assert self.live(seconds, cpu=cpu) is None
        self.dog.end(0, Spent(seconds, seconds * cpu))


def test_no_beats() -> None:
    process = Process()
    assert process.live(60, cpu=0.001) is None  # idle, and it beats
    assert process.live(5, cpu=0, beats=False) == "it gives no sign of life"
    assert process.now <= 65


def test_a_batch_in_hand_and_no_processor_time() -> None:
    process = Process()
    process.dog.begin(0, 1000)
    assert process.live(5, cpu=0.0001) == "it gives no sign of life"


def test_batches_that_cost_no_processor_time_are_let_go_on_while_they_are_answered() -> None:
    process = Process()
    process.dog.begin(0, 1000)
    for _ in range(10):
        process.looks += 1
        assert process.live(2, cpu=0.0001) is None


def test_a_batch_that_spins_is_noticed_within_five_seconds() -> None:
    process = Process()
    process.answer(1000, 0.5, cpu=1)
    process.dog.begin(0, 1000)
    assert process.live(5, cpu=1) is not None


def test_a_batch_that_takes_as_long_as_others_of_its_size_did_is_let_go_on() -> None:
    process = Process()
    process.answer(1000, 20, cpu=1)
    process.answer(600, 60, cpu=1)
    assert process.dog._pace.limit(1000).wall == 60 * PATIENCE
    process.dog.begin(0, 1000)
    assert process.live(60 * PATIENCE, cpu=1) is None
    assert process.live(1, cpu=1) == "a batch of 1000 tokens takes longer than 240.0 s"


def test_a_busy_machine_makes_no_batch_late() -> None:
    process = Process()
    process.answer(1000, 0.5, cpu=1)
    process.dog.begin(0, 1000)
    assert process.live(14, cpu=0.1) is None


def test_on_the_cpu_a_batch_may_take_thirty_seconds_whatever_others_took() -> None:
    process = Process()
    process.dog.on_cpu = True
    process.answer(1000, 0.5, cpu=1)
    process.dog.begin(0, 1000)
    assert process.live(30, cpu=2) is None
    assert process.live(1, cpu=2) is not None


def test_threads_beside_make_no_batch_late() -> None:
    process = Process()
    process.answer(1000, 2, cpu=1)
    process.dog.begin(0, 1000)
    assert process.live(2 * PATIENCE, cpu=16) is None


def test_a_batch_that_is_halved_begins_anew() -> None:
    process = Process()
    process.answer(1000, 0.5, cpu=1)
    process.dog.begin(0, 1000)
    for _ in range(5):
        process.looks += 1
        assert process.live(3, cpu=1) is None


def test_the_batch_behind_another_gets_its_own_time() -> None:
    process = Process()
    process.answer(1000, 0.5, cpu=1)
    process.dog.begin(1, 1000)
    process.dog.begin(2, 1000)
    assert process.live(3, cpu=1) is None
    process.dog.end(1, Spent(3, 3))
    assert process.live(3, cpu=1) is None
    process.dog.end(2)
    assert not process.dog.busy


def test_limits_by_size() -> None:
    pace = Pace()
    assert pace.limit(100) == FIRST_LIMIT
    pace.measured(100, Spent(0.1, 0.1))
    assert pace.limit(100) == pace.limit(120) == LEAST_LIMIT
    assert pace.limit(1000) == FIRST_LIMIT
    assert pace.limit(10) == FIRST_LIMIT
    pace.measured(100, Spent(10, 1))
    assert pace.limit(1000).wall == 10 * PATIENCE * 2**3
    for _ in range(200):
        pace.measured(100, Spent(0.1, 0.1))
    assert pace.limit(100) == LEAST_LIMIT
