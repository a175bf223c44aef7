"""Every setting of tokenwire, from all its sources."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from pydantic import PrivateAttr, ValidationError

from tokenwire.settings.layers import gather
from tokenwire.settings.problems import Given, SettingsError, explain
from tokenwire.settings.rows import SettingRow, shown
from tokenwire.settings.telemetry import TelemetrySettings


class Settings(TelemetrySettings, frozen=True):
    """The settings of one process; frozen, checked when made."""

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def load(cls, flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Self:
        """Returns the settings that all sources give together; raises SettingsError with every problem at once.

        Args:
            flags: by field name, and `config`; None or an empty list means that a flag was not given.
            environ: the variables of the process.
            cwd: the folder where the service starts.
        """
        given, problems = gather(flags, environ, cwd, cls.model_fields)
        try:
            settings = cls.model_validate({name: found.value for name, found in given.items()}, context=given)
        except ValidationError as error:
            problems += explain(error, given, cls)
        else:
            if not problems:
                return settings
        # Raised down here so that no traceback leads to the validation and its input.
        raise SettingsError(problems)

    @property
    def sources(self) -> Mapping[str, str]:
        """The source of each setting, and of each engine under `engines.NAME`."""
        return MappingProxyType(self._sources)

    def rows(self) -> list[SettingRow]:
        """Returns each setting as it is shown, secrets hidden; engines one by one."""
        rows = []
        for name in type(self).model_fields:
            if name == "engines":
                shown_engines = ((f"engines.{engine.name}", engine) for engine in self.engines)
                rows += [SettingRow(key, shown(engine), self._sources[key]) for key, engine in shown_engines]
            else:
                rows.append(SettingRow(name, shown(getattr(self, name)), self._sources[name]))
        return rows

    def model_post_init(self, context: Any, /) -> None:
        """Notes where each value came from."""
        # Settings made without `load` were given by the code that made them, which is what tests do.
        given: Mapping[str, Given] = context or {name: Given(None, "code") for name in self.model_fields_set}
        for name in type(self).model_fields:
            self._sources[name] = given[name].source if name in given else "default"
        entries = given["engines"].entries if "engines" in given else ()
        for number, engine in enumerate(self.engines):
            self._sources[f"engines.{engine.name}"] = entries[number] if entries else self._sources["engines"]
