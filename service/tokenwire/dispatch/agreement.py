"""Whether two engines read text as the same tokens."""

import asyncio
from contextlib import suppress
from functools import partial

from tokenwire.domain.errors import EngineError
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState

# Scripts, digits, white space, punctuation, code, composed and decomposed letters, characters of several code points.
PROBE = (
    "The quick brown fox; It's 3.14159 or 1234567890, isn't it?  two  spaces\ttab\n\n\nlines\r\n"
    "def f(x):\n    return x[0] != {'a': 1}  # ->\n<b>&amp;</b> https://e.x/?q=1&r=%20\n"
    "na\u00efve re\u0301sume\u0301 \u00df \u0130\u0131 \u0436\u0434\u0443\u0442 \u03b1\u03b2\u03b3 "
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947 "
    "\u4f60\u597d\u3001\u4e16\u754c "
    "\u3053\u3093\u306b\u3061\u306f \uc548\ub155 \U0001f468\u200d\U0001f469\u200d\U0001f467 "
    "\U0001f1ea\U0001f1fa \u20ac\u2026"
)


class Agreement:
    """Compares engines by the tokens of one text; what an engine made of it is kept after it is gone.

    An engine that comes back is asked again before it is trusted. The name alone proves nothing: two engines may serve
    different models by one name.
    """

    def __init__(self) -> None:
        self._prints: dict[str, tuple[int, ...]] = {}
        # Engines whose print was taken since they came up last.
        self._fresh: set[str] = set()
        self._watched: set[str] = set()
        self._learning: dict[str, asyncio.Task[None]] = {}

    def learn(self, engine: Engine) -> None:
        """Takes an engine's print in the background, unless it is known: when it is needed, the engine may be dead."""
        name = engine.name
        if engine.tokenizer is None or name in self._fresh or name in self._learning:
            return
        task = asyncio.create_task(self._learn(engine), name=f"tokens of {name}")
        self._learning[name] = task
        task.add_done_callback(lambda _: self._learning.pop(name, None))

    async def agree(self, source: Engine, target: Engine) -> bool:
        """Whether an engine that is alive reads text as another one has done, or does.

        Raises EngineError if the one that is alive does not answer.
        """
        if source is target:
            return True
        if target.name not in self._fresh:
            await self._take(target)
        if source.name not in self._prints and source.status.state is EngineState.READY:
            await self._learn(source)
        known = self._prints.get(source.name)
        return known is not None and known == self._prints.get(target.name)

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = list(self._learning.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _learn(self, engine: Engine) -> None:
        with suppress(EngineError):
            await self._take(engine)

    async def _take(self, engine: Engine) -> None:
        if engine.tokenizer is None:
            return
        if engine.name not in self._watched:
            self._watched.add(engine.name)
            engine.status.watch(partial(self._look, engine))
        ids = await engine.tokenizer.answer_ids(PROBE)
        self._prints[engine.name] = tuple(ids)
        if engine.status.state is EngineState.READY:
            self._fresh.add(engine.name)

    def _look(self, engine: Engine) -> None:
        if engine.status.state is not EngineState.READY:
            self._fresh.discard(engine.name)
