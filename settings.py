"""Typed, frozen settings: `config.yaml`, overruled by environment variables.

A mistake stops the start with the key's name, the line it stands on, and what is allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from qwen_shots.errors import InvalidSettings

ENV_PREFIX = "QWEN_SERVER__"
CONFIG_ENV = "QWEN_SERVER_CONFIG"
DEFAULT_CONFIG = Path(__file__).with_name("config.yaml")
DEFAULT_API_KEY = "helloagorevski"

KEY_RULE = "8 or more visible ASCII characters without spaces"
# Browsers leave the default port out, and write a name with other letters in its xn-- form.
ORIGIN = re.compile(
    r"(http(?!.*:80$)|https(?!.*:443$))://"
    r"(\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?)(:[1-9][0-9]{0,4})?"
)
TEXT_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
ATTRIBUTE_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class Section(BaseModel):
    """Base of the sections: closed, frozen, strict types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


ApiKey = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{8,}$")]
KEYS: TypeAdapter[list[str]] = TypeAdapter(list[ApiKey])


def _keys_in(path: str) -> list[str]:
    """The keys in a file, one a line; empty lines and those that begin with # and a space are passed over.

    Raises:
        ValueError: it can't be read, or a line is no key. The message repeats no line.
    """
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("must be ASCII text") from None
    keys = [line.strip() for line in lines if line.strip() and not line.startswith(("# ", "#\t"))]
    try:
        return KEYS.validate_python(keys)
    except ValidationError:
        raise ValueError(f"each line must hold one key: {KEY_RULE}") from None


def _endpoint(text: str) -> str:
    """An endpoint's address as it is asked: with its path, and without a slash behind it.

    Raises:
        ValueError: it is no plain address. The message repeats nothing of it.
    """
    try:
        url = urlsplit(text)
        plain = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError:
        plain = False
    if not plain or url.query or url.fragment or any(mark in text for mark in " ?#@"):
        # A name and key in the address would end up in logs.
        raise ValueError("must be http://HOST:PORT or https://HOST:PORT, with a path where the server has one")
    path = url.path.rstrip("/")
    return f"{url.scheme}://{url.netloc}{path or '/v1'}"


def _origin(text: str) -> str:
    """A page's origin as browsers send it.

    Raises:
        ValueError: it is none.
    """
    try:
        is_origin = ORIGIN.fullmatch(text) and urlsplit(text).port != 0  # it raises where a port is too large
    except ValueError:
        is_origin = False
    if not is_origin:
        raise ValueError(
            "must be http://HOST:PORT or https://HOST:PORT as browsers send it: in lower case, without a path, and "
            "without the port where it is http's 80 or https's 443"
        )
    return text


def _attribute_name(name: str) -> str:
    """Pass on a plain name.

    Raises:
        ValueError: it has other characters, or is too long.
    """
    if not ATTRIBUTE_NAME.fullmatch(name):
        raise ValueError("each name is 1 to 32 lower-case letters, digits and underscores, a letter first")
    return name


class ModelSettings(Section):
    """Which model, where, and how much of each picture it sees."""

    engine: Literal["local", "remote"] = "local"
    endpoints: list[Annotated[str, AfterValidator(_endpoint)]] = Field(default_factory=list, max_length=1000)
    endpoint_requests: int = Field(64, ge=1, le=1024)
    endpoint_timeout: int = Field(60, ge=1, le=3600)
    name: Annotated[str, StringConstraints(min_length=1)] = "Qwen/Qwen2-VL-2B-Instruct"
    device: Literal["cuda", "cpu"] = "cuda"
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    placement: Literal["auto", "replicate", "shard"] = "auto"
    max_frame_tokens: int = Field(256, ge=16, le=4096)
    max_caption_tokens: int = Field(32, ge=4, le=256)

    @model_validator(mode="after")
    def _remote_has_endpoints(self) -> ModelSettings:
        if self.engine == "remote" and not self.endpoints:
            raise ValueError("engine is remote, so endpoints must name one server or more")
        if len(set(self.endpoints)) < len(self.endpoints):
            raise ValueError("endpoints names a server twice")
        return self


class ServerSettings(Section):
    """Where the server listens and who may ask."""

    host: Annotated[str, StringConstraints(min_length=1)] = "0.0.0.0"
    port: int = Field(8000, ge=1, le=65535)
    api_key: ApiKey = DEFAULT_API_KEY
    api_keys: list[ApiKey] = Field(default_factory=list, max_length=1000)
    api_key_file: str | None = None
    reload: bool = False
    http_processes: int = Field(0, ge=0, le=64)
    log_format: Literal["text", "json"] = "text"
    max_body_mib: int = Field(64, ge=1, le=1024)
    max_queue_shots: int = Field(1280, ge=1, le=100_000)
    max_queue_tokens: int = Field(2_000_000, ge=1000, le=100_000_000)
    request_timeout: int = Field(600, ge=1, le=86_400)
    keep_alive: int = Field(75, ge=1, le=3600)
    allowed_origins: list[Annotated[str, AfterValidator(_origin)]] = Field(default_factory=list, max_length=1000)
    drain_timeout: int = Field(50, ge=1, le=3600)

    @field_validator("api_key_file")
    @classmethod
    def _key_file_is_readable(cls, path: str | None) -> str | None:
        if path is not None and not _keys_in(path):
            raise ValueError("holds no key: write one a line")
        return path

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that lets a client in; the default one only where there is no other."""
        listed = [self.api_key, *self.api_keys, *(_keys_in(self.api_key_file) if self.api_key_file else ())]
        own = tuple(dict.fromkeys(key for key in listed if key != DEFAULT_API_KEY))
        return own or (DEFAULT_API_KEY,)


class ProcessingSettings(Section):
    """How the scores come about."""

    max_batch_size: int = Field(10, ge=1, le=1000)
    enable_audio_fusion: bool = True
    temporal_weight: float = Field(0.3, ge=0, le=1)
    luminance_weight: float = Field(0.3, ge=0, le=1)
    audio_weight: float = Field(0.2, ge=0, le=1)
    least_mass: float = Field(0.1, ge=0, le=1)


class ClusterSettings(Section):
    """How many replicas there are on a Ray cluster (deploy/ray_app.py), and what their number follows."""

    min_replicas: int = Field(1, ge=1, le=10_000)
    max_replicas: int = Field(1, ge=1, le=10_000)
    gpus_per_replica: int = Field(1, ge=1, le=64)
    target_replica_shots: int = Field(64, ge=1, le=10_000)
    ingress_replicas: int = Field(1, ge=1, le=1000)

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> ClusterSettings:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must be min_replicas or more")
        return self


class Settings(Section):
    """The whole configuration.

    `attributes` has no default here: config.yaml is the one place where they are named and described.
    """

    model: ModelSettings = ModelSettings()
    server: ServerSettings = ServerSettings()
    processing: ProcessingSettings = ProcessingSettings()
    cluster: ClusterSettings = ClusterSettings()
    attributes: dict[
        Annotated[str, AfterValidator(_attribute_name)],
        Annotated[str, StringConstraints(min_length=1, max_length=400)],
    ] = Field(min_length=1, max_length=64)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with a line for each value that it can't make, such as the date 2026-13-01."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - as the base has it
        """See `yaml.SafeLoader`."""
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # each kind of value raises what it likes
            kind = node.tag.rpartition(":")[2]
            problem = f"this is no valid {kind}; put text in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The YAML file that QWEN_SERVER_CONFIG names, else config.yaml beside this file."""
    return Path(environ.get(CONFIG_ENV, DEFAULT_CONFIG))


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Args:
        path: the YAML file. None takes `config_path()`.
        environ: environment variables; QWEN_SERVER__SECTION__KEY overrules the file.

    Raises:
        InvalidSettings: the file can't be read, or a key or value in it or in the environment is not allowed.
    """
    path = path or config_path(environ)
    values, lines = _read_yaml(path)
    sources = _apply_environment(values, environ)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise InvalidSettings(_explain(error, path, lines, sources)) from None


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The file's values, and the line (from 1) of each key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidSettings(f"{path} can't be read: {reason}") from None
    lines: dict[tuple[str, ...], int] = {}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        _collect_lines(root, (), lines, path)
    except RecursionError:
        raise InvalidSettings(f"{path} is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InvalidSettings(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or 'syntax'}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InvalidSettings(f"{path} must hold sections (model, server, processing, attributes), not a bare value")
    return values, lines


def _collect_lines(node: yaml.Node | None, at: tuple[str, ...], lines: dict[tuple[str, ...], int], path: Path) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*at, str(key.value))
        line = key.start_mark.line + 1
        if here in lines:
            # YAML's own loader lets the last one win in silence.
            raise InvalidSettings(f"{path}, line {line}: {'.'.join(here)} stands there twice (first: {lines[here]})")
        if key.tag not in TEXT_TAGS:
            raise InvalidSettings(f"{path}, line {line}: YAML does not read the key {'.'.join(here)} as text")
        lines[here] = line
        _collect_lines(value, here, lines, path)


def _apply_environment(values: dict[str, Any], environ: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Lay the variables over the file's values; returns which key came from which variable."""
    sources: dict[tuple[str, ...], str] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX):
            continue
        at = tuple(part.lower() for part in variable[len(ENV_PREFIX) :].split("__"))
        if len(at) != 2 or not all(at):
            raise InvalidSettings(f"{variable} names no setting: write {ENV_PREFIX}SECTION__KEY")
        section, key = at
        if values.get(section) is None:
            values[section] = {}
        if not isinstance(values[section], dict):
            raise InvalidSettings(f"{section} must be a section with keys of its own")
        values[section][key] = _from_text(section, key, text)
        sources[at] = variable
    return sources


def _from_text(section: str, key: str, text: str) -> object:
    """A variable's text as the setting's type; unchanged where it does not fit, for the validation to name."""
    holder = Settings.model_fields.get(section)
    fields = getattr(holder.annotation, "model_fields", {}) if holder else {}
    kind = fields[key].annotation if key in fields else str
    if get_origin(kind) is list:
        return text.replace(",", " ").split()
    if kind not in (int, float, bool):
        return text
    try:
        return TypeAdapter(kind).validate_strings(text)
    except ValidationError:
        return text


def _explain(
    error: ValidationError, path: Path, lines: Mapping[tuple[str, ...], int], sources: Mapping[tuple[str, ...], str]
) -> str:
    """Every mistake on a line of its own: where, which key, what is allowed."""
    return "\n".join(
        f"{_place(at, path, lines, sources)}: {'.'.join(at)}: {_allowed(at, mistake)}"
        for mistake in error.errors()
        for at in [tuple(str(part) for part in mistake["loc"] if part != "[key]")]
    )


def _place(
    at: tuple[str, ...], path: Path, lines: Mapping[tuple[str, ...], int], sources: Mapping[tuple[str, ...], str]
) -> str:
    for known in (at, at[:2]):  # an entry of a list stands where the list stands
        if known in sources:
            return sources[known]
        if known in lines:
            return f"{path}, line {lines[known]}"
    # A section that is in no file.
    return next((variable for key, variable in sources.items() if key[0] == at[0]), str(path))


def _allowed(at: tuple[str, ...], mistake: Mapping[str, Any]) -> str:
    if mistake["type"] == "extra_forbidden":
        owner = Settings.model_fields[at[0]].annotation if len(at) > 1 else Settings
        known = ", ".join(getattr(owner, "model_fields", {}))
        return f"unknown key; known here: {known}"
    if at[:2] in {("server", "api_key"), ("server", "api_keys")} and mistake["type"].startswith("string"):
        return f"must be {KEY_RULE}"
    message: str = mistake["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def local_address(settings: Settings) -> str:
    """Where this machine reaches the server."""
    host = settings.server.host
    if host in {"0.0.0.0", "::"}:  # every card, this machine's own included
        host = "127.0.0.1"
    return f"http://[{host}]:{settings.server.port}" if ":" in host else f"http://{host}:{settings.server.port}"


if __name__ == "__main__":
    # For the shell scripts: check the configuration; print the address, and how long a stop may take.
    import sys

    try:
        loaded = load_settings()
        print(local_address(loaded), loaded.server.drain_timeout)
    except InvalidSettings as error:
        print(f"ERROR: {error.detail}", file=sys.stderr)
        sys.exit(2)
