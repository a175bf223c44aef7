"""Sampling presets."""

from tokenwire.domain.request import Sampling, SamplingPreset
from tokenwire.engines.presets import PRESETS, temperature_and_top_p


def test_every_preset_has_its_values() -> None:
    assert set(PRESETS) == set(SamplingPreset)


def test_without_a_preset_only_what_is_set_counts() -> None:
    assert temperature_and_top_p(Sampling()) == (None, None)
    assert temperature_and_top_p(Sampling(temperature=0.0)) == (0.0, None)


def test_a_field_that_is_set_goes_before_the_preset() -> None:
    assert temperature_and_top_p(Sampling(preset=SamplingPreset.CREATIVE, temperature=0.0)) == (0.0, 0.98)
