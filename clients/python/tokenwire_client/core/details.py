"""The google.rpc details of a status, without the package that has their classes.

The few messages that are needed are declared here, in a descriptor pool of their own: in the default one they would
clash with googleapis-common-protos, where that is installed.
"""

from typing import Any

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from tokenwire_client.core.code import Code
from tokenwire_client.core.failure import Failure, Violation

KEY = "grpc-status-details-bin"

_DOMAIN = "tokenwire"
_PACKAGE = "google.rpc"
# Message: name, number and type of each field; * before the type: repeated.
_MESSAGES = {
    "Status": (("code", 1, "int32"), ("message", 2, "string"), ("details", 3, "*google.protobuf.Any")),
    "ErrorInfo": (("reason", 1, "string"), ("domain", 2, "string"), ("metadata", 3, "*google.rpc.Entry")),
    # A map is these on the wire.
    "Entry": (("key", 1, "string"), ("value", 2, "string")),
    "RetryInfo": (("retry_delay", 1, "google.protobuf.Duration"),),
    "RequestInfo": (("request_id", 1, "string"),),
    "BadRequest": (("field_violations", 1, "*google.rpc.FieldViolation"),),
    "FieldViolation": (("field", 1, "string"), ("description", 2, "string")),
}
_SCALARS = {"int32": FieldDescriptorProto.TYPE_INT32, "string": FieldDescriptorProto.TYPE_STRING}


def read(code: Code, message: str, details: bytes | None) -> Failure:
    """Returns what a status says.

    Args:
        code: the call's status.
        message: its text.
        details: what came under `KEY`; None or nonsense: nothing.
    """
    found = _unpacked(details) if details else {}
    info, retry = found.get("ErrorInfo"), found.get("RetryInfo")
    if info is not None and info.domain != _DOMAIN:
        # Somebody between us and the server speaks.
        return Failure(code=code, message=message, metadata={entry.key: entry.value for entry in info.metadata})
    request, refused = found.get("RequestInfo"), found.get("BadRequest")
    metadata = {entry.key: entry.value for entry in info.metadata} if info else {}
    delay = retry.retry_delay if retry is not None and retry.HasField("retry_delay") else None
    violations = refused.field_violations if refused else ()
    return Failure(
        code=code,
        message=message,
        reason=info.reason if info else "",
        told=info is not None or request is not None,
        retryable=metadata.get("retryable") == "true",
        retry_after=None if delay is None else delay.seconds + delay.nanos / 1e9,
        violations=tuple(Violation(field=one.field, description=one.description) for one in violations),
        rpc_id=request.request_id if request else "",
        metadata=metadata,
    )


def _unpacked(data: bytes) -> dict[str, Any]:
    """Returns the details that are known, by their names."""
    found = {}
    try:
        for box in _CLASSES["Status"].FromString(data).details:
            package, _, name = box.type_url.rpartition("/")[2].rpartition(".")
            if package == _PACKAGE and name in _MESSAGES:
                found[name] = _CLASSES[name].FromString(box.value)
    except DecodeError:
        return {}
    return found


def _declared() -> dict[str, Any]:
    file = FileDescriptorProto(
        name="tokenwire_client/google_rpc.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[any_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            plain = kind.removeprefix("*")
            declared = message.field.add(
                name=field,
                number=number,
                label=FieldDescriptorProto.LABEL_OPTIONAL if plain == kind else FieldDescriptorProto.LABEL_REPEATED,
                type=_SCALARS.get(plain, FieldDescriptorProto.TYPE_MESSAGE),
            )
            if plain not in _SCALARS:
                declared.type_name = f".{plain}"
    pool = DescriptorPool()
    for one in (any_pb2.DESCRIPTOR, duration_pb2.DESCRIPTOR):
        pool.AddSerializedFile(one.serialized_pb)
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


_CLASSES = _declared()
