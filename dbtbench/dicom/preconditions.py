"""The conditions under which a file's frames are the slices of one volume, and its pixels plain grey values.

A file that meets them all is displayed as the standard says. One that does not is refused by the name of the
condition: each is known from files that other readers show as a wrong picture.
"""

from __future__ import annotations

from pydicom.uid import UID, BreastTomosynthesisImageStorage

from dbtbench.dicom.decoders import LOSSY
from dbtbench.dicom.elements import Item, get_integer, get_texts
from dbtbench.errors import UnreadableError

PRECONDITIONS = (
    "SOPClassUID",
    "ImageType",
    "FrameType",
    "XRay3DFrameTypeSequence",
    "VolumeBasedCalculationTechnique",
    "ConcatenationUID",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "ConcatenationFrameOffsetNumber",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PresentationLUTShape",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "PresentationLUTSequence",
    "OverlayBitPosition",
)
"""Keywords of the elements that are looked at."""


MAX_VOXELS = 2**31
MAX_PIXELS = 2**25
MAX_SLICES = 2**12
"""Limits of a volume, a frame and the number of slices: several times the sizes that scanners make."""
GREY = "not unsigned 16-bit grey values"
SYNTHESISED = {"GENERATED_2D", "MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER", "CURVED_MPR"}
"""Image types and calculation techniques of pictures that are computed from a volume and are no slices."""
SHAPES = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}
"""The presentation LUT shape that a photometric interpretation requires (PS3.3 C.8.11.3.1.2)."""


def name_uid(uid: str) -> str:
    """Name a UID of the standard; any other could identify somebody and is not quoted."""
    name = UID(uid).name if uid else "none is given"
    return "an unknown one" if uid and name == uid else name


def check_object(root: Item) -> None:
    """Check everything that is known before the functional groups and the pixels are looked at.

    Raises:
        UnreadableError: naming the first condition that is not met.
    """
    sop_class = root.get("SOPClassUID", [])
    if sop_class != [BreastTomosynthesisImageStorage]:
        raise UnreadableError("not Breast Tomosynthesis Image Storage", name_uid("".join(sop_class[:1])))
    _check_concatenation(root)
    _check_type(root)
    get_size(root)
    _check_pixels(root)
    is_inverted(root)


def _check_concatenation(root: Item) -> None:
    """Refuse a part of a volume that was split over several files (PS3.3 C.7.6.16.2.2.4)."""
    total = get_integer(root, "InConcatenationTotalNumber")
    number = get_integer(root, "InConcatenationNumber")
    offset = get_integer(root, "ConcatenationFrameOffsetNumber")
    whole = total == 1 or (total is None and not root.get("ConcatenationUID") and number is None)
    if not whole or (number or 1) != 1 or offset:
        raise UnreadableError("part of a concatenation", "the volume is split over several files")


def _check_type(root: Item) -> None:
    """Refuse a synthesised 2-D image and other projections."""
    groups = [
        *root.get("SharedFunctionalGroupsSequence", ()),
        *root.get("PerFrameFunctionalGroupsSequence", ()),
    ]
    items = [root, *(item for group in groups for item in group.get("XRay3DFrameTypeSequence", ()))]
    keywords = ("ImageType", "FrameType", "VolumeBasedCalculationTechnique")
    types = {text for item in items for keyword in keywords for text in get_texts(item, keyword)}
    if found := sorted(types & SYNTHESISED):
        raise UnreadableError("a projection, not slices", found[0])


def get_size(root: Item) -> tuple[int, int, int]:
    """Get slices, rows and columns.

    Raises:
        UnreadableError: when there is nothing, or more than any scanner makes.
    """
    slices, rows, columns = (get_integer(root, name) or 0 for name in ("NumberOfFrames", "Rows", "Columns"))
    if min(slices, rows, columns) < 1:
        raise UnreadableError("no frames")
    if slices > MAX_SLICES or rows * columns > MAX_PIXELS or slices * rows * columns > MAX_VOXELS:
        raise UnreadableError("absurd size", f"more than {MAX_SLICES} slices or {MAX_PIXELS} pixels of each")
    return slices, rows, columns


def _check_pixels(root: Item) -> None:
    for keyword, right in (("SamplesPerPixel", 1), ("BitsAllocated", 16), ("PixelRepresentation", 0)):
        found = get_integer(root, keyword)
        if found != right:
            raise UnreadableError(GREY, f"{keyword} is {'missing' if found is None else found}")
    bits, high = get_integer(root, "BitsStored") or 0, get_integer(root, "HighBit")
    if not 1 <= bits <= 16:
        raise UnreadableError(GREY, f"BitsStored is {bits}")
    if high not in (None, bits - 1):
        raise UnreadableError("pixels are not in the lowest bits", f"HighBit {high}, BitsStored {bits}")
    for keyword in ("ModalityLUTSequence", "PresentationLUTSequence"):
        if root.get(keyword):
            raise UnreadableError("values pass through a table", keyword)


def is_inverted(root: Item) -> bool:
    """Test whether the smallest value is white.

    Raises:
        UnreadableError: when the photometric interpretation is not one of grey values, or contradicts the
            presentation LUT shape.
    """
    photometric, shape = (
        get_texts(root, keyword) for keyword in ("PhotometricInterpretation", "PresentationLUTShape")
    )
    if len(photometric) != 1 or photometric[0] not in SHAPES:
        raise UnreadableError(GREY, "PhotometricInterpretation is neither MONOCHROME1 nor MONOCHROME2")
    if shape not in ([], [SHAPES[photometric[0]]]):
        raise UnreadableError(
            "two statements about white",
            f"{photometric[0]} with a presentation LUT shape other than {SHAPES[photometric[0]]}",
        )
    return photometric[0] == "MONOCHROME1"


def get_padding(root: Item) -> tuple[int, int] | None:
    """Get the smallest and the largest stored value of pixels outside of the image (PS3.3 C.7.5.1.1.2)."""
    value, limit = (get_integer(root, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return None
    ends = sorted(end & 0xFFFF for end in (value, value if limit is None else limit))
    return ends[0], ends[1]


def find_overlay_bits(root: Item, transfer_syntax: str) -> bool:
    """Test whether an overlay lies in bits of the pixels that are not stored values (PS3.5 8.1.2).

    Raises:
        UnreadableError: when it lies in bits that are, or cannot be separated from rounding errors.
    """
    positions = [get_integer(root, keyword) for keyword in root if keyword.startswith("OverlayBitPosition")]
    used = [position for position in positions if position]
    bits = get_integer(root, "BitsStored") or 0
    if used and (min(used) < bits or transfer_syntax in LOSSY):
        raise UnreadableError("an overlay lies in the pixels")
    return bool(used)
