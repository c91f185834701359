"""What a torch file asks for, found out before it is loaded: nothing here is run, unpacked or allocated.

torch's own reader with `weights_only` runs no code of a file's; what is left to a hostile one is the machine's memory
and time, and these checks are about them.
"""

import io
import pickle
import pickletools
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath

ZIP = b"PK\x03\x04"
BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch files began up to version 1.5: five pickles, then raw storages."""

NODES = 20_000_000
"""Objects that a pickle may come to, counting each as often as it is referred to."""

REFUSED = ("builtins.bytearray", "__builtin__.bytearray")
"""What torch's reader allows, no state dict needs, and a few bytes can make as large as the memory."""

_IN_PLACE = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")


def find_hostile_content(data: bytes) -> str | None:
    """What is hostile in a torch file, in words that follow "got"; None for nothing that shows here."""
    if data.startswith(ZIP):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return _hostile_archive(archive, len(data)) or _hostile_pickles(_pickles_in(archive))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError, KeyError, RuntimeError):
            return None  # torch's reader says what is wrong with it
    return _hostile_pickles(_pickles_at_start(data))


def what_instead(data: bytes, error: Exception) -> str:
    """What a file is that torch cannot read for this error, in words that follow "got"."""
    is_zip, is_before_zip = data.startswith(ZIP), data.startswith(BEFORE_ZIP)
    damaged = f"a truncated or damaged file ({len(data)} bytes); download it again"
    if is_before_zip and _ends_inside_pickle(data):
        return damaged
    remedy = "save a plain state dict or safetensors instead"
    if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"a pickle that asks for {wanted[1]}: refused because it wants to run code; {remedy}"
    if isinstance(error, pickle.UnpicklingError) and (is_zip or data[:1] == b"\x80"):
        return f"a pickle of more than tensors: refused because it is damaged or wants to run code; {remedy}"
    if is_zip or is_before_zip:
        return damaged
    return f"another kind of file; {remedy}"


def _ends_inside_pickle(data: bytes) -> bool:
    stream = io.BytesIO(data)
    try:
        for _ in range(5):  # magic number, protocol, system, the object, its storages' names; raw bytes follow
            for _ in pickletools.genops(stream):
                pass
    except ValueError:
        return True
    return False


def _hostile_archive(archive: zipfile.ZipFile, size: int) -> str | None:
    entries = archive.infolist()
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            return f"an archive with an entry outside of itself ({entry.filename[:80]!r})"
        if stat.S_ISLNK(entry.external_attr >> 16):
            return f"an archive with a symbolic link ({entry.filename[:80]!r})"
        if entry.compress_type != zipfile.ZIP_STORED:
            return f"an archive with a compressed entry of {entry.file_size} bytes, which torch never writes"
    if len({entry.filename for entry in entries}) < len(entries):
        return "an archive with two entries of one name"
    if sum(entry.file_size for entry in entries) > size:
        return f"an archive of {size} bytes that wants to become {sum(e.file_size for e in entries)}"
    return None


def _pickles_in(archive: zipfile.ZipFile) -> Iterator[io.BytesIO]:
    for entry in archive.infolist():
        if entry.filename.endswith(".pkl"):
            yield io.BytesIO(archive.read(entry))


def _pickles_at_start(data: bytes) -> Iterator[io.BytesIO]:
    stream = io.BytesIO(data)
    for _ in range(5 if data.startswith(BEFORE_ZIP) else 1):
        yield stream


def _hostile_pickles(streams: Iterator[io.BytesIO]) -> str | None:
    try:
        for stream in streams:
            if reason := _hostile_pickle(stream):
                return reason
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        return None  # no pickle, or a damaged one
    return None


def _hostile_pickle(stream: io.BytesIO) -> str | None:
    """Walk through a pickle's instructions with the size of each object in place of the object."""
    stack: list[list[int] | None] = []  # None is a mark; a size is in a list, since objects grow after they are named
    memo: dict[int, list[int]] = {}
    for instruction, argument, _ in pickletools.genops(stream):
        name = instruction.name
        if name == "GLOBAL" and (wanted := str(argument).replace(" ", ".")) in REFUSED:
            return f"a pickle that asks for {wanted}, which no weights need"
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(str(argument))] = stack[-1] or [1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1] or [1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(str(argument))])
        elif name == "MARK":
            stack.append(None)
        else:
            taken = _pop(stack, instruction)
            total = sum(size[0] for size in taken)
            if name in _IN_PLACE and taken:
                taken[0][0] = total
                stack.append(taken[0])
            else:
                stack.extend([total + 1] for _ in instruction.stack_after)
            if total > NODES:
                return f"a pickle of few bytes that comes to more than {NODES} objects"
    return None


def _pop(stack: list[list[int] | None], instruction: pickletools.OpcodeInfo) -> list[list[int]]:
    """Take what an instruction takes, the lowest first; a mark ends what it takes a slice of."""
    before = list(instruction.stack_before)
    taken: list[list[int]] = []
    if pickletools.markobject in before:
        while (size := stack.pop()) is not None:
            taken.insert(0, size)
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        taken.insert(0, stack.pop() or [0])  # POP may take a mark
    return taken
