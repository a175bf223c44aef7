"""What a sampling preset means."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tokenwire.domain.request import Sampling, SamplingPreset


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetValues:
    """The sampling values of one preset; None leaves a value to the engine."""

    temperature: float
    top_p: float | None = None


PRESETS: Mapping[SamplingPreset, PresetValues] = MappingProxyType(
    {
        SamplingPreset.DETERMINISTIC: PresetValues(temperature=0.0),
        SamplingPreset.BALANCED: PresetValues(temperature=0.7, top_p=0.95),
        SamplingPreset.CREATIVE: PresetValues(temperature=1.0, top_p=0.98),
        SamplingPreset.PRECISE: PresetValues(temperature=0.2, top_p=0.9),
    }
)


def temperature_and_top_p(sampling: Sampling) -> tuple[float | None, float | None]:
    """Returns the two values that presets set; a field that is set itself goes before the preset."""
    preset = PRESETS.get(sampling.preset) if sampling.preset is not None else None
    temperature, top_p = sampling.temperature, sampling.top_p
    if preset is not None:
        temperature = preset.temperature if temperature is None else temperature
        top_p = preset.top_p if top_p is None else top_p
    return temperature, top_p
