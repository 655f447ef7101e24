"""What the tests of converted layers share."""

from __future__ import annotations

from typing import Any

import pytest
from fastlstm.interchange import _description


def build(description: Any) -> Any:
    """Make the layer, or skip where fastlstm does not have its class or an option yet."""
    try:
        return _description.build(description)
    except ValueError as error:
        if "has no such" in str(error):
            pytest.skip(str(error))
        raise
