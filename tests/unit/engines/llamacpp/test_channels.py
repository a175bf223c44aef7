"""Pieces of one choice into its channels."""

from hypothesis import given, strategies

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import TokenLogprob
from tokenwire.domain.generation import CallHead, Generated, Piece
from tokenwire.engines.llamacpp.channels import Channels, Layout
from unit.engines.llamacpp.cuts import PLACES, cut

CALL = '<tool_call>\n{"name": "a", "arguments": {"b": 1}}\n</tool_call>'
WHOLE = f"<think>\nI see.\n</think>\n\nI look.\n{CALL}\n{CALL}"
EVERYTHING = Layout(run_id="run", calls=True, thoughts=True)
REASONING = Channel(1, ChannelKind.REASONING)
CALLS = [Channel(1, ChannelKind.TOOL_CALL, index) for index in range(2)]


def put(pieces: list[Piece], layout: Layout = EVERYTHING) -> tuple[list[Generated], Channels]:
    channels = Channels(1, layout)
    batch: list[Generated] = []
    for piece in pieces:
        channels.put(piece, batch)
    channels.end(batch)
    return batch, channels


def tokens(texts: list[str]) -> list[Piece]:
    """Returns a piece for each text: a token with its own id and log probability."""
    return [
        Piece(
            channel=Channel(1),
            text=text,
            token_ids=(index,),
            token_count=1,
            logprobs=(TokenLogprob(token_id=index, token=text, logprob=-1.0),),
        )
        for index, text in enumerate(texts)
    ]


def texts(batch: list[Generated]) -> dict[Channel, str]:
    found: dict[Channel, str] = {}
    for item in batch:
        if isinstance(item, Piece) and item.text:
            found[item.channel] = found.get(item.channel, "") + item.text
    return found


@given(PLACES)
def test_each_text_has_its_channel_in_any_cuts(places: list[int]) -> None:
    batch, channels = put(tokens(cut(WHOLE, places)))
    assert texts(batch) == {
        REASONING: "I see.",
        Channel(1): "I look.\n",
        CALLS[0]: '{"b": 1}',
        CALLS[1]: '{"b": 1}',
    }
    assert channels.called


@given(PLACES, strategies.integers(0, len(WHOLE)))
def test_every_token_is_told_once_in_order_with_its_log_probability(places: list[int], end: int) -> None:
    pieces = tokens(cut(WHOLE[:end], places))
    batch, _ = put(pieces)
    told = [item for item in batch if isinstance(item, Piece)]
    ids = [one for piece in told for one in piece.token_ids]
    assert ids == list(range(len(pieces)))
    assert [one.token_id for piece in told for one in piece.logprobs] == ids
    assert all(len(piece.token_ids) == piece.token_count for piece in told)


def test_a_token_rides_with_the_text_that_it_completes() -> None:
    batch, channels = put(tokens(["<think>", "I", " see", ".</think>", "A", "<tool", "x"]))
    told = [(item.channel.kind.name, item.text, list(item.token_ids)) for item in batch if isinstance(item, Piece)]
    assert told == [
        ("REASONING", "", [0]),
        ("REASONING", "I", [1]),
        ("REASONING", " see", [2]),
        ("REASONING", ".", [3]),
        ("TEXT", "A", [4]),
        ("TEXT", "<toolx", [5, 6]),
    ]
    assert channels.reasoning_tokens == 4


def test_the_head_of_a_call_comes_before_its_tokens_and_its_arguments() -> None:
    batch, _ = put(tokens(["<tool_call>", '\n{"name": "a", "argu', 'ments": ', "{}", "}\n</tool_call>"]), EVERYTHING)
    channel = CALLS[0]
    head = batch[0]
    assert isinstance(head, CallHead)
    assert (head.channel, head.name) == (channel, "a")
    assert [(item.text, list(item.token_ids)) for item in batch[1:] if isinstance(item, Piece)] == [
        ("{}", [0, 1, 2, 3]),
        ("", [4]),
    ]


def test_the_ids_of_calls_differ_and_are_the_same_each_time() -> None:
    def ids(run_id: str) -> list[str]:
        batch, _ = put(tokens([CALL, CALL]), Layout(run_id=run_id, calls=True))
        return [item.id for item in batch if isinstance(item, CallHead)]

    assert ids("x") == ids("x")
    assert len({*ids("x"), *ids("y")}) == 4
    assert all(one.startswith("call_") for one in ids("x"))


def test_ids_that_are_not_known_are_not_made_up() -> None:
    unknown = Piece(channel=Channel(1), text="<", token_ids=(), token_count=2)
    batch, _ = put([unknown, *tokens(["b"])])
    assert batch == [
        Piece(
            channel=Channel(1),
            text="<b",
            token_ids=[0],
            token_count=3,
            logprobs=(TokenLogprob(token_id=0, token="b", logprob=-1.0),),
        )
    ]


def test_without_tools_or_reasoning_a_piece_is_left_as_it_is() -> None:
    pieces = tokens([WHOLE])
    batch, channels = put(pieces, Layout())
    assert batch == pieces
    assert not channels.called


def test_a_call_without_the_end_of_its_arguments_was_not_made() -> None:
    _, channels = put(tokens([CALL[:-20]]))
    assert not channels.called
