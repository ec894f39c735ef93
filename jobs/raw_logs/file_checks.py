"""The first bytes of a raw log file: mistakes of a whole file, seen before Spark starts.

One broken line is quarantined; what makes every line of a file unreadable is reported here, with the
command that mends it.
"""

import re
import shlex
import zlib

from cli.errors import InputError
from jobs.raw_logs.listing import Listed, open_as_listed

HEAD_BYTES = 64 << 10  # more than the longest common record of Ali-CCP
GZIP = b"\x1f\x8b"

# Other formats under the name of a log; the place of their mark, the mark, and what to do.
FORMATS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"PAR1", "a Parquet file", "Export it as raw logs."),
    (0, b"ORC", "an ORC file", "Export it as raw logs."),
    (0, b"PK\x03\x04", "a zip archive", "Unpack it with unzip."),
    (0, b"BZh", "bzip2 data", "Unpack it with bunzip2."),
    (0, b"\xfd7zXZ\x00", "xz data", "Unpack it with unxz."),
    (0, b"\x28\xb5\x2f\xfd", "zstd data", "Unpack it with unzstd."),
    (0, b"Rar!", "a rar archive", "Unpack it with unrar."),
    (0, b"<", "an HTML or XML page", "Downloads without a login end like this: fetch the file again."),
    (257, b"ustar", "a tar archive", "Unpack it with tar."),
)

SKELETON_LINE = re.compile(rb"\d+,[01],[01],[0-9a-f]{16},\d+,")
COMMON_LINE = re.compile(rb"[0-9a-f]{16},\d+,(?![01],)")
HEADER_LINE = re.compile(rb'"?[A-Za-z_]\w*"?(,"?[A-Za-z_]\w*"?)+\r?')


def has_lines(path: str, before: Listed, common: bool) -> bool:
    """Check the head of a raw file of one side; False where the file is empty.

    An `InputError` names what makes the whole file unreadable: another format, a byte-order mark,
    Windows line ends, a header, the other side's lines.
    """
    head = _read_head(path, before)
    if not head:
        return False
    _refuse_other_formats(path, head)
    _refuse_byte_order_marks(path, head)
    lines = head.split(b"\n")
    if len(lines) > 1:
        lines.pop()  # the last one may be cut
    _refuse_header(path, lines[0])
    _refuse_windows_line_ends(path, lines)
    _refuse_other_side(path, lines, common)
    return True


def _read_head(path: str, before: Listed) -> bytes:
    """The first uncompressed bytes."""
    with open_as_listed(path, before, HEAD_BYTES) as stream:
        raw = stream.read(HEAD_BYTES)
    named_gz = path.endswith(".gz")
    if raw and raw.startswith(GZIP) != named_gz:
        expected, found = ("gzip data", "something else") if named_gz else ("plain text", "gzip data")
        raise InputError(f"{path}: expected {expected}, found {found}. Rename the file after what is in it.")
    return _unpacked(path, raw) if named_gz else raw


def _unpacked(path: str, raw: bytes) -> bytes:
    """What the beginning of a gzip file holds; it may consist of several members."""
    head = b""
    while raw and len(head) < HEAD_BYTES:
        member = zlib.decompressobj(wbits=31)
        try:
            head += member.decompress(raw, HEAD_BYTES - len(head))
        except zlib.error as error:
            raise _damaged(path, str(error)) from error
        if not head and not member.eof:
            raise _damaged(path, "it ends before its first byte of content")
        raw = member.unused_data.lstrip(b"\0")
    return head


def _damaged(path: str, reason: str) -> InputError:
    return InputError(f"{path}: expected a whole gzip file, found a damaged one ({reason}). Fetch it again.")


def _refuse_other_formats(path: str, head: bytes) -> None:
    for place, mark, name, advice in FORMATS:
        if head[place:].startswith(mark):
            raise InputError(f"{path}: expected raw logs as text, found {name}. {advice}")


def _refuse_byte_order_marks(path: str, head: bytes) -> None:
    if head.startswith(b"\xef\xbb\xbf"):
        mend = mending_command(path, r"sed '1s/^\xEF\xBB\xBF//'")
        raise InputError(f"{path}: found a UTF-8 byte-order mark before the first line. Remove it: {mend}")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        mend = mending_command(path, "iconv -f UTF-16 -t UTF-8")
        raise InputError(
            f"{path}: expected UTF-8 text, found UTF-16 with a byte-order mark. Convert it: {mend}"
        )


def _refuse_header(path: str, line: bytes) -> None:
    if HEADER_LINE.fullmatch(line):
        mend = mending_command(path, "sed 1d")
        raise InputError(
            f"{path}: expected no header, found the header {line.decode().strip()}. Remove it: {mend}"
        )


def _refuse_windows_line_ends(path: str, lines: list[bytes]) -> None:
    if all(line.endswith(b"\r") for line in lines):
        mend = mending_command(path, r"sed 's/\r$//'")
        raise InputError(
            rf"{path}: expected lines that end with \n, found \r\n (Windows). Convert them: {mend}"
        )


def _refuse_other_side(path: str, lines: list[bytes], common: bool) -> None:
    own, other = (COMMON_LINE, SKELETON_LINE) if common else (SKELETON_LINE, COMMON_LINE)
    if any(map(other.match, lines)) and not any(map(own.match, lines)):
        names = ("common features", "a sample skeleton")
        raise InputError(
            f"{path}: expected {names[not common]}, found {names[common]}. Give skeletons by --skeleton "
            "and common features by --common."
        )


def mending_command(path: str, command: str) -> str:
    """A shell line that repairs a local file; for other file systems the user has to fetch it first."""
    name = shlex.quote(path.removeprefix("file://"))
    mended = shlex.quote(f"{path.removeprefix('file://')}.mended")
    if path.endswith(".gz"):
        return f"zcat {name} | {command} | gzip > {mended} && mv {mended} {name}"
    return f"{command} < {name} > {mended} && mv {mended} {name}"
