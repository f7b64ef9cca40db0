"""What the compiled module holds; `make stubs` compares this file with it."""

__all__ = [
    "__version__",
]

__version__: str
