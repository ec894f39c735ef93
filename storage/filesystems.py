"""Which file system a path is on: local, HDFS (`webhdfs://namenode:9870/path`) or what else fsspec opens."""

from typing import Any

from cli.errors import InputError


def filesystem(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path, and the path as that file system writes it."""
    url = str(path)
    if url.startswith("hdfs://"):
        raise InputError(_explain_hdfs(url))
    if url.startswith("webhdfs://"):
        from storage.webhdfs import WebHdfs

        return WebHdfs.of(url)
    from fsspec.core import url_to_fs

    try:
        # Other processes write too: what was listed once may have changed.
        return url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{url}: expected a path of a file system that can be opened here, found none ({error}). "
            "For s3://: pip install --require-hashes --no-deps -r requirements/s3.lock"
        ) from error


def _explain_hdfs(url: str) -> str:
    host, _, path = url.removeprefix("hdfs://").partition("/")
    host = host.partition(":")[0] or "NAMENODE"
    return (
        f"{url}: expected the HTTP address of HDFS, which Python and Spark both read, found its RPC address. "
        f"Give webhdfs://{host}:9870/{path} (9870, or whatever the port of the namenode's web page is)."
    )


def is_local(fs: Any) -> bool:
    """Whether a file system is that of this machine, shared folders included."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def can_rename(fs: Any) -> bool:
    """Whether a rename is one atomic step there."""
    return is_local(fs) or "webhdfs" in fs.protocol


def parent_of(path: str) -> str:
    above, root, _ = path.rpartition("/")
    return above or root or "."
