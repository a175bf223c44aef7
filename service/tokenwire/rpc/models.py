"""ModelService."""

from collections.abc import Sequence

from tokenwire.dispatch.fleet import Fleet
from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Engine, Tokenizer
from tokenwire.engines.status import EngineState
from tokenwire.rpc.requests import from_messages
from tokenwire.rpc.submission import Submitter
from tokenwire.transport.call import Call
from tokenwire.v1 import model_pb2, model_service_pb2


class ModelServicer:
    """Tells of models and their tokens."""

    def __init__(self, fleet: Fleet, submitter: Submitter) -> None:
        self._fleet = fleet
        self._submitter = submitter

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, call: Call
    ) -> model_service_pb2.ListModelsResponse:
        """Lists the models, the default one first."""
        models = [self._model(name, engines) for name, engines in self._fleet.models().items()]
        models.sort(key=lambda model: not model.is_default)
        return model_service_pb2.ListModelsResponse(models=models)

    async def GetModel(self, request: model_service_pb2.GetModelRequest, call: Call) -> model_pb2.Model:
        """Tells of one model."""
        route = await self._fleet.route(request.name)
        return self._model(route.model, self._fleet.models()[route.model])

    async def Tokenize(
        self, request: model_service_pb2.TokenizeRequest, call: Call
    ) -> model_service_pb2.TokenizeResponse:
        """Turns text or messages into tokens."""
        route = await self._fleet.route(request.model)
        tokenizer = await self._tokenizer(route.engine, call)
        text = request.text
        if request.messages:
            prompt = await tokenizer.prompt(Submission(messages=from_messages(request.messages)))
            text = await tokenizer.detokenize(prompt.token_ids) if prompt.text is None else prompt.text
        tokens = await tokenizer.tokenize(text)
        windows = {model.name: model.context_window for model in route.engine.status.models}
        return model_service_pb2.TokenizeResponse(
            tokens=[model_service_pb2.Token(id=token.id, text=token.text) for token in tokens],
            count=len(tokens),
            context_window=windows.get(route.model) or 0,
        )

    async def Detokenize(
        self, request: model_service_pb2.DetokenizeRequest, call: Call
    ) -> model_service_pb2.DetokenizeResponse:
        """Turns tokens into text."""
        route = await self._fleet.route(request.model)
        tokenizer = await self._tokenizer(route.engine, call)
        return model_service_pb2.DetokenizeResponse(text=await tokenizer.detokenize(request.token_ids))

    async def _tokenizer(self, engine: Engine, call: Call) -> Tokenizer:
        if engine.tokenizer is None:
            raise InvalidRequestError(
                "model", f"the engine {engine.name} does not tell its tokens", reason="FEATURE_UNSUPPORTED"
            )
        await self._submitter.loaded(engine, call)
        return engine.tokenizer

    def _model(self, name: str, engines: Sequence[Engine]) -> model_pb2.Model:
        states = {engine.status.state for engine in engines}
        order = (EngineState.READY, EngineState.LOADING, EngineState.UNAVAILABLE)
        return model_pb2.Model(
            name=name,
            is_default=name == self._fleet.default_model,
            state=model_pb2.ModelState.ValueType(next(state for state in order if state in states)),
            engines=[_engine(name, engine) for engine in engines],
        )


def _engine(name: str, engine: Engine) -> model_pb2.ModelEngine:
    windows = {model.name: model.context_window for model in engine.status.models}
    load = engine.status.load
    return model_pb2.ModelEngine(
        name=engine.name,
        kind=engine.kind,
        state=model_pb2.ModelState.ValueType(engine.status.state),
        context_window=windows.get(name) or 0,
        fields=[
            model_pb2.FieldSupport(
                field=field,
                support=model_pb2.Support.ValueType(cell.support),
                unary_only=cell.unary_only,
                note=cell.note,
            )
            for field, cell in sorted(engine.fields.items())
        ],
        running_requests=load.running if load else 0,
        waiting_requests=load.waiting if load else 0,
    )
