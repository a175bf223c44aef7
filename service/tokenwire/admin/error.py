"""What can go wrong with the admin port."""


class AdminError(Exception):
    """Its address cannot be listened on."""
