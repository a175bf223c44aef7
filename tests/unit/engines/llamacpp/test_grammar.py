"""The grammar that an answer is held to. Whether llama.cpp takes it, tests/engines show."""

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Constraint, Message, Role, Submission, Tool, ToolMode
from tokenwire.engines.llamacpp.grammar import Grammar, grammar_of

HI = (Message(role=Role.USER, content="Hi"),)
CITY = '{"properties": {"city": {"type": "string"}}}'
WEATHER = Tool(name="weather", parameters_schema=CITY)
CLOCK = Tool(name="clock")
OPEN, OPEN_AGAIN, CLOSE = '"<tool_call>"', r'"\n<tool_call>"', r'"}\n</tool_call>"'
SPACING = '"x-guidance":{"whitespace_flexible":false,"item_separator":", ","key_separator":": "}'
CITY_SENT = '{"type":"object","properties":{"city":{"type":"string"}},' + SPACING + "}"
NOTHING_SENT = '{"type":"object","properties":{},"additionalProperties":false,' + SPACING + "}"


def head(name: str) -> str:
    return r'"\n{\"name\": \"' + name + r'\", \"arguments\": "'


def grammar(submission: Submission, *, may_think: bool = False, opened: bool = False) -> Grammar:
    made = grammar_of(submission, may_think=may_think, opened=opened)
    assert made is not None
    return made


def rule_of(constraint: Constraint) -> str:
    (rule,) = [line for line in grammar(Submission(constraint=constraint)).body.splitlines() if line[:7] == "answer:"]
    return rule.removeprefix("answer: ")


def test_an_answer_may_end_with_the_models_own_token_of_the_end() -> None:
    made = Grammar(field="x", body="body: answer\n")
    assert made.text(2) == "%llguidance {}\nstart: body <[2]>?\nbody: answer\n"
    assert made.text() == "%llguidance {}\nstart: body\nbody: answer\n"


def test_a_trial_is_the_same_grammar_behind_a_marker() -> None:
    assert Grammar(field="x", body="body: a\n").trial() == '%llguidance {}\nstart: "#~#" body\nbody: a\n'


@pytest.mark.parametrize("constraint", [None, Constraint(grammar='root ::= "a"')])
def test_a_free_answer_and_one_with_its_own_grammar_have_none_of_ours(constraint: Constraint | None) -> None:
    assert grammar_of(Submission(constraint=constraint), may_think=True, opened=True) is None


@pytest.mark.parametrize(
    ("constraint", "field", "rule"),
    [
        (Constraint(json_object=True), "constraint.json_object", '%json {"type":"object"}'),
        (Constraint(json_schema='{"z": 1, "a": 2}'), "constraint.json_schema", '%json {"z":1,"a":2}'),
        (Constraint(regex="[0-9]+"), "constraint.regex", "/[0-9]+/"),
        (Constraint(choice=("yes", 'a "b"\\c', "l\nf\x07 🦜")), "constraint.choice", None),
    ],
)
def test_a_constraint_is_a_rule_and_its_field_is_known(constraint: Constraint, field: str, rule: str | None) -> None:
    assert grammar(Submission(constraint=constraint)).field == field
    assert rule_of(constraint) == (rule or r'"yes" | "a \"b\"\\c" | "l\nf\u0007 🦜"')


@pytest.mark.parametrize(
    ("regex", "written"),
    [
        ("a/b", r"/a\/b/"),
        (r"a\/b", r"/a\/b/"),
        ("a\nb", r"/a\nb/"),
        ("a\\\nb", r"/a\nb/"),
        (r"\\/", r"/\\\//"),
        (r"\d\n\\", r"/\d\n\\/"),
        ("/", r"/\//"),
    ],
)
def test_a_regular_expression_keeps_its_meaning_between_slashes(regex: str, written: str) -> None:
    assert rule_of(Constraint(regex=regex)) == written


@pytest.mark.parametrize("regex", ["a\\", "\\\\\\", "(?x)a b", "(?ix: a)"])
def test_a_regular_expression_that_would_change_its_meaning_is_refused(regex: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        rule_of(Constraint(regex=regex))
    assert caught.value.violations[0].field == "constraint.regex"


@pytest.mark.parametrize("schema", ["{", "", "5", "[]", '"text"', "{'a': 1}", "[" * 5000])
def test_a_schema_that_is_not_a_json_object_is_refused_by_name(schema: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        rule_of(Constraint(json_schema=schema))
    assert caught.value.violations[0].field == "constraint.json_schema"


def test_a_required_call_is_all_that_can_be_written() -> None:
    made = grammar(Submission(messages=HI, tools=(WEATHER, CLOCK), tool_choice=ToolMode.REQUIRED))
    assert made.field == "tools.parameters_schema"
    assert made.body.splitlines() == [
        "body: answer",
        f"call: ({head('weather')} %json {CITY_SENT} | {head('clock')} %json {NOTHING_SENT}) {CLOSE}",
        f"more: {OPEN_AGAIN} call",
        f"answer: {OPEN} call more{{0,7}}",
    ]


def test_a_named_tool_is_the_only_one() -> None:
    body = grammar(Submission(messages=HI, tools=(WEATHER, CLOCK), tool_choice="clock")).body
    assert head("clock") in body
    assert head("weather") not in body


def test_without_parallel_calls_there_is_one() -> None:
    asked = Submission(messages=HI, tools=(WEATHER,), tool_choice=ToolMode.REQUIRED, parallel_tool_calls=False)
    assert "more" not in grammar(asked).body


@pytest.mark.parametrize("choice", [None, ToolMode.AUTO])
def test_as_the_model_likes_there_is_free_text_until_the_first_tag(choice: ToolMode | None) -> None:
    lines = grammar(Submission(messages=HI, tools=(CLOCK,), tool_choice=choice)).body.splitlines()
    assert lines[3:] == [
        "answer: TEXT | before call more{0,7}",
        r"TEXT: /(.|\n)*/ & ~/(.|\n)*<tool_call>(.|\n)*/",
        r"before[lazy]: /(.|\n)*<tool_call>/",
    ]


def test_beside_calls_an_answer_keeps_its_constraint() -> None:
    asked = Submission(messages=HI, tools=(CLOCK,), constraint=Constraint(choice=("a", "b")))
    assert grammar(asked).inner == Grammar(field="constraint.choice", body='body: "a" | "b"\n')
    assert grammar(asked).body.splitlines()[-1] == f'answer: ("a" | "b") | {OPEN} call more{{0,7}}'


def test_tools_that_are_not_to_be_called_leave_the_answer_free() -> None:
    assert (
        grammar_of(Submission(messages=HI, tools=(CLOCK,), tool_choice=ToolMode.NONE), may_think=False, opened=False)
        is None
    )


def test_a_grammar_of_ones_own_beside_tools_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        grammar(Submission(messages=HI, tools=(CLOCK,), constraint=Constraint(grammar='root ::= "a"')))
    assert caught.value.violations[0].field == "constraint.grammar"


def test_reasoning_comes_before_what_the_answer_is_held_to() -> None:
    asked = Submission(messages=HI, constraint=Constraint(choice=("a",)))
    free = grammar(asked, may_think=True).body.splitlines()
    assert free[:3] == [
        'body: answer | "<think>" thought gap answer',
        r"thought[lazy]: /(.|\n)*<\/think>/",
        r"gap: /[ \n]{0,4}/",
    ]
    assert grammar(asked, may_think=True, opened=True).body.splitlines()[0] == "body: thought gap answer"
