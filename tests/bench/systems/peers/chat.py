"""The request that peers get: a chat, as OpenAI's API has it."""

import json

# What the load engine lists at /v1/models.
MODEL = "meta-llama/Llama-3.1-8B-Instruct"
CHAT_PATH = "/v1/chat/completions"


def chat_request(tokens: int) -> bytes:
    """Returns the body of a request for a streamed answer of so many tokens."""
    messages = [{"role": "user", "content": "Say something long."}]
    body = {"model": MODEL, "messages": messages, "stream": True, "max_tokens": tokens}
    return json.dumps(body, separators=(",", ":")).encode()
