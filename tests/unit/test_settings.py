"""Settings: where each value comes from, and how it is shown."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tokenwire.settings import EngineSettings, Settings, environment, options
from unit.settings_loading import SECRET, load, written


def test_defaults_need_nothing() -> None:
    settings = load()
    assert settings.listen == "127.0.0.1:50051"
    assert settings.engines == (EngineSettings(name="embedded", kind="llamacpp"),)
    assert settings.cache_dir.name == "tokenwire"
    assert (settings.slots, settings.context_per_slot, settings.threads) == (8, 2048, 0)
    assert (settings.connect_seconds, settings.engine_restart_min_seconds) == (5, 0.5)
    assert settings.streams_max == 1000
    assert (settings.journal, settings.journal_max_bytes, settings.message_max_bytes) == ("memory", 2**28, 2**22)
    assert (settings.log_level, settings.log_format, settings.otel_endpoint) == ("info", "auto", "")
    assert settings.reflection
    assert not settings.insecure
    assert set(settings.sources.values()) == {"default"}


def test_settings_are_frozen() -> None:
    settings = load()
    with pytest.raises(ValidationError):
        settings.slots = 9  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.engines[0].url = "http://elsewhere"  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.sources["slots"] = "elsewhere"  # type: ignore[index]


def test_settings_made_by_code_say_so() -> None:
    settings = Settings(listen="127.0.0.1:0", engines=(EngineSettings(name="s", kind="scripted"),))
    assert settings.sources["listen"] == "code"
    assert settings.sources["engines.s"] == "code"
    assert settings.sources["slots"] == "default"


# Precedence.

ENGINES = {
    "flag": {"engines": ["scripted"]},
    "variable": {"TOKENWIRE_ENGINES": '[{"name": "by-variable", "kind": "scripted"}]'},
    "ecosystem": {"VLLM_BASE_URL": "http://v/v1"},
    "file": '[[engines]]\nname = "by-file"\nkind = "scripted"\n',
}
ENGINE_OF = {
    "flag": ("scripted", "flag --engine"),
    "variable": ("by-variable", "TOKENWIRE_ENGINES"),
    "ecosystem": ("vllm", "VLLM_BASE_URL"),
    "file": ("by-file", "file tokenwire.toml"),
    "default": ("embedded", "default"),
}
OTEL = {
    "flag": {"otel_endpoint": "http://flag"},
    "variable": {"TOKENWIRE_OTEL_ENDPOINT": "http://variable"},
    "ecosystem": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://ecosystem"},
    "file": 'otel_endpoint = "http://file"\n',
}
ORDER = ["flag", "variable", "ecosystem", "file", "default"]
PAIRS = [(higher, lower) for place, higher in enumerate(ORDER) for lower in ORDER[place + 1 :]]


def merged(parts: Mapping[str, object], chosen: set[str], tmp_path: Path) -> Settings:
    flags: dict[str, object] = {}
    environ: dict[str, str] = {}
    text = ""
    for source in chosen - {"default"}:
        match parts[source]:
            case str() as lines:
                text = lines
            case dict() as values if source == "flag":
                flags = values
            case dict() as values:
                environ |= values
    return load(flags, environ, written(tmp_path, text))


@pytest.mark.parametrize(("higher", "lower"), PAIRS)
def test_engines_of_the_higher_source_replace_those_of_the_lower(higher: str, lower: str, tmp_path: Path) -> None:
    settings = merged(ENGINES, {higher, lower}, tmp_path)
    name, source = ENGINE_OF[higher]
    assert [engine.name for engine in settings.engines] == [name]
    assert settings.sources["engines"] == source
    assert settings.sources[f"engines.{name}"] == source


@pytest.mark.parametrize(("higher", "lower"), PAIRS)
def test_value_of_the_higher_source_wins(higher: str, lower: str, tmp_path: Path) -> None:
    settings = merged(OTEL, {higher, lower}, tmp_path)
    assert settings.otel_endpoint == f"http://{higher}"
    assert settings.sources["otel_endpoint"] == {
        "flag": "flag --otel-endpoint",
        "variable": "TOKENWIRE_OTEL_ENDPOINT",
        "ecosystem": "OTEL_EXPORTER_OTLP_ENDPOINT",
        "file": "file tokenwire.toml",
    }.get(higher)


SAMPLES: dict[str, tuple[object, object, object]] = {
    "listen": ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
    "slots": (1, 2, 3),
    "drain_seconds": (1.5, 2.5, 3),
    "default_model": ("a", "b", "c"),
    "reflection": (False, False, False),
    "log_level": ("debug", "error", "warning"),
    "cache_dir": ("one", "two", "three"),
}
subsets = st.sets(st.sampled_from(sorted(SAMPLES)))


@hypothesis_settings(deadline=None)  # It writes a file.
@given(by_flag=subsets, by_variable=subsets, by_file=subsets)
def test_each_value_knows_its_source(by_flag: set[str], by_variable: set[str], by_file: set[str]) -> None:
    flags = {name: SAMPLES[name][0] if name in by_flag else None for name in SAMPLES}
    environ = {f"TOKENWIRE_{name.upper()}": str(SAMPLES[name][1]) for name in by_variable}
    with TemporaryDirectory() as folder:
        lines = [f"{name} = {json.dumps(SAMPLES[name][2])}\n" for name in by_file]
        (Path(folder) / "tokenwire.toml").write_text("".join(lines))
        settings = load(flags, environ, Path(folder))
    defaults = load()
    for name in Settings.model_fields:
        flag, variable = "flag --" + name.replace("_", "-"), f"TOKENWIRE_{name.upper()}"
        if name in by_flag:
            source, value = flag, SAMPLES[name][0]
        elif name in by_variable:
            source, value = variable, SAMPLES[name][1]
        elif name in by_file:
            source, value = "file tokenwire.toml", SAMPLES[name][2]
        else:
            source, value = "default", getattr(defaults, name)
        assert settings.sources[name] == source
        assert str(getattr(settings, name)) == str(type(getattr(settings, name))(value))


def test_empty_variables_and_flags_that_were_not_given_count_as_unset(tmp_path: Path) -> None:
    environ = {"TOKENWIRE_SLOTS": "", "TOKENWIRE_CONFIG": "", "VLLM_BASE_URL": "", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    settings = load({"slots": None, "engines": [], "config": None}, environ, written(tmp_path, "slots = 3"))
    assert settings.slots == 3
    assert settings.sources["engines"] == "default"


def test_text_is_parsed_by_kind() -> None:
    environ = {
        "TOKENWIRE_INSECURE": "true",
        "TOKENWIRE_SLOTS": " 4 ",
        "TOKENWIRE_DRAIN_SECONDS": "1.5",
        "TOKENWIRE_LOG_LEVEL": "WARNING",
        "TOKENWIRE_DEFAULT_MODEL": "7",
    }
    settings = load({"reflection": "no", "threads": "2", "cache_dir": Path("here")}, environ)
    assert settings.insecure
    assert settings.slots == 4
    assert settings.drain_seconds == 1.5
    assert settings.log_level == "warning"
    assert settings.default_model == "7"
    assert not settings.reflection
    assert settings.threads == 2
    assert settings.cache_dir == Path("here")


# What is shown.


def test_no_secret_in_the_settings_as_text_or_rows() -> None:
    settings = load({}, {"VLLM_BASE_URL": "http://v", "VLLM_API_KEY": SECRET})
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json() + str(settings.rows())


def test_rows_show_value_and_source_of_each_setting(tmp_path: Path) -> None:
    text = """
        log_format = "json"
        [[engines]]
        name = "big"
        kind = "openai"
        url = "http://h/v1"
        model = "m"
        api_key = "sk-do-not-tell"
        timeout_seconds = 2.5
        [[engines]]
        name = "small"
        kind = "llamacpp"
    """
    settings = load({"drain_seconds": 10}, {"TOKENWIRE_CACHE_DIR": "here"}, written(tmp_path, text))
    rows = {row.name: (row.value, row.source) for row in settings.rows()}
    assert rows["drain_seconds"] == ("10", "flag --drain-seconds")
    assert rows["cache_dir"] == ("here", "TOKENWIRE_CACHE_DIR")
    assert rows["log_format"] == ("json", "file tokenwire.toml")
    assert rows["reflection"] == ("true", "default")
    assert rows["engine_restart_min_seconds"] == ("0.5", "default")
    assert rows["default_model"] == ('""', "default")
    assert rows["engines.big"] == (
        "openai http://h/v1, model m, api_key ********, timeout_seconds 2.5",
        "file tokenwire.toml",
    )
    assert rows["engines.small"] == ("llamacpp", "file tokenwire.toml")
    assert set(Settings.model_fields) - {"engines"} == {name for name in rows if not name.startswith("engines.")}


# For the command line.


def test_options_name_each_setting_thrice() -> None:
    found = {option.name: option for option in options()}
    assert list(found) == ["config", *Settings.model_fields]
    drain = found["drain_seconds"]
    assert (drain.flag, drain.variable, drain.value_type, drain.default) == (
        "--drain-seconds",
        "TOKENWIRE_DRAIN_SECONDS",
        float,
        "30",
    )
    assert found["engines"].flag == "--engine"
    assert found["engines"].value_type == list[str]
    assert found["insecure"].value_type is bool
    assert found["cache_dir"].value_type is Path
    assert found["log_level"].choices == ("debug", "info", "warning", "error")


def test_each_default_is_accepted_when_given(tmp_path: Path) -> None:
    values = load().model_dump(mode="json", exclude={"engines", "cache_dir"})
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    assert tomllib.loads(text) == values
    assert load({}, {}, written(tmp_path, text)).model_dump(exclude={"cache_dir"}) == load().model_dump(
        exclude={"cache_dir"}
    )


def test_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENWIRE_SLOTS", "3")
    assert environment()["TOKENWIRE_SLOTS"] == "3"
