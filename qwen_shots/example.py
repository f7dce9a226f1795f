"""A real shot, small, to try a server with: Sintel, (c) Blender Foundation, durian.blender.org, CC BY 3.0."""

from __future__ import annotations

from importlib import resources

from qwen_shots.schemas import Shot

EXAMPLE_FILE = "example_shot.json"
EXAMPLE_CREDIT = "Sintel, (c) Blender Foundation, durian.blender.org, CC BY 3.0"


def example_shot() -> Shot:
    """Five frames and the sound of 2.5 s of the film; `python -m scripts.readme.sample` makes the file."""
    return Shot.model_validate_json(resources.files(__package__).joinpath(EXAMPLE_FILE).read_bytes())
