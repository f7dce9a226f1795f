"""A shot's conversation as an OpenAI-compatible server takes it: the same words as the local engine's, as JSON.

The instruction and the pictures are the same for all questions of a shot and stand first, so that the server computes
them once (prefix caching). A question is the beginning of the assistant's own message, which the server goes on with.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

from engines.base import Picture, ShotPictures
from qwen_shots import prompt

# The local engine takes the likeliest token and nothing else. A server would otherwise add what the checkpoint's
# generation_config.json says, such as a penalty for words that stood in the instruction.
GREEDY = {"temperature": 0, "top_p": 1, "repetition_penalty": 1, "n": 1, "stream": False}
CONTINUED = {
    "add_generation_prompt": False,
    "continue_final_message": True,
    "chat_template_kwargs": {"add_vision_id": True, "enable_thinking": False},
}


class Conversation:
    """One shot, ready to be asked about.

    Args:
        model: the name under which the endpoints serve the model.
        attributes: name to description, in the order in which they are asked.
        shot: pictures in their final size.
    """

    def __init__(self, model: str, attributes: Mapping[str, str], shot: ShotPictures) -> None:
        self._options = {"model": model, **GREEDY, **CONTINUED}
        self._system = {"role": "system", "content": prompt.instruction(attributes)}
        files = [to_png(picture) for picture in shot.pictures]
        names = [hashlib.sha256(file).hexdigest() for file in files]
        # Written once: a shot's pictures are a megabyte or so, and it has dozens of questions.
        self._whole = self._head([_picture(name, file) for name, file in zip(names, files, strict=True)])
        self._by_name = self._head([_picture(name, None) for name in names])

    def body(self, begun: str, options: Mapping[str, Any], *, by_name: bool = False) -> bytes:
        """A request's body.

        Args:
            begun: how the assistant's message begins.
            options: what is asked for, such as `max_tokens`.
            by_name: name the pictures instead of sending them; for a server that has seen them (vLLM).
        """
        last = json.dumps({"role": "assistant", "content": begun}).encode()
        rest = json.dumps({**self._options, **options}).encode()
        return (self._by_name if by_name else self._whole) + last + b"]," + rest[1:]

    def _head(self, pictures: list[dict[str, Any]]) -> bytes:
        messages = json.dumps([self._system, {"role": "user", "content": pictures}]).encode()
        return b'{"messages":' + messages[:-1] + b","


def _picture(name: str, file: bytes | None) -> dict[str, Any]:
    """A part of a message. vLLM remembers a picture under its `uuid`; other servers pass over that field."""
    url = None if file is None else {"url": "data:image/png;base64," + base64.b64encode(file).decode()}
    return {"type": "image_url", "image_url": url, "uuid": name}


def to_png(picture: Picture) -> bytes:
    """The picture as a PNG file: what the model sees is then the same to the last bit."""
    buffer = io.BytesIO()
    # Level 1 is several times as fast as the default, and the files hardly larger.
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
