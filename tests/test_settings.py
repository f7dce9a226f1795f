"""The configuration: defaults, the environment, and mistakes that name their line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from qwen_shots.errors import InvalidSettings
from settings import DEFAULT_CONFIG, Settings, load_settings


def test_the_file_says_what_the_code_does() -> None:
    written = yaml.safe_load(DEFAULT_CONFIG.read_text())
    sections = {name: field.default for name, field in Settings.model_fields.items() if name != "attributes"}
    assert written == {name: section.model_dump() for name, section in sections.items()} | {
        "attributes": written["attributes"]
    }


def test_the_environment_wins() -> None:
    settings = load_settings(
        environ={
            "QWEN_SERVER__MODEL__DTYPE": "float32",
            "QWEN_SERVER__SERVER__PORT": "9000",
            "QWEN_SERVER__SERVER__API_KEY": "12345678",
            "QWEN_SERVER__SERVER__RELOAD": "true",
            "QWEN_SERVER__ATTRIBUTES__WARMTH": "how warm the colours are",
        }
    )
    assert settings.model.dtype == "float32"
    assert (settings.server.port, settings.server.api_key, settings.server.reload) == (9000, "12345678", True)
    assert settings.attributes["warmth"] == "how warm the colours are"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model:\n  nam: x\n", ["line 2", "model.nam", "unknown key", "name"]),
        ("server:\n  port: 70000\n", ["line 2", "server.port", "65535"]),
        ("server:\n  port: '80'\n", ["line 2", "server.port", "integer"]),
        ("server:\n  api_key: short\n", ["line 2", "server.api_key", "8 or more"]),
        ("model:\n  dtype: float8\n", ["line 2", "bfloat16"]),
        ("cluster:\n  min_replicas: 3\n", ["line 1", "cluster", "max_replicas must be min_replicas or more"]),
        ("modell: {}\n", ["line 1", "modell", "known here: model"]),
        ("model:\n  name: a\n  name: b\n", ["line 3", "twice"]),
        ("model: [\n", ["not YAML"]),
        ("attributes:\n  Big Name: x\n", ["line 2", "attributes.Big Name", "lower-case"]),
        ("attributes: {}\n", ["line 1", "attributes"]),
        ("- a\n", ["sections"]),
        ("model:\n  name: 2026-13-01\n", ["line 2", "no valid timestamp", "in quotes"]),
        ("model:\n  name: !!timestamp x\n", ["line 2", "no valid timestamp"]),
        ("server:\n  port: !!int x\n", ["line 2", "no valid int"]),
        ("server:\n  reload: !!bool x\n", ["line 2", "no valid bool"]),
        (f"server:\n  port: {'9' * 5000}\n", ["line 2", "no valid int"]),
        ("model: " + "[" * 5000, ["nested too deeply"]),
        ("model: " + "{a: " * 5000, ["nested too deeply"]),
        ("model: &model {name: *model}\n", ["nested too deeply"]),
        ("server:\n  on: 1\n", ["line 2", "server.on"]),
        ("model: {}\n~: 1\n", ["line 2", "key ~"]),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(InvalidSettings) as caught:
        load_settings(file, environ={})
    for word in words:
        assert word in caught.value.detail


def test_keys_from_a_variable_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    variables = {
        "QWEN_SERVER__SERVER__API_KEYS": "first-key,second-key, third-key",
        "QWEN_SERVER__SERVER__API_KEY_FILE": str(file),
    }
    file.write_text("fourth-key\n")
    assert load_settings(environ=variables).server.keys == ("first-key", "second-key", "third-key", "fourth-key")
    assert load_settings(environ={}).server.keys == ("helloagorevski",)
    for text, words in (("", "no key"), ("sesame street\n", "each line"), ("sés-sésame\n", "ASCII")):
        file.write_text(text)
        with pytest.raises(InvalidSettings, match=words) as caught:
            load_settings(environ=variables)
        assert "API_KEY_FILE: server.api_key_file" in caught.value.detail
        assert "same" not in caught.value.detail
    file.unlink()
    with pytest.raises(InvalidSettings, match=r"server\.api_key_file: can't be read: No such file"):
        load_settings(environ=variables)
    with pytest.raises(InvalidSettings, match="API_KEYS: server.api_keys.1: must be 8 or more"):
        load_settings(environ={"QWEN_SERVER__SERVER__API_KEYS": "first-key,sesame"})


def test_a_variable_that_is_wrong_is_named() -> None:
    with pytest.raises(InvalidSettings, match=r"QWEN_SERVER__SERVER__PORT: server\.port"):
        load_settings(environ={"QWEN_SERVER__SERVER__PORT": "many"})
    with pytest.raises(InvalidSettings, match="names no setting"):
        load_settings(environ={"QWEN_SERVER__PORT": "1"})
    with pytest.raises(InvalidSettings, match=r"^QWEN_SERVER__ATTRIBUTES__1X: attributes\.1x: each name is"):
        load_settings(environ={"QWEN_SERVER__ATTRIBUTES__1X": "what"})
    with pytest.raises(InvalidSettings, match=r"^QWEN_SERVER__FOO__BAR: foo: unknown key"):
        load_settings(environ={"QWEN_SERVER__FOO__BAR": "1"})


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InvalidSettings, match="can't be read"):
        load_settings(Path("/nowhere/config.yaml"), environ={})


def test_every_setting_is_documented() -> None:
    text = DEFAULT_CONFIG.read_text().splitlines()
    for section in ("model", "server", "processing"):
        owner = Settings.model_fields[section].annotation
        for key in getattr(owner, "model_fields", {}):
            line = next(number for number, words in enumerate(text) if words.startswith(f"  {key}:"))
            assert text[line - 1].strip().startswith("#")


def test_endpoints_are_asked_under_their_path() -> None:
    settings = load_settings(
        environ={
            "QWEN_SERVER__MODEL__ENGINE": "remote",
            "QWEN_SERVER__MODEL__ENDPOINTS": "http://gpu-1:8000, https://gpu-2/models/v1/,http://[::1]:8000/v1",
        }
    )
    assert settings.model.endpoints == ["http://gpu-1:8000/v1", "https://gpu-2/models/v1", "http://[::1]:8000/v1"]


@pytest.mark.parametrize(
    ("endpoints", "words"),
    [
        ("", "must name one server"),
        ("gpu-1:8000", "model.endpoints.0: must be http://"),
        ("ftp://gpu-1", "must be http://"),
        ("http://", "must be http://"),
        ("http://gpu-1:99999", "must be http://"),
        ("http://user:sesame@gpu-1", "must be http://"),
        ("http://gpu-1/v1?key=sesame", "must be http://"),
        ("http://gpu-1/#sesame", "must be http://"),
        ("http://gpu-1,http://gpu-1/v1/", "names a server twice"),
    ],
)
def test_endpoints_that_are_none(endpoints: str, words: str) -> None:
    environ = {"QWEN_SERVER__MODEL__ENGINE": "remote", "QWEN_SERVER__MODEL__ENDPOINTS": endpoints}
    with pytest.raises(InvalidSettings) as caught:
        load_settings(environ=environ)
    assert words in caught.value.detail
    assert "sesame" not in caught.value.detail


@pytest.mark.parametrize(
    "origins", ["https://studio.example", "http://10.0.0.7:3000, https://a.example", "http://[::1]:5", "https://a:80"]
)
def test_origins_of_pages(origins: str) -> None:
    settings = load_settings(environ={"QWEN_SERVER__SERVER__ALLOWED_ORIGINS": origins})
    assert settings.server.allowed_origins == origins.replace(",", " ").split()


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "studio.example",
        "https://studio.example/",
        "https://Studio.example",
        "ftp://a",
        "https://",
        "https://*.a",
        "null",
        "http://a:80",
        "https://a:443",
        "http://a:x",
        "http://a:",
        "http://a:0443",
        "http://a:65536",
        "http://a?x",
        "http://a..b",
        "http://é.example",
    ],
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(InvalidSettings, match=r"ALLOWED_ORIGINS: server.allowed_origins.0: must be http://HOST:PORT"):
        load_settings(environ={"QWEN_SERVER__SERVER__ALLOWED_ORIGINS": origin})


def test_an_origin_with_a_space(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("server:\n  allowed_origins: ['http://a b']\nattributes: {fear: how much}\n")
    with pytest.raises(InvalidSettings, match=r"line 2: server.allowed_origins.0: must be http://HOST:PORT"):
        load_settings(file, environ={})
