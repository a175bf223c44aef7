"""The model of the shared journal: its design holds in every world, and would not without any of its protections."""

import sys
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "docs" / "model" / "journal.py"


def load() -> ModuleType:
    spec = spec_from_file_location("journal_model", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # Its dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MODEL = load()
PROTECTIONS = [one.name for one in fields(MODEL.Protections)]
# What each protection is there for: the harm without it.
HARMS = {
    "fence": "has forgotten nothing",
    "publish_after_write": "has forgotten nothing",
    "head_check": "has forgotten nothing",
    "cursor_epoch": "goes on in",
    "newer_cursor": "goes on in",
    "unique_epochs": "two gateways wrote in epoch 2",
    "known_epochs": "goes on in",
    "wait_when_behind": "is refused although nothing that it saw is lost",
    "copies_checked": "goes on in",
}


@pytest.mark.parametrize("world", MODEL.WORLDS)
def test_whatever_happens_within_the_bounds_no_reader_is_harmed(world: str) -> None:
    found = MODEL.search(MODEL.Protections(), MODEL.WORLDS[world])
    assert not found.harm, "\n".join((found.harm, *found.way))
    # It is no proof if nothing happens.
    assert found.states > 5000


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_without_a_protection_there_is_a_way_to_a_harm(protection: str) -> None:
    found = MODEL.without(protection)
    assert HARMS[protection] in found.harm
    assert found.way


def test_the_way_to_a_harm_can_be_read() -> None:
    found = MODEL.without("head_check")
    assert found.harm == "A shows 1A1 2A1, the store has 1A1 1A1 2A1 and has forgotten nothing"
    assert found.way == (
        "A sends 1A1",
        "A waits no longer for an answer",
        "late arrives 1A1: ok 1",
        "A sends 1A1 2A1",
        "A is answered: ok 3",
        "A publishes up to event 2",
    )


def test_in_every_world_a_reader_can_read_to_the_end() -> None:
    for bounds in MODEL.WORLDS.values():
        state = MODEL.begin(bounds)
        while len(state.reader.seen) < bounds.events:
            # Nothing bad happens: A sends, is answered, publishes, and the reader reads there.
            ways = {label: after for label, after, _ in MODEL.steps(state, MODEL.Protections(), bounds)}
            label = next(one for one in ways if one.startswith("the reader reads") or _goes_on(one))
            state = ways[label]


def _goes_on(label: str) -> bool:
    return label.startswith(("A sends", "A is answered: ok", "A publishes"))
