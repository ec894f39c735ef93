"""Which file system a path is on: local, HDFS (`hdfs://namenode:8020/path`) or what else fsspec opens."""

from typing import Any

from cli.errors import InputError


def filesystem(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path, and the path as that file system writes it."""
    url = str(path)
    if url.startswith("webhdfs://"):
        raise InputError(_explain_webhdfs(url))
    if url.startswith("hdfs://"):
        from storage.hdfs import Hdfs

        return Hdfs.of(url)
    from fsspec.core import url_to_fs

    try:
        # Other processes write too: what was listed once may have changed.
        return url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{url}: expected a path of a file system that can be opened here, found none ({error}). "
            "For s3://: pip install --require-hashes --no-deps -r requirements/s3.lock"
        ) from error


def _explain_webhdfs(url: str) -> str:
    host, _, path = url.removeprefix("webhdfs://").partition("/")
    host = host.partition(":")[0] or "NAMENODE"
    return (
        f"{url}: expected the address by which Hadoop and Spark know HDFS, found the one of its web page. "
        f"Give hdfs://{host}:8020/{path} (8020, or the port of fs.defaultFS in Hadoop's core-site.xml)."
    )


def is_local(fs: Any) -> bool:
    """Whether a file system is that of this machine, shared folders included."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def is_hdfs(fs: Any) -> bool:
    """Whether a file system is that of a Hadoop cluster."""
    return bool(fs.protocol == "hdfs")


def can_rename(fs: Any) -> bool:
    """Whether a rename is one atomic step there."""
    return is_local(fs) or is_hdfs(fs)


def parent_of(path: str) -> str:
    above, root, _ = path.rpartition("/")
    return above or root or "."


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    fs, target = filesystem(path)
    return bool(fs.exists(target))


def names_in(folder: str) -> set[str]:
    """Of all that lies in a folder; none where there is no folder."""
    fs, target = filesystem(folder)
    if not fs.exists(target):
        return set()
    return {entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(target, detail=False)}
