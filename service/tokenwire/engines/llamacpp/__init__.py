"""The embedded engine: llama.cpp's own server as a supervised child, and the small model that comes with it."""
