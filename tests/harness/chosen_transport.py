"""The transport of all tests that do not choose one: the default, or what TOKENWIRE_TEST_TRANSPORT names."""

import os

from tokenwire.settings import Settings, Transport

# No setting: a server that inherits it refuses it.
VARIABLE = "TOKENWIRE_TEST_TRANSPORT"
_NAMED = os.environ.get(VARIABLE, "")
CHOSEN: Transport = Settings.model_validate({"transport": _NAMED} if _NAMED else {}).transport
# For a server that is a process of its own.
VARIABLES = {"TOKENWIRE_TRANSPORT": CHOSEN} if _NAMED else {}
