"""A client as a process of its own: prints each event that it has read as a line of JSON, with its cursor."""

import argparse
import json
from collections.abc import Sequence

from google.protobuf.json_format import MessageToDict

from tokenwire_client import Client, Policy

POLICY = Policy(first_wait=0.02, longest_wait=0.3, attempts=1000)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads one answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--request-id", required=True)
    asked = parser.parse_args(arguments)
    options = {"max_tokens": asked.tokens, "orphan_grace": asked.grace, "request_id": asked.request_id}
    with Client(asked.target, policy=POLICY) as client, client.stream(asked.prompt, **options) as stream:
        for event in stream:
            told = {"text": event.delta.text, "cursor": MessageToDict(event.cursor)}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
