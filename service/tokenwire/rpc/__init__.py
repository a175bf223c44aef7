"""Servicers and the codec between protobuf and domain values. Only here is tokenwire.v1 imported."""
