"""Tensor messages <-> numpy arrays.

Elements of fixed size lie in a message as they lie in memory: an array is sent from where it is, and a received one is
a view of the received bytes (copied once where they are not aligned for its type). Integers that the wire packs into
varints pass through protobuf's own code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ocr_serving.errors import BadInput
from ocr_serving.wire import elements
from ocr_serving.wire import general_model_pb2 as pb
from ocr_serving.wire.fields import Buffer, delimited, split

STRING = 20
"""elem_type of strings, the only one whose elements have no fixed size."""
TENSOR_CONTENT = 15
"""Number of the Tensor field that holds the bytes of types without a field of their own."""


@dataclass(frozen=True)
class Layout:
    """How elements of a type lie in a Tensor message.

    Attributes:
        elem_type: the type's number on the wire.
        dtype: the type, in the wire's byte order.
        field: number of the Tensor field that holds the elements.
        varint: whether they are varints there, and not as they lie in memory.
    """

    elem_type: int
    dtype: np.dtype[Any]
    field: int
    varint: bool = False

    @property
    def field_name(self) -> str:
        """The field's name."""
        return pb.Tensor.DESCRIPTOR.fields_by_number[self.field].name


_LAYOUTS = (
    Layout(0, np.dtype("<i8"), 1, varint=True),
    Layout(1, np.dtype("<f4"), 2),
    Layout(2, np.dtype("<i4"), 3, varint=True),
    Layout(3, np.dtype("<f8"), 4),
    Layout(4, np.dtype("<i2"), TENSOR_CONTENT),
    Layout(5, np.dtype("<f2"), TENSOR_CONTENT),
    Layout(7, np.dtype("u1"), TENSOR_CONTENT),
    Layout(8, np.dtype("i1"), TENSOR_CONTENT),
    Layout(9, np.dtype("?"), 6, varint=True),
)
"""Types 3, 4 and 9 the original dropped without a word; bfloat16 (6) and complex (10, 11) no model here takes."""
_BY_ELEM_TYPE = {layout.elem_type: layout for layout in _LAYOUTS}
_BY_DTYPE = {layout.dtype.name: layout for layout in _LAYOUTS}
_RAW_FIELDS = frozenset(layout.field for layout in _LAYOUTS if not layout.varint)
_TYPE_NAMES = ", ".join(f"{layout.elem_type} ({layout.dtype.name})" for layout in _LAYOUTS)
_MAX_FIELDS = 64
"""Fields of a message looked at one by one; a tensor has about eight, or one per element where they are not packed."""


def layout_of(elem_type: int) -> Layout | None:
    """How elements of that elem_type lie in a message; None for strings and for types that are not supported."""
    return _BY_ELEM_TYPE.get(elem_type)


def dtype_of(elem_type: int) -> np.dtype[Any] | None:
    """The numpy type of an elem_type; None for strings and for types without one here."""
    layout = layout_of(elem_type)
    return layout.dtype if layout else None


@dataclass(frozen=True)
class Tensor:
    """An array and its names.

    Attributes:
        name: the variable's name in the graph; a Paddle Serving server binds inputs by it.
        alias: the variable's alias; a Paddle Serving client looks outputs up by it.
        array: any shape; int64, int32, int16, int8, uint8, bool, float64, float32, float16, or str or bytes, which are
            sent as strings.
        lod: level-of-detail offsets along the first axis, empty for an ordinary tensor.
    """

    name: str
    alias: str
    array: NDArray[Any]
    lod: Sequence[int] = ()

    def encode(self) -> list[Buffer]:
        """The Tensor message as buffers, the array's own memory among them.

        Raises:
            BadInput: an array of another type, or strings that are not UTF-8.
        """
        array = self.array
        message = pb.Tensor(shape=array.shape, lod=self.lod, name=self.name, alias_name=self.alias)
        if array.dtype.kind in "SU":
            message.elem_type = STRING
            message.data.extend(self.strings())
            return [message.SerializeToString()]
        layout = self.layout()
        message.elem_type = layout.elem_type
        if layout.varint:
            getattr(message, layout.field_name).extend(array.ravel().tolist())
        fields: list[Buffer] = [message.SerializeToString()]
        if layout.varint or not array.size:
            return fields
        # Protobuf takes fields in any order; this is the original client's: ascending.
        data = delimited(layout.field, [elements.to_bytes(array.astype(layout.dtype, copy=False))])
        return fields + data if layout.field == TENSOR_CONTENT else data + fields

    def layout(self) -> Layout:
        """How the array, which holds no strings, lies in a message.

        Raises:
            BadInput: an array of a type that cannot be sent.
        """
        layout = _BY_DTYPE.get(self.array.dtype.name)
        if layout is None:
            known = ", ".join(_BY_DTYPE)
            raise BadInput(f"Arrays of type {self.array.dtype.name} cannot be sent; use {known}, str or bytes.")
        return layout

    def strings(self) -> list[str]:
        """The elements of an array of str or bytes.

        Raises:
            BadInput: they are not UTF-8.
        """
        values = self.array.ravel().tolist()
        try:
            return [value.decode() if isinstance(value, bytes) else value for value in values]
        except UnicodeDecodeError as error:
            raise BadInput("Strings must be UTF-8.") from error


class PackedTensor:
    """A Tensor message as it was received, its array not unpacked yet."""

    def __init__(self, message: pb.Tensor, raws: Mapping[int, Buffer]) -> None:
        """Put together what a codec took apart.

        Args:
            message: the message without what `raws` holds.
            raws: number of a field -> its elements as they lie in memory.
        """
        self._message = message
        self._raws = raws

    @classmethod
    def parse(cls, message: memoryview) -> PackedTensor:
        """Read the message.

        Raises:
            BadInput: it is not a Tensor message.
        """
        raws, rest = _cut_raws(message)
        try:
            return cls(pb.Tensor.FromString(rest), raws)
        except DecodeError as error:
            raise BadInput("A tensor is not a Tensor message.") from error

    @property
    def name(self) -> str:
        """The variable's name in the graph."""
        return self._message.name

    @property
    def alias(self) -> str:
        """The variable's alias."""
        return self._message.alias_name

    @property
    def lod(self) -> Sequence[int]:
        """Level-of-detail offsets, empty for an ordinary tensor."""
        return self._message.lod

    @property
    def holds_strings(self) -> bool:
        """Whether the elements are strings."""
        return self._message.elem_type == STRING

    def strings(self) -> list[str]:
        """The elements of a tensor that holds strings."""
        return list(self._message.data)

    def unpack(self) -> NDArray[Any]:
        """The array, C-contiguous and aligned; it may be read-only and share the received bytes' memory.

        Elements are taken from the type's own field, or from tensor_content where that is empty. Strings become what
        the original server makes of them: uint8 (n,), their UTF-8 bytes with a NUL between one string and the next.

        Raises:
            BadInput: an unknown element type, or a shape that does not go with the number of elements.
        """
        if self.holds_strings:
            return elements.from_strings([string.encode() for string in self._message.data])
        layout = layout_of(self._message.elem_type)
        try:
            if layout is None:
                raise BadInput(
                    f"Its elem_type {self._message.elem_type} is not supported; "
                    f"supported are {_TYPE_NAMES} and {STRING} (string)."
                )
            return elements.fill(self._message.shape, self._elements(layout))
        except BadInput as error:
            raise BadInput(f"Tensor {self.alias or self.name or 'without a name'}: {error}") from error

    def _elements(self, layout: Layout) -> NDArray[Any]:
        """The elements, one-dimensional."""
        if layout.field in self._raws:
            return elements.from_bytes(self._raws[layout.field], layout.dtype)
        if layout.field != TENSOR_CONTENT and (parsed := getattr(self._message, layout.field_name)):
            return elements.from_numbers(parsed, layout.dtype)
        content = self._raws.get(TENSOR_CONTENT, self._message.tensor_content)
        return elements.from_bytes(content, layout.dtype)


def _cut_raws(message: memoryview) -> tuple[dict[int, memoryview], bytes]:
    """The packed arrays and the bytes of a Tensor message by field number, and the rest of the message.

    Elements sent one by one, or an array in several pieces, are rare and legal: such a message is left whole, for
    protobuf's own parser.
    """
    raws: dict[int, memoryview] = {}
    rest: list[memoryview] = []
    for seen, field in enumerate(split(message)):
        is_raw = field.number in _RAW_FIELDS
        if seen == _MAX_FIELDS or (is_raw and (field.content is None or field.number in raws)):
            return {}, bytes(message)
        if is_raw and field.content is not None:
            raws[field.number] = field.content
        else:
            rest.append(field.whole)
    return raws, b"".join(rest)
