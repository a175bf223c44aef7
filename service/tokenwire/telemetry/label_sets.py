"""Labels of runs and attempts, made once: open runs share them, as labels and as the attributes their spans begin with.

There are few: models as `Words` lets them through, two operations, and the engines of the fleet.
"""

from tokenwire.telemetry import names
from tokenwire.telemetry.instruments import Labels
from tokenwire.telemetry.words import Words


class LabelSets:
    """Every combination that there has been.

    Args:
        models: the models of the fleet, as labels.
    """

    def __init__(self, models: Words) -> None:
        self._models = models
        self._runs: dict[tuple[str, str], Labels] = {}
        self._attempts: dict[tuple[str, str, str, str], Labels] = {}

    def of_run(self, operation: str, model: str) -> Labels:
        """Returns the labels of a run. Nobody changes them.

        Args:
            operation: what it does, in the words of the conventions.
            model: the model's name.
        """
        key = (operation, self._models.label(model))
        found = self._runs.get(key)
        if found is None:
            found = self._runs[key] = {
                names.OPERATION: operation,
                names.PROVIDER: names.TOKENWIRE,
                names.REQUEST_MODEL: key[1],
            }
        return found

    def of_attempt(self, run: Labels, kind: str, engine: str) -> Labels:
        """Returns the labels of a run's attempt. Nobody changes them.

        Args:
            run: the labels of its run.
            kind: the engine's kind.
            engine: the engine's name.
        """
        key = (run[names.OPERATION], run[names.REQUEST_MODEL], kind, engine)
        found = self._attempts.get(key)
        if found is None:
            found = self._attempts[key] = {**run, names.PROVIDER: kind, names.ENGINE: engine}
        return found
