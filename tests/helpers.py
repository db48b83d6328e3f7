"""What tests of several modules share."""

import pathlib
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
GOLDENS_DIR = ROOT / "tests" / "goldens"


def take(kind: Any, options: dict[str, Any], **defaults: Any) -> Any:
    """Make a named tuple of those options that are its fields, and remove them."""
    chosen = {name: options.pop(name) for name in kind._fields if name in options}
    return kind(**defaults | chosen)
