"""Who tells: the attributes that all traces and metrics of a process share."""

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from tokenwire.telemetry import names


def resource(version: str, instance_id: str) -> Resource:
    """Returns the process's attributes; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over ours.

    Args:
        version: of the service.
        instance_id: tells this process from all others.
    """
    # What is given to `create` would win over those variables.
    ours = Resource.create(
        {
            names.SERVICE_NAME: "tokenwire",
            names.SERVICE_VERSION: version,
            names.SERVICE_INSTANCE_ID: instance_id,
        }
    )
    return ours.merge(OTELResourceDetector().detect())
