"""The counters of several processes as one text in Prometheus' format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

MOMENTS = ("_created", "_start_time_seconds")
TOTALS = frozenset({"counter", "histogram"})


def add_up(texts: Sequence[bytes], ended: Sequence[bytes] = ()) -> bytes:
    """The counters of several processes as one text: sums; of moments in time the earliest.

    Args:
        texts: of processes that run.
        ended: the last of processes that have ended. What they counted still counts, what they held is gone.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Sum(texts, ended))
    return generate_latest(registry)


class _Sum(Collector):
    def __init__(self, texts: Sequence[bytes], ended: Sequence[bytes]) -> None:
        self._texts = [*((text, False) for text in texts), *((text, True) for text in ended)]

    def collect(self) -> Iterable[Metric]:
        """One family for all of its name."""
        families: dict[str, Metric] = {}
        totals: dict[str, dict[tuple[str, frozenset[tuple[str, str]]], float]] = {}
        for text, only_totals in self._texts:
            for family in text_string_to_metric_families(text.decode()):
                if only_totals and family.type not in TOTALS:
                    continue
                families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                join = min if family.name.endswith(MOMENTS) else float.__add__
                total = totals.setdefault(family.name, {})
                for sample in family.samples:
                    key = (sample.name, frozenset(sample.labels.items()))
                    total[key] = join(total[key], sample.value) if key in total else sample.value
        for name, family in families.items():
            for (sample_name, labels), value in totals[name].items():
                family.add_sample(sample_name, dict(labels), value)
        return families.values()
