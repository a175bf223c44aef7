"""The engines of the settings, by flag, variable, ecosystem and file."""

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from tokenwire.settings import EngineSettings
from unit.settings_loading import ADDRESS, SECONDS, SECRET, load, problems, written

# Engines.


def test_engine_flags_have_four_forms() -> None:
    flags = {"engines": ("scripted", "llamacpp", "openai=http://h:8000/v1/", "big:openai=https://g")}
    assert load(flags).engines == (
        EngineSettings(name="scripted", kind="scripted"),
        EngineSettings(name="llamacpp", kind="llamacpp"),
        EngineSettings(name="openai", kind="openai", url="http://h:8000/v1"),
        EngineSettings(name="big", kind="openai", url="https://g"),
    )
    assert load({"engines": ["me:scripted"]}).engines[0].name == "me"


def test_engines_of_the_variable_are_json() -> None:
    value = json.dumps([{"name": "a", "kind": "openai", "url": "http://h", "api_key": SECRET, "timeout_seconds": 2}])
    settings = load({}, {"TOKENWIRE_ENGINES": value})
    assert settings.engines[0].api_key.get_secret_value() == SECRET
    assert settings.engines[0].timeout_seconds == 2
    assert settings.sources["engines.a"] == "TOKENWIRE_ENGINES"


def test_url_is_fine_with_and_without_v1() -> None:
    for url in ("http://h:8000", "http://h:8000/v1"):
        assert load({"engines": [f"openai={url}/"]}).engines[0].url == url


WANTED_LIST = "at least one engine: --engine flags, a JSON list in the variable, or [[engines]] tables in a file"
WANTED_ENGINE = (
    "an engine: scripted, llamacpp, KIND=URL or NAME:KIND=URL with vllm, sglang, ollama or openai for KIND as a flag, "
    "a table or JSON object elsewhere"
)
WANTED_NAME = "a name of at most 63 letters, digits, dots, dashes and underscores"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["tgi"], f"engines[0]: wants {WANTED_ENGINE}"),
        ([SECRET], f"engines[0]: wants {WANTED_ENGINE}"),
        (["scripted", "http://h/v1"], f"engines[1]: wants {WANTED_ENGINE}"),
        (["openai"], f"engines[0].url: an engine of kind openai needs {ADDRESS}"),
        (["vllm"], f"engines[0].url: an engine of kind vllm needs {ADDRESS}"),
        (["scripted=http://h"], "engines[0].url: an engine of kind scripted takes no url"),
        (["a b:scripted"], f"engines[0].name: wants {WANTED_NAME}"),
        (["openai=ftp://h"], f"engines[0].url: wants {ADDRESS}"),
        (["openai=h:8000"], f"engines[0].url: wants {ADDRESS}"),
        (["openai=http://"], f"engines[0].url: wants {ADDRESS}"),
        (["openai=http://h:0"], f"engines[0].url: wants {ADDRESS}"),
        (["openai=http://h:port"], f"engines[0].url: wants {ADDRESS}"),
        (["openai=http://h/\nx"], f"engines[0].url: wants {ADDRESS}"),
        ([f"openai=http://me:{SECRET}@h"], f"engines[0].url: wants {ADDRESS}"),
        ([f"openai=http://h?key={SECRET}"], f"engines[0].url: wants {ADDRESS}"),
        (
            ["scripted", "scripted"],
            "engines: wants a name of its own for each engine, such as NAME:openai=URL; twice: scripted",
        ),
    ],
)
def test_wrong_engine_flag(flags: list[str], told: str) -> None:
    assert problems({"engines": flags}) == [f"{told} (from flag --engine)"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("scripted", [f"engines: wants {WANTED_LIST}"]),
        ("[]", [f"engines: wants {WANTED_LIST}"]),
        ('{"name": "a"}', [f"engines: wants {WANTED_LIST}"]),
        ("[" * 100_000, [f"engines: wants {WANTED_LIST}"]),
        ("[1]", [f"engines[0]: wants {WANTED_ENGINE}"]),
        (
            '[{"names": "a", "url": 7}]',
            [
                f"engines[0].name: is missing; wants {WANTED_NAME}",
                "engines[0].kind: is missing; wants one of llamacpp, vllm, sglang, ollama, openai, scripted",
                f"engines[0].url: wants {ADDRESS}",
                "engines[0].names: no such setting; did you mean name?",
            ],
        ),
        (
            f'[{{"name": "a", "kind": "{SECRET}", "api_key": "{SECRET}\\n", "timeout_seconds": true}}]',
            [
                "engines[0].kind: wants one of llamacpp, vllm, sglang, ollama, openai, scripted",
                "engines[0].api_key: wants printable ASCII text without spaces or line breaks",
                f"engines[0].timeout_seconds: wants {SECONDS}",
            ],
        ),
    ],
)
def test_wrong_engines_variable(value: str, told: list[str]) -> None:
    assert problems({}, {"TOKENWIRE_ENGINES": value}) == [f"{line} (from TOKENWIRE_ENGINES)" for line in told]


def test_wrong_engine_of_the_file_is_named_with_its_line(tmp_path: Path) -> None:
    text = '[[engines]]\nname = "a"\nkind = "scripted"\n\n[[engines]]\nname = "b"\nkind = "openai"\nurl = "h"\n'
    place = "(from file tokenwire.toml, line"
    assert problems({}, {}, written(tmp_path, text)) == [f"engines[1].url: wants {ADDRESS} {place} 8)"]
    assert problems({}, {}, written(tmp_path, text.replace('url = "h"\n', ""))) == [
        f"engines[1].url: an engine of kind openai needs {ADDRESS} {place} 5)"
    ]


# The ecosystem.


def test_vllm_variables_make_an_engine() -> None:
    environ = {"VLLM_BASE_URL": "http://v:8000/v1", "VLLM_MODEL": "m", "VLLM_API_KEY": SECRET}
    settings = load({}, environ)
    assert settings.engines == (
        EngineSettings(name="vllm", kind="vllm", url="http://v:8000/v1", model="m", api_key=SecretStr(SECRET)),
    )
    assert settings.sources["engines.vllm"] == "VLLM_BASE_URL, VLLM_MODEL, VLLM_API_KEY"


@pytest.mark.parametrize(
    ("text", "seconds"), [("120", 120), ("120s", 120), ("2m", 120), ("1h", 3600), (" 1.5 s ", 1.5)]
)
def test_sglang_variables_make_an_engine(text: str, seconds: float) -> None:
    settings = load({}, {"SGLANG_BASE_URL": "http://s:30000", "SGLANG_TIMEOUT": text, "SGLANG_API_KEY": SECRET})
    assert settings.engines == (
        EngineSettings(
            name="sglang", kind="sglang", url="http://s:30000", timeout_seconds=seconds, api_key=SecretStr(SECRET)
        ),
    )
    assert settings.sources["engines.sglang"] == "SGLANG_BASE_URL, SGLANG_TIMEOUT, SGLANG_API_KEY"


@pytest.mark.parametrize("text", ["soon", "-1", "2 days", "1e3", "s"])
def test_wrong_sglang_timeout_is_told(text: str) -> None:
    assert problems({}, {"SGLANG_BASE_URL": "http://s", "SGLANG_TIMEOUT": text}) == [
        'engines[0].timeout_seconds: wants a duration such as "120", "120s" or "2m" (from SGLANG_TIMEOUT)'
    ]


def test_sglang_timeout_of_nothing_is_told() -> None:
    assert problems({}, {"SGLANG_BASE_URL": "http://s", "SGLANG_TIMEOUT": "0s"}) == [
        f"engines[0].timeout_seconds: wants {SECONDS} (from SGLANG_TIMEOUT)"
    ]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("gpu", "http://gpu:11434"),
        ("gpu:8080", "http://gpu:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::]:8080", "http://[::1]:8080"),
        (" http://gpu:8080/ ", "http://gpu:8080"),
        ("http://0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("https://ollama.example/api/v1", "https://ollama.example/api/v1"),
    ],
)
def test_ollama_host_makes_an_engine(text: str, url: str) -> None:
    settings = load({}, {"OLLAMA_HOST": text})
    assert settings.engines == (EngineSettings(name="ollama", kind="ollama", url=url),)
    assert settings.sources["engines.ollama"] == "OLLAMA_HOST"


@pytest.mark.parametrize("text", ["a b", "ftp://h", f"http://me:{SECRET}@h", f"me:{SECRET}@h:1", "gpu:port"])
def test_wrong_ollama_host_is_told(text: str) -> None:
    assert problems({}, {"OLLAMA_HOST": text}) == [f"engines[0].url: wants {ADDRESS} (from OLLAMA_HOST)"]


def test_engines_of_the_ecosystem_stand_side_by_side() -> None:
    environ = {"OLLAMA_HOST": "o", "SGLANG_BASE_URL": "http://s", "VLLM_BASE_URL": "http://v"}
    settings = load({}, environ)
    assert [engine.name for engine in settings.engines] == ["vllm", "sglang", "ollama"]
    assert settings.sources["engines"] == "VLLM_BASE_URL, SGLANG_BASE_URL, OLLAMA_HOST"
    assert problems({}, environ | {"SGLANG_BASE_URL": "s"}) == [
        f"engines[1].url: wants {ADDRESS} (from SGLANG_BASE_URL)"
    ]
