"""A Ray cluster of this machine, with the server on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from settings import Settings
from tests.helpers import AUTH, encode, free_port, scene

NAME = "qwen"
START_SECONDS = 60
SMALL = encode(scene(1, 56, 56))


@contextmanager
def running_cluster() -> Iterator[str]:
    """Ray and Serve's proxy on a port of their own; yields the address."""
    import ray
    from ray import serve

    port = free_port()
    # More than there are: the fakes only sleep.
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        serve.start(http_options={"host": "0.0.0.0", "port": port})
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def changed(settings: Settings, **sections: dict[str, Any]) -> Settings:
    """The settings with some of some sections' values replaced."""
    values = settings.model_dump()
    for name, section in sections.items():
        values[name] |= section
    return Settings.model_validate(values)


def deploy(url: str, settings: Settings, make_engine: Any) -> None:
    """Put the server on the cluster and wait until it is healthy. What was there is taken away first."""
    from ray import serve

    from deploy.ray_app import build

    serve.delete(NAME)
    serve.run(build(settings, make_engine), name=NAME, route_prefix="/")
    deadline = time.monotonic() + START_SECONDS
    while httpx.get(f"{url}/health", timeout=START_SECONDS).status_code != 200:
        assert time.monotonic() < deadline, "the server did not become healthy"
        time.sleep(0.1)


def small_shot(number: int, image: str = SMALL) -> dict[str, Any]:
    """A shot that costs next to nothing but its engine's time."""
    return {"shot_id": number, "images": [image], "start_time": 0, "end_time": 1, "duration": 1}


async def send(url: str, shots: int, at_once: int, image: str = SMALL) -> list[httpx.Response]:
    """Send shots one a request, so many at a time."""
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(base_url=url, headers=AUTH, timeout=120, limits=limits) as client:
        tasks = [client.post("/analyze", json=small_shot(number, image)) for number in range(shots)]
        return list(await asyncio.gather(*tasks))


def pid(answer: httpx.Response) -> int:
    """The process of the fake engine that gave this answer."""
    return int(answer.json()["caption"].split()[-1])


def pids(answers: list[httpx.Response]) -> set[int]:
    """Processes of the fake engines that gave these answers."""
    return set(map(pid, answers))
