"""The one declaration of each option: the signature, properties and repr that come from it."""

from __future__ import annotations

import copy
import inspect
import pickle
import pydoc
from typing import Any

import fastlstm
import pytest
from fastlstm.layers import spec_of, table_of
from fastlstm.layers.options import Option

LAYERS = (fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN)
OF_INITIAL_VALUES = {"self", "seed", "forget_bias"}


@pytest.mark.parametrize("cls", LAYERS)
def test_arguments_and_options_are_the_same(cls: type) -> None:
    arguments = inspect.signature(cls.__init__).parameters
    table = table_of(cls)
    assert set(arguments) - OF_INITIAL_VALUES == set(table.options)
    assert ["input_size", "hidden_size", *table.defaults] == [
        name for name in arguments if name not in OF_INITIAL_VALUES
    ]


@pytest.mark.parametrize("cls", LAYERS)
def test_a_layer_with_default_options_has_the_defaults(cls: type) -> None:
    layer = cls(3, 4)
    table = table_of(cls)
    assert spec_of(layer).options == {"input_size": 3, "hidden_size": 4, **table.defaults}
    assert list(spec_of(layer).options) == list(table.options)
    # Values are arguments that give the same values.
    assert table.checked(spec_of(layer).options) == spec_of(layer).options


@pytest.mark.parametrize("cls", LAYERS)
def test_properties_are_described_and_read_only(cls: type) -> None:
    layer = cls(3, 4)
    text = pydoc.render_doc(cls, renderer=pydoc.plaintext)
    for name, option in table_of(cls).options.items():
        assert isinstance(getattr(cls, name), Option)
        assert option.__doc__ in text, name
        with pytest.raises(AttributeError, match=f"property '{name}' of '{cls.__name__}' object"):
            setattr(layer, name, getattr(layer, name))


class Small(fastlstm.LSTM):
    """A user's class, with arguments of its own."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, clip=0.5)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_classes_of_users(copied: Any) -> None:
    layer = Small(3)
    layer.note = "kept"
    for other in (layer, copied(layer)):
        assert type(other) is Small
        assert repr(other) == "Small(3, 3, clip=0.5)"
        assert (other.input_size, other.clip, other.note) == (3, 0.5, "kept")
