"""What is said about wrong settings."""

import traceback
from pathlib import Path

import pytest

from tokenwire.settings import SettingsError, is_loopback, split_listen
from unit.settings_loading import ADDRESS, SECONDS, SECRET, load, problems, written

# The file.


def test_file_of_the_flag_comes_before_that_of_the_variable_and_that_of_the_folder(tmp_path: Path) -> None:
    folder = written(tmp_path, "slots = 1")
    (folder / "b.toml").write_text("slots = 2")
    (folder / "a.toml").write_text("\ufeffslots = 3", encoding="utf-8")
    environ = {"TOKENWIRE_CONFIG": "b.toml"}
    assert load({}, {}, folder).slots == 1
    assert load({}, environ, folder).slots == 2
    by_flag = load({"config": folder / "a.toml"}, environ, folder)
    assert (by_flag.slots, by_flag.sources["slots"]) == (3, "file a.toml")


def test_file_that_cannot_be_read_is_named_without_its_folder(tmp_path: Path) -> None:
    assert problems({"config": "sub/no.toml"}, {}, tmp_path) == [
        "config: file no.toml cannot be read: No such file or directory (from flag --config)"
    ]
    (tmp_path / "bad.toml").write_text(f'slots = 1\napi_key = "{SECRET}\n')
    [problem] = problems({}, {"TOKENWIRE_CONFIG": "bad.toml"}, tmp_path)
    assert problem.startswith("config: file bad.toml is not valid TOML, line 2, column ")
    assert problem.endswith(" (from TOKENWIRE_CONFIG)")
    (tmp_path / "deep.toml").write_text("slots = " + "[" * 5000)
    assert problems({"config": "deep.toml"}, {}, tmp_path) == [
        "config: file deep.toml is nested too deeply (from flag --config)"
    ]
    (tmp_path / "tokenwire.toml").write_bytes(b"\xff")
    assert problems({}, {}, tmp_path) == ["config: file tokenwire.toml is not UTF-8 text (from default)"]


def test_unknown_keys_of_the_file_are_named_with_line_and_suggestion(tmp_path: Path) -> None:
    text = (
        '# a\ndrain-seconds = 3\n\n[server]\nlisten = "x"\n\n[[engines]]\nname = "a"\nkind = "scripted"\nmode = "m"\n'
    )
    assert problems({}, {}, written(tmp_path, text)) == [
        "drain-seconds: no such setting; did you mean drain_seconds? (from file tokenwire.toml, line 2)",
        "server: no such setting (from file tokenwire.toml, line 4)",
        "engines[0].mode: no such setting; did you mean model? (from file tokenwire.toml, line 10)",
    ]


def test_file_has_types_of_its_own(tmp_path: Path) -> None:
    text = 'slots = "8"\nthreads = 1.0\ndrain_seconds = true\ninsecure = 1\ndefault_model = 2020-01-01\ncache_dir = 1\n'
    place = "(from file tokenwire.toml, line"
    assert problems({}, {}, written(tmp_path, text)) == [
        f"insecure: wants true or false {place} 4)",
        f"default_model: wants text {place} 5)",
        f"cache_dir: wants the path of a folder {place} 6)",
        f"slots: wants a whole number above 0 and of at most 1024 {place} 1)",
        f"threads: wants a whole number of at least 0 and of at most 1024 {place} 2)",
        f"drain_seconds: wants a number of seconds of at least 0 and of at most 2592000 {place} 3)",
    ]


# Wrong values.

JOURNAL = "memory, file:FOLDER, or redis://HOST:PORT (rediss:// with TLS, unix:///SOCKET)"
LISTEN = "host:port or [::1]:port, with a port of at most 65535"


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("listen", "nowhere", LISTEN),
        ("listen", ":50051", LISTEN),
        ("listen", "127.0.0.1:65536", LISTEN),
        ("listen", "::1:50051", LISTEN),
        ("listen", "[127.0.0.1]:1", LISTEN),
        ("listen", "127.0.0.256:1", LISTEN),
        ("insecure", "perhaps", "true or false"),
        ("slots", "0", "a whole number above 0 and of at most 1024"),
        ("slots", "many", "a whole number above 0 and of at most 1024"),
        ("message_max_bytes", str(2**31), "a whole number above 0 and of at most 2147483647"),
        ("streams_max", "-1", "a whole number of at least 0 and of at most 1000000"),
        ("cancelled_ids_max", "-1", "a whole number of at least 0"),
        ("connect_seconds", "0", SECONDS),
        ("stall_seconds", "nan", SECONDS),
        ("stall_seconds", "inf", SECONDS),
        ("load_seconds", "10m", SECONDS),
        ("retention_seconds", "-1", "a number of seconds of at least 0 and of at most 2592000"),
        ("log_level", "loud", "one of debug, info, warning, error"),
        ("log_format", "xml", "one of auto, json, console"),
        ("journal", "postgres", JOURNAL),
        ("journal", "file:", JOURNAL),
        ("journal", "redis://", JOURNAL),
        ("journal", "redis://host?password=x", JOURNAL),
        ("journal", "unix://", JOURNAL),
        ("journal_fsync", "sometimes", "one of never, interval, always"),
        ("journal_outage", "stop", "one of continue, fail"),
        ("failover", "perhaps", "one of none, before_first_token, continue"),
        ("otel_endpoint", "collector:4317", ADDRESS),
        ("otel_endpoint", "http://me:pw@collector", ADDRESS),
    ],
)
def test_wrong_value_is_told_by_name_kind_and_source(name: str, value: str, kind: str) -> None:
    flag, variable = "--" + name.replace("_", "-"), f"TOKENWIRE_{name.upper()}"
    assert problems({name: value}) == [f"{name}: wants {kind} (from flag {flag})"]
    assert problems({}, {variable: value}) == [f"{name}: wants {kind} (from {variable})"]


@pytest.mark.parametrize("journal", [f"redis://me:{SECRET}@host:6379", f"rediss://:{SECRET}@host"])
def test_a_journal_s_address_has_no_password_and_does_not_tell_it(journal: str) -> None:
    assert problems({"journal": journal}) == [
        "journal: wants no name and no password in the address: redis_username and redis_password have them "
        "(from flag --journal)"
    ]


@pytest.mark.parametrize("key", [SECRET, "c2hvcnQ=", "=" * 44])
def test_a_journal_s_key_is_32_bytes_in_base64_and_is_not_told(key: str) -> None:
    assert problems({"journal_key": key}) == ["journal_key: wants 32 bytes in Base64 (from flag --journal-key)"]


@pytest.mark.parametrize("path", ["", "a\0b", "~nobody-of-this-name/cache"])
def test_wrong_folder_is_refused(path: str) -> None:
    assert problems({"cache_dir": path}) == ["cache_dir: wants the path of a folder (from flag --cache-dir)"]


def test_paths_may_begin_with_the_home_folder() -> None:
    settings = load({"cache_dir": "~/cache", "model_path": "~/model.gguf"})
    assert settings.cache_dir == Path.home() / "cache"
    assert settings.model_path == str(Path.home() / "model.gguf")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    told = problems(
        {"slots": "x", "colour": "red"},
        {"TOKENWIRE_THREADS": "x", "TOKENWIRE_DRAIN_SECOND": "1", "SGLANG_BASE_URL": "x", "SGLANG_TIMEOUT": "x"},
        written(tmp_path, "retention_seconds = -1\nretries = 1"),
    )
    assert [problem.split(":")[0] for problem in told] == [
        "colour",
        "TOKENWIRE_DRAIN_SECOND",
        "retries",
        "engines[0].timeout_seconds",
        "engines[0].url",
        "slots",
        "threads",
        "retention_seconds",
    ]


def test_wrong_value_that_a_higher_source_replaces_does_no_harm(tmp_path: Path) -> None:
    environ = {"TOKENWIRE_SLOTS": "x", "OLLAMA_HOST": "a b", "SGLANG_BASE_URL": "http://s", "SGLANG_TIMEOUT": "x"}
    settings = load({"slots": 2, "engines": ["scripted"]}, environ, written(tmp_path, "slots = -1"))
    assert settings.slots == 2


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("TOKENWIRE_DRAIN_SECOND", "no such setting; did you mean TOKENWIRE_DRAIN_SECONDS?"),
        ("TOKENWIRE_ENGINE", "no such setting; did you mean TOKENWIRE_ENGINES?"),
        ("TOKENWIRE_ZZZ", "no such setting"),
        *(
            (name, "no such setting; it looks like one of Kubernetes: set enableServiceLinks: false in the pod")
            for name in (
                "TOKENWIRE_PORT",
                "TOKENWIRE_SERVICE_HOST",
                "TOKENWIRE_SERVICE_PORT_GRPC",
                "TOKENWIRE_REDIS_PORT_6379_TCP_ADDR",
            )
        ),
    ],
)
def test_unknown_variable_is_an_error(variable: str, told: str) -> None:
    assert problems({}, {variable: SECRET}) == [f"{variable}: {told}"]
    assert problems({}, {variable: ""}) == [f"{variable}: {told}"]


def test_variables_of_others_are_left_alone() -> None:
    environ = {"PATH": "x", "VLLM_PORT": "tcp://1", "VLLM_API_KEY": SECRET, "VLLM_MODEL": "m", "SGLANG_TIMEOUT": "x"}
    assert set(load({}, environ).sources.values()) == {"default"}


def test_settings_that_do_not_go_together_name_both_sources() -> None:
    assert problems({"orphan_grace_seconds": 400}) == [
        "orphan_grace_seconds: wants a number of seconds of at most orphan_grace_max_seconds "
        "(from flag --orphan-grace-seconds; orphan_grace_max_seconds is from default)"
    ]
    assert problems({}, {"TOKENWIRE_ENGINE_RESTART_MAX_SECONDS": "0.1"}) == [
        "engine_restart_min_seconds: wants a number of seconds of at most engine_restart_max_seconds "
        "(from default; engine_restart_max_seconds is from TOKENWIRE_ENGINE_RESTART_MAX_SECONDS)"
    ]


# The loopback rule.


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:50051", "localhost:50051", "LOCALHOST:1"])
def test_loopback_needs_nothing_more(address: str) -> None:
    assert load({"listen": address}).listen == address


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "10.0.0.1:1", "gpu-1:50051", "[::ffff:10.0.0.1]:1"])
def test_other_addresses_need_insecure(address: str) -> None:
    assert problems({}, {"TOKENWIRE_LISTEN": address}) == [
        "listen: wants a loopback address unless insecure is true: until TLS and authentication come, anybody who "
        "reaches another address can use it (from TOKENWIRE_LISTEN; insecure is from default)"
    ]
    assert load({"insecure": True}, {"TOKENWIRE_LISTEN": address}).listen == address


def test_insecure_alone_stays_on_loopback() -> None:
    assert is_loopback(split_listen(load({"insecure": True}).listen)[0])


def test_listen_is_split_into_host_and_port() -> None:
    assert split_listen("[::1]:0") == ("::1", 0)
    assert split_listen("my-host.local:80") == ("my-host.local", 80)


# Secrets.


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f'[{{"name": "a", "kind": "openai", "url": "h", "api_key": "{SECRET}"}}]',
        f'[{{"name": "a", "kind": "openai", "url": "http://u:{SECRET}@h", "api_key": "{SECRET} "}}]',
        f'[{{"api_key": ["{SECRET}"]}}]',
        f'[{{"api_key": "{SECRET}"',
    ],
)
def test_no_secret_in_an_error(value: str, tmp_path: Path) -> None:
    toml = f'[[engines]]\nname = "a"\nkind = "openai"\napi_key = "{SECRET} "\n'
    for flags, environ, text in (
        ({}, {"TOKENWIRE_ENGINES": value}, ""),
        ({"engines": [value]}, {}, ""),
        ({}, {}, toml),
    ):
        with pytest.raises(SettingsError) as caught:
            load(flags, environ, written(tmp_path, text))
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(caught.value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
