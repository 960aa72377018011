"""Label Studio's brush RLE: the `rle` bytes of a BrushLabels region.

The format is @thi.ng/rle-pack's, over row-major RGBA bytes:

    u32 word count (4 * H * W) | u5 word size - 1 | 4 x u4 (size_i - 1)
    then records: bit is_run | u2 t | u(size_t) n - 1 | 1 word (run) or n words

most significant bit first, zero-padded to a byte. The browser copies alpha
into all four channels, so a mask's runs are always a multiple of four words
and its encoder never writes a literal record; `encode` gives its very bytes.

Neither direction loops over records in Python. Where a record starts depends
on the one before it, so the reader computes for every bit where the next
record would start if one started there, and then follows that table by
doubling its steps, a window of bits at a time.
"""

from __future__ import annotations

from typing import NamedTuple, Sequence

import numpy as np

from converters.masks import check_mask

_SIZES = (3, 4, 8, 16)
_WORD_SIZE = 8
_HEADER_BITS = 32 + 5 + 4 * 4
_RECORD_HEAD_BITS = 3
_LONGEST_RUN = 1 << _SIZES[-1]
_OPAQUE, _CLEAR = 255, 0
_WINDOW_BITS = 1 << 15


def encode(mask: np.ndarray) -> list[int]:
    """(H, W) bool -> bytes as integers, alpha 255 in the mask and 0 outside.

    Byte for byte what the browser writes for this mask. Raises ValueError
    when `mask` is not a non-empty (H, W) bool array.
    """
    mask = check_mask(mask)
    lengths, is_in_mask = _word_runs(mask)
    size_index = np.searchsorted((8, 16, 256), lengths, side="left")
    sizes = np.array(_SIZES)[size_index]
    codes = (
        ((4 | size_index) << (sizes + _WORD_SIZE))
        | ((lengths - 1) << _WORD_SIZE)
        | np.where(is_in_mask, _OPAQUE, _CLEAR)
    )
    header = 4 * mask.size
    for value, bits in ((_WORD_SIZE, 5), *((size, 4) for size in _SIZES)):
        header = header << bits | (value - 1)
    return _pack(header, codes, _RECORD_HEAD_BITS + sizes + _WORD_SIZE).tolist()


def decode(
    rle: Sequence[int] | bytes | np.ndarray,
    size_hw: tuple[int, int],
    threshold: int = 1,
) -> np.ndarray:
    """Bytes -> (H, W) bool: the pixels with alpha >= threshold.

    Takes any record sizes, word sizes up to 8, literal records and trailing
    padding. Raises ValueError when the stream is not bytes, is truncated, or
    does not hold exactly 4 * H * W words: never a partial mask.
    """
    height, width = size_hw
    if height < 1 or width < 1:
        raise ValueError(f"size_hw={size_hw} must be at least (1, 1)")
    if not 1 <= threshold <= 255:
        raise ValueError(f"threshold={threshold} must be from 1 to 255")
    stream = _Stream.from_bytes(_as_bytes(rle))
    if stream.word_count != 4 * height * width:
        raise ValueError(
            f"rle holds {stream.word_count} words, must hold 4 * H * W = "
            f"{4 * height * width} for size_hw={size_hw}"
        )
    records = _read_records(stream)
    return _alpha_mask(stream, records, threshold).reshape(height, width)


# --- writing -----------------------------------------------------------------


def _word_runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths in words, at most 65536 each, and whether each lies in the mask."""
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = 4 * np.diff(np.append(starts, flat.size))
    pieces = (lengths + _LONGEST_RUN - 1) // _LONGEST_RUN
    is_in_mask = np.repeat(flat[starts], pieces)
    last_pieces = np.cumsum(pieces) - 1
    split = np.full(pieces.sum(), _LONGEST_RUN)
    split[last_pieces] = lengths - _LONGEST_RUN * (pieces - 1)
    return split, is_in_mask


def _pack(header: int, codes: np.ndarray, bit_lengths: np.ndarray) -> np.ndarray:
    """Codes of up to 32 bits laid end to end after the header, (bytes,) uint8.

    Each code lies in at most five bytes; codes do not overlap, so their
    bytes can be added up.
    """
    offsets = _HEADER_BITS + np.cumsum(bit_lengths) - bit_lengths
    byte_count = -(-int(offsets[-1] + bit_lengths[-1]) // 8)
    first_bytes = offsets >> 3
    aligned = codes << (40 - bit_lengths - (offsets & 7))
    packed = np.zeros(byte_count + 5)
    for place in range(5):
        part = (aligned >> (32 - 8 * place)) & 255
        packed += np.bincount(first_bytes + place, part, minlength=byte_count + 5)
    header_bytes = (header << 3).to_bytes(7, "big")
    packed[:7] += np.frombuffer(header_bytes, np.uint8)
    return packed[:byte_count].astype(np.uint8)


# --- reading -----------------------------------------------------------------


class _Stream(NamedTuple):
    words_at_byte: np.ndarray
    """(bytes + 5,) uint32: the four bytes from each byte on, zeros past the
    end, so that a record cut short can be read and then refused."""
    bit_count: int
    word_count: int
    word_size: int
    sizes: np.ndarray
    """(4,) uint32."""

    @classmethod
    def from_bytes(cls, data: bytes) -> _Stream:
        if 8 * len(data) < _HEADER_BITS:
            raise ValueError(f"rle has {len(data)} bytes, its header alone has 7")
        header = int.from_bytes(data[:7], "big") >> 3
        word_size = (header >> 16 & 31) + 1
        if word_size > 8:
            raise ValueError(f"rle has word size {word_size}, must be at most 8")
        sizes = [(header >> shift & 15) + 1 for shift in (12, 8, 4, 0)]
        padded = np.frombuffer(data + bytes(8), np.uint8).astype(np.uint32)
        at_byte = padded[:-3] << 24 | padded[1:-2] << 16 | padded[2:-1] << 8 | padded[3:]
        return cls(
            at_byte, 8 * len(data), header >> 21, word_size, np.array(sizes, np.uint32)
        )

    def fields(self, bits: np.ndarray, lengths: np.ndarray | int) -> np.ndarray:
        """The numbers of 1 to 25 bits that start at `bits`, as int64."""
        left = self.words_at_byte[bits >> 3] << (bits & 7).astype(np.uint32)
        return (left >> (32 - np.asarray(lengths, np.uint32))).astype(np.int64)


class _Records(NamedTuple):
    payload_bits: np.ndarray
    """Where each record's words start."""
    is_run: np.ndarray
    first_words: np.ndarray
    end_words: np.ndarray


def _as_bytes(rle: Sequence[int] | bytes | np.ndarray) -> bytes:
    if isinstance(rle, np.ndarray) and rle.ndim == 1 and rle.dtype.kind in "iu":
        rle = rle.tolist()
    if not isinstance(rle, (list, tuple, bytes, bytearray)):
        raise ValueError(f"rle of type {type(rle).__name__} must be a list of bytes")
    try:
        return bytes(rle)
    except (TypeError, ValueError) as error:
        raise ValueError(f"rle must hold integers from 0 to 255: {error}") from None


def _read_records(stream: _Stream) -> _Records:
    """All records up to the one that completes the word count."""
    parts: list[np.ndarray] = []
    words_read, position = 0, _HEADER_BITS
    while words_read < stream.word_count:
        if position >= stream.bit_count:
            raise ValueError(
                f"rle is truncated: it ends after {words_read} of "
                f"{stream.word_count} words"
            )
        starts, position = _starts_in_window(stream, position)
        parts.append(starts)
        words_read += int(_heads(stream, starts)[2].sum())
    return _describe(stream, np.concatenate(parts))


def _heads(
    stream: _Stream, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of records at these bits: is_run, where the words start, how many words."""
    heads = stream.fields(starts, _RECORD_HEAD_BITS)
    sizes = stream.sizes[heads & 3]
    bits = starts + _RECORD_HEAD_BITS
    counts = stream.fields(bits, sizes) + 1
    return heads >= 4, bits + sizes.astype(np.int64), counts


def _starts_in_window(stream: _Stream, start: int) -> tuple[np.ndarray, int]:
    """Starts of the records from bit `start` on, and where the next one starts."""
    stop = min(start + _WINDOW_BITS, stream.bit_count)
    bits = np.arange(start, stop)
    is_run, payloads, counts = _heads(stream, bits)
    ends = payloads + stream.word_size * np.where(is_run, 1, counts)
    # A sink past the window keeps the steps inside the table.
    sink = stop - start
    step = np.append(np.minimum(ends - start, sink), sink)
    reached = np.zeros(1, dtype=np.int64)
    while True:
        further = step[reached]
        further = further[further < sink]
        if len(further) == 0:
            break
        reached = np.concatenate([reached, further])
        step = step[step]
    return start + reached, int(ends[reached[-1]])


def _describe(stream: _Stream, starts: np.ndarray) -> _Records:
    is_run, payloads, counts = _heads(stream, starts)
    end_words = np.cumsum(counts)
    used = int(np.searchsorted(end_words, stream.word_count)) + 1
    is_run, payloads, counts = is_run[:used], payloads[:used], counts[:used]
    end_words = end_words[:used]
    words_in_last = 1 if is_run[-1] else int(counts[-1])
    if payloads[-1] + stream.word_size * words_in_last > stream.bit_count:
        raise ValueError("rle is truncated: it ends inside its last record")
    if end_words[-1] != stream.word_count:
        raise ValueError(
            f"rle is malformed: its last record ends at word {end_words[-1]} of "
            f"{stream.word_count}"
        )
    return _Records(payloads, is_run, end_words - counts, end_words)


def _alpha_mask(stream: _Stream, records: _Records, threshold: int) -> np.ndarray:
    """(H * W,) bool. Pixel p's alpha is word 4 * p + 3."""
    first_pixels, end_pixels = records.first_words // 4, records.end_words // 4
    pixel_counts = end_pixels - first_pixels
    values = stream.fields(records.payload_bits, stream.word_size)
    mask = np.repeat(records.is_run & (values >= threshold), pixel_counts)
    literal = np.flatnonzero(~records.is_run & (pixel_counts > 0))
    if len(literal):
        repeats = pixel_counts[literal]
        firsts = np.cumsum(repeats) - repeats
        pixels = np.arange(repeats.sum()) + np.repeat(
            first_pixels[literal] - firsts, repeats
        )
        bit_of_word_0 = (
            records.payload_bits[literal]
            - stream.word_size * records.first_words[literal]
        )
        bits = np.repeat(bit_of_word_0, repeats) + stream.word_size * (4 * pixels + 3)
        mask[pixels] = stream.fields(bits, stream.word_size) >= threshold
    return mask
