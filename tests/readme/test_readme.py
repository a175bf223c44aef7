"""The README's commands do what it says, on the real embedded engine."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.redis_server import RedisServer, find_server
from readme.commands import ADDRESS, README, ROOT, blocks, grpcurl, lines, tokenwire

pytestmark = pytest.mark.llamacpp


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command, environment = tokenwire("tokenwire serve --listen 127.0.0.1:0 --log-level error")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode == 0


def printed(command: list[str], **more: object) -> str:
    environment = more.pop("env", None)
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def messages(output: str) -> list[dict[str, dict[str, object]]]:
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(output.rstrip()):
        message, end = decoder.raw_decode(output, at + len(output[at:]) - len(output[at:].lstrip()))
        found.append(message)
        at = end
    return found


def text(stream: list[dict[str, dict[str, object]]]) -> str:
    return "".join(str(message["delta"].get("text", "")) for message in stream if "delta" in message)


def test_its_make_targets_exist() -> None:
    for line in lines("make"):
        subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("line", [line for line in lines("grpcurl") if "tale-1" not in line])
def test_its_grpcurl_commands_answer(address: str, line: str) -> None:
    output = printed(grpcurl(line, address))
    if "/Stream" in line:
        stream = messages(output)
        assert [message for message in stream if "end" in message] == stream[-1:]
        if "regex" in line:
            assert re.fullmatch("(18|19)[0-9]{2}", text(stream))
            return
        if "get_weather" in line:
            arguments = "".join(str(message.get("toolCallDelta", {}).get("arguments", "")) for message in stream)
            assert "city" in json.loads(arguments)
            return
        deltas = [message for message in stream if "delta" in message]
        assert len(deltas) >= 5
        times = [message.get("elapsedMs", 0) for message in deltas]
        assert len(set(map(str, times))) >= 5
    elif " list" in line:
        assert "tokenwire.v1.GenerateService" in output
    elif "/Generate" in line:
        assert len(messages(output)[0]["choices"]) == 2
    elif "ListModels" in line:
        assert "smollm2-135m-instruct" in output


def test_its_resume_by_hand_gives_the_byte_exact_rest(address: str) -> None:
    begin, attach = [line for line in lines("grpcurl") if "tale-1" in line]
    with subprocess.Popen(grpcurl(begin, address), stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        seen, last = "", 0
        # On a busy machine one message may carry what the README shows in two.
        while last < 9:
            seen += client.stdout.readline()
            if seen.endswith("\n}\n"):
                last = int(str(messages(seen)[-1].get("cursor", {}).get("seq", 0)))
        client.send_signal(signal.SIGINT)
    rest = messages(printed(grpcurl(attach.replace('"seq":9}', f'"seq":{last}}}'), address)))
    whole = messages(printed(grpcurl(attach.replace(',"after":{"seq":9}', ""), address)))
    assert text(messages(seen)) + text(rest) == text(whole)
    assert "end" in rest[-1]
    command, environment = tokenwire(f"tokenwire runs attach tale-1 --after {last}")
    assert "tokenwire runs attach tale-1 --after 9" in README
    assert printed(command, env=environment | {"TOKENWIRE_TARGET": address}) == text(rest)


@pytest.mark.parametrize("line", [line for line in lines("tokenwire") if "serve" not in line and "attach" not in line])
def test_its_command_line_answers(address: str, line: str, tmp_path: Path) -> None:
    command, environment = tokenwire(line)
    (tmp_path / "requests.jsonl").write_text("".join(blocks("jsonl")))
    output = printed(command, env=environment | {"TOKENWIRE_TARGET": address}, cwd=tmp_path)
    answers = tmp_path / "answers.jsonl"
    assert output.strip() or len(answers.read_text().splitlines()) == len("".join(blocks("jsonl")).splitlines())


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    """Runs a Redis or Valkey server, and yields its address."""
    program = find_server()
    assert program, "the tests bring a server along"
    server = RedisServer(program)
    server.start()
    yield server.url.removesuffix("/0")
    server.close()


@pytest.mark.parametrize("line", lines("serve"))
def test_its_servers_can_be_started(line: str, redis: str, tmp_path: Path) -> None:
    command, environment = tokenwire(line)
    command = [part.replace("redis://127.0.0.1:6379", redis) for part in command]
    if "your-own.gguf" in line:
        # There is no such file: the setting is understood, and the file is missed.
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        assert done.returncode == 1
        assert "model_path" in done.stderr
        return
    command += ["--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as server:
        assert server.stdout is not None
        assert "serves on" in server.stdout.readline()
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode == 0


def test_its_python_client_prints_the_answer(address: str) -> None:
    (program,) = blocks("python")
    assert printed([sys.executable, "-c", program.replace(ADDRESS, address)]).strip()


def test_its_error_table_names_every_reason() -> None:
    used: set[str] = set()
    for path in (ROOT / "service" / "tokenwire").rglob("*.py"):
        if not {"v1", "cli", "settings", "child.py", "process.py"} & set(path.parts):
            used |= set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+|ORPHANED|DRAINING)"', path.read_text(encoding="utf-8")))
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", README))
    assert "FEATURE_UNSUPPORTED" in used
    assert used - named == set()
