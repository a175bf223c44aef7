"""Requests to gateways that speak tokenwire's contract."""

from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.message_pb2 import Message
from tokenwire.v1.sampling_pb2 import Stopping

GENERATE_PATH = "/tokenwire.v1.GenerateService/StreamGenerate"
CHAT_PATH = "/tokenwire.v1.ChatService/StreamChat"
PROMPT = "Say something long."


def generate(tokens: int) -> bytes:
    """Returns a request to go on from a prompt."""
    return GenerateRequest(prompt=PROMPT, stopping=Stopping(max_tokens=tokens)).SerializeToString()


def chat(tokens: int) -> bytes:
    """Returns a request to answer a message."""
    message = Message(content=PROMPT)
    return ChatRequest(messages=[message], stopping=Stopping(max_tokens=tokens)).SerializeToString()
