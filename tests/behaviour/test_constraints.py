"""What the answer must look like."""

import json
import re

import pytest

from behaviour.backend import Backend, asked, chat
from harness.refusals import refused
from tokenwire.v1.sampling_pb2 import Choices, Constraint, JsonObject, Stopping

LONG = Stopping(max_tokens=80)
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)
TAG = json.dumps(
    {
        "type": "structural_tag",
        "format": {
            "type": "tag",
            "begin": "<n>",
            "content": {"type": "json_schema", "json_schema": {"type": "integer", "minimum": 1, "maximum": 9}},
            "end": "</n>",
        },
    }
)


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["prompt", "chat"])
async def test_the_answer_is_json_that_fits_a_schema(backend: Backend, form: str) -> None:
    constraint = Constraint(json_schema=PERSON)
    with backend.having("constraint.json_schema"):
        request = (
            asked("A person as JSON: ", constraint=constraint, stopping=LONG)
            if form == "prompt"
            else chat("A person as JSON, please.", constraint=constraint, stopping=LONG)
        )
        person = json.loads((await backend.stream(request)).text())
        assert sorted(person) == ["age", "name"]
        assert isinstance(person["age"], int)


@pytest.mark.asyncio
async def test_the_answer_is_a_json_object(backend: Backend) -> None:
    request = asked(
        'A short JSON object, such as {"a": 1}: ',
        constraint=Constraint(json_object=JsonObject()),
        stopping=Stopping(max_tokens=60),
    )
    with backend.having("constraint.json_object"):
        answer = await backend.stream(request)
        assert answer.text().lstrip().startswith("{")
        if answer.reason() == "STOP":
            assert isinstance(json.loads(answer.text()), dict)


@pytest.mark.asyncio
async def test_the_answer_matches_a_regular_expression(backend: Backend) -> None:
    request = asked("The year is ", constraint=Constraint(regex=r"(19|20)\d\d\.[a-c]{2}"), stopping=LONG)
    with backend.having("constraint.regex"):
        assert re.fullmatch(r"(19|20)\d\d\.[a-c]{2}", (await backend.stream(request)).text())


@pytest.mark.asyncio
async def test_the_answer_is_one_of_several(backend: Backend) -> None:
    values = ["red (dark)", "green.", 'blue "sky"']
    constraint = Constraint(choice=Choices(values=values))
    with backend.having("constraint.choice"):
        for seed in range(2):
            sampling = backend.seeded(seed, temperature=1.5)
            request = asked("My colour: ", constraint=constraint, stopping=LONG, sampling=sampling)
            assert (await backend.stream(request)).text() in values


@pytest.mark.asyncio
async def test_the_answer_follows_a_grammar(backend: Backend) -> None:
    constraint = Constraint(grammar='root ::= ("yes" | "no") " " [0-9]')
    with backend.having("constraint.grammar"):
        text = (await backend.stream(asked("Answer: ", constraint=constraint, stopping=LONG))).text()
        assert re.fullmatch(r"(yes|no) [0-9]", text)


@pytest.mark.asyncio
async def test_the_answer_carries_a_structural_tag(backend: Backend) -> None:
    request = asked("A number: ", constraint=Constraint(structural_tag=TAG), stopping=LONG)
    with backend.having("constraint.structural_tag"):
        assert re.fullmatch(r"<n>\s*[1-9]\s*</n>", (await backend.stream(request)).text())


BROKEN = {
    "json_schema": Constraint(json_schema='{"type": 5}'),
    "json_schema_no_json": Constraint(json_schema="{"),
    "regex": Constraint(regex="(a"),
    "grammar": Constraint(grammar="root ::= ("),
    "structural_tag": Constraint(structural_tag='{"type": "structural_tag"}'),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_constraint_is_refused_and_harms_nobody(backend: Backend, name: str) -> None:
    kind = BROKEN[name].WhichOneof("constraint")
    told = await refused(backend.unary(asked(constraint=BROKEN[name])))
    assert told.code.name == "INVALID_ARGUMENT", told
    assert told.violations, told
    assert told.violations[0][0].startswith("constraint"), told
    if not backend.takes(f"constraint.{kind}"):
        backend.outcome = "refused"
    assert (await backend.stream(asked())).text()
